"""Makes the contents of dataset items: X-Rays, images, cameras and metadata of objects.

`xray_addon.dataset` decides where the files go and when an item is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import bpy
import numpy as np

from ...xray_addon.casting import cast
from ...xray_addon.dataset import store
from ...xray_addon.dataset.attempt import Store
from ...xray_addon.dataset.cameras import dataset_cameras, item_seed, placed
from ...xray_addon.dataset.gates import ViewStatistics
from ...xray_addon.dataset.manifest import Item
from ...xray_addon.dataset.precision import VISIBLE_STEP, check_step, pixel_size, precision
from ...xray_addon.dataset.report import Report
from ...xray_addon.dataset.result import ItemResult
from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.files.transforms import write_transforms
from ...xray_addon.metrics import silhouette_iou
from ...xray_addon.omage import Omage
from ...xray_addon.omage.encoding import CELLS
from ...xray_addon.progress import Progress, ProgressCallback, ignore_progress
from ...xray_addon.slices.layout import (
    IMAGES,
    SDFS,
    SLICES,
    Views,
    distance_samples,
    write_distances,
    write_slices,
)
from ...xray_addon.slices.slicing import slice_surface
from ..convert import FaceSources, camera_from_object
from ..convert.baking import read_surface
from ..convert.mesh_files import files_read, missing_parts, open_alone
from ..convert.unwrapping import unwrap_surface
from ..interface.standard_output import captured_output
from ..tasks import jobs
from .chosen_scene import ChosenScene
from .remote import RemoteRenderer
from .rendering import CAST_SAMPLES, Renderer, check_environment
from .slice_rendering import render_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.dataset.attempt import Attempt
    from ...xray_addon.settings.dataset import DatasetSettings
    from ...xray_addon.surface import Surface
    from ...xray_addon.xray import XRay

# The progress while the store is opened. A stage of its own does not count for the time left.
CLAIMING = Progress("claim", message="Checking the dataset")

# Loads an item and returns its objects, which are in the current scene.
Loader = Callable[[Item], Sequence[bpy.types.Object]]


@dataclass
class DatasetRun:
    """The outcome of a run: each item's result, and the report of the whole dataset.

    report : None if the items are not part of a dataset; see `plain`.
    """

    folder: Path
    results: list[ItemResult] = field(default_factory=list)
    report: Report | None = None

    def count(self, status: str) -> int:
        """The number of items with that status."""
        return sum(result.status == status for result in self.results)


def make_dataset(
    items: Sequence[Item],
    folder: str | Path,
    settings: DatasetSettings,
    on_progress: ProgressCallback = ignore_progress,
    *,
    replace: bool = False,
) -> DatasetRun:
    """Capture `items` into the dataset in `folder`; see `dataset_steps`."""
    steps = dataset_steps(items, folder, settings, replace=replace)
    run: DatasetRun = jobs.run(steps, on_progress)
    return run


def dataset_steps(
    items: Sequence[Item],
    folder: str | Path,
    settings: DatasetSettings,
    load: Loader | None = None,
    on_result: Callable[[ItemResult], None] = lambda _: None,
    *,
    replace: bool = False,
    apart: bool = False,
    scene: ChosenScene | None = None,
) -> jobs.Steps:
    """Capture every missing item, one view per step; the result is a `DatasetRun`.

    An item that fails does not stop the others. `load` returns an item's objects; by default it
    opens the item's file, which closes the current one. `on_result` is called after each item.
    `replace` removes items that were made with different settings. apart, scene : see `Captures`.

    Raises XRayErrors that stop a run, and those for missing files named in the settings.
    """
    made = Store(folder, settings, replace=replace)
    captures = Captures(made, load, apart=apart, scene=scene)
    run: DatasetRun = yield from item_steps(items, captures, on_result)
    writing = Progress("dataset", len(items), len(items), "Writing the report")
    yield writing
    run.report = yield from captures.thread_steps(partial(store.finish, run.folder), writing)
    return run


def item_steps(
    items: Sequence[Item],
    captures: Captures,
    on_result: Callable[[ItemResult], None] = lambda _: None,
) -> jobs.Steps:
    """Make each item, one view per step; the result is a `DatasetRun` without a report."""
    run = DatasetRun(captures.store.folder)
    with closing(captures):
        yield from captures.open_steps()
        for i, item in enumerate(items):
            result = yield from captures.steps(item, i, len(items))
            run.results.append(result)
            on_result(result)
    return run


def open_item(item: Item, *, bare_geometry: bool = False) -> list[bpy.types.Object]:
    """Open an item's file, closing the current one; returns its objects. See `open_alone`."""
    return open_alone(item.source, bare_geometry=bare_geometry)


class Captures:
    """Makes items with the settings of `store`; use it in a `with`.

    apart : between two steps the open file is as the user left it, so that it can be edited, undone
        and saved. A second Blender renders, and long work is done in threads.
    scene : the scene whose objects `load` returns; the current one by default.

    Raises XRayError as `store` does.
    """

    picture_samples = CAST_SAMPLES

    def __init__(
        self,
        store: Store,
        load: Loader | None = None,
        *,
        apart: bool = False,
        scene: ChosenScene | None = None,
    ) -> None:
        self.store, self.settings, self.apart = store, store.settings, apart
        self.scene = scene
        self.remote = RemoteRenderer(self.settings) if apart else None
        self._exit = ExitStack()
        self.load = load or partial(open_item, bare_geometry=self.settings.bare_geometry)
        if self.settings.is_used("hdri"):
            check_environment(self.settings.hdri)

    def __enter__(self) -> Self:
        jobs.run(self.open_steps())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open_steps(self) -> jobs.Steps:
        """Open the store. `close` must follow, even after a failure."""
        yield from self.thread_steps(self.store.open, CLAIMING)
        if self.remote is not None:
            self._exit.enter_context(self.remote)

    def close(self) -> None:
        """End what `open_steps` began."""
        self._exit.close()
        self.store.close()

    def thread_steps(self, work: Callable[[], Any], progress: Progress) -> jobs.Steps:
        """Do `work`, which does not use bpy: if `apart`, in a thread."""
        if not self.apart:
            return work()
        result = yield from jobs.in_thread(work, progress)
        return result

    def steps(self, item: Item, number: int = 0, of: int = 1) -> jobs.Steps:
        """Capture `item`, the `number`th of `of`; the result is an `ItemResult`.

        Raises `Cancelled`, and XRayErrors that stop a run because they affect every item. Any other
        error makes the item fail.
        """
        known = self.store.find(item)
        if known is not None:
            return known
        with self.store.attempt(item, blender=bpy.app.version_string) as attempt:
            yield self.progress(item, number, of)
            for view, views in self._made(attempt):
                yield self.progress(item, number, of, view, views)
        return attempt.result

    def progress(self, item: Item, number: int, of: int, view: int = 0, views: int = 0) -> Progress:
        """The progress of the `number`th item after `view` of its `views`."""
        return Progress(
            "dataset", number, of, f"{item.uid}, view {view} of {views}" if view else item.uid
        )

    def posed(self) -> AbstractContextManager[None]:
        """Put the current scene into the state in which it is captured, for the body."""
        return posed(self.settings)

    def surface(self, objects: Sequence[bpy.types.Object]) -> tuple[Surface, FaceSources]:
        """The faces of `objects`, in the scene's space."""
        depsgraph = bpy.context.evaluated_depsgraph_get()
        return read_surface(objects, depsgraph, self.settings, factors=bool(self.settings.omage))

    def cameras(
        self, item: Item, surface: Surface, matrix: NDArray[np.float64]
    ) -> Sequence[Camera]:
        """The cameras around `surface`, which `matrix` has transformed from the scene's space."""
        settings = self.settings
        if settings.slices:
            return slice_views(self.settings, item.uid).cameras
        if settings.cameras == "scene":
            scene = bpy.context.scene
            seen = camera_from_object(scene.camera, scene.render, settings.size)
            return placed([seen], matrix[:3, 3], float(matrix[0, 0]))
        cameras = dataset_cameras(settings, item.uid)
        if settings.normalize == "none" and settings.cameras != "poses":
            low, high = surface.bounds
            return placed(cameras, (low + high) / 2, surface.longest_side)
        return cameras

    def _made(self, attempt: Attempt) -> Iterator[tuple[int, int]]:
        """Write an item into the attempt's folder; yields the number of views made and in all."""
        settings, item, made = self.settings, attempt.item, attempt.folder
        self.store.note_source(attempt)
        with ExitStack() as pose, ExitStack() as stack, ExitStack() as current:
            if self.scene is not None:
                current.enter_context(self.scene.active())
            with attempt.timed("load"), captured_output(attempt.messages):
                objects = self.load(item)
            self.store.note_companions(attempt, files_read(item.source))
            pose.enter_context(self.posed())
            with attempt.timed("surface"), _shapeless():
                bpy.context.view_layer.update()
                surface, sources = self.surface(objects)
                matrix = self._placement(item, surface)
                surface = surface.transformed(matrix)
                cameras = self.cameras(item, surface, matrix)
            attempt.row["triangles"] = len(surface.faces)
            self._note_sources(attempt, sources)
            self._check_steps(attempt, sources, surface, matrix, cameras)
            if settings.ids:
                attempt.row["objects"] = list(sources.objects)
                attempt.row["materials"] = list(sources.materials)
            if settings.omage:
                with attempt.timed("omage"):
                    attempt.row["omage"] = self._write_omages(made, surface, sources)
            renderer = None
            if settings.image != "none":
                with attempt.timed("image"):
                    renderer = stack.enter_context(
                        Renderer(
                            objects,
                            settings,
                            surface=surface,
                            matrix=matrix,
                            cast_samples=self.picture_samples,
                            remote=self.remote,
                        )
                    )
            current.close()
            if self.apart:
                pose.close()
            if settings.slices:
                yield from self._begin_slices(attempt, surface, len(cameras))
            seed = item_seed(settings.seed, item.uid)
            with store.writing(self.store.folder):
                for kind in ("xrays", "images", *(["ids"] if settings.ids else [])):
                    (made / kind).mkdir()
            for i, camera in enumerate(cameras):
                with attempt.timed("cast"):
                    xray = cast(surface, camera, settings.layers, faces=settings.ids)
                picture = None
                if renderer is not None:
                    with attempt.timed("image"):
                        steps = renderer.image_steps(camera, (seed + i) % 2**31)
                        picture = yield from jobs.reporting(steps, (i, len(cameras)))
                with attempt.timed("write"), store.writing(self.store.folder):
                    xray.save(made / "xrays" / f"{i:03d}.npz", self.store.deflater)
                    if picture is not None:
                        write_png(made / "images" / f"{i:03d}.png", picture, self.store.deflater)
                    if settings.ids:
                        _write_ids(made / "ids" / f"{i:03d}.npz", xray, sources)
                if settings.slices:
                    with attempt.timed("slices"):
                        steps = self._slices_steps(attempt.item, i, surface, camera)
                        slices = yield from jobs.reporting(steps, (i, len(cameras)))
                    self._write_slices(attempt, i, picture, slices)
                attempt.views.append(self._view(xray, picture, surface))
                yield i + 1, len(cameras)
            names = [f"{i:03d}" for i in range(len(cameras))]
            with store.writing(self.store.folder):
                write_transforms(made / "images" / "transforms.json", cameras, names, matrix)

    def _note_sources(self, attempt: Attempt, sources: FaceSources) -> None:
        """Record missing files, and materials that a picture shows only partly."""
        incomplete = missing_parts(attempt.item.source) if attempt.item.source else []
        found = {
            "missing_textures": list(sources.missing),
            "incomplete": incomplete,
            "transparent": list(sources.transparent),
            "clipped": list(sources.clipped),
        }
        attempt.row.update({name: names for name, names in found.items() if names})
        if sources.missing:
            attempt.flag("missing_texture")
            attempt.messages += [f"There is no image file {name}." for name in sources.missing]
        if incomplete:
            attempt.flag("incomplete")
            attempt.messages += [
                f"It is captured without {name}, which is missing." for name in incomplete
            ]

    def _check_steps(
        self,
        attempt: Attempt,
        sources: FaceSources,
        surface: Surface,
        matrix: NDArray[np.float64],
        cameras: Sequence[Camera],
    ) -> None:
        """Warn if single precision is visible at the faces' distance from the origin. Raises
        XRayError `far_from_origin` if its step exceeds a pixel."""
        pixel = pixel_size(cameras, surface) / float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        exact = self.settings.cameras != "scene"  # the scene's camera is as far away as the objects
        check_step(sources.step if exact else max(sources.step, sources.place_step), pixel)
        step = max(sources.step, sources.place_step)
        if step > VISIBLE_STEP * pixel:
            attempt.flag("far_from_origin")
            attempt.messages.append(f"{precision(step, pixel)}.")

    def _placement(self, item: Item, surface: Surface) -> NDArray[np.float64]:
        """The matrix from the scene's space to the space in which `surface` is captured."""
        if self.settings.slices:
            return slice_views(self.settings, item.uid).placed(surface)
        return surface.normalizing if self.settings.normalize == "unit" else np.eye(4)

    def _begin_slices(
        self, attempt: Attempt, surface: Surface, views: int
    ) -> Iterator[tuple[int, int]]:
        """Write what all views of an item share: signed distances and camera positions."""
        item, made = attempt.item, attempt.folder
        draw = partial(distance_samples, surface, item_seed(self.settings.seed, item.uid))
        with attempt.timed("distances"):
            waiting = self.thread_steps(draw, Progress("dataset"))
            found = yield from jobs.reporting(waiting, (0, views))
        with store.writing(self.store.folder):
            write_distances(made / SDFS / f"{item.uid}.npy", found)
            slice_views(self.settings, item.uid).write(made / IMAGES)

    def _slices_steps(
        self, item: Item, view: int, surface: Surface, camera: Camera
    ) -> Generator[None, None, NDArray[np.uint8]]:
        """The slices of a view, (12, H, W, 4)."""
        settings = self.settings
        if settings.slice_shading == "cast":
            return slice_surface(surface, camera, aligned=settings.slice_alignment).pictures()
        seed = (item_seed(settings.seed, item.uid) + view) % 2**31
        if self.remote is not None:
            pictures = yield from self.remote.slices_steps(surface, camera, seed)
            return pictures
        return render_slices(surface, camera, settings.slice_alignment, settings.samples, seed)

    def _write_slices(
        self,
        attempt: Attempt,
        view: int,
        picture: NDArray[np.uint8] | None,
        slices: NDArray[np.uint8],
    ) -> None:
        assert picture is not None
        made, deflater = attempt.folder, self.store.deflater
        with attempt.timed("write"), store.writing(self.store.folder):
            write_png(made / IMAGES / f"{view:03d}.png", picture, deflater)
            write_slices(made / SLICES / f"{view:03d}", slices, deflater)

    def _write_omages(self, made: Path, surface: Surface, sources: FaceSources) -> dict[str, Any]:
        """Write the omages into the folder `made`; returns their entry for the item's row."""
        sizes = self.settings.omage_resolutions
        omage, report = Omage.encoded(
            surface,
            sizes[0],
            smallest=min(CELLS, sizes[-1]),
            part=sources.object,
            unwrap=unwrap_surface,
        )
        with store.writing(self.store.folder):
            for size in sizes:
                omage.resized(size).save(made / "omages" / f"{size}.npz")
        return {
            "resolutions": list(sizes),
            "patches": report.charts,
            "dropped_area": round(report.dropped_area, 6),
            "unwrapped": report.unwrapped,
        }

    def _view(
        self, xray: XRay, picture: NDArray[np.uint8] | None, surface: Surface
    ) -> ViewStatistics:
        settings = self.settings
        normalized = settings.slices or settings.normalize == "unit"
        unit = 1.0 if normalized else surface.longest_side
        depth = xray.hit_depth / unit
        outside = (depth <= settings.near) | (depth >= settings.far)
        iou = None if picture is None else round(silhouette_iou(picture[..., 3], xray), 6)
        return ViewStatistics(xray.hits_per_layer.tolist(), xray.dropped, int(outside.sum()), iou)


def _write_ids(path: Path, xray: XRay, sources: FaceSources) -> None:
    face = xray.hit_face
    assert face is not None
    arrays = {
        "object": sources.object[face],
        "material": sources.material[face],
        "face": sources.face[face],
    }
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def slice_views(settings: DatasetSettings, uid: str) -> Views:
    """The views from which an item is sliced."""
    return Views.drawn(settings.views, item_seed(settings.seed, uid), settings.size)


@contextmanager
def posed(settings: DatasetSettings) -> Iterator[None]:
    """Set the settings' frame and, if asked for, the rest pose; restore both at the end."""
    scene: Any = bpy.context.scene
    frame = scene.frame_current
    armatures: Any = bpy.data.armatures
    before = {armature.name_full: armature.pose_position for armature in armatures}
    if settings.frame != frame:
        scene.frame_set(settings.frame)
    if settings.pose == "rest":
        for armature in armatures:
            armature.pose_position = "REST"
    bpy.context.view_layer.update()
    try:
        yield
    finally:
        for armature in bpy.data.armatures:
            if armature.name_full in before and settings.pose == "rest":
                armature.pose_position = before[armature.name_full]
        if settings.frame != frame:
            scene.frame_set(frame)


@contextmanager
def _shapeless() -> Iterator[None]:
    """Convert errors about degenerate meshes to XRayError `bad_mesh`."""
    try:
        yield
    except ValueError as error:
        raise XRayError(
            "bad_mesh", f"It cannot be captured: {error}.", "Repair the mesh, or leave it out."
        ) from error
