"""Captures without a dataset, for `xray.capture` and ``blender -c xray capture``.

They are made by the same `Captures` as a dataset, with the same files: `xrays/<uid>/NNN.npz`,
`images/<uid>/NNN.png` and transforms.json. Existing items are replaced, but not those of a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
    from .chosen_scene import ChosenScene

# The published images are twice as wide and high as the X-Rays.
IMAGE_SCALE = 2
# The largest image that can be cast. A picture that would be larger gets the X-Ray's size.
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
    objects: Sequence[bpy.types.Object],
    folder: str | Path,
    settings: CaptureSettings,
    scene: ChosenScene | None = None,
) -> jobs.Steps:
    """As `file_steps`, for Blender objects: an item each, or one for all (`settings.combine`).

    scene : the scene that the objects are in; the current one by default.
    """
    names = [obj.name_full for obj in objects]
    groups = [names] if settings.combine else [[name] for name in names]
    uids = unique_uids([group[0] for group in groups])
    group_of = dict(zip(uids, groups, strict=True))
    items = [Item(uid, "", name=group[0]) for uid, group in group_of.items()]
    # Kept by name, because user actions between steps can invalidate references.
    captures = PlainCaptures(
        folder, settings, lambda item: named_objects(group_of[item.uid]), scene=scene
    )
    return item_steps(items, captures)


def file_steps(
    items: Sequence[Item],
    folder: str | Path,
    settings: CaptureSettings,
    on_warning: Callable[[str], None] = lambda _: None,
    *,
    bare_geometry: bool = False,
) -> jobs.Steps:
    """Capture the mesh file of every item into `folder`, one view per step.

    The result is a `DatasetRun`. The object is centred, scaled to a longest side of 1 and seen by
    `sampled_cameras`. If `settings.camera` is "scene", the only view is that of the file's camera,
    and the object is not moved. Items are written atomically; one that fails does not stop the
    others. on_warning : called with importers' warnings about files that were captured anyway.
    bare_geometry : see `DatasetSettings`.

    Raises XRayError `cannot_write`, `other_settings` if `folder` holds a dataset.
    """
    load = partial(open_item, bare_geometry=bare_geometry)
    return item_steps(items, PlainCaptures(folder, settings, load, on_warning))


def named_objects(names: Sequence[str]) -> list[bpy.types.Object]:
    """The objects of the open file with these full names, with what is edited in Edit Mode.

    Raises XRayError `object_gone`.
    """
    known = {obj.name_full: obj for obj in bpy.data.objects}
    gone = [name for name in names if name not in known]
    if gone:
        raise XRayError(
            "object_gone",
            f"{', '.join(gone)} was removed or renamed before it was captured.",
            "Capture again.",
        )
    found = [known[name] for name in names]
    for obj in found:
        if obj.mode == "EDIT":
            obj.update_from_editmode()
    return found


class PlainCaptures(Captures):
    """Makes items in the scene's current state, all with the same published cameras.

    Materials are read but not baked. Pictures are cast with one ray per pixel: training downscales
    them, and four rays would take longer than everything else.
    """

    picture_samples = 1

    def __init__(
        self,
        folder: str | Path,
        settings: CaptureSettings,
        load: Loader,
        on_warning: Callable[[str], None] = lambda _: None,
        *,
        scene: ChosenScene | None = None,
    ) -> None:
        large = settings.size * IMAGE_SCALE > MAX_PIXELS
        from_scene = settings.camera == "scene"
        equal = DatasetSettings(
            views=settings.views,
            layers=settings.layers,
            size=settings.size,
            seed=settings.seed,
            visible_in=settings.visible_in,
            cameras="scene" if from_scene else "hemisphere",
            normalize="none" if from_scene else "unit",
            image="cast",
            image_size=settings.size if large else settings.size * IMAGE_SCALE,
            lights="studio",
        )
        super().__init__(PlainStore(folder, equal, on_warning), load, scene=scene)

    def progress(
        self, item: Item, number: int, of: int, view: int = 0, _views: int = 0
    ) -> Progress:
        """Progress in views, because one object may have many."""
        each = 1 if self.settings.cameras == "scene" else self.settings.views
        return Progress("capture", number * each + view, of * each, item.uid)

    def posed(self) -> AbstractContextManager[None]:
        """The scene in its current state."""
        return nullcontext()

    def surface(self, objects: Sequence[bpy.types.Object]) -> tuple[Surface, FaceSources]:
        """The faces, with the material colours that can be read without baking."""
        depsgraph = bpy.context.evaluated_depsgraph_get()
        return surface_and_sources(objects, depsgraph, visible_in=self.settings.visible_in)

    def cameras(
        self, item: Item, surface: Surface, matrix: NDArray[np.float64]
    ) -> Sequence[Camera]:
        """The scene's camera, or the published random cameras for the seed."""
        settings = self.settings
        if settings.cameras == "scene":
            return super().cameras(item, surface, matrix)
        return sampled_cameras(settings.views, settings.seed, settings.size)
