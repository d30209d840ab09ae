"""The operator `xray.dataset`, and those for its cameras and presets."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from bl_operators.presets import AddPresetBase

from ...xray_addon.dataset.cameras import dataset_cameras, placed
from ...xray_addon.dataset.manifest import Item, read_source, unique_uids
from ...xray_addon.dataset.result import FAILED, REJECTED, STATUSES
from ...xray_addon.dataset.store import conflict
from ...xray_addon.errors import XRayError
from ...xray_addon.settings.dataset import DatasetSettings
from ...xray_addon.slices.slicing import COUNT as SLICES
from ..convert import add_camera, camera_from_object, surface_from_objects
from ..properties import (
    COLLECTION,
    absolute_path,
    mesh_files_property,
    output_property,
    setting_property,
    settings_from_properties,
    source_property,
    with_settings,
)
from ..tasks import jobs
from ..tasks.watching import OperatorResult, TaskOperator
from .capture import DatasetRun, dataset_steps, posed, slice_views
from .chosen_scene import ChosenScene
from .ops_capture import output_folder, selected_solids, solids
from .plain import named_objects
from .workers import worker_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...xray_addon.camera import Camera

# Very rough seconds per view of 512 x 512 pixels on one core.
_VIEW_SECONDS = {"cycles": 2.0, "eevee": 4.0, "workbench": 0.5, "cast": 0.2, "none": 0.0}
_CAST_SECONDS = 0.1
_DISTANCE_SECONDS = 5.0  # an object: the signed distances that come with slices
_HITS_PER_PIXEL = 0.5  # over all layers
_BYTES_PER_HIT, _BYTES_PER_PIXEL = 20, 1

CAMERAS = "X-Ray Cameras"
PRESETS = "xray/dataset"  # below Blender's folder of presets

_last_run: DatasetRun | None = None


def last_run() -> DatasetRun | None:
    """The last run of this session, or None."""
    return _last_run


@with_settings(DatasetSettings)
class XRAY_OT_dataset(TaskOperator):
    """Make a dataset of many objects: X-Rays, images, cameras and a report"""

    bl_idname = "xray.dataset"
    bl_label = "Make Dataset"
    bl_options = {"REGISTER"}
    after_cancel = "Complete items are kept; starting again goes on from there."

    source: source_property()
    path: mesh_files_property()
    directory: output_property("the dataset is written")
    collection: bpy.props.StringProperty(name="Collection", description=COLLECTION)
    replace: bpy.props.BoolProperty(
        name="Replace",
        description="Remove items that were made with different settings from the folder",
        options={"SKIP_SAVE"},
    )
    # Not remembered from the last call: the default is the open file's current frame.
    frame: setting_property(DatasetSettings.__dataclass_fields__["frame"], options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require that no dataset is being made and no mesh is in Edit Mode."""
        if any(task.operator == cls.__name__ for task in jobs.queue):
            cls.poll_message_set("A dataset is being made. Wait for it or cancel it")
            return False
        if context.mode != "OBJECT":
            cls.poll_message_set("Leave Edit Mode first")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> OperatorResult:
        """Ask for confirmation with an estimate of time and size."""
        try:
            settings, folder = (
                settings_from_properties(DatasetSettings, self),
                output_folder(self.directory),
            )
            text = estimate(len(self._items(context)), settings)
            other = conflict(folder, self._at_frame(settings, context))
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if other is not None:
            self.replace, text = True, f"{other.message} All items will be made again. {text}"
        manager: Any = context.window_manager
        answer: OperatorResult = manager.invoke_confirm(
            self,
            event,
            title="Make Dataset",
            message=text,
            confirm_text="Replace" if other else "Start",
            icon="WARNING" if other else "NONE",
        )
        return answer

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The panel's settings and the selection."""
        panel: Any = context.scene.xray.dataset
        settings = [getattr(panel, item.name) for item in fields(DatasetSettings)]
        chosen = (panel.source, panel.path, panel.directory, panel.collection)
        return chosen, [obj.name for obj in context.selected_objects], *settings

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Capture the source."""
        settings = settings_from_properties(DatasetSettings, self)
        folder = output_folder(self.directory)
        items = self._items(context)
        if self.source == "files":
            return worker_steps(items, folder, settings, self.replace)
        settings = self._at_frame(settings, context)
        apart = not bpy.app.background
        if not (apart and (settings.slices or settings.image not in ("none", "cast"))):
            self.interval = 0.0  # the views are made here, so there is nothing to wait for
        return dataset_steps(
            items,
            folder,
            settings,
            load_objects,
            replace=self.replace,
            apart=apart,
            scene=ChosenScene(context),
        )

    def summary(self, result: Any) -> tuple[str, str]:
        """The number of items made, and the reason for the first that was refused."""
        global _last_run
        _last_run = result
        return summarize(result)

    def _at_frame(self, settings: DatasetSettings, context: bpy.types.Context) -> DatasetSettings:
        """`settings`, with the open file's frame if its objects are captured and none is set."""
        if self.source == "files" or self.properties.is_property_set("frame"):
            return settings
        return replace(settings, frame=context.scene.frame_current)

    def _items(self, context: bpy.types.Context) -> list[Item]:
        if self.source == "files":
            if not self.path:
                raise XRayError(
                    "no_source", "There are no files to capture.", "Choose a folder or a manifest."
                )
            return read_source(absolute_path(self.path))
        return object_items(self._objects(context))

    def _objects(self, context: bpy.types.Context) -> Sequence[bpy.types.Object]:
        if self.source == "selection":
            objects = selected_solids(context)
            if not objects:
                raise XRayError(
                    "no_source",
                    "No object with faces is selected.",
                    "Select objects, or choose another source.",
                )
            return objects
        collections: Any = bpy.data.collections
        collection = collections.get(self.collection)
        if collection is None:
            raise XRayError(
                "no_source",
                f"There is no collection {self.collection!r}."
                if self.collection
                else "No collection is chosen.",
                "Choose a collection.",
            )
        return solids(collection.all_objects)


class XRAY_OT_dataset_dismiss(bpy.types.Operator):
    """Dismiss the results of the last dataset run; its report stays in the folder"""

    bl_idname = "xray.dataset_dismiss"
    bl_label = "Dismiss Dataset Results"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require results."""
        if _last_run is None:
            cls.poll_message_set("No dataset was made in this session")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Discard the results."""
        global _last_run
        _last_run = None
        jobs.redraw()
        return {"FINISHED"}


@with_settings(DatasetSettings)
class XRAY_OT_dataset_cameras(bpy.types.Operator):
    """Add the cameras that would capture the active object, so that you can inspect them"""

    bl_idname = "xray.dataset_cameras"
    bl_label = "Show Cameras"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require an active object that may have faces."""
        if context.object is None or not solids([context.object]):
            cls.poll_message_set("Make an object with faces active")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Add the cameras in their own collection, replacing earlier ones."""
        obj: Any = context.object
        try:
            cameras = object_cameras(obj, settings_from_properties(DatasetSettings, self))
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        collections: Any = bpy.data.collections
        collection = collections.get(CAMERAS) or collections.new(CAMERAS)
        if CAMERAS not in context.scene.collection.children:
            context.scene.collection.children.link(collection)
        for old in list(collection.objects):
            if old.type == "CAMERA":
                bpy.data.cameras.remove(old.data)
        for i, camera in enumerate(cameras):
            add_camera(camera, f"{obj.name} {i:03d}", collection)
        count = "1 camera" if len(cameras) == 1 else f"{len(cameras)} cameras"
        self.report({"INFO"}, f"{count} in the collection {CAMERAS}")
        return {"FINISHED"}


def object_cameras(obj: bpy.types.Object, settings: DatasetSettings) -> list[Camera]:
    """The cameras that a dataset would use, placed around `obj` in the scene.

    Raises XRayError `no_faces`, and those of an unusable scene camera or pose file.
    """
    scene = bpy.context.scene
    if settings.cameras == "scene" and not settings.slices:
        return [camera_from_object(scene.camera, scene.render, settings.size)]
    with posed(replace(settings, frame=scene.frame_current)):
        depsgraph = bpy.context.evaluated_depsgraph_get()
        surface = surface_from_objects([obj], depsgraph, visible_in=settings.visible_in)
    uid = unique_uids([obj.name])[0]
    if settings.slices:
        views = slice_views(settings, uid)
        back = np.linalg.inv(views.placed(surface))
        return placed(views.cameras, back[:3, 3], float(back[0, 0]))
    low, high = surface.bounds
    cameras = dataset_cameras(settings, uid)
    if settings.cameras == "poses" and settings.normalize == "none":
        return cameras
    return placed(cameras, (low + high) / 2, surface.longest_side)


class XRAY_OT_dataset_preset_add(AddPresetBase, bpy.types.Operator):  # type: ignore[misc]
    """Save the dataset settings as a preset, or remove a preset"""

    bl_idname = "xray.dataset_preset_add"
    bl_label = "Add Dataset Preset"
    preset_menu = "XRAY_PT_dataset_presets"
    preset_defines = ("dataset = bpy.context.scene.xray.dataset",)
    preset_values = tuple(f"dataset.{item.name}" for item in fields(DatasetSettings))
    preset_subdir = PRESETS


def set_from_panel(operator: Any, scene: Any) -> None:
    """Copy the settings of the Dataset panel of `scene` to the operator of a button."""
    panel = scene.xray.dataset
    for item in fields(DatasetSettings):
        if item.name != "frame" or panel.source == "files":
            setattr(operator, item.name, getattr(panel, item.name))
    operator.source, operator.path, operator.directory = panel.source, panel.path, panel.directory
    operator.collection = panel.collection.name if panel.collection else ""


def object_items(objects: Sequence[bpy.types.Object]) -> list[Item]:
    """An item for each of `objects`, which are in the open file; see `load_objects`."""
    names = [obj.name_full for obj in objects]  # linked objects may have the name of a local one
    uids = unique_uids(names)
    return [Item(uid, "", name=name) for uid, name in zip(uids, names, strict=True)]


def load_objects(item: Item) -> list[bpy.types.Object]:
    """The object in the open file that `item` names. Raises XRayError `object_gone`."""
    return named_objects([item.name])


def estimate(count: int, settings: DatasetSettings) -> str:
    """The number of views of `count` objects, with a rough estimate of time and size.

    Raises XRayError if the poses cannot be read.
    """
    views = count * _views(settings)
    pixels = settings.image_size**2 if settings.image != "none" else 0
    rendering = _rendering_seconds(settings.image, pixels, settings)
    seconds = views * (rendering + _CAST_SECONDS * settings.size**2 / 256**2)
    if settings.slices:
        sliced = SLICES * settings.size**2
        seconds += count * _DISTANCE_SECONDS
        seconds += views * _rendering_seconds(settings.slice_shading, sliced, settings)
        pixels += sliced
    size = views * (settings.size**2 * _HITS_PER_PIXEL * _BYTES_PER_HIT + pixels * _BYTES_PER_PIXEL)
    objects = "1 object" if count == 1 else f"{count:,} objects"
    return f"{objects}, {views:,} views: roughly {_duration(seconds)} and {size / 1e6:,.0f} MB"


def _rendering_seconds(renderer: str, pixels: int, settings: DatasetSettings) -> float:
    samples = settings.samples / 32 if renderer == "cycles" else 1.0
    return _VIEW_SECONDS[renderer] * samples * pixels / 512**2


def _views(settings: DatasetSettings) -> int:
    """The number of views of one object. Raises XRayError if the poses cannot be read."""
    if settings.slices:
        return settings.views
    if settings.cameras == "scene":
        return 1
    return len(dataset_cameras(settings, "")) if settings.cameras == "poses" else settings.views


def summarize(run: DatasetRun) -> tuple[str, str]:
    """The report's type and text. Raises the first item's error if nothing was captured."""
    counts = {status: run.count(status) for status in STATUSES}
    refused = [result for result in run.results if result.status in (REJECTED, FAILED)]
    if refused and len(refused) == len(run.results):
        raise XRayError(refused[0].code, f"{refused[0].uid}: {refused[0].reason}")
    text = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    text = f"Dataset {run.folder}: {text or 'nothing to do'}"
    if refused:
        return "WARNING", f"{text}. {refused[0].uid}: {refused[0].reason}"
    return "INFO", text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_dataset,
    XRAY_OT_dataset_cameras,
    XRAY_OT_dataset_dismiss,
    XRAY_OT_dataset_preset_add,
)
