"""Compares a generator's meshes and three baselines with the ground truth, in one table.

python -m runtime evaluate --data DIR --generator NAME --out DIR [--gallery DIR] [--seed N]
                           [--protocol camera|xray|lari] [--views-from TIMES]

Every object of DIR (meshes, or a dataset's X-Rays) is placed in the canonical frame
(`xray_addon.canonical`), seen from fixed random sides, lit by the built-in shader at 512 px, and
given to the generator as an image that passes the whole intake. --views-from moves the camera away
and zooms in, like a long lens. A system with a setting for the camera's distance is given the true
one, unless that setting is set. A mesh in another frame is transformed into the object's.
Prediction and truth are compared by the protocol: 10,000 area samples each, lengths in units of the
object's longest side.
The baselines are the training object with the most similar picture, the visible front layer of the
truth, and a sphere as large as the silhouette.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_addon.camera import Camera
from xray_addon.canonical import CANONICAL, Frame
from xray_addon.casting import cast
from xray_addon.errors import XRayError, error_code
from xray_addon.files.atomic import replacing
from xray_addon.generated import Generated
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.settings.generate import GenerateSettings
from xray_addon.surface import Surface
from xray_addon.systems import find_system
from xray_addon.systems.arguments import read_systems
from xray_addon.systems.system import Need
from xray_addon.xray import Points, XRay

from ..errors import typed_error
from ..generator import Generator
from ..meshes.collection import MeshFile, find_manifest, list_meshes
from ..meshes.topology import outline_holes, topology
from ..registry import load
from .cases import (
    POINTS,
    TRUTH_LAYERS,
    TRUTH_SIZE,
    Case,
    Gallery,
    in_camera,
    list_objects,
    make_cases,
    silhouette_sphere,
    visible_layer,
)
from .looks import (
    FLAT_SHARE,
    SIDES,
    base_height,
    flat_share,
    hidden_colors,
    roughness,
    sliver_share,
)
from .pictures import result_row, result_sheet
from .protocols import (
    CAMERA,
    PROTOCOLS,
    Positions,
    Protocol,
    compare,
    compare_looks,
    hidden_distance,
    hit_overlap,
    interval,
)

log = logging.getLogger(__name__)

SHEET_ROWS = 8
SHEET_WORST = 3
OVERLAP_LAYERS = 8
RETRIEVAL = "nearest training object"

__all__ = ["Case", "Gallery", "compare", "evaluate", "in_camera", "main", "make_cases"]


def evaluate(
    generator: Generator,
    files: Sequence[MeshFile],
    gallery: Gallery | None,
    *,
    seed: int = 0,
    views: int = 1,
    settings: GenerateSettings | None = None,
    protocol: Protocol = CAMERA,
    frame: Frame = CANONICAL,
    views_from: float = 1.0,
    progress: ProgressCallback = ignore_progress,
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The figures of all cases, and a picture of each, a row of the sheet.

    frame : the frame of the generator's meshes. views_from : the cameras' distance,
    as a multiple of the canonical one.

    The dict has `cases` (name, seconds, watertight, vertices, the mesh's `looks` and a dict of
    metrics by system), `systems` (their means), `intervals` (their 95 % confidence intervals),
    `looks` (means of the mesh's normals, colours and hits), `shape` (means of the measures of
    `looks.py` for the mesh and the truth) and `skipped`. Raises XRayError `no_data` if no case
    remains, errors that would stop every case, and `Cancelled`.
    """
    seen_in = CANONICAL.from_afar(views_from)
    settings = (settings or generator.system.settings(seed=seed)).seen_from(
        seen_in.distance_in_lengths
    )
    skipped: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    pictures: list[Image.Image] = []
    for number, case in enumerate(make_cases(files, views, seed, skipped, seen_in)):
        progress(Progress("evaluate", number, len(files) * views, case.name))
        began = time.perf_counter()
        try:
            generated = generator.generate(Image.fromarray(case.image), settings)
        except Exception as error:  # one object must not stop the others
            told = typed_error(error)
            if told.code == "cancelled" or error_code(told.code).stops:
                raise
            log.warning("%s is skipped", case.name, exc_info=error)
            skipped.append({"file": case.name, "why": str(told)})
            continue
        seconds = time.perf_counter() - began
        if (laid := _laid(generated, case, frame)) is None:
            skipped.append({"file": case.name, "why": "it does not fit into the generator's frame"})
            continue
        # Sampled with the truth's seed, so that an identical mesh has an error of 0.
        mesh = in_camera(laid.surface.sample(POINTS, case.seed), laid.camera)
        systems: dict[str, Positions] = {f"{generator.name}, mesh": mesh}
        if generated.xray is not None:
            hits = generated.xray.points(generated.camera).positions @ laid.matrix[:3, :3].T
            hits = in_camera(hits + laid.matrix[:3, 3], laid.camera)
            systems[f"{generator.name}, points"] = hits[_choice(len(hits), seed)]
        if gallery is not None:
            systems[RETRIEVAL] = gallery.nearest(case.image, seed)
        systems["visible layer of the truth"] = visible_layer(case)
        systems["sphere of the silhouette"] = silhouette_sphere(case, seed)
        hidden = _hidden(case, seed)
        metrics = {}
        for name, points in systems.items():
            metrics[name] = compare(points, case.truth, case.view.scale, protocol)
            if len(hidden):
                metrics[name]["hidden"] = hidden_distance(points, hidden, case.view.scale)
        rows.append(
            {
                "name": case.name,
                "seconds": round(seconds, 3),
                "watertight": generated.surface.is_watertight,
                "vertices": len(generated.surface.vertices),
                "elevation_error_degrees": round(_elevation_error(case, generated.camera), 2),
                "metrics": metrics,
                **_looks(case, laid, seed),
                "shape": _shape(case, laid, seed),
            }
        )
        caption = f"{case.name}\nCD {metrics[f'{generator.name}, mesh']['cd']:.3f}"
        truth = case.view.surface
        pictures.append(result_row(caption, case.image, generated, truth, case.camera))
    if not rows:
        raise XRayError("no_data", "No mesh could be evaluated.", f"Skipped: {skipped}")
    values = {
        name: {
            key: [row["metrics"][name][key] for row in rows if key in row["metrics"][name]]
            for key in dict.fromkeys(key for row in rows for key in row["metrics"][name])
        }
        for name in rows[0]["metrics"]
    }
    result = {
        "generator": generator.name,
        "device": generator.device,
        "protocol": protocol.name,
        "seed": seed,
        "views": views,
        "views_from": views_from,
        "settings": settings.to_dict(),
        "systems": {
            name: {key: float(np.mean(found)) for key, found in by_key.items()}
            for name, by_key in values.items()
        },
        "intervals": {
            name: {key: interval(found, seed) for key, found in by_key.items()}
            for name, by_key in values.items()
        },
        "looks": {
            "normal": float(np.mean([row["normal"] for row in rows])),
            "color": float(np.mean([row["color"] for row in rows])),
            "hit_overlap": [
                _mean_of_known([row["hit_overlap"][layer] for row in rows])
                for layer in range(OVERLAP_LAYERS)
            ],
        },
        "shape": {
            key: _mean_of_known([row["shape"].get(key) for row in rows])
            for key in dict.fromkeys(key for row in rows for key in row["shape"])
        },
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "peak_memory": _peak_memory(generator.device),
        "watertight": float(np.mean([row["watertight"] for row in rows])),
        "elevation_error_degrees": float(np.mean([row["elevation_error_degrees"] for row in rows])),
        "cases": rows,
        "skipped": skipped,
    }
    return result, pictures


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _choice(count: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).permutation(count)[:POINTS]


def _hidden(case: Case, seed: int) -> Positions:
    """Hits (N, 3) of the truth behind its first layer, in the camera's axes."""
    camera = case.truth_camera
    behind = case.view.xray.index >= TRUTH_SIZE**2
    points = in_camera(case.view.xray.points(camera).positions[behind], camera)
    return points[_choice(len(points), seed)]


@dataclass(frozen=True, eq=False)
class _Laid:
    """A generated mesh in the case's frame; `matrix` (4, 4) moved it there."""

    surface: Surface
    camera: Camera
    matrix: NDArray[np.float64]


def _laid(generated: Generated, case: Case, frame: Frame) -> _Laid | None:
    """The mesh generated in `frame`, moved to the case's frame; None if the true object does not
    fit into `frame`."""
    eye = generated.camera
    pose = eye.camera_to_world.copy()
    pose[:3, 3] *= case.camera.distance / eye.distance
    camera = Camera(eye.width, eye.height, case.camera.fov_x, pose)
    if frame == CANONICAL:  # seen from any distance
        return _Laid(generated.surface, camera, np.eye(4))
    in_axes = case.from_frame(frame)
    if in_axes is None:
        return None
    matrix = pose @ in_axes @ eye.world_to_camera
    return _Laid(generated.surface.transformed(matrix), camera, matrix)


def _looks(case: Case, generated: _Laid, seed: int) -> dict[str, Any]:
    """Compare normals, colours and hits per layer of the mesh and the truth along the same rays."""
    eye = generated.camera.resized(TRUTH_SIZE, TRUTH_SIZE)
    xray = cast(generated.surface, eye, TRUTH_LAYERS)
    overlap = hit_overlap(xray, case.view.xray, OVERLAP_LAYERS)
    if not len(xray.index):
        return {"normal": 0.0, "color": 1.0, "hit_overlap": overlap}
    camera = case.truth_camera
    truth = _oriented(case.view.xray, camera, seed)
    return {**compare_looks(_oriented(xray, eye, seed), truth), "hit_overlap": overlap}


def _shape(case: Case, generated: _Laid, seed: int) -> dict[str, float]:
    """The measures of `looks.py` for the mesh and, with the prefix "true", for the truth."""
    size = case.view.scale
    surface, truth = generated.surface, case.view.surface
    got, known = topology(surface), topology(truth)
    # Separate parts can form a handle that none of them has, but the outline shows it.
    handles = max(known.handles, outline_holes(case.view.xray.hit[0]))
    result = {
        "more_islands": float(max(0, got.islands - known.islands)),
        "more_handles": float(max(0, got.handles - handles)),
        "with_more_handles": float(got.handles > handles),
        "slivers": sliver_share(surface),
        "true slivers": sliver_share(truth),
    }
    for name, mesh, camera in (
        ("", surface, generated.camera),
        ("true ", truth, case.camera),
    ):
        found = roughness(mesh, camera, size, seed)
        result |= {f"{name}roughness, {side}": value for side, value in found.items()}
    if (share := flat_share(truth, size)) > FLAT_SHARE:
        result["base"] = base_height(surface, share, size)
        result["true base"] = base_height(truth, share, size)
    eye = generated.camera.resized(TRUTH_SIZE, TRUTH_SIZE)
    xray = cast(surface, eye, TRUTH_LAYERS)
    behind = _oriented(xray, eye, seed, first_layer=1)
    camera = case.truth_camera
    colors = hidden_colors(
        behind if len(behind) else _oriented(xray, eye, seed),
        case.view.xray,
        camera,
        seed,
    )
    return result | {f"hidden {name}": value for name, value in colors.items()}


def _oriented(xray: XRay, camera: Camera, seed: int, first_layer: int = 0) -> Points:
    """About 10,000 hits in the camera's axes, from `first_layer` on, with normals and colours."""
    points = xray.points(camera)
    some = np.flatnonzero(xray.index >= first_layer * xray.shape[1] * xray.shape[2])
    some = some[_choice(len(some), seed)]
    return Points(
        in_camera(points.positions[some], camera).astype(np.float32),
        points.normals[some] @ camera.camera_to_world[:3, :3].astype(np.float32),
        points.colors[some],
    )


def _peak_memory(device: str) -> int | None:
    """Peak memory in bytes: of the GPU if `device` is one, otherwise of the process; None if the
    system does not report it."""
    if device.startswith("cuda"):
        return int(importlib.import_module("torch").cuda.max_memory_allocated())
    if find_spec("resource") is None:  # Windows
        return None
    resource = importlib.import_module("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _elevation_error(case: Case, camera: Camera) -> float:
    got = np.arcsin(np.clip(camera.position[2] / camera.distance, -1, 1))
    return float(np.degrees(abs(got - case.view.elevation)))


def markdown_table(result: dict[str, Any]) -> str:
    """The means as a Markdown table, with an explanation below."""
    thresholds = PROTOCOLS[result["protocol"]].thresholds
    keys = ["cd", *(f"f@{threshold}" for threshold in thresholds), "hidden"]
    heads = ["CD (95 %)", *(f"F@{threshold}" for threshold in thresholds), "hidden"]

    def cell(name: str, key: str) -> str:
        means = result["systems"][name]
        if key not in means:
            return "-"
        low, high = result["intervals"][name][key]
        return f"{means[key]:.3f}" + (f" ({low:.3f}-{high:.3f})" if key == "cd" else "")

    looks, memory = result["looks"], result["peak_memory"]
    overlap = ", ".join("-" if v is None else f"{v:.2f}" for v in looks["hit_overlap"])
    lines = [
        "| | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
        *(
            f"| {name} | " + " | ".join(cell(name, key) for key in keys) + " |"
            for name in result["systems"]
        ),
        "",
        f"Protocol {result['protocol']}: {PROTOCOLS[result['protocol']].about}. Hidden: mean "
        "distance to the parts of the truth behind its first layer.",
        f"{len(result['cases'])} views, {len(result['skipped'])} skipped, seed {result['seed']}, "
        f"seen from {result['views_from']:g} times the usual distance; "
        f"median {result['seconds']:.2f} s per image on {result['device']}"
        + (f", at most {memory / 1e9:.1f} GB in all; " if memory else "; ")
        + f"{result['watertight']:.0%} of the meshes watertight; "
        f"camera elevation off by {result['elevation_error_degrees']:.1f} degrees on average.",
        f"The mesh's normals agree by {looks['normal']:.3f}, its colours are off by "
        f"{looks['color']:.3f}, its hits overlap, from layer 1 on, by {overlap}.",
        "",
        *_shape_table(result["shape"]),
        "",
    ]
    if RETRIEVAL not in result["systems"]:
        lines[-1:] = ["No training meshes were given (--gallery), so none were retrieved.", ""]
    return "\n".join(lines)


def _shape_table(shape: dict[str, float | None]) -> list[str]:
    """How meshes look beside the truth, as lines of a Markdown table."""

    def row(name: str, key: str, true_key: str = "", form: str = ".2f") -> str:
        cells = (shape.get(key), shape.get(true_key))
        texts = ("-" if value is None else format(value, form) for value in cells)
        return f"| {name} | {' | '.join(texts)} |"

    return [
        "| how meshes look | generated | truth |",
        "|---|---|---|",
        row("islands more than the truth", "more_islands"),
        row("handles more than the truth", "more_handles"),
        row("meshes with more handles", "with_more_handles", form=".0%"),
        row("slivers, share of triangles", "slivers", "true slivers", ".1%"),
        *(
            row(
                f"roughness, {side}, degrees",
                f"roughness, {side}",
                f"true roughness, {side}",
                ".1f",
            )
            for side in SIDES
        ),
        row("base above the ground, where the truth is flat", "base", "true base", ".3f"),
        row("hidden colours off by", "hidden color", form=".3f"),
        row("the true visible colour there instead", "hidden front", form=".3f"),
        row("the mean true visible colour instead", "hidden mean", form=".3f"),
    ]


def _training_files(
    arguments: argparse.Namespace, files: Sequence[MeshFile], exclude: tuple[str, ...]
) -> list[MeshFile]:
    """The meshes for the retrieval baseline: --gallery, or the train split of --data's manifest, or
    none. Objects under evaluation are left out, and so are the packs `exclude`, which the generator
    has not seen in training either."""
    if arguments.gallery:
        training = list_meshes(Path(arguments.gallery), split="train", exclude=exclude)
    else:
        manifest = find_manifest(Path(arguments.data).resolve())
        if manifest is None:
            return []
        try:
            training = list_meshes(manifest.parent, split="train", exclude=exclude)
        except XRayError as error:
            if error.code != "no_data":
                raise
            return []
    groups = {file.group for file in files}
    return [file for file in training if file.group not in groups]


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """Run `python -m runtime evaluate`: write results.json, results.md and results.png to --out."""
    data, out = Path(arguments.data), Path(arguments.out)
    files = list_objects(data, split=arguments.split)
    settings, protocol = read_systems(arguments), PROTOCOLS[arguments.protocol]
    system = find_system(settings.generator)
    if not arguments.views_from >= 1:
        raise XRayError(
            "bad_settings",
            f"--views-from is {arguments.views_from:g}.",
            "Use 1 or more: nearer cameras do not see objects whole.",
        )
    if system.image is Need.NONE:
        raise XRayError(
            "bad_settings",
            f"{system.label} takes no image, and the evaluation compares what is made from images.",
            "Choose a system that takes an image.",
        )
    if system.frame is None and not protocol.aligned:
        raise XRayError(
            "bad_settings",
            f"The position of {system.label}'s meshes relative to their image is not known.",
            "Use --protocol xray, which aligns them with the truth.",
        )
    if arguments.limit and arguments.limit < len(files):
        chosen = np.random.default_rng(settings.seed).permutation(len(files))
        files = [files[i] for i in sorted(chosen[: arguments.limit])]
    generator = load(settings.generator, settings.checkpoint or None, settings.device)
    record = getattr(generator, "training", {})
    gallery = None
    if training := _training_files(arguments, files, tuple(record.get("exclude", ()))):
        gallery = Gallery(training, settings.seed, progress)
    result, pictures = evaluate(
        generator,
        files,
        gallery,
        seed=settings.seed,
        views=arguments.views,
        settings=settings,
        protocol=protocol,
        frame=system.frame or CANONICAL,
        views_from=arguments.views_from,
        progress=progress,
    )
    order = np.argsort([row["metrics"][f"{generator.name}, mesh"]["cd"] for row in result["cases"]])
    spread = np.linspace(0, len(order) - 1, SHEET_ROWS).round().astype(int)
    ranks = np.union1d(spread, np.arange(len(order))[-SHEET_WORST:])
    sheet = result_sheet([pictures[order[rank]] for rank in ranks])
    table = markdown_table(result)
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    with replacing(out / "results.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    with replacing(out / "results.png") as temporary:
        sheet.save(temporary)
    tell(table)
    return 1 if result["skipped"] else 0
