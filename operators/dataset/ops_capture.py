"""The operator `xray.capture`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.dataset.result import DONE
from ...xray_addon.errors import XRayError
from ...xray_addon.settings.capture import CaptureSettings
from ..convert.surfaces import SOLID_TYPES
from ..properties import (
    output_path,
    output_property,
    preferences,
    settings_from_properties,
    with_settings,
)
from ..tasks.watching import OperatorResult, TaskOperator
from .chosen_scene import ChosenScene
from .plain import object_steps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..tasks import jobs
    from .capture import DatasetRun


@with_settings(CaptureSettings)
class XRAY_OT_capture(TaskOperator):
    """Write the selected objects as X-Rays (all surfaces along each ray) and a picture per view"""

    bl_idname = "xray.capture"
    bl_label = "Capture X-Rays"
    bl_options = {"REGISTER"}
    interval = 0.0

    directory: output_property("xrays/ and images/ are written", {"SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require selected objects that may have faces."""
        if not selected_solids(context):
            cls.poll_message_set("Select one or more objects with faces")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for a folder if none is set."""
        if asks_for_folder(self.directory):
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The selection and the panel's settings."""
        panel: Any = context.scene.xray.capture
        settings = [getattr(panel, item.name) for item in fields(CaptureSettings)]
        return [obj.name for obj in context.selected_objects], panel.directory, *settings

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Capture the selection."""
        folder = output_folder(self.directory)
        settings = settings_from_properties(CaptureSettings, self)
        return object_steps(selected_solids(context), folder, settings, ChosenScene(context))

    def summary(self, result: Any) -> tuple[str, str]:
        """The number of objects captured, and the reason for the first failure."""
        return summarize(result)


def asks_for_folder(directory: str) -> bool:
    """Whether the user must choose a folder: `directory` and the preferences' folder are empty."""
    return not directory and not _default_directory()


def output_folder(directory: str) -> Path:
    """The folder `directory`, or the preferences' folder if it is empty.

    Raises XRayError `no_folder`.
    """
    directory = directory or _default_directory()
    if not directory:
        raise XRayError(
            "no_folder",
            "There is no folder to write to.",
            "Choose one here or in the extension's preferences.",
        )
    return output_path(directory)


def selected_solids(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The selected objects that may have faces."""
    return solids(context.selected_objects)


def solids(objects: Iterable[Any]) -> list[bpy.types.Object]:
    """The `objects` that may have faces."""
    return [
        obj
        for obj in objects
        if obj.type in SOLID_TYPES and (obj.type != "EMPTY" or obj.instance_collection)
    ]


def summarize(run: DatasetRun) -> tuple[str, str]:
    """The report's type and text. Raises the first object's error if nothing was captured."""
    captured = [result for result in run.results if result.status == DONE]
    failed = [result for result in run.results if result.status != DONE]
    if failed and not captured:
        raise XRayError(failed[0].code, failed[0].reason)
    views, hits, dropped = (
        sum(getattr(result, name) for result in captured) for name in ("views", "hits", "dropped")
    )
    count = len(captured)
    objects = "1 object" if count == 1 else f"{count} objects"
    text = f"Captured {objects} ({views} views, {hits:,} hits) to {run.folder}"
    if failed:
        first = f"{failed[0].uid}: {failed[0].reason}"
        return "WARNING", f"{text}. {len(failed)} failed; {first}"
    empty = [result.uid for result in captured if not result.hits]
    if empty:
        return "WARNING", f"{text}. No ray hit {', '.join(empty)}: is it flat or hidden?"
    if dropped:
        return "WARNING", f"{text}. {dropped:,} hits lay behind the last layer: use more layers"
    return "INFO", text


def _default_directory() -> str:
    chosen = preferences()
    return str(chosen.dataset_folder) if chosen else ""


CLASSES: tuple[type[Any], ...] = (XRAY_OT_capture,)
