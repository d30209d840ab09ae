"""The Dataset panel and its sub-panels: makes a dataset of many objects."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.dataset.ops import (
    PRESETS,
    XRAY_OT_dataset,
    XRAY_OT_dataset_cameras,
    XRAY_OT_dataset_dismiss,
    XRAY_OT_dataset_preset_add,
    last_run,
    set_from_panel,
)
from ..operators.dataset.ops_preview import XRAY_OT_preview
from ..operators.interface.drawing import draw_properties
from ..operators.interface.translation import translated
from ..operators.properties import copy_settings
from ..xray_addon.dataset.gates import GATES
from ..xray_addon.dataset.result import FAILED, REJECTED, STATUSES
from ..xray_addon.settings.dataset import DatasetSettings
from .widgets import BOX_WIDTH, ICON_WIDTH, PresetsPanel, SidebarPanel, draw_progress, draw_text

# How many rejected or failed items the panel lists with their reasons.
REFUSED_SHOWN = 5


class XRAY_PT_dataset_presets(PresetsPanel, bpy.types.Panel):
    """Named dataset settings."""

    bl_label = "Dataset Presets"
    preset_subdir = PRESETS
    preset_add_operator = XRAY_OT_dataset_preset_add.bl_idname


class XRAY_PT_dataset(SidebarPanel):
    """Make a dataset of many objects."""

    bl_label = "Dataset"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        """Draw the menu of presets."""
        XRAY_PT_dataset_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the source, the output folder, the button and the results of the last run."""
        layout, scene = self.layout, context.scene.xray.dataset
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(scene, "source")
        if scene.source != "selection":
            layout.prop(scene, "collection" if scene.source == "collection" else "path")
        layout.prop(scene, "directory")
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(XRAY_OT_dataset.bl_idname, text="Make Dataset…", icon="FILE_3D")
        set_from_panel(button, context.scene)
        draw_progress(layout, context, XRAY_OT_dataset)
        run = last_run()
        if run is not None and run.report is not None:
            box = layout.box()
            counts = [f"{run.count(status)} {status}" for status in STATUSES if run.count(status)]
            row = box.row()
            text = ", ".join(counts) or "Nothing to do"
            draw_text(row, context, text, beside=BOX_WIDTH + ICON_WIDTH)
            row.operator(XRAY_OT_dataset_dismiss.bl_idname, text="", icon="X", emboss=False)
            for name, count in run.report.gates.items():
                if count["counted"]:
                    draw_text(box, context, f"{count['counted']} {name}: {GATES.get(name, name)}")
            refused = [result for result in run.results if result.status in (REJECTED, FAILED)]
            for result in refused[:REFUSED_SHOWN]:
                draw_text(box, context, f"{result.uid}: {result.reason}", "ERROR")
            if len(refused) > REFUSED_SHOWN:
                more = len(refused) - REFUSED_SHOWN
                box.label(text=translated("{} more in the report").format(more))
            row = box.row(align=True)
            for text, path in (("Report", run.folder / "report.md"), ("Folder", run.folder)):
                icon = "TEXT" if path.suffix else "FILE_FOLDER"
                row.operator("wm.path_open", text=text, icon=icon).filepath = str(path)
            row.operator_context = "EXEC_DEFAULT"  # the folder is known
            button = row.operator(XRAY_OT_preview.bl_idname, text="Preview", icon="IMAGE_DATA")
            button.directory = str(run.folder)


class DatasetPart(SidebarPanel):
    """One group of dataset settings. Subclasses list their names in `settings`."""

    bl_parent_id = "XRAY_PT_dataset"
    bl_options = {"DEFAULT_CLOSED"}
    settings: tuple[str, ...] = ()

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings that are used."""
        scene = context.scene.xray.dataset
        names = [
            name for name in self.settings if name == "omage" or DatasetSettings.counts(name, scene)
        ]
        if scene.source != "files":  # objects of the open file are captured as they appear
            names = [name for name in names if name not in ("frame", "bare_geometry")]
        draw_properties(self.layout, scene, names)


class XRAY_PT_dataset_cameras(DatasetPart):
    """The cameras that see each object."""

    bl_label = "Cameras"
    settings = ("cameras", "poses", "views", "elevation", "distance", "fov", "jitter", "seed")

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings that are used, and the button that shows the cameras."""
        DatasetPart.draw(self, context)
        button = self.layout.operator(XRAY_OT_dataset_cameras.bl_idname, icon="CAMERA_DATA")
        copy_settings(fields(DatasetSettings), context.scene.xray.dataset, button)


class XRAY_PT_dataset_object(DatasetPart):
    """How each object is captured."""

    bl_label = "Objects"
    settings = (
        *("layers", "size", "normalize", "visible_in", "pose", "frame"),
        *("materials", "bake_size", "alpha_clip", "bare_geometry", "ids", "omage"),
        *("slices", "slice_alignment", "slice_shading"),
    )


class XRAY_PT_dataset_images(DatasetPart):
    """How reference images are rendered."""

    bl_label = "Images"
    settings = ("image", "image_size", "samples", "denoise", "device", "lights", "hdri")


class XRAY_PT_dataset_gates(DatasetPart):
    """The limits beyond which an item is rejected."""

    bl_label = "Quality Gates"
    settings = ("min_iou", "min_hits", "max_dropped", "max_outside", "near", "far")


CLASSES: tuple[type[Any], ...] = (
    XRAY_PT_dataset_presets,
    XRAY_PT_dataset,
    XRAY_PT_dataset_cameras,
    XRAY_PT_dataset_object,
    XRAY_PT_dataset_images,
    XRAY_PT_dataset_gates,
)
