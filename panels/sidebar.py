"""The X-Ray tab of the 3D view's sidebar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..operators import runtime_service as service
from ..operators.layers import layer_objects
from ..operators.ops_capture import XRAY_OT_capture
from ..operators.ops_dataset import XRAY_OT_dataset, last_run, set_from_panel
from ..operators.ops_generate import XRAY_OT_generate
from ..operators.ops_import import XRAY_OT_import_xray
from ..operators.properties import copy_settings, preferences
from ..xray_addon.dataset import GATES, STATUSES
from ..xray_addon.settings import CaptureSettings, GenerateSettings
from .widgets import draw_progress, draw_runtime, draw_text

if TYPE_CHECKING:
    from collections.abc import Iterable


class SidebarPanel(bpy.types.Panel):
    """Where all of X-Ray's panels are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "X-Ray"
    layout: Any


class XRAY_PT_generate(SidebarPanel):
    """From one image to a mesh."""

    bl_label = "Generate"

    def draw(self, context: bpy.types.Context) -> None:
        """The image, the button, and how it goes."""
        layout, scene = self.layout, context.scene.xray.generate
        if not service.is_available():
            draw_text(layout, context, "The model runtime makes meshes from images.")
            draw_runtime(layout, context)
            return
        layout.template_ID_preview(scene, "image", open="image.open", hide_buttons=False)
        column = layout.column(heading="Keep")
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene, "keep_camera", text="View")
        column.prop(scene, "keep_layers", text="Layers")
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(XRAY_OT_generate.bl_idname, text="Generate", icon="MESH_DATA")
        copy_settings(GenerateSettings, scene, button)
        machine = preferences()
        if machine is not None:
            button.generator, button.device = machine.generator, machine.device
        button.image = scene.image.name if scene.image else ""
        button.keep_camera, button.keep_layers = scene.keep_camera, scene.keep_layers
        draw_progress(layout, context, XRAY_OT_generate)


class XRAY_PT_generate_settings(SidebarPanel):
    """How the model runs."""

    bl_label = "Settings"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Without a runtime there is nothing to set."""
        return service.is_available()

    def draw(self, context: bpy.types.Context) -> None:
        """Every setting of a generation; what depends on the machine is a preference."""
        machine = preferences()
        if machine is not None:
            _draw_properties(self.layout, machine, ("generator", "device"))
        own: tuple[str, ...] = ("steps", "seed")
        if machine is not None and machine.generator == "triposr":
            own = ("mesh_resolution", "density_threshold", "texture_size")
        elif machine is not None and machine.generator == "xray-paper":
            own = (*own, "batch_order")
        names = (*own, "remove_background", "checkpoint")
        _draw_properties(self.layout, context.scene.xray.generate, names)


class XRAY_PT_capture(SidebarPanel):
    """From meshes to X-Rays."""

    bl_label = "Capture"

    def draw(self, context: bpy.types.Context) -> None:
        """The settings and the button."""
        layout, scene = self.layout, context.scene.xray.capture
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(scene, "camera", expand=True)
        sampled = layout.column()
        sampled.active = scene.camera == "sampled"
        sampled.prop(scene, "views")
        sampled.prop(scene, "seed")
        _draw_properties(layout, scene, ("layers", "size", "combine", "directory"))
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(
            XRAY_OT_capture.bl_idname, text="Capture Selected", icon="RENDERLAYERS"
        )
        copy_settings(CaptureSettings, scene, button)
        button.directory = scene.directory
        draw_progress(layout, context, XRAY_OT_capture)
        layout.operator(XRAY_OT_import_xray.bl_idname, icon="IMPORT")


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
        _draw_properties(self.layout, scene, names)


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


class XRAY_PT_layers(SidebarPanel):
    """The layers of the active object."""

    bl_label = "Layers"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only objects that came from an X-Ray have layers."""
        obj: Any = context.object
        return obj is not None and ("xray_hits" in obj or "xray_layer" in obj)

    def draw(self, context: bpy.types.Context) -> None:
        """Hits of each layer, with an eye where there is an object for it."""
        layers = layer_objects(context.object)
        column = self.layout.column(align=True)
        if layers:
            for obj in layers:
                row = column.row()
                row.prop(obj, "hide_viewport", text="", emboss=False)
                row.label(text=f"Layer {obj['xray_layer'] + 1}")
                row.label(text=f"{obj['xray_count']:,} hits")
            return
        for layer, hits in enumerate(context.object.get("xray_hits", ())):
            if hits:
                row = column.row()
                row.label(text=f"Layer {layer + 1}")
                row.label(text=f"{hits:,} hits")
        draw_text(self.layout, context, "Import as layers to show and hide them.")


class XRAY_PT_runtime(SidebarPanel):
    """The process that the model runs in."""

    bl_label = "Runtime"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Until it is installed, the Generate panel has its button."""
        return service.is_available()

    def draw(self, context: bpy.types.Context) -> None:
        """Its state and its buttons."""
        draw_runtime(self.layout, context)


def _draw_properties(layout: Any, source: Any, names: Iterable[str]) -> None:
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    for name in names:
        column.prop(source, name)


CLASSES: tuple[type[Any], ...] = (
    XRAY_PT_generate,
    XRAY_PT_generate_settings,
    XRAY_PT_capture,
    XRAY_PT_dataset,
    XRAY_PT_dataset_cameras,
    XRAY_PT_dataset_object,
    XRAY_PT_dataset_images,
    XRAY_PT_dataset_gates,
    XRAY_PT_layers,
    XRAY_PT_runtime,
)
