"""Measures RenderDiffusion's weights and draws the sheets of docs/renderdiffusion.md.

    python tests/benchmarks/renderdiffusion.py WEIGHTS PICTURES OUT [--photos FOLDER] [--only psnr]

PICTURES is made by renderdiffusion_data.py. OUT gets JPEGs; tables go to standard output.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.images.framing import frame
from runtime.images.reading import read_image
from runtime.renderdiffusion.cameras import find_camera
from runtime.renderdiffusion.data import PictureDataset, Pictures, on_background, read_pictures
from runtime.renderdiffusion.networks import RenderDiffusion, at_size
from runtime.renderdiffusion.sampling import Sampled, sample
from runtime.renderdiffusion.training import Trainer, TrainingConfig
from runtime.renderdiffusion.weights import load_model, read_record
from xray_addon.camera import Camera
from xray_addon.systems.renderdiffusion import FRAME

VIEWS = 10  # of each held-out object
NOVEL = 30.0  # degrees from the input view at which a view counts as novel
LEVELS = (0, 10, 20, 40, 80, 160, 320, 640)  # t_r
STEPS = (5, 10, 25, 50, 100, 250)
SHORT = 10  # steps of the many samples that PSNR is measured on
PHOTOS = 10
SEEDS = 32
ENLARGED = 2  # how many times as large sheets show a pixel
Views = Sequence[Camera]


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Decibels (...,) of pictures (..., 3, S, S)."""
    return -10 * (one - other).square().mean(dim=(-1, -2, -3)).clamp(min=1e-8).log10()


def colors(pictures: Pictures, model: RenderDiffusion) -> Tensor:
    """(N, 3, S, S), 0..1, on the background."""
    seen, _ = on_background(pictures.pixels, model.config.background)
    return torch.from_numpy(seen).permute(0, 3, 1, 2).contiguous()


def noise(seed: int):
    """A source of noise for `sample`."""
    random = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=random)


def degrees(views: Views) -> NDArray[np.float64]:
    """Angles (N, N) between the directions of cameras."""
    direction = np.stack([view.position / np.linalg.norm(view.position) for view in views])
    return np.degrees(np.arccos(np.clip(direction @ direction.T, -1, 1)))


class Held:
    """The held-out pictures, `VIEWS` of each object, and the mean of the training's."""

    def __init__(self, model: RenderDiffusion, folder: Path) -> None:
        pictures = read_pictures(folder / "val", model.config)
        self.cameras = [camera for camera in pictures.cameras if camera is not None]
        self.pictures = colors(pictures, model)
        self.train = colors(read_pictures(folder / "train", model.config), model)
        self.mean = self.train.mean(dim=0)
        self.objects = range(0, len(self.pictures), VIEWS)


def against_baselines(model: RenderDiffusion, held: Held, t_r: int, every: int) -> dict[str, float]:
    """Mean PSNR of the input view and of novel views, of the model and of what knows no 3D."""
    found: dict[str, list[float]] = {
        name: [] for name in ("input", "novel", "mean", "mean novel", "shown novel")
    }
    for first in held.objects:
        seen = held.pictures[first : first + VIEWS]
        cameras = held.cameras[first : first + VIEWS]
        apart = degrees(cameras)
        chosen = list(range(0, VIEWS, every))
        sampled = sample(
            model,
            [cameras[view] for view in chosen],
            image=seen[chosen],
            t_r=t_r,
            steps=SHORT,
            noise=noise(first),
        )
        for number, view in enumerate(chosen):
            drawn = model.render(sampled.planes[number : number + 1], cameras, skip_empty=True)
            error = psnr(drawn.color, seen)
            novel = torch.from_numpy(apart[view] >= NOVEL)
            found["input"].append(float(error[view]))
            found["novel"] += error[novel].tolist()
            found["mean"].append(float(psnr(held.mean, seen[view])))
            found["mean novel"] += psnr(held.mean, seen[novel]).tolist()
            found["shown novel"] += psnr(seen[view], seen[novel]).tolist()
    return {name: float(np.mean(values)) for name, values in found.items()}


def psnr_table(model: RenderDiffusion, held: Held) -> None:
    """The model beside both baselines."""
    got = against_baselines(model, held, 0, 1)
    print("\n|  | input view, dB | novel views (30 to 180 degrees), dB |\n|---|---|---|")
    print(f"| RenderDiffusion, t_r 0 | {got['input']:.2f} | {got['novel']:.2f} |")
    print(f"| the mean training image | {got['mean']:.2f} | {got['mean novel']:.2f} |")
    print(f"| the input image from every side | (exact) | {got['shown novel']:.2f} |")


def photos_of(folder: Path, model: RenderDiffusion) -> Tensor:
    """`PHOTOS` images with alpha, framed as for the generator: (N, 3, S, S)."""
    images = [read_image(path) for path in sorted(folder.rglob("*.webp"))]
    images = [image for image in images if image.mode == "RGBA"]
    chosen = images[:: max(1, len(images) // PHOTOS)][:PHOTOS]
    size = model.config.image_size
    framed = [frame(np.asarray(image), size, fill=FRAME.fill) for image in chosen]
    seen, _ = on_background(np.stack(framed), model.config.background)
    return torch.from_numpy(seen).permute(0, 3, 1, 2).contiguous()


def t_r_table(model: RenderDiffusion, held: Held, photos: Tensor | None, out: Path) -> None:
    """PSNR against t_r, on renders and on photos, of which only the input view is known."""
    cameras = [] if photos is None else [find_camera(model, photo) for photo in photos]
    print("\n| t_r | renders: input view | renders: novel views | photos: input view |")
    print("|---|---|---|---|")
    rows = [] if photos is None else [photos]
    for t_r in LEVELS:
        got = against_baselines(model, held, t_r, VIEWS)
        on_photos = "-"
        if photos is not None:
            sampled = sample(model, cameras, image=photos, t_r=t_r, steps=SHORT, noise=noise(1))
            on_photos = f"{float(psnr(sampled.picture, photos).mean()):.2f}"
            rows.append(sampled.picture)
        print(f"| {t_r} | {got['input']:.2f} | {got['novel']:.2f} | {on_photos} |", flush=True)
    if rows:
        save_sheet(out / "renderdiffusion-photos.jpg", torch.stack(rows))


def steps_table(model: RenderDiffusion) -> None:
    """How far pictures of few steps are from those of the most, from the same noise."""
    cameras = [model.config.camera(1.6 * number, 0.35) for number in range(4)]
    made: dict[int, Tensor] = {}
    seconds: dict[int, float] = {}
    for steps in STEPS:
        began = time.process_time()
        made[steps] = sample(model, cameras, steps=steps, noise=noise(5)).picture
        seconds[steps] = (time.process_time() - began) / len(cameras)
    print("\n| steps | PSNR to 250 steps, dB | s of a core each |\n|---|---|---|")
    for steps in STEPS:
        far = f"{float(psnr(made[steps], made[STEPS[-1]]).mean()):.1f}"
        print(f"| {steps} | {'-' if steps == STEPS[-1] else far} | {seconds[steps]:.2f} |")


def nearest(pictures: Tensor, train: Tensor) -> Tensor:
    """The training picture with the least squared difference from each."""
    return torch.stack([train[(train - p).square().mean(dim=(1, 2, 3)).argmin()] for p in pictures])


def seeds_sheet(model: RenderDiffusion, held: Held, out: Path) -> None:
    """Generated objects, each from two sides, and the nearest training picture of the first."""
    camera = model.config.camera(math.radians(30), math.radians(20))
    behind = model.config.camera(math.radians(150), math.radians(20))
    sampled = sample(model, [camera] * SEEDS, steps=50, noise=noise(0))
    other = model.render(sampled.planes, [behind] * SEEDS).color
    like = nearest(sampled.picture, held.train)
    distance = psnr(like, sampled.picture)
    print(f"\nPSNR of the nearest training picture: mean {float(distance.mean()):.1f} dB, from "
          f"{float(distance.min()):.1f} to {float(distance.max()):.1f}")  # fmt: skip
    cells = torch.stack([sampled.picture, other, like], dim=1)  # (32, 3, 3, S, S)
    rows = cells.view(4, SEEDS // 4, *cells.shape[1:]).permute(0, 2, 1, 3, 4, 5).flatten(0, 1)
    save_sheet(out / "renderdiffusion-seeds.jpg", rows)


def reconstruction_sheet(model: RenderDiffusion, held: Held, out: Path) -> None:
    """Of held-out objects the input, the input's view, and novel views above the true ones."""
    rows = []
    for first in list(held.objects)[::2]:
        seen, cameras = held.pictures[first : first + VIEWS], held.cameras[first : first + VIEWS]
        planes = sample(model, cameras[:1], image=seen[:1], noise=noise(0)).planes
        drawn = model.render(planes, cameras, skip_empty=True).color
        rows += [seen, drawn]
    save_sheet(out / "renderdiffusion-held-out.jpg", torch.stack(rows))


def inpainting_sheet(model: RenderDiffusion, held: Held, out: Path) -> None:
    """Of held-out objects the image, what is masked (grey), and three redrawings."""
    size = model.config.image_size
    chosen = [first + 2 for first in list(held.objects)[1:17:2]]
    image, cameras = held.pictures[chosen], [held.cameras[view] for view in chosen]
    known = torch.ones(len(chosen), 1, size, size, dtype=torch.bool)
    known[::2, :, : size // 2] = False  # the upper half
    known[1::2, :, :, size // 2 :] = False  # the right half
    made: list[Sampled] = [
        sample(model, cameras, image=image, known=known, steps=50, noise=noise(seed))
        for seed in range(3)
    ]
    error = max(float(((one.picture - image).abs() * known).max()) for one in made)
    print(f"\nKnown pixels come back within {error * 255:.2f}/255")
    field = model.render(made[0].planes, cameras).color
    inside = psnr(field * known + image * ~known, image)
    print(f"of the field itself: {float(inside.mean()):.1f} dB on them")
    masked = torch.where(known, image, torch.full_like(image, 0.6))
    rows = [image, masked, *(one.picture for one in made), field]
    save_sheet(out / "renderdiffusion-inpainting.jpg", torch.stack(rows))


def save_sheet(path: Path, rows: Tensor) -> None:
    """Pictures (R, C, 3, S, S) as a JPEG."""
    sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    size = (image.width * ENLARGED, image.height * ENLARGED)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size, Image.Resampling.NEAREST).save(path, quality=85)


def speed_table(model: RenderDiffusion, held: Held) -> None:
    """Seconds of a core: of training and sampling, at the model's size and twice that."""
    print("\n| px | training samples a core second | U-Net | rays | backward | optimisers |")
    print("|---|---|---|---|---|---|")
    pictures = Pictures(
        (held.train[:64].permute(0, 2, 3, 1) * 255).byte().numpy(), [held.cameras[0]] * 64
    )
    for size in (model.config.image_size, 2 * model.config.image_size):
        config = TrainingConfig.read(Path(__file__).parents[2] / TrainingConfig.example)
        config.image_size = size
        trainer = Trainer(config, "cpu")
        enlarged = np.stack(
            [
                np.asarray(Image.fromarray(p).convert("RGBA").resize((size, size)))
                for p in pictures.pixels
            ]
        )
        batch = _batch(trainer, Pictures(enlarged, pictures.cameras))
        spent = _timed(trainer, batch)
        total = sum(spent.values())
        shares = " | ".join(f"{100 * part / total:.0f} %" for part in spent.values())
        print(f"| {size} | {config.batch / total:.1f} | {shares} |", flush=True)
    print("\n| px | a pass of the network | a picture drawn | 50 steps |\n|---|---|---|---|")
    for size in (model.config.image_size, 2 * model.config.image_size):
        resized = model if size == model.config.image_size else at_size(model, size)
        resized.eval().requires_grad_(False)
        camera, noisy = resized.config.camera(0.5, 0.3), torch.randn(1, 3, size, size)
        planes = resized.planes(noisy, torch.tensor([500]))
        one = _seconds(lambda: resized.planes(noisy, torch.tensor([500])))  # noqa: B023
        two = _seconds(lambda: resized.render(planes, [camera]))  # noqa: B023
        print(f"| {size} | {one:.3f} s | {two:.3f} s | {50 * (one + two):.1f} s |", flush=True)


def _batch(trainer: Trainer, pictures: Pictures) -> dict[str, Tensor]:
    config = trainer.config
    data = PictureDataset(
        pictures,
        trainer.model.config,
        config.distribution(),
        rays=config.rays,
        mirror=0.5,
        recolour=0.0,
        seed=0,
        batch=config.batch,
    )
    return next(iter(data))


def _timed(trainer: Trainer, batch: dict[str, Tensor], steps: int = 6) -> dict[str, float]:
    """Core seconds of a step: the U-Net, the rays, the backward pass and the optimisers."""
    parts = {"planes": 0.0, "see": 0.0, "backward": 0.0, "move": 0.0}

    def watched(name: str, work):
        def wrapper(*arguments, **named):
            began = time.process_time()
            result = work(*arguments, **named)
            parts[name] += time.process_time() - began
            return result

        return wrapper

    backward = Tensor.backward
    for name in ("planes", "see", "move"):
        setattr(trainer, name, watched(name, getattr(trainer, name)))
    Tensor.backward = watched("backward", backward)  # type: ignore[method-assign]
    try:
        trainer.step(batch)
        parts.update(dict.fromkeys(parts, 0.0))
        for _ in range(steps):
            trainer.step(batch)
    finally:
        Tensor.backward = backward  # type: ignore[method-assign]
    return {name: spent / steps for name, spent in parts.items()}


def _seconds(work, times: int = 5) -> float:
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def main() -> None:
    """Print and draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = load_model(options.weights)
    record = read_record(options.weights)
    print(f"{record['trained_samples']} samples in {record['trained_seconds'] / 60:.0f} min")
    held = Held(model, options.pictures)
    photos = photos_of(options.photos, model) if options.photos else None
    parts = {
        "psnr": lambda: psnr_table(model, held),
        "t_r": lambda: t_r_table(model, held, photos, options.out),
        "steps": lambda: steps_table(model),
        "reconstructions": lambda: reconstruction_sheet(model, held, options.out),
        "seeds": lambda: seeds_sheet(model, held, options.out),
        "inpainting": lambda: inpainting_sheet(model, held, options.out),
        "speed": lambda: speed_table(model, held),
    }
    with torch.no_grad():
        for name, part in parts.items():
            if name != "speed" and (not options.only or name in options.only):
                part()
    if not options.only or "speed" in options.only:
        parts["speed"]()


if __name__ == "__main__":
    main()
