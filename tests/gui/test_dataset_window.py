"""A dataset of the open file's objects, made while the file is edited, undone and saved."""

from __future__ import annotations

import json
import shutil
import time

import rig
from test_panels_window import reports

QUEUE = f"__import__('sys').modules['{rig.MODULE}.operators.tasks.jobs'].queue"
START = """
bpy.ops.ed.undo_push(message="Before")
bpy.data.objects["Cube"].select_set(True)
bpy.ops.xray.dataset("EXEC_DEFAULT", source="selection", directory="{folder}", views=12, size=64,
                     layers=4, image="cycles", image_size=128, samples=8, denoise=False)
"""
MEANWHILE = """
bpy.data.objects["Cube"].location.x = 5.0
bpy.ops.ed.undo_push(message="Moved")
bpy.ops.ed.undo()
bpy.ops.wm.save_as_mainfile(filepath="{path}", copy=True)
result = ([scene.name for scene in bpy.data.scenes], bpy.data.objects["Cube"].location.x)
"""
# An Image Editor, in a window of its own, shows the contact sheet.
SHOWN = (
    "[area.spaces.active.image.name for window in bpy.context.window_manager.windows"
    " for area in window.screen.areas if area.type == 'IMAGE_EDITOR' and area.spaces.active.image]"
)
ABOVE = ("capture", "dataset_cameras", "dataset_object", "dataset_images", "dataset_gates")
SCENES = "import bpy; print('scenes:', [scene.name for scene in bpy.data.scenes])"


def test_undoing_and_saving_meanwhile_change_nothing(blender, screen):
    folder, saved = rig.OUT / "dataset", rig.OUT / "meanwhile.blend"
    shutil.rmtree(folder, ignore_errors=True)
    blender.do(START.format(folder=folder))
    blender.until(f"'of 12' in {QUEUE}[0].progress.message", 60)
    assert blender.do(MEANWHILE.format(path=saved)) == [["Scene"], 0.0]
    assert blender.get(f"len({QUEUE})") == 1, "it ended too early to tell"
    blender.shot("making")
    blender.until(f"not {QUEUE}", 120)
    blender.shot("made")
    row = json.loads((folder / "metadata" / "Cube.json").read_text())
    assert len(row["views"]) == 12
    assert "scenes: ['Scene']" in screen.run("blender", "-b", saved, "--python-expr", SCENES).stdout
    blender.until("show_tab()")
    for name in ABOVE:
        blender.do(f"close_panel('XRAY_PT_{name}')")
    blender.do("open_panel('XRAY_PT_dataset')")
    time.sleep(1)
    blender.click_operator("xray.preview", across=0.75)
    blender.until(SHOWN, 20)
    blender.shot("previewed")


def test_escape_cancels_and_says_that_finished_items_stay(blender):
    folder = rig.OUT / "cancelled"
    shutil.rmtree(folder, ignore_errors=True)
    blender.do(START.format(folder=folder))
    blender.until(f"'of 12' in {QUEUE}[0].progress.message", 60)
    blender.hover_view()
    blender.press("Escape")
    blender.until(f"not {QUEUE}", 60)
    time.sleep(1)
    assert "cancelled. Complete items are kept; starting again goes on from there." in reports(
        blender
    )
    assert not (folder / "metadata" / "Cube.json").exists()


ELSEWHERE = """
bpy.data.objects["Cube"].select_set(True)
bpy.ops.xray.dataset("EXEC_DEFAULT", source="selection", directory="{folder}", views=1, size=32,
                     layers=4, image="cast", image_size=32, slices=True, slice_shading="cycles",
                     samples=1)
bpy.context.window.scene = bpy.data.scenes.new("Empty")
"""


def test_the_dataset_is_of_the_scene_in_which_it_was_started(blender):
    """Its slices are rendered by a second Blender."""
    folder = rig.OUT / "scenes"
    shutil.rmtree(folder, ignore_errors=True)
    blender.do(ELSEWHERE.format(folder=folder))
    blender.until(f"not {QUEUE}", 120)
    assert blender.get("bpy.context.window.scene.name") == "Empty"
    assert json.loads((folder / "report.json").read_text())["captured"] == 1
    assert len([*(folder / "01_img_slices" / "Cube" / "000").iterdir()]) == 12


INSTALL_AND_MAKE = """
import bpy
bpy.ops.extensions.package_install_files(
    filepath="{zip}", repo="user_default", enable_on_install=True)
bpy.ops.xray.dataset(source="files", path="{meshes}", directory="{folder}", views=1, size=32,
                     layers=4, image="none")
"""


def test_a_dataset_of_files_right_after_the_installation(screen, installed):
    """The second Blender does not find the extension in the preferences, which are not saved."""
    folder, meshes, user = (rig.OUT / name for name in ("first", "first-meshes", "user-first"))
    for place in (folder, meshes, user):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    (meshes / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    code = INSTALL_AND_MAKE.format(zip=rig.OUT / "xray.zip", meshes=meshes, folder=folder)
    done = screen.run("blender", "-b", "--python-expr", code, BLENDER_USER_RESOURCES=str(user))
    assert (folder / "metadata" / "a.json").exists(), done.stdout + done.stderr
