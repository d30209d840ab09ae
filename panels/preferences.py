"""The extension's preferences."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.interface.registration import extension_package
from ..operators.properties import setting_properties
from ..xray_addon.process.environment import DEVICES
from ..xray_addon.settings.generate import GenerateSettings
from .weights import draw_published_weights
from .widgets import draw_runtime

_BUILDS = {
    "auto": ("Automatic", "The build for NVIDIA if there is such a card, otherwise for the CPU"),
    "cpu": ("CPU", "The smallest download; works on every machine"),
    "cuda": ("CUDA", "For NVIDIA graphics cards"),
    "rocm": ("ROCm", "For AMD graphics cards on Linux"),
}
_INSTALL_DEVICES = [(device, *_BUILDS[device]) for device in DEVICES]


class XRAY_AP_preferences(bpy.types.AddonPreferences):
    """Folders and defaults for every file."""

    bl_idname = extension_package()

    dataset_folder: bpy.props.StringProperty(
        name="Dataset Folder",
        description="Default folder for captures and datasets; if empty, you are asked each time",
        subtype="DIR_PATH",
    )
    image_folder: bpy.props.StringProperty(
        name="Image Folder",
        description="Where the next file dialog for images begins",
        subtype="DIR_PATH",
    )
    runtime_folder: bpy.props.StringProperty(
        name="Runtime Folder",
        description="Where the model runtime is installed; empty for the default folder",
        subtype="DIR_PATH",
    )
    checkpoint_folder: bpy.props.StringProperty(
        name="Checkpoint Folder",
        description="Where downloaded weights are kept; empty for the default folder",
        subtype="DIR_PATH",
    )
    wheelhouse: bpy.props.StringProperty(
        name="Wheelhouse",
        description="Folder of Python wheels to install from, for machines without a network",
        subtype="DIR_PATH",
    )
    release_after: bpy.props.IntProperty(
        name="Release After (min)",
        description="Idle minutes after which the model is unloaded from memory; takes effect "
        "when the runtime next starts",
        default=5,
        min=1,
        max=1440,
    )
    install_device: bpy.props.EnumProperty(
        name="Install For",
        description="Which build of PyTorch to install",
        items=_INSTALL_DEVICES,
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the folders, the defaults and the runtime's state."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "dataset_folder")
        column = layout.column(heading="Generation")
        column.prop(self, "generator")
        column.prop(self, "device")
        column = layout.column()
        column.prop(self, "runtime_folder")
        column.prop(self, "checkpoint_folder")
        column.prop(self, "wheelhouse")
        column.prop(self, "install_device")
        column.prop(self, "release_after")
        draw_runtime(layout, context)
        draw_published_weights(layout, context)


_DEFAULTS = setting_properties(fields(GenerateSettings))
XRAY_AP_preferences.__annotations__ |= {
    "generator": _DEFAULTS["generator"],
    "device": _DEFAULTS["device"],
}

CLASSES: tuple[type[Any], ...] = (XRAY_AP_preferences,)
