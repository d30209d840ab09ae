"""Meshes to X-Rays: `xrays/<uid>/NNN.npz`, `images/<uid>/NNN.png` and their transforms.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.casting import cast
from ...xray_addon.dataset.cameras import sampled_cameras
from ...xray_addon.dataset.manifest import unique_uids
from ...xray_addon.dataset.store import put_files, work_folder, writing
from ...xray_addon.errors import XRayError
from ...xray_addon.files.transforms import write_transforms
from ...xray_addon.pictures.shading import shade_surface
from ...xray_addon.progress import Progress, ProgressCallback, ignore_progress
from ..convert import MaterialReader, camera_from_object, surface_from_objects
from ..tasks import jobs
from .capture import bad_mesh, write_view

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.capture import CaptureSettings
    from ...xray_addon.surface import Surface

# The published images have twice the X-Ray's pixels along each side.
IMAGE_SCALE = 2
# The largest image that is cast; pictures that would be larger have the X-Ray's own size.
MAX_PIXELS = 8192


@dataclass(frozen=True)
class Item:
    """What is captured under one uid; `load` gives its surface when its turn comes."""

    uid: str
    load: Callable[[], Surface]


@dataclass(frozen=True)
class Captured:
    """One item on disk. hits and dropped are summed over its views."""

    uid: str
    views: int
    hits: int
    dropped: int


@dataclass
class CaptureReport:
    """What a run wrote under `folder`, and what it could not, with the reasons."""

    folder: Path
    captured: list[Captured] = field(default_factory=list)
    failed: list[tuple[str, XRayError]] = field(default_factory=list)


def capture_objects(
    objects: Sequence[bpy.types.Object],
    folder: str | Path,
    settings: CaptureSettings,
    on_progress: ProgressCallback = ignore_progress,
) -> CaptureReport:
    """Capture objects of the current scene into `folder`; see `capture_steps`."""
    report: CaptureReport = jobs.run(object_steps(objects, folder, settings), on_progress)
    return report


def object_steps(
    objects: Sequence[bpy.types.Object], folder: str | Path, settings: CaptureSettings
) -> jobs.Steps:
    """`capture_steps` of Blender objects: each by itself, or with `settings.combine` as one.

    Raises XRayError at once for a scene camera that is none or cannot be captured.
    """
    context = bpy.context
    camera = None
    if settings.camera == "scene":
        camera = camera_from_object(context.scene.camera, context.scene.render, settings.size)
    reader = MaterialReader()
    names = [obj.name for obj in objects]

    def loader(group: list[str]) -> Callable[[], Surface]:
        # By name: what an artist does between two steps can invalidate every reference.
        def load() -> Surface:
            objects: Any = bpy.data.objects
            present = [objects[name] for name in group if name in objects]
            if len(present) < len(group):
                raise XRayError(
                    "object_gone",
                    f"{', '.join(group)} was removed before it was captured.",
                    "Capture again.",
                )
            return surface_from_objects(present, bpy.context.evaluated_depsgraph_get(), reader)

        return load

    groups = [names] if settings.combine else [[name] for name in names]
    uids = unique_uids([group[0] for group in groups])
    items = [Item(uid, loader(group)) for uid, group in zip(uids, groups, strict=True)]
    return capture_steps(items, folder, settings, camera)


def capture_steps(
    items: Sequence[Item],
    folder: str | Path,
    settings: CaptureSettings,
    camera: Camera | None = None,
) -> jobs.Steps:
    """Write every item under `folder`, one view a step; the result is a `CaptureReport`.

    Without a camera the views are `sampled_cameras` around the object, centred and scaled to a
    longest side of 1; with one it is the only view and the object stays where it is. An item is
    complete or absent; one that is there already is replaced. An item that fails does not stop
    the others.

    Raises XRayError `cannot_write`.
    """
    folder = Path(folder)
    report = CaptureReport(folder)
    if camera is None:
        cameras = sampled_cameras(settings.views, settings.seed, settings.size)
    else:
        cameras = [camera]
    total = len(items) * len(cameras)
    with work_folder(folder) as work:
        for i, item in enumerate(items):
            done = i * len(cameras)
            yield Progress("capture", done, total, item.uid)
            try:
                surface = item.load()
                if camera is None:
                    surface = surface.normalized()
            except XRayError as error:
                report.failed.append((item.uid, error))
                continue
            except ValueError as error:
                report.failed.append((item.uid, bad_mesh(error)))
                continue
            made = work / item.uid
            hits = dropped = 0
            with writing(folder):
                for kind in ("xrays", "images"):
                    (made / kind).mkdir(parents=True)
            for view, seen in enumerate(cameras):
                xray = cast(surface, seen, settings.layers)
                with writing(folder):
                    write_view(made, view, xray, _picture(surface, seen))
                hits += len(xray.index)
                dropped += xray.dropped
                yield Progress("capture", done + view + 1, total, item.uid)
            names = [f"{view:03d}" for view in range(len(cameras))]
            with writing(folder):
                write_transforms(made / "images" / "transforms.json", cameras, names)
            put_files(folder, item.uid, made)
            report.captured.append(Captured(item.uid, len(cameras), hits, dropped))
    return report


def _picture(surface: Surface, camera: Camera) -> NDArray[np.uint8]:
    longest = max(camera.width, camera.height)
    scale = IMAGE_SCALE if longest * IMAGE_SCALE <= MAX_PIXELS else 1
    larger = camera.resized(camera.width * scale, camera.height * scale)
    # One ray a pixel: whoever trains scales the picture down, and four cost more than all else.
    return shade_surface(surface, larger, samples=1)
