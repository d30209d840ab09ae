"""Captures without a dataset around them: what `xray.capture` and ``blender -c xray capture`` do.

The files are a dataset's, `xrays/<uid>/NNN.npz`, `images/<uid>/NNN.png` and its transforms.json,
and they are made by the same `Captures`; an item that is there already is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.dataset.attempt import PlainStore
from ...xray_addon.dataset.cameras import sampled_cameras
from ...xray_addon.dataset.manifest import Item, unique_uids
from ...xray_addon.errors import XRayError
from ...xray_addon.progress import Progress, ProgressCallback, ignore_progress
from ...xray_addon.settings.dataset import DatasetSettings
from ..convert.surfaces import surface_and_sources
from ..tasks import jobs
from .capture import Captures, DatasetRun, Loader, item_steps, open_item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.capture import CaptureSettings
    from ...xray_addon.surface import Surface
    from ..convert import FaceSources

# The published images have twice the X-Ray's pixels along each side.
IMAGE_SCALE = 2
# The largest image that is cast; pictures that would be larger have the X-Ray's own size.
MAX_PIXELS = 8192


def capture_objects(
    objects: Sequence[bpy.types.Object],
    folder: str | Path,
    settings: CaptureSettings,
    on_progress: ProgressCallback = ignore_progress,
) -> DatasetRun:
    """Capture objects of the current scene into `folder`; see `object_steps`."""
    run: DatasetRun = jobs.run(object_steps(objects, folder, settings), on_progress)
    return run


def object_steps(
    objects: Sequence[bpy.types.Object], folder: str | Path, settings: CaptureSettings
) -> jobs.Steps:
    """`file_steps` of Blender objects: each by itself, or with `settings.combine` as one."""
    names = [obj.name for obj in objects]
    groups = [names] if settings.combine else [[name] for name in names]
    uids = unique_uids([group[0] for group in groups])
    group_of = dict(zip(uids, groups, strict=True))
    items = [Item(uid, "", name=group[0]) for uid, group in group_of.items()]
    # By name: what an artist does between two steps can invalidate every reference.
    captures = PlainCaptures(folder, settings, lambda item: named_objects(group_of[item.uid]))
    return item_steps(items, captures)


def file_steps(
    items: Sequence[Item],
    folder: str | Path,
    settings: CaptureSettings,
    on_warning: Callable[[str], None] = lambda _: None,
) -> jobs.Steps:
    """Write the mesh file of every item under `folder`, one view a step; gives a `DatasetRun`.

    The views are `sampled_cameras` around the object, centred and scaled to a longest side of 1;
    with `settings.camera` "scene" there is one, that of the file's camera, and the object stays
    where it is. An item is complete or absent, and one that fails does not stop the others.
    on_warning : hears what importers warned of in a file that was captured even so.

    Raises XRayError `cannot_write`.
    """
    return item_steps(items, PlainCaptures(folder, settings, open_item, on_warning))


def named_objects(names: Sequence[str]) -> list[bpy.types.Object]:
    """The objects of the open file by their names. Raises XRayError `object_gone`."""
    objects: Any = bpy.data.objects
    found = [objects[name] for name in names if name in objects]
    if len(found) < len(names):
        raise XRayError(
            "object_gone",
            f"{', '.join(names)} was removed before it was captured.",
            "Capture again.",
        )
    return found


class PlainCaptures(Captures):
    """Makes items as they are shown, with the published cameras, the same for each.

    Materials are read and not baked; pictures are cast with one ray a pixel, since whoever trains
    scales them down, and four cost more than all else.
    """

    picture_samples = 1

    def __init__(
        self,
        folder: str | Path,
        settings: CaptureSettings,
        load: Loader,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        large = settings.size * IMAGE_SCALE > MAX_PIXELS
        from_scene = settings.camera == "scene"
        equal = DatasetSettings(
            views=settings.views,
            layers=settings.layers,
            size=settings.size,
            seed=settings.seed,
            cameras="scene" if from_scene else "hemisphere",
            normalize="none" if from_scene else "unit",
            image="cast",
            image_size=settings.size if large else settings.size * IMAGE_SCALE,
            lights="studio",
        )
        super().__init__(PlainStore(folder, equal, on_warning), load)

    def progress(
        self, item: Item, number: int, of: int, view: int = 0, _views: int = 0
    ) -> Progress:
        """In views, as there may be many of one object."""
        each = 1 if self.settings.cameras == "scene" else self.settings.views
        return Progress("capture", number * each + view, of * each, item.uid)

    def posed(self) -> AbstractContextManager[None]:
        """The scene as it is."""
        return nullcontext()

    def surface(self, objects: Sequence[bpy.types.Object]) -> tuple[Surface, FaceSources]:
        """The faces with what can be read of their materials."""
        return surface_and_sources(objects, bpy.context.evaluated_depsgraph_get())

    def cameras(
        self, item: Item, surface: Surface, matrix: NDArray[np.float64]
    ) -> Sequence[Camera]:
        """The scene's camera, or the published rule's with the seed alone."""
        settings = self.settings
        if settings.cameras == "scene":
            return super().cameras(item, surface, matrix)
        return sampled_cameras(settings.views, settings.seed, settings.size)
