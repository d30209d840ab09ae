"""The zip, and what enabling and disabling the extension leaves behind."""

from __future__ import annotations

import inspect
import math
import sys
import zipfile
from dataclasses import fields
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest

OPERATORS = (
    "XRAY_OT_capture",
    "XRAY_OT_dataset",
    "XRAY_OT_preview",
    "XRAY_OT_generate",
    "XRAY_OT_import_xray",
    "XRAY_OT_runtime_install",
    "XRAY_OT_runtime_start",
    "XRAY_OT_runtime_stop",
    "XRAY_OT_release_memory",
    "XRAY_OT_cancel",
)

SUB_MENUS = ("XRAY_MT_generate", "XRAY_MT_capture")


def registered() -> set[str]:
    """Every name X-Ray has put into Blender."""
    return {name for name in dir(bpy.types) if name.upper().startswith("XRAY_")}


def menu_entries(menus) -> int:
    """The number of entries that add-ons have added to Blender's `menus`."""
    return sum(len(getattr(bpy.types, menu)._dyn_ui_initialize()) for menu in menus)


def test_the_zip_holds_the_extension_and_nothing_else(extension_zip):
    with zipfile.ZipFile(extension_zip) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {"blender_manifest.toml", "__init__.py", "xray_addon", "operators", "panels"} <= tops
    assert {"runtime/__init__.py", "runtime/registry.py", "xray_addon/casting/__init__.py"} <= names
    assert {"presets/xray/result/Draft.py", "presets/xray/dataset/Published.py"} <= names
    assert {"runtime/weights/xray.safetensors", "runtime/weights/segmentation.onnx"} <= names
    assert not tops & {"tests", "out", "build", "Makefile", "pyproject.toml", "farm"}
    assert not [name for name in names if "__pycache__" in name or name.startswith(".")]


def test_enabling_registers_the_public_operators(xray):
    assert set(OPERATORS) <= registered()
    assert hasattr(bpy.types.Scene, "xray")


def test_enabling_and_disabling_twice_leaves_nothing_behind(xray, part):
    module = xray.__name__
    menus = [menu for menu, _ in part("panels.menus").ENTRIES]
    entries = menu_entries(menus)
    for _ in range(2):
        assert bpy.ops.preferences.addon_disable(module=module) == {"FINISHED"}
        assert not registered()
        assert not hasattr(bpy.types.Scene, "xray")
        assert menu_entries(menus) == entries - len(menus)
        assert bpy.ops.preferences.addon_enable(module=module) == {"FINISHED"}
        assert set(OPERATORS) <= registered()
        assert menu_entries(menus) == entries


def test_no_timer_runs_without_work(part):
    jobs = part("operators.tasks.jobs")
    assert not bpy.app.timers.is_registered(jobs._tick)


class Menu:
    """Draws Blender menus of ours, and those in them; notes the operators with their texts."""

    def __init__(self, menus):
        self.menus = menus
        self.drawn = []
        self.set = {}

    def operator(self, name, text="", **_):
        self.drawn.append((name, text))
        self.set[name] = SimpleNamespace()
        return self.set[name]

    def menu(self, name, **_):
        self.drawn.append((name, ""))
        getattr(self.menus, name).draw(SimpleNamespace(layout=self), bpy.context)

    def separator(self):
        pass


@pytest.fixture
def drawn(part):
    """All entries of our menus: what they call, and their texts."""
    menus = part("panels.menus")
    layout = Menu(menus)
    for _, entry in menus.ENTRIES:
        entry(SimpleNamespace(layout=layout), bpy.context)
    return layout.drawn


def test_every_operator_is_in_a_menu(drawn):
    # F3 finds an operator only there.
    operators = {name for name in registered() if name.startswith("XRAY_OT_")}
    called = {name for name, _ in drawn if "." in name}
    assert {name.replace("xray.", "XRAY_OT_") for name in called} == operators


def test_the_object_menu_has_two_menus_of_ours(part):
    layout = Menu(SimpleNamespace(**{name: MagicMock() for name in SUB_MENUS}))
    part("panels.menus").XRAY_MT_object.draw(SimpleNamespace(layout=layout), bpy.context)
    assert layout.drawn == [(name, "") for name in SUB_MENUS]


def test_entries_that_open_a_dialog_end_in_an_ellipsis(drawn, part):
    opening = {name for name, text in drawn if text.endswith("…")}
    asking = {
        cls.bl_idname
        for name in registered()
        if (cls := getattr(bpy.types, name)) and name.startswith("XRAY_OT_")
        if any(
            word in inspect.getsource(cls) for word in ("fileselect_add", "invoke_", "AddPreset")
        )
    }
    # It asks only if its source is a file, and the menu's is the Image Editor.
    assert opening == asking - {"xray.omage_to_object"}
    assert not [text for _, text in drawn if "..." in text]


def test_the_menus_have_the_panels_settings(part):
    menus, panels = part("panels.menus"), bpy.context.scene.xray
    panels.generate.systems.omages.category, panels.generate.seed = "chair", 7
    panels.capture.views, panels.dataset.views, panels.dataset.cameras = 3, 5, "ring"
    panels.omage.resolution, panels.slices.size = 256, 96
    layout = Menu(menus)
    layout.menu("XRAY_MT_object")
    made = layout.set
    assert (made["xray.omage_material"].category, made["xray.omage_material"].seed) == ("chair", 7)
    assert made["xray.capture"].views == 3
    assert made["xray.dataset"].views == made["xray.dataset_cameras"].views == 5
    assert made["xray.dataset_cameras"].cameras == "ring"
    assert made["xray.object_to_omage"].resolution == 256
    assert made["xray.slices"].size == 96


def test_the_image_editor_generates_from_the_image_that_it_shows(part):
    menus = part("panels.menus")
    image = bpy.data.images.new("Pear", 8, 8)
    bpy.context.scene.xray.generate.target_faces = 700
    made = []
    layout = SimpleNamespace(
        separator=lambda: None, operator=lambda *_, **__: made.append(SimpleNamespace()) or made[0]
    )
    context = SimpleNamespace(space_data=SimpleNamespace(image=image), scene=bpy.context.scene)
    menus._image_menu(SimpleNamespace(layout=layout), context)
    assert made[0].image == "Pear"
    assert made[0].target_faces == 700
    context.space_data.image = None
    menus._image_menu(SimpleNamespace(layout=layout), context)
    assert len(made) == 1


def test_tooltips_are_there_and_end_without_a_full_stop(xray):
    texts = {}
    for name in registered():
        if name.startswith("XRAY_OT_"):
            shown = getattr(bpy.ops.xray, name.removeprefix("XRAY_OT_")).get_rna_type()
            assert shown.description, name
            texts[name] = shown.description
        elif name.startswith("XRAY_PG_"):
            shown = getattr(bpy.types, name).bl_rna
        else:
            continue
        texts |= {f"{name}.{item.identifier}": item.description for item in shown.properties}
    assert len(texts) > 100
    own = {name: text for name, text in texts.items() if not name.endswith(("rna_type", ".name"))}
    assert not [name for name, text in own.items() if text.endswith(".")]


@pytest.mark.parametrize(
    ("name", "undo"),
    [
        ("XRAY_OT_generate", True),
        ("XRAY_OT_import_xray", True),
        ("XRAY_OT_capture", False),
    ],
)
def test_only_what_changes_the_file_makes_an_undo_step(part, name, undo):
    modules = (
        "operators.dataset.ops_capture",
        "operators.generate.ops",
        "operators.layers.ops_import",
    )
    cls = next(getattr(part(module), name) for module in modules if hasattr(part(module), name))
    assert ("UNDO" in cls.bl_options) == undo


SUBTYPES = {
    "degrees": "ANGLE",
    "metres": "DISTANCE",
    "percent": "PERCENTAGE",
    "pixels": "PIXEL",
    "factor": "FACTOR",
}


def assert_made_from(item, properties, group, default=None):
    """default : that of the group, if it is not the setting's."""
    shown, meta = properties[item.name], item.metadata
    default = item.default if default is None else default
    assert shown.description == meta["help"]
    # Blender's floats have single precision, and its angles are in radians.
    kept = np.float32 if isinstance(item.default, float) else type(item.default)
    unit = np.radians(1) if meta.get("unit") == "degrees" else 1
    assert getattr(group, item.name) == kept(default * unit if unit != 1 else default)
    if "min" in meta:
        assert shown.hard_min == kept(meta["min"] * unit)
        assert shown.hard_max == kept(meta["max"] * unit)
    if "unit" in meta:
        assert shown.subtype == SUBTYPES[meta["unit"]]
    # A number that 0 switches off has a checkbox.
    assert (f"use_{item.name}" in properties) == ("on" in meta)
    if "choices" in meta:
        described = {choice.identifier: choice.description for choice in shown.enum_items}
        assert described == dict(meta["choices"])
        assert all(described.values())
        assert len(set(described.values())) == len(described)


def properties_of(name):
    return getattr(bpy.ops.xray, name).get_rna_type().properties


def test_the_settings_are_the_dataclasses(part):
    settings, scene = part("xray_addon.settings"), bpy.context.scene.xray
    for cls, operator, group in (
        (settings.CaptureSettings, "capture", scene.capture),
        (settings.DatasetSettings, "dataset", scene.dataset),
        (settings.ResultSettings, "generate", scene.generate),
    ):
        for item in fields(cls):
            assert_made_from(item, properties_of(operator), group)


def test_the_settings_of_all_systems_are_on_the_operator_and_in_groups_of_their_own(part):
    scene, systems = bpy.context.scene.xray.generate, part("xray_addon.systems").SYSTEMS
    arguments = part("xray_addon.systems.arguments")
    for item in part("operators.properties").SHARED:
        assert_made_from(item, properties_of("generate"), scene)
    own = arguments.own_settings()
    for system in systems.values():
        group = getattr(scene.systems, system.key)
        for item in system.settings.own_fields():
            # Several systems share the operator's property; each has its own default in the panel.
            common = arguments.common_field(own[item.name])
            assert_made_from(common, properties_of("generate"), group, item.default)


@pytest.mark.parametrize(
    ("settings", "given", "meant"),
    [
        ("ResultSettings", {"smooth_angle": math.radians(40)}, {"smooth_angle": 40.0}),
        ("ResultSettings", {"height": 25.0}, {"height": 0.25}),
        ("ResultSettings", {"use_height": True}, {"height": 1.0}),
        ("ResultSettings", {"target_faces": 5000, "use_target_faces": False}, {}),
        ("DatasetSettings", {"fov": math.radians(40)}, {"fov": 40.0}),
        ("DatasetSettings", {"use_min_iou": False}, {"min_iou": 0.0}),
        ("DatasetSettings", {}, {}),
    ],
)
def test_angles_lengths_and_checkboxes_of_the_panel_become_settings(part, settings, given, meant):
    bpy.context.scene.unit_settings.scale_length = 0.01  # Blender's unit is a centimetre
    cls = getattr(part("xray_addon.settings"), settings)
    group = {"ResultSettings": "generate", "DatasetSettings": "dataset"}[settings]
    panel = getattr(bpy.context.scene.xray, group)
    for name, value in given.items():
        setattr(panel, name, value)
    assert part("operators.properties").settings_from_properties(cls, panel) == cls(**meant)


def test_a_checkbox_is_on_if_the_value_is_not_0(part):
    panel = bpy.context.scene.xray.generate
    assert not panel.use_target_faces
    panel.use_target_faces = True
    assert panel.target_faces == 10_000
    panel.target_faces = 700
    panel.use_target_faces = True
    assert panel.target_faces == 700
    panel.use_target_faces = False
    assert panel.target_faces == 0


def test_every_choice_of_every_property_says_what_it_is(xray):
    silent = [
        f"{name}.{item.identifier}.{choice.identifier}"
        for name in registered()
        if name.startswith(("XRAY_OT_", "XRAY_PG_", "XRAY_AP_"))
        for item in own_properties(name)
        if item.type == "ENUM"
        for choice in item.enum_items
        if not choice.description
    ]
    assert silent == []


def own_properties(name):
    if name.startswith("XRAY_OT_"):
        return properties_of(name.removeprefix("XRAY_OT_"))
    return getattr(bpy.types, name).bl_rna.properties


def test_blender_never_imports_torch(xray):
    assert not {"torch", "diffusers"} & set(sys.modules)
    assert f"{xray.__name__}.runtime" not in sys.modules
