"""Objects to items of a dataset: X-Rays, images, cameras and what is known of them.

The files and when they are complete are `xray_addon.dataset.store`'s; this makes what is in them.
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ...xray_addon.casting import cast
from ...xray_addon.dataset import store
from ...xray_addon.dataset.cameras import dataset_cameras, item_seed, placed
from ...xray_addon.dataset.gates import View, judge, silhouette_iou
from ...xray_addon.dataset.manifest import Item
from ...xray_addon.dataset.recipe import file_hash
from ...xray_addon.dataset.report import Report
from ...xray_addon.dataset.result import DONE, FAILED, REJECTED, STOPPING, Result
from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.files.transforms import write_transforms
from ...xray_addon.progress import Cancelled, Progress, ProgressCallback, ignore_progress
from ...xray_addon.settings.dataset import is_used
from ..convert import FaceSources, camera_from_object
from ..convert.baking import read_surface
from ..convert.mesh_files import open_alone
from ..interface.standard_output import heard
from ..tasks import jobs
from .rendering import Renderer, check_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.dataset import DatasetSettings
    from ...xray_addon.surface import Surface
    from ...xray_addon.xray import XRay

logger = logging.getLogger(__name__)

# Gives the objects of an item, in the current scene, when its turn comes.
Loader = Callable[[Item], Sequence[bpy.types.Object]]

# What is wrong with the object itself: nobody need try again.
_REJECTING = frozenset(
    {"bad_mesh", "needs_baking", "no_camera", "no_faces", "no_lights", "unsupported_camera"}
)


@dataclass
class DatasetRun:
    """What a run did: the result of each of its items, and the report of the whole dataset."""

    folder: Path
    results: list[Result] = field(default_factory=list)
    report: Report | None = None

    def count(self, status: str) -> int:
        """How many items ended with that status."""
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
    on_result: Callable[[Result], None] = lambda _: None,
    replace: bool = False,
) -> jobs.Steps:
    """Capture every item that is not there yet, one view a step; the result is a `DatasetRun`.

    An item that fails does not stop the others. `load` gives an item's objects; by default its
    file is opened, and what this Blender held is gone. `on_result` hears of each item at once.
    `replace` takes out what other settings have made there.

    Raises XRayErrors of `STOPPING`, and what the settings name and is not there.
    """
    run = DatasetRun(Path(folder))
    with Captures(run.folder, settings, load or open_item, replace=replace) as captures:
        for i, item in enumerate(items):
            result = yield from captures.steps(item, i, len(items))
            run.results.append(result)
            on_result(result)
    yield Progress("dataset", len(items), len(items), "report")
    run.report = store.finish(run.folder)
    return run


def capture_item(item: Item, folder: str | Path, settings: DatasetSettings) -> Result:
    """Capture one file into the dataset in `folder`; what this Blender held is gone."""
    with Captures(Path(folder), settings) as captures:
        result: Result = jobs.run(captures.steps(item))
    return result


def open_item(item: Item) -> list[bpy.types.Object]:
    """The objects of an item's file, alone in this Blender."""
    return open_alone(item.source)


class Captures:
    """Makes items of one dataset, with the same settings; use it in a `with`.

    Raises XRayError `cannot_write`, `other_settings` without `replace`, and what is wrong with
    the files that the settings name.
    """

    def __init__(
        self,
        folder: Path,
        settings: DatasetSettings,
        load: Loader = open_item,
        *,
        replace: bool = False,
    ) -> None:
        self.folder, self.settings, self.load = folder, settings, load
        if is_used(settings, "hdri"):
            check_environment(settings.hdri)
        self._replace = replace
        self._exit = ExitStack()

    def __enter__(self) -> Captures:
        self.digest = store.claim(self.folder, self.settings, self._replace)
        self._work = self._exit.enter_context(store.work_folder(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def steps(self, item: Item, number: int = 0, of: int = 1) -> jobs.Steps:
        """Capture `item`, the `number`th of `of`; the result is a `Result`.

        Only what every item would meet raises (XRayErrors of `STOPPING`), and `Cancelled`;
        everything else is the item's own failure, with a log.
        """
        known = store.find(self.folder, item, self.digest)
        if known is not None:
            return known
        attempt = _Attempt(item)
        made = self._work / item.uid
        detail = ""
        try:
            with store.writing(self.folder):
                made.mkdir()
            yield Progress("dataset", number, of, item.uid)
            for view in self._made(attempt, made):
                yield Progress("dataset", number, of, f"{item.uid} {view}")
            result = self._published(attempt, made)
        except Cancelled:
            raise
        except XRayError as error:
            if error.code in STOPPING:
                raise
            detail = traceback.format_exc()
            status = REJECTED if error.code in _REJECTING else FAILED
            result = self._refused(attempt, status, error)
        except MemoryError:
            detail = traceback.format_exc()
            result = self._refused(attempt, FAILED, _out_of_memory(item))
        except OSError as error:
            detail = traceback.format_exc()
            result = self._refused(attempt, FAILED, _unreadable(item, error))
        except Exception:  # an importer or a renderer may raise anything; the others go on
            logger.exception("%s stopped because of a bug", item.uid)
            detail = traceback.format_exc()
            result = self._refused(attempt, FAILED, _internal(item))
        finally:
            shutil.rmtree(made, ignore_errors=True)
        details = {
            "read": attempt.read,
            "stages": attempt.seconds,
            "said": attempt.said,
            "blender": bpy.app.version_string,
            "detail": detail,
        }
        log = store.write_log(self.folder, result, details)
        return replace(result, log=str(log))

    def _made(self, attempt: _Attempt, made: Path) -> Iterator[str]:
        """Write all of an item into the folder `made`; yields after each view."""
        settings, item = self.settings, attempt.item
        attempt.read = store.read_state(item)
        with attempt.timed("hash"):
            attempt.row = {
                **store.described(item, self.digest),
                "source_sha256": file_hash(item.source) if item.source else "",
                "triangles": 0,
                "images": settings.image != "none",
                "gates": [],
                "views": [],
            }
        with attempt.timed("load"), heard(attempt.said):
            objects = self.load(item)
        with _posed(settings), ExitStack() as stack:
            with attempt.timed("surface"):
                surface, sources = _read(objects, settings)
                attempt.said += [f"There is no image file {name}." for name in sources.missing]
                matrix = _normalizing(surface) if settings.normalize == "unit" else np.eye(4)
                surface = surface.transformed(matrix)
                cameras = self._cameras(item, surface, matrix)
            attempt.row["triangles"] = len(surface.faces)
            if sources.missing:
                attempt.row["gates"] = ["missing_texture"]
                attempt.row["missing_textures"] = list(sources.missing)
            if settings.ids:
                attempt.row["objects"] = list(sources.objects)
                attempt.row["materials"] = list(sources.materials)
            renderer = None
            if settings.image != "none":
                with attempt.timed("image"):
                    renderer = stack.enter_context(
                        Renderer(objects, settings, surface=surface, matrix=matrix)
                    )
            seed = item_seed(settings.seed, item.uid)
            with store.writing(self.folder):
                for kind in ("xrays", "images", *(["ids"] if settings.ids else [])):
                    (made / kind).mkdir()
            for i, camera in enumerate(cameras):
                with attempt.timed("cast"):
                    xray = cast(surface, camera, settings.layers, faces=settings.ids)
                picture = None
                if renderer is not None:
                    with attempt.timed("image"):
                        picture = renderer.image(camera, (seed + i) % 2**31)
                with attempt.timed("write"), store.writing(self.folder):
                    write_view(made, i, xray, picture)
                    if settings.ids:
                        _write_ids(made / "ids" / f"{i:03d}.npz", xray, sources)
                attempt.views.append(self._view(xray, picture, surface))
                yield f"{i + 1}/{len(cameras)}"
            names = [f"{i:03d}" for i in range(len(cameras))]
            with store.writing(self.folder):
                write_transforms(made / "images" / "transforms.json", cameras, names)
        attempt.row["views"] = [view.to_dict() for view in attempt.views]

    def _cameras(self, item: Item, surface: Surface, matrix: NDArray[np.float64]) -> list[Camera]:
        settings = self.settings
        if settings.cameras == "scene":
            scene = bpy.context.scene
            seen = camera_from_object(scene.camera, scene.render, settings.size)
            return placed([seen], matrix[:3, 3], float(matrix[0, 0]))
        cameras = dataset_cameras(settings, item.uid)
        if settings.normalize == "none" and settings.cameras != "poses":
            low, high = surface.bounds
            return placed(cameras, (low + high) / 2, _longest(surface))
        return cameras

    def _view(self, xray: XRay, picture: NDArray[np.uint8] | None, surface: Surface) -> View:
        settings = self.settings
        unit = 1.0 if settings.normalize == "unit" else _longest(surface)
        depth = xray.hit_depth / unit
        outside = (depth <= settings.near) | (depth >= settings.far)
        iou = None if picture is None else round(silhouette_iou(picture[..., 3], xray), 6)
        return View(xray.hits_per_layer.tolist(), xray.dropped, int(outside.sum()), iou)

    def _published(self, attempt: _Attempt, made: Path) -> Result:
        gates, reason = judge(attempt.views, self.settings)
        attempt.row["gates"] = gates + attempt.row["gates"]
        if reason is not None:
            return self._refused(attempt, REJECTED, reason)
        store.publish(self.folder, attempt.item, made, attempt.row)
        return attempt.result(DONE)

    def _refused(self, attempt: _Attempt, status: str, error: XRayError) -> Result:
        store.refuse(self.folder, attempt.item, self.digest, status, error, attempt.row)
        return attempt.result(status, error)


class _Attempt:
    """One go at one item: what is known of it, and what took how long."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.row: dict[str, Any] = {}
        self.read: list[str | int] = []
        self.said: list[str] = []  # warnings, of importers for the most part
        self.views: list[View] = []
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the body takes to `seconds[stage]`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 6)

    def result(self, status: str, error: XRayError | None = None) -> Result:
        """How it ended."""
        done = status == DONE
        return Result(
            self.item.uid,
            status,
            error.code if error else "",
            str(error) if error else "",
            views=len(self.views) if done else 0,
            hits=sum(sum(view.hits) for view in self.views) if done else 0,
            dropped=sum(view.dropped for view in self.views) if done else 0,
            seconds=round(time.perf_counter() - self._started, 3),
        )


def write_view(
    folder: Path, view: int, xray: XRay, picture: NDArray[np.uint8] | None = None
) -> None:
    """`xrays/NNN.npz` and, if there is a picture, `images/NNN.png` in `folder`."""
    xray.save(folder / "xrays" / f"{view:03d}.npz")
    if picture is not None:
        write_png(folder / "images" / f"{view:03d}.png", picture)


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


def _read(
    objects: Sequence[bpy.types.Object], settings: DatasetSettings
) -> tuple[Surface, FaceSources]:
    bpy.context.view_layer.update()
    try:
        return read_surface(objects, bpy.context.evaluated_depsgraph_get(), settings)
    except ValueError as error:
        raise bad_mesh(error) from error


@contextmanager
def _posed(settings: DatasetSettings) -> Iterator[None]:
    """The current scene at the settings' frame, armatures at rest if asked for; as before after."""
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


def _longest(surface: Surface) -> float:
    low, high = surface.bounds
    return float((high - low).max())


def _normalizing(surface: Surface) -> NDArray[np.float64]:
    """(4, 4) that centres the bounding box and scales its longest side to 1, as published."""
    try:
        low, high = surface.bounds
    except ValueError as error:
        raise bad_mesh(error) from error
    size = float((high - low).max())
    if not size > 0:
        raise bad_mesh(ValueError("the surface is a single point and has no size to normalise"))
    matrix = np.eye(4) / size
    matrix[:3, 3] = -(low + high) / 2 / size
    matrix[3, 3] = 1.0
    return matrix


def bad_mesh(error: ValueError) -> XRayError:
    """What to raise for a mesh that has no shape."""
    return XRayError(
        "bad_mesh", f"It cannot be captured: {error}.", "Repair the mesh, or leave it out."
    )


def _out_of_memory(item: Item) -> XRayError:
    return XRayError(
        "out_of_memory",
        f"{item.uid} needs more memory than there is.",
        "Make it in smaller size, or with fewer jobs at once.",
    )


def _unreadable(item: Item, error: OSError) -> XRayError:
    return XRayError(
        "unreadable_file",
        f"{item.name or item.uid} cannot be read ({error.strerror or error}).",
        "Check the file.",
    )


def _internal(item: Item) -> XRayError:
    return XRayError(
        "internal", f"{item.uid} stopped because of a bug.", "Please report it with its log."
    )
