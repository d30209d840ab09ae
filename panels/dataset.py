"""From many objects to a dataset: the panel Dataset and its parts."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.ops_dataset import XRAY_OT_dataset, last_run, set_from_panel
from ..xray_addon.dataset import GATES, STATUSES
from .widgets import SidebarPanel, draw_progress, draw_properties, draw_text


class XRAY_PT_dataset(SidebarPanel):
    """From many objects to a dataset."""

    bl_label = "Dataset"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """What is captured and where to, the button, and how the last run went."""
        layout, scene = self.layout, context.scene.xray.dataset
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(scene, "source")
        if scene.source != "selection":
            layout.prop(scene, "collection" if scene.source == "collection" else "path")
        layout.prop(scene, "directory")
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(XRAY_OT_dataset.bl_idname, icon="FILE_3D")
        set_from_panel(button, context.scene)
        draw_progress(layout, context, XRAY_OT_dataset)
        run = last_run()
        if run is not None and run.report is not None:
            box = layout.box()
            counts = [f"{run.count(status)} {status}" for status in STATUSES if run.count(status)]
            draw_text(box, context, ", ".join(counts) or "Nothing to do")
            for name, count in run.report.gates.items():
                if count["counted"]:
                    draw_text(box, context, f"{count['counted']} {name}: {GATES.get(name, name)}")
            report = str(run.folder / "report.md")
            box.operator("wm.path_open", text="Open Report", icon="TEXT").filepath = report


# The rules for cameras that place them; poses and the scene's camera are where they are.
PLACED = ("hemisphere", "sphere", "turntable", "ring")


class DatasetPart(SidebarPanel):
    """One group of a dataset's settings; sub-classes name the `settings`."""

    bl_parent_id = "XRAY_PT_dataset"
    bl_options = {"DEFAULT_CLOSED"}
    settings: tuple[str, ...] = ()
    # Only shown for one value of another setting.
    only: dict[str, tuple[str, tuple[str, ...]]] = {
        "poses": ("cameras", ("poses",)),
        "views": ("cameras", PLACED),
        "distance": ("cameras", PLACED),
        "fov": ("cameras", PLACED),
        "jitter": ("cameras", PLACED),
        "elevation": ("cameras", ("turntable", "ring")),
        "samples": ("image", ("cycles", "eevee")),
        "denoise": ("image", ("cycles",)),
        "device": ("image", ("cycles",)),
        "image_size": ("image", ("cycles", "eevee", "workbench", "cast")),
        "lights": ("image", ("cycles", "eevee", "cast")),
        "hdri": ("lights", ("hdri",)),
        "bake_size": ("materials", ("bake",)),
    }

    def draw(self, context: bpy.types.Context) -> None:
        """The settings that count."""
        scene = context.scene.xray.dataset
        names = [
            name
            for name in self.settings
            if name not in self.only or getattr(scene, self.only[name][0]) in self.only[name][1]
        ]
        draw_properties(self.layout, scene, names)


class XRAY_PT_dataset_cameras(DatasetPart):
    """Where objects are seen from."""

    bl_label = "Cameras"
    settings = ("cameras", "poses", "views", "elevation", "distance", "fov", "jitter", "seed")


class XRAY_PT_dataset_object(DatasetPart):
    """What of an object is captured."""

    bl_label = "Objects"
    settings = (
        *("layers", "size", "normalize", "pose", "frame"),
        *("materials", "bake_size", "alpha_clip", "ids"),
    )


class XRAY_PT_dataset_images(DatasetPart):
    """How reference images are made."""

    bl_label = "Images"
    settings = ("image", "image_size", "samples", "denoise", "device", "lights", "hdri")


class XRAY_PT_dataset_gates(DatasetPart):
    """What is not good enough."""

    bl_label = "Quality Gates"
    settings = ("min_iou", "min_hits", "max_dropped", "max_outside", "near", "far")


CLASSES: tuple[type[Any], ...] = (
    XRAY_PT_dataset,
    XRAY_PT_dataset_cameras,
    XRAY_PT_dataset_object,
    XRAY_PT_dataset_images,
    XRAY_PT_dataset_gates,
)
