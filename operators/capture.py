"""Meshes to X-Rays: `xrays/<uid>/NNN.npz`, `images/<uid>/NNN.png` and their transforms.json."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ..xray_addon.casting import cast
from ..xray_addon.errors import XRayError
from ..xray_addon.progress import Progress, ProgressCallback, ignore_progress
from ..xray_addon.shading import shade_surface
from ..xray_addon.transforms import write_transforms
from ..xray_addon.views import sampled_cameras
from . import jobs
from .convert import MaterialReader, camera_from_object, surface_from_objects
from .png import write_png

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..xray_addon.camera import Camera
    from ..xray_addon.settings import CaptureSettings
    from ..xray_addon.surface import Surface

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
    uids = unique_uids(group[0] for group in groups)
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
            report.failed.append((item.uid, _bad_mesh(item.uid, error)))
            continue
        try:
            with _publishing(folder, item.uid) as temporary:
                hits = dropped = 0
                for view, seen in enumerate(cameras):
                    xray = cast(surface, seen, settings.layers)
                    xray.save(temporary / "xrays" / f"{view:03d}.npz")
                    picture = _picture(surface, seen)
                    write_png(temporary / "images" / f"{view:03d}.png", picture)
                    hits += len(xray.index)
                    dropped += xray.dropped
                    yield Progress("capture", done + view + 1, total, item.uid)
                names = [f"{view:03d}" for view in range(len(cameras))]
                write_transforms(temporary / "images" / "transforms.json", cameras, names)
        except OSError as error:
            raise XRayError(
                "cannot_write",
                f"{item.uid} cannot be written to {folder} ({error.strerror or error}).",
                "Choose a folder that exists or can be made, with space left.",
            ) from error
        report.captured.append(Captured(item.uid, len(cameras), hits, dropped))
    return report


def unique_uids(names: Iterable[str]) -> list[str]:
    """A file name for each name, safe on every system and used once, case aside."""
    taken: set[str] = set()
    uids = []
    for name in names:
        stem = re.sub(r"[^\w.-]+", "_", name).strip("._") or "object"
        if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", stem, re.IGNORECASE):
            stem = f"_{stem}"  # names that Windows keeps for devices
        uid, number = stem, 2
        while uid.lower() in taken:
            uid, number = f"{stem}-{number}", number + 1
        taken.add(uid.lower())
        uids.append(uid)
    return uids


class _publishing:
    """A temporary folder with xrays/ and images/ that takes its place as `uid` at the end.

    `xrays/<uid>` is there only while `images/<uid>` is there and belongs to it.
    """

    def __init__(self, folder: Path, uid: str) -> None:
        self.folder, self.uid = folder, uid

    def __enter__(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.temporary = tempfile.TemporaryDirectory(prefix=".capture-", dir=self.folder)
        path = Path(self.temporary.name)
        for kind in ("xrays", "images"):
            (path / kind).mkdir()
        return path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.temporary as name:
            if kind is not None:
                return
            for kind_of in ("xrays", "images"):
                target = self.folder / kind_of / self.uid
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    target.rename(Path(name) / f"old-{kind_of}")
            for kind_of in ("images", "xrays"):
                (Path(name) / kind_of).rename(self.folder / kind_of / self.uid)


def _picture(surface: Surface, camera: Camera) -> NDArray[np.uint8]:
    longest = max(camera.width, camera.height)
    scale = IMAGE_SCALE if longest * IMAGE_SCALE <= MAX_PIXELS else 1
    larger = camera.resized(camera.width * scale, camera.height * scale)
    # One ray a pixel: whoever trains scales the picture down, and four cost more than all else.
    return shade_surface(surface, larger, samples=1)


def _bad_mesh(uid: str, error: ValueError) -> XRayError:
    return XRayError(
        "bad_mesh", f"{uid} cannot be captured: {error}.", "Repair the mesh, or leave it out."
    )
