"""How well photos are cut out: intersection over union with the truth, by each way and by all.

Run by hand in the runtime's environment, with the meshes and photos in XRAY_ASSETS:

    OMP_NUM_THREADS=1 python tests/benchmarks/segmentation.py

Four sets: renders of the packs that training held out, over the procedural backgrounds it knows;
the photos that have alpha before white or one other colour, as JPEG; the same before procedural
backgrounds; and before crops of six photographs that come with scikit-image. A way that refuses a
picture is left out of its own mean, and counted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.images.cutout import cut_out  # noqa: E402
from runtime.meshes.collection import list_meshes  # noqa: E402
from runtime.segmentation.data import Composites, background  # noqa: E402
from runtime.segmentation.training import TrainingConfig  # noqa: E402
from xray_addon.errors import XRayError  # noqa: E402

ASSETS = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
SIZE = 512
SEED = 7
COMPOSITES = 60
SCENES = ("brick", "grass", "gravel", "motorcycle_left", "coffee", "rocket")
WAYS = ("plain", "built-in", "auto")

Case = tuple[Image.Image, NDArray[np.bool_]]


def composites() -> Iterator[Case]:
    """Renders of held-out packs over procedural backgrounds, as in training."""
    held = TrainingConfig.read(ROOT / "runtime/segmentation/config.json").exclude
    files = [file for pack in held for file in list_meshes(ASSETS / "train" / pack)]
    composites = Composites(files, seed=SEED, size=SIZE, batch=COMPOSITES)
    for sample, _ in zip(composites, range(COMPOSITES), strict=False):
        yield _image(np.moveaxis(sample["photo"].numpy(), 0, -1)), sample["alpha"][0].numpy() > 0.5


def photos(kind: str) -> Iterator[Case]:
    """The photos with alpha before backgrounds of one kind."""
    random = np.random.default_rng(SEED)
    for path in sorted((ASSETS / "photos").glob("*/*.webp")):
        picture = Image.open(path).convert("RGBA").resize((SIZE, SIZE))
        if np.asarray(picture)[..., 3].min() >= 128:
            continue
        match kind:
            case "plain":
                color = random.choice([np.ones(3), random.uniform(0, 1, 3)])
                scene = np.broadcast_to(color, (SIZE, SIZE, 3))
            case "procedural":
                scene = background(SIZE, random)
            case _:
                scene = _photograph(random)
        rgba = np.asarray(picture, dtype=np.float32) / 255
        photo = _image(rgba[..., :3] * rgba[..., 3:] + scene * (1 - rgba[..., 3:]))
        stream = BytesIO()
        photo.save(stream, "JPEG", quality=80)
        yield Image.open(stream).convert("RGB"), rgba[..., 3] > 0.5


def _photograph(random: np.random.Generator) -> NDArray[np.float32]:
    """A square crop of one of scikit-image's photographs, (SIZE, SIZE, 3)."""
    folder = Path(str(importlib.import_module("skimage").__file__)).parent / "data"
    name = SCENES[random.integers(len(SCENES))]
    path = folder / f"{name}.{'jpg' if name == 'rocket' else 'png'}"
    image = Image.open(path).convert("RGB")
    side = int(min(image.size) * random.uniform(0.6, 1))
    left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
    crop = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
    return np.asarray(crop, dtype=np.float32) / 255


def _image(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def overlap(image: Image.Image, truth: NDArray[np.bool_], way: str) -> float | None:
    """Intersection over union of a cut-out with the truth; None where it is refused."""
    try:
        cut = cut_out(image, way, online=False)
    except XRayError:
        return None
    found = cut.rgba[..., 3] > 127
    return float((found & truth).sum() / (found | truth).sum())


def main() -> None:
    """Print a Markdown table: mean, median and the number cut out of all, by set and way."""
    os.environ["U2NET_HOME"] = "/nowhere"  # only what comes with X-Ray
    sets = {"held-out composites": composites()}
    for kind in ("plain", "procedural", "photographed"):
        sets[f"photos, {kind} backgrounds"] = photos(kind)
    print("| | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for name, cases in sets.items():
        found: dict[str, list[float | None]] = {way: [] for way in WAYS}
        for image, truth in cases:
            for way in WAYS:
                found[way].append(overlap(image, truth, way))
        cells = []
        for values in found.values():
            known = [value for value in values if value is not None]
            cells.append(
                f"{np.mean(known):.2f} · {np.median(known):.2f} ({len(known)} of {len(values)})"
            )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
