"""How near a generator's meshes come to the truth, beside three baselines, in one table.

python -m runtime evaluate --data DIR --generator NAME --out DIR [--gallery DIR] [--seed N]

Every mesh of DIR is placed in the canonical frame (`xray_addon.canonical`) seen from fixed random
sides, lit by the built-in shader at 512 px, and given to the generator as an image that passes the
whole intake. Prediction and truth are compared in the camera's frame with no alignment: 10,000
area samples a side, lengths in units of the object's longest side. Baselines: the training object
whose picture is nearest, the visible front layer taken from the truth, and a sphere as large as
the silhouette.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from xray_addon.camera import Camera
from xray_addon.canonical import DISTANCE, canonical_camera
from xray_addon.errors import XRayError
from xray_addon.files import replacing
from xray_addon.generated import Generated
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.settings import GenerateSettings
from xray_addon.shading import Lights, reduce_image, shade, to_bytes
from xray_addon.surface import Surface

from .pictures import result_sheet
from .registry import Generator, load
from .xray.data import MeshCache, MeshFile, View, find_manifest, list_meshes, view_object

POINTS = 10_000
THRESHOLDS = (0.1, 0.05, 0.02)
IMAGE_SIZE = 512
GALLERY_SIZE = 32  # px of the pictures that nearest neighbours are sought by
SHEET_ROWS = 10
RETRIEVAL = "nearest training object"
# The X-Ray's rays hit steep sides seldom; enough of them make a fair sample of points.
TRUTH_SIZE = 256
TRUTH_LAYERS = 16

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """One object from one side: name, image (512, 512, 4), the view, truth (10000, 3) points in
    the camera's frame."""

    name: str
    image: NDArray[np.uint8]
    view: View
    camera: Camera
    truth: Points


def compare(prediction: Points, truth: Points, scale: float) -> dict[str, float]:
    """CD and F-scores of points (N, 3) and (M, 3), in units of `scale`.

    As `xray_addon.metrics`, by a k-d tree.
    """
    forth = cKDTree(truth).query(prediction)[0] / scale
    back = cKDTree(prediction).query(truth)[0] / scale
    result = {"cd": 0.5 * float(forth.mean() + back.mean())}
    for threshold in THRESHOLDS:
        precision, recall = float((forth < threshold).mean()), float((back < threshold).mean())
        total = precision + recall
        result[f"f@{threshold}"] = 2 * precision * recall / total if total else 0.0
    return result


def in_camera(points: NDArray[np.floating], camera: Camera) -> Points:
    """World points (N, 3) in the camera's frame."""
    return (np.asarray(points, dtype=np.float64) - camera.position) @ camera.camera_to_world[:3, :3]


def make_cases(
    files: Sequence[MeshFile], views: int, seed: int, skipped: list[dict[str, str]]
) -> Iterator[Case]:
    """`views` cases of each file, reproducible with `seed`; what fails is added to `skipped`."""
    cache = MeshCache(list(files))
    for number, file in enumerate(files):
        random = np.random.default_rng([seed, number])
        try:
            surface = cache.surface(number)
        except XRayError as error:
            skipped.append({"file": file.path.name, "why": str(error)})
            continue
        for _ in range(views):
            view = next(
                filter(None, (_view(surface, random) for _ in range(20))),
                None,
            )
            if view is None:
                skipped.append({"file": file.path.name, "why": "no view has a place in the frame"})
                continue
            camera = canonical_camera(IMAGE_SIZE, view.elevation)
            lights = Lights.random(camera, random)
            fine = camera.resized(2 * IMAGE_SIZE, 2 * IMAGE_SIZE)
            image = reduce_image(shade(view.fine, fine, lights), 2)
            truth = in_camera(view.surface.sample(POINTS, int(random.integers(2**31))), camera)
            yield Case(file.path.stem, to_bytes(image), view, camera, truth)


def _view(surface: Surface, random: np.random.Generator) -> View | None:
    return view_object(
        surface,
        random,
        layers=TRUTH_LAYERS,
        resolution=TRUTH_SIZE,
        image_resolution=2 * IMAGE_SIZE,
    )


class Gallery:
    """Training objects to retrieve: each from one random side, found by its picture."""

    def __init__(self, files: list[MeshFile], seed: int, progress: ProgressCallback) -> None:
        cache = MeshCache(files)
        pictures, self.surfaces, self.cameras = [], list[Surface](), list[Camera]()
        for number in range(len(files)):
            progress(Progress("gallery", number, len(files), "Picturing the training objects"))
            random = np.random.default_rng([seed, 1, number])
            try:
                surface = cache.surface(number)
            except XRayError:  # an unreadable mesh is no training object either
                continue
            view = view_object(
                surface,
                random,
                layers=1,
                resolution=GALLERY_SIZE,
                image_resolution=4 * GALLERY_SIZE,
            )
            if view is None:
                continue
            camera = canonical_camera(4 * GALLERY_SIZE, view.elevation)
            image = shade(view.fine, camera, Lights.random(camera, random))
            pictures.append(_thumbnail(image, 4))
            self.surfaces.append(view.surface)
            self.cameras.append(camera)
        self.pictures = np.stack(pictures)

    def nearest(self, image: NDArray[np.uint8], seed: int) -> Points:
        """Points (10000, 3), in its camera's frame, of the object with the nearest picture."""
        picture = _thumbnail(image.astype(np.float32) / 255, len(image) // GALLERY_SIZE)
        number = int(((self.pictures - picture) ** 2).sum(axis=1).argmin())
        surface, camera = self.surfaces[number], self.cameras[number]
        return in_camera(surface.sample(POINTS, seed), camera)


def _thumbnail(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Colours times alpha, and alpha, at (32, 32), as one vector."""
    small = reduce_image(image, factor)
    small = np.concatenate([small[..., :3] * small[..., 3:], small[..., 3:]], axis=-1)
    return small.reshape(-1)


def visible_layer(case: Case) -> Points:
    """The hits of the true first layer, in the camera's frame."""
    camera = canonical_camera(TRUTH_SIZE, case.view.elevation)
    first = case.view.xray.index < TRUTH_SIZE**2
    return in_camera(case.view.xray.points(camera).positions[first], camera)


def silhouette_sphere(case: Case, seed: int) -> Points:
    """A sphere at the frame's distance whose silhouette has the area and centre of the case's."""
    row, column = np.nonzero(case.image[..., 3] > 127)
    radius = np.sqrt(len(row) / np.pi) / case.camera.focal * DISTANCE
    camera = case.camera
    ray = camera.ray_directions(np.array([row.mean()]), np.array([column.mean()]))
    random = np.random.default_rng(seed)
    points = random.normal(size=(POINTS, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * radius + ray / -ray[:, 2:] * DISTANCE


def evaluate(
    generator: Generator,
    files: Sequence[MeshFile],
    gallery: Gallery | None,
    *,
    seed: int = 0,
    views: int = 1,
    settings: GenerateSettings | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[dict[str, Any], list[tuple[Case, Generated, float]]]:
    """Every case's figures, and what was generated for the picture sheet.

    The dict holds `cases` (name, seconds, watertight, vertices and a dict of metrics by system),
    `systems` (their means) and `skipped`. Raises XRayError `no_data` where no case is left.
    """
    settings = settings or GenerateSettings(seed=seed)
    skipped: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    kept: list[tuple[Case, Generated, float]] = []
    for number, case in enumerate(make_cases(files, views, seed, skipped)):
        progress(Progress("evaluate", number, len(files) * views, case.name))
        began = time.perf_counter()
        try:
            generated = generator.generate(Image.fromarray(case.image), settings)
        except XRayError as error:
            skipped.append({"file": case.name, "why": str(error)})
            continue
        seconds = time.perf_counter() - began
        scale = case.view.scale
        mesh = in_camera(generated.surface.sample(POINTS, seed), generated.camera)
        systems: dict[str, Points] = {f"{generator.name}, mesh": mesh}
        if generated.xray is not None:
            points = in_camera(generated.xray.points(generated.camera).positions, generated.camera)
            chosen = np.random.default_rng(seed).permutation(len(points))[:POINTS]
            systems[f"{generator.name}, points"] = points[chosen]
        if gallery is not None:
            systems[RETRIEVAL] = gallery.nearest(case.image, seed)
        systems["visible layer of the truth"] = visible_layer(case)
        systems["sphere of the silhouette"] = silhouette_sphere(case, seed)
        metrics = {name: compare(points, case.truth, scale) for name, points in systems.items()}
        rows.append(
            {
                "name": case.name,
                "seconds": round(seconds, 3),
                "watertight": generated.surface.is_watertight,
                "vertices": len(generated.surface.vertices),
                "elevation_error_degrees": round(_elevation_error(case, generated.camera), 2),
                "metrics": metrics,
            }
        )
        kept.append((case, generated, metrics[f"{generator.name}, mesh"]["cd"]))
    if not rows:
        raise XRayError("no_data", "No mesh could be evaluated.", f"Skipped: {skipped}")
    names = rows[0]["metrics"]
    means = {
        name: {
            key: float(np.mean([row["metrics"][name][key] for row in rows])) for key in names[name]
        }
        for name in names
    }
    result = {
        "generator": generator.name,
        "device": generator.device,
        "seed": seed,
        "views": views,
        "settings": settings.to_dict(),
        "systems": means,
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "watertight": float(np.mean([row["watertight"] for row in rows])),
        "elevation_error_degrees": float(np.mean([row["elevation_error_degrees"] for row in rows])),
        "cases": rows,
        "skipped": skipped,
    }
    return result, kept


def _elevation_error(case: Case, camera: Camera) -> float:
    got = np.arcsin(np.clip(camera.position[2] / DISTANCE, -1, 1))
    return float(np.degrees(abs(got - case.view.elevation)))


def markdown_table(result: dict[str, Any]) -> str:
    """The means as a Markdown table with what was measured below."""
    keys = ["cd", *(f"f@{threshold}" for threshold in THRESHOLDS)]
    heads = ["CD", *(f"F@{threshold}" for threshold in THRESHOLDS)]
    lines = [
        "| | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
        *(
            f"| {name} | " + " | ".join(f"{means[key]:.3f}" for key in keys) + " |"
            for name, means in result["systems"].items()
        ),
        "",
        f"{len(result['cases'])} views, {len(result['skipped'])} skipped, seed {result['seed']}; "
        f"median {result['seconds']:.2f} s an image on {result['device']}; "
        f"{result['watertight']:.0%} of the meshes watertight; "
        f"camera elevation off by {result['elevation_error_degrees']:.1f} degrees on average.",
        "",
    ]
    if RETRIEVAL not in result["systems"]:
        lines[-1:] = ["No training meshes were named (--gallery), so none were retrieved.", ""]
    return "\n".join(lines)


def _training_files(
    arguments: argparse.Namespace, files: Sequence[MeshFile], exclude: tuple[str, ...]
) -> list[MeshFile]:
    """What the retrieval baseline retrieves from: --gallery, else the train split of the manifest
    of --data; none where there is neither. Objects under evaluation are left out, and so are the
    packs `exclude`, which the generator has not seen in training either."""
    if arguments.gallery:
        training = list_meshes(Path(arguments.gallery), split="train", exclude=exclude)
    else:
        manifest = find_manifest(Path(arguments.data).resolve())
        if manifest is None:
            return []
        training = list_meshes(manifest.parent, split="train", exclude=exclude)
    groups = {file.group for file in files}
    return [file for file in training if file.group not in groups]


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """`python -m runtime evaluate`: writes results.json, results.md and results.png to --out."""
    data, out = Path(arguments.data), Path(arguments.out)
    files = list_meshes(data, split=arguments.split)
    if arguments.limit and arguments.limit < len(files):
        chosen = np.random.default_rng(arguments.seed).permutation(len(files))
        files = [files[i] for i in sorted(chosen[: arguments.limit])]
    settings = GenerateSettings(
        generator=arguments.generator,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        steps=arguments.steps,
        seed=arguments.seed,
    )
    generator = load(settings.generator, settings.checkpoint or None, settings.device)
    record = getattr(generator, "training", {})
    gallery = None
    if training := _training_files(arguments, files, tuple(record.get("exclude", ()))):
        gallery = Gallery(training, arguments.seed, progress)
    result, kept = evaluate(
        generator,
        files,
        gallery,
        seed=arguments.seed,
        views=arguments.views,
        settings=settings,
        progress=progress,
    )
    kept.sort(key=lambda item: item[2])
    ranks = np.unique(np.linspace(0, len(kept) - 1, SHEET_ROWS).round().astype(int))
    sheet = result_sheet(
        [
            (f"{case.name}\nCD {cd:.3f}", case.image, generated, case.view.surface, case.camera)
            for case, generated, cd in (kept[rank] for rank in ranks)
        ]
    )
    table = markdown_table(result)
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    with replacing(out / "results.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    with replacing(out / "results.png") as temporary:
        sheet.save(temporary)
    tell(table)
    return 1 if result["skipped"] else 0
