"""Panels, menus and dialogs in a real window: every test leaves its screenshots in build/gui."""

from __future__ import annotations

import time

import pytest
import rig
from conftest import with_balls

JOBS = f"__import__('sys').modules['{rig.MODULE}.operators.tasks.jobs']"
ALL = ("generate", "runtime", "layers", "omage", "slices", "capture", "dataset")
# Panels that are shown together, in a sidebar without the others.
SHOWN = {
    "generate": ("generate", "generate_cutout", "generate_settings", "generate_result"),
    "runtime": ("generate", "runtime"),
    "omage": ("omage", "omage_material"),
    "slices": ("slices",),
    "capture": ("capture",),
    "dataset": ("dataset", "dataset_cameras"),
    "dataset-objects": ("dataset", "dataset_object"),
    "dataset-images": ("dataset", "dataset_images", "dataset_gates"),
}
# What a picture of the panel is to show: values that bring out every setting.
VALUES = """
scene = bpy.context.scene.xray
scene.generate.color, scene.generate.use_height, scene.generate.use_target_faces = "texture", 1, 1
scene.dataset.cameras, scene.dataset.jitter, scene.dataset.slices = "turntable", 0.1, False
scene.slices.shading = "cycles"
"""
LABELS_CUT = """
import blf
scale = bpy.context.preferences.system.ui_scale
width = sidebar().width - 60 * scale  # less the tabs and the margins
blf.size(0, 11 * scale)
cut = []
groups = [getattr(bpy.context.scene.xray, name) for name in
          ("capture", "dataset", "generate", "omage", "slices")]
systems = bpy.context.scene.xray.generate.systems
groups += [getattr(systems, item.identifier) for item in systems.bl_rna.properties
           if item.type == "POINTER" and item.identifier != "rna_type"]
for group in groups:
    for item in group.bl_rna.properties:
        # A label has two fifths of the width, a checkbox's text the other three.
        share = 0.6 if item.type == "BOOLEAN" else 0.4
        if blf.dimensions(0, item.name)[0] > share * width:
            cut.append(item.name)
result = cut
"""


@pytest.mark.parametrize("name", SHOWN)
def test_the_panel_at_its_default_width(fake, name):
    shown = SHOWN[name]
    for panel in ALL:
        if panel not in shown:
            fake.do(f"close_panel('XRAY_PT_{panel}')")
    for panel in shown:
        fake.do(f"open_panel('XRAY_PT_{panel}')")
    fake.do(VALUES)
    fake.do("show_tab()")
    time.sleep(1)
    fake.shot("shown")
    assert "Traceback" not in fake.log.read_text()


def test_no_label_is_cut_at_the_default_width(fake):
    time.sleep(1)
    assert fake.do(LABELS_CUT) == []


def test_the_first_screen_says_what_it_needs_and_how_to_get_it(start):
    blender = start(XRAY_RUNTIME_DIR="/nothing")
    blender.do("bpy.context.preferences.system.use_online_access = False; show_tab()")
    time.sleep(2)
    blender.shot("offline")
    blender.click_operator("extensions.userpref_allow_online")
    blender.until("bpy.app.online_access")
    blender.do("show_tab()")
    time.sleep(1)
    blender.shot("online")
    blender.click_operator("xray.runtime_install_offline")
    blender.until(
        "any(a.type == 'FILE_BROWSER' for w in bpy.context.window_manager.windows "
        "for a in w.screen.areas)"
    )
    time.sleep(1)
    blender.shot("folder")
    assert "Traceback" not in blender.log.read_text()


def reports(blender):
    """The text of Blender's Info editor."""
    return blender.do(
        """
with bpy.context.temp_override(**view3d()):
    area = bpy.context.area
    area.type = "INFO"
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(area=area, region=region):
        bpy.ops.info.select_all(action="SELECT")
        bpy.ops.info.report_copy()
    area.type = "VIEW_3D"
result = bpy.context.window_manager.clipboard
"""
    )


def test_an_error_is_shown_dismissed_and_gone_with_its_cause(fake, picture):
    bad = picture("bad")
    fake.do(f"bpy.context.scene.xray.generate.image = bpy.data.images.load({str(bad)!r})")
    fake.do("show_tab()")
    time.sleep(0.5)
    fake.click_operator("xray.generate")
    fake.until(f"{JOBS}.failed", 90)
    fake.do("show_tab()")
    time.sleep(1)
    fake.shot("failed")
    assert "Generate bad failed. The tab X-Ray in the sidebar says why" in reports(fake)
    assert "The image is bad." not in reports(fake)
    fake.click_operator("xray.dismiss", 0.82)
    fake.until(f"not {JOBS}.failed", 10)
    fake.click_operator("xray.generate")
    fake.until(f"{JOBS}.failed", 90)
    fake.do("show_tab()")
    time.sleep(1)
    pear = picture("pear")
    fake.do(f"bpy.context.scene.xray.generate.image = bpy.data.images.load({str(pear)!r})")
    fake.do("show_tab()")
    time.sleep(1)
    fake.until(f"not {JOBS}.failed", 10)
    fake.shot("another-image")
    assert "Traceback" not in fake.log.read_text()


def test_the_file_dialog_has_what_the_system_needs_and_remembers_the_folder(fake, picture):
    folder = str(picture("pear").parent)
    preferences = f"bpy.context.preferences.addons['{rig.MODULE}'].preferences"
    fake.do(f"{preferences}.image_folder = {folder!r}; bpy.context.scene.xray.generate.seed = 7")
    fake.click_operator("xray.generate")
    browser = (
        "next((a.spaces.active for w in bpy.context.window_manager.windows "
        "for a in w.screen.areas if a.type == 'FILE_BROWSER'), None)"
    )
    fake.until(f"{browser} is not None and {browser}.params is not None")
    time.sleep(1)
    fake.shot("dialog")
    assert fake.get(f"{browser}.params.directory.decode().rstrip('/')") == folder
    assert fake.get(f"{browser}.active_operator.seed") == 7
    assert "Traceback" not in fake.log.read_text()


def test_a_system_that_needs_a_category_asks_for_it(start):
    blender = with_balls(start())
    preferences = f"bpy.context.preferences.addons['{rig.MODULE}'].preferences"
    blender.do(f"{preferences}.generator = 'omages'; show_tab()")
    time.sleep(1)
    blender.click_operator("xray.generate")  # off, because the weights are missing
    time.sleep(1)
    assert not blender.get(f"{JOBS}.queue or {JOBS}.failed")
    # With weights of one's own it is on; that they do not exist is told later.
    blender.do("bpy.context.scene.xray.generate.systems.omages.checkpoint = '/nothing'")
    time.sleep(1)
    blender.click_operator("xray.generate")
    time.sleep(1)
    blender.shot("dialog")
    assert not blender.get(f"{JOBS}.queue or {JOBS}.failed"), "it began without a category"
    blender.nudge(0, 22)  # from the button to the dialog's first field, the category
    blender.press("Return")
    blender.type("chair")
    blender.shot("typed")
    blender.press("Return")
    time.sleep(1)
    blender.nudge(-300, 0)  # off the field, where Return would edit it
    blender.shot("answered")
    blender.press("Return")
    # Its weights are missing, so it fails.
    tasks = f"[task.label for task in {JOBS}.queue + {JOBS}.failed]"
    assert blender.until(tasks, 10) == ["Generate Chair"]
    assert "Traceback" not in blender.log.read_text()


def test_the_object_menu_has_two_menus(fake):
    fake.hover_view()
    fake.do(
        """
with bpy.context.temp_override(**view3d()):
    bpy.ops.wm.call_menu(name="XRAY_MT_object")
"""
    )
    time.sleep(1)
    fake.shot("menu")
    fake.press("Escape")
    for name in ("generate", "capture"):
        fake.hover_view()
        fake.do(
            f"""
with bpy.context.temp_override(**view3d()):
    bpy.ops.wm.call_menu(name="XRAY_MT_{name}")
"""
        )
        time.sleep(1)
        fake.shot(name)
        fake.press("Escape")
    assert "Traceback" not in fake.log.read_text()


def test_presets_that_ship_are_chosen_from_the_header(fake):
    fake.do("open_panel('XRAY_PT_generate_result'); show_tab()")
    fake.hover_view()
    fake.do(
        """
with bpy.context.temp_override(**view3d()):
    bpy.ops.wm.call_panel(name="XRAY_PT_result_presets")
"""
    )
    time.sleep(1)
    fake.shot("presets")
    fake.press("Escape")
    assert "Traceback" not in fake.log.read_text()


def generate_apple(fake, picture):
    """Generate a mesh with its layers, with only the panel Generate open."""
    path = str(picture("apple"))
    fake.do(
        f"""
for name in ("capture", "dataset", "slices", "omage"): close_panel(f"XRAY_PT_{{name}}")
with bpy.context.temp_override(**view3d()):
    bpy.ops.xray.generate("INVOKE_DEFAULT", filepath={path!r}, keep_layers=True)
"""
    )
    fake.until("'apple' in bpy.data.objects", 90)
    fake.until(f"not {JOBS}.queue", 60)


def test_a_result_is_applied_to_a_mesh_that_is_there(fake, picture):
    generate_apple(fake, picture)
    before = fake.get("len(bpy.data.objects['apple'].data.polygons)")
    fake.do(
        """
panel = bpy.context.scene.xray.generate
panel.topology, panel.target_faces, panel.color = "quads", 800, "texture"
"""
    )
    fake.do("open_panel('XRAY_PT_generate_result'); show_tab()")
    time.sleep(1)
    fake.shot("before")
    fake.click_operator("xray.apply_result")
    fake.until(f"{JOBS}.queue", 10)
    fake.until(f"not {JOBS}.queue", 120)
    faces = "[len(p.vertices) for p in bpy.data.objects['apple'].data.polygons]"
    assert set(fake.get(faces)) == {4}
    fake.shot("after")
    fake.hover_view()
    fake.press("ctrl+z")
    fake.until(f"len(bpy.data.objects['apple'].data.polygons) == {before}", 10)
    assert "Traceback" not in fake.log.read_text()


def test_layers_are_listed_and_shown(fake, picture):
    generate_apple(fake, picture)
    layers = "bpy.data.objects['apple']['xray_layers']"
    assert not fake.get(f"{layers}.xray.visible")
    fake.do(f"{layers}.xray.visible = True; show_tab()")
    time.sleep(1)
    fake.shot("shown")
    assert not fake.get(f"{layers}.hide_viewport")
    assert fake.get(f"sorted(o.name for o in {layers}.objects)[0]") == "Layer 01 apple"


def test_the_image_editor_generates_from_its_image(fake, picture):
    fake.do(
        f"""
image = bpy.data.images.load({str(picture("pear"))!r})
with bpy.context.temp_override(**view3d()):
    bpy.ops.screen.area_split(direction="VERTICAL", factor=0.5)
views = [a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "VIEW_3D"]
area = min(views, key=lambda a: a.x)
area.type = "IMAGE_EDITOR"
area.spaces.active.image = image
"""
    )
    time.sleep(1)
    where = fake.get(
        "(lambda w, a: (a.x + a.width // 2, w.height - a.y - a.height // 2))"
        "(*(lambda w: (w, next(a for a in w.screen.areas if a.type == 'IMAGE_EDITOR')))"
        "(bpy.context.window_manager.windows[0]))"
    )
    fake._xdotool("mousemove", *where)
    fake.do(
        """
window = bpy.context.window_manager.windows[0]
area = next(a for a in window.screen.areas if a.type == "IMAGE_EDITOR")
region = next(r for r in area.regions if r.type == "WINDOW")
with bpy.context.temp_override(window=window, area=area, region=region):
    bpy.ops.wm.call_menu(name="IMAGE_MT_image")
"""
    )
    time.sleep(1)
    fake.shot("menu")
    fake.press("Escape")
    fake.do(
        """
window = bpy.context.window_manager.windows[0]
area = next(a for a in window.screen.areas if a.type == "IMAGE_EDITOR")
region = next(r for r in area.regions if r.type == "WINDOW")
with bpy.context.temp_override(window=window, area=area, region=region):
    bpy.ops.xray.generate("INVOKE_DEFAULT", image=area.spaces.active.image.name)
"""
    )
    fake.until("'pear' in bpy.data.objects", 90)
    fake.until(f"not {JOBS}.queue", 60)
    fake.shot("done")
    assert "Traceback" not in fake.log.read_text()
