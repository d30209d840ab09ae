"""The zip, and what enabling and disabling the extension leaves behind."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import fields
from types import SimpleNamespace

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


def registered() -> set[str]:
    """Every name X-Ray has put into Blender."""
    return {name for name in dir(bpy.types) if name.upper().startswith("XRAY_")}


def menu_entries() -> int:
    menus = ("VIEW3D_MT_object", "VIEW3D_MT_add", "TOPBAR_MT_file_import")
    return sum(len(getattr(bpy.types, menu)._dyn_ui_initialize()) for menu in menus)


def test_the_zip_holds_the_extension_and_nothing_else(extension_zip):
    with zipfile.ZipFile(extension_zip) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {"blender_manifest.toml", "__init__.py", "xray_addon", "operators", "panels"} <= tops
    assert {"runtime/__init__.py", "runtime/registry.py", "xray_addon/casting/__init__.py"} <= names
    assert {"runtime/weights/xray.safetensors", "runtime/weights/segmentation.onnx"} <= names
    assert not tops & {"tests", "out", "build", "Makefile", "pyproject.toml", "farm"}
    assert not [name for name in names if "__pycache__" in name or name.startswith(".")]


def test_enabling_registers_the_public_operators(xray):
    assert set(OPERATORS) <= registered()
    assert hasattr(bpy.types.Scene, "xray")


def test_enabling_and_disabling_twice_leaves_nothing_behind(xray):
    module = xray.__name__
    entries = menu_entries()
    for _ in range(2):
        assert bpy.ops.preferences.addon_disable(module=module) == {"FINISHED"}
        assert not registered()
        assert not hasattr(bpy.types.Scene, "xray")
        assert menu_entries() == entries - 3
        assert bpy.ops.preferences.addon_enable(module=module) == {"FINISHED"}
        assert set(OPERATORS) <= registered()
        assert menu_entries() == entries


def test_no_timer_runs_without_work(part):
    jobs = part("operators.tasks.jobs")
    assert not bpy.app.timers.is_registered(jobs._tick)


def test_every_operator_is_in_a_menu(part):
    # F3 finds an operator only there.
    drawn = []

    class Layout:
        def operator(self, name, **_):
            drawn.append(name)
            return SimpleNamespace()

        def menu(self, name, **_):
            drawn.append(name)

        def separator(self):
            pass

    menus = part("panels.menus")
    owner = type("Owner", (), {"layout": Layout()})()
    for _, entry in menus.ENTRIES:
        entry(owner, bpy.context)
    assert "XRAY_MT_object" in drawn
    menus.XRAY_MT_object.draw(owner, bpy.context)
    operators = {name for name in registered() if name.startswith("XRAY_OT_")}
    assert {name.replace("xray.", "XRAY_OT_") for name in drawn if "." in name} == operators


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


def assert_made_from(item, properties, group):
    assert properties[item.name].description == item.metadata["help"]
    # Blender's floats have single precision.
    kept = np.float32 if isinstance(item.default, float) else type(item.default)
    assert getattr(group, item.name) == kept(item.default)
    if "min" in item.metadata:
        assert properties[item.name].hard_min == kept(item.metadata["min"])
        assert properties[item.name].hard_max == kept(item.metadata["max"])


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
            assert_made_from(
                arguments.common_field(own[item.name]), properties_of("generate"), group
            )


def test_blender_never_imports_torch(xray):
    assert not {"torch", "diffusers"} & set(sys.modules)
    assert f"{xray.__name__}.runtime" not in sys.modules
