"""Slices in a real window: an object's in the Image Editor, and those that Slice3D draws."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import rig
from conftest import RUNTIME
from test_window import clean, idle

# A small regression network as it is drawn, moved so that its field has an inside.
MAKE = """
import sys
from pathlib import Path
import torch
from runtime.slice3d.networks import NetworkConfig, SliceNet
from runtime.slice3d.weights import save_network
torch.manual_seed(0)
network = SliceNet(NetworkConfig(32, (8, 8, 16, 16, 16), 16, 4, 32, 2)).eval()
with torch.inference_mode():
    maps, _ = network.encode(torch.rand(1, 3, 32, 32) * 2 - 1)
    found = network.distance(maps, torch.rand(1, 4096, 3) - 0.5)
network.fc_out[0].bias.data -= found.median()
save_network(Path(sys.argv[1]), network, {})
"""

JOBS = f"__import__('sys').modules['{rig.MODULE}.operators.tasks.jobs']"
# The 3D view keeps most of the width, so that a mesh stands beside the sidebar.
SPLIT = """
with bpy.context.temp_override(**view3d()):
    bpy.ops.screen.area_split(direction="VERTICAL", factor=0.62)
window = bpy.context.window_manager.windows[0]
views = [area for area in window.screen.areas if area.type == "VIEW_3D"]
views[-1].type = "IMAGE_EDITOR"
"""
# What would stand above the buttons.
HIDDEN = (
    *("capture", "dataset_cameras", "dataset_object", "dataset_images", "dataset_gates", "dataset"),
    *("omage_material", "omage"),
)
# The slices that were drawn, and the mesh in its colours.
SHOW = """
for area in bpy.context.window_manager.windows[0].screen.areas:
    if area.type == "IMAGE_EDITOR":
        area.spaces.active.image = bpy.data.images["toadstool slices"]
    if area.type == "VIEW_3D":
        area.spaces.active.shading.color_type = "VERTEX"
from mathutils import Euler, Vector
region = view3d()["area"].spaces.active.region_3d
region.view_rotation = Euler((1.2, 0, 0.5)).to_quaternion()
region.view_distance = 2
# The sidebar hides the right half.
region.view_location = region.view_rotation @ Vector((0.4, 0, 0))
"""
FIT = """
window = bpy.context.window_manager.windows[0]
area = next(area for area in window.screen.areas if area.type == "IMAGE_EDITOR")
region = next(region for region in area.regions if region.type == "WINDOW")
with bpy.context.temp_override(window=window, area=area, region=region):
    bpy.ops.image.view_all(fit_view=True)
"""
# The runtime of this checkout, whatever is installed.
SERVE = """
import sys
service = sys.modules["{module}.operators.runtime.service"]
service.command = service.Command("{python}", ("-m", "runtime", "serve"))
"""
PYTHON = RUNTIME / "venv" / "bin" / "python"


@pytest.fixture
def weights() -> Path:
    """Made-up weights of the regression branch."""
    path = rig.OUT / "slice3d" / "regression.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([PYTHON, "-c", MAKE, path], check=True, cwd=rig.ROOT)
    return path.parent


def test_slices_of_an_object_and_of_an_image(blender, picture, weights):
    blender.do(f"for name in {HIDDEN}: close_panel('XRAY_PT_' + name)")
    blender.do(SERVE.format(module=rig.MODULE, python=PYTHON))
    blender.do(SPLIT)
    blender.do("open_panel('XRAY_PT_slices')")
    blender.until("show_tab()")
    time.sleep(1)
    blender.click_operator("xray.slices")
    blender.until("'X-Ray Slices' in bpy.data.images", 60)
    blender.do(FIT)
    blender.shot("of-an-object")
    blender.do(
        f"""
bpy.data.objects["Cube"].hide_set(True)
preferences = bpy.context.preferences.addons["{rig.MODULE}"].preferences
preferences.generator = "slice3d"
settings = bpy.context.scene.xray.generate
settings.image = bpy.data.images.load({str(picture("toadstool"))!r})
settings.keep_layers = True
settings.systems.slice3d.checkpoint = {str(weights)!r}
settings.systems.slice3d.grid_resolution = 64
close_panel("XRAY_PT_slices_open")
show_tab()
"""
    )
    time.sleep(1)
    blender.shot("before")
    blender.click_operator("xray.generate")
    made = "'toadstool' in bpy.data.objects"
    # An idle machine may be done before the slices are looked for.
    blender.until(f"{made} or any(task.preview is not None for task in {JOBS}.queue)", 300)
    blender.shot("drawn")
    blender.until(made, 300)
    idle(blender)
    blender.do(SHOW)
    blender.do(FIT)
    time.sleep(2)
    blender.shot("generated")
    assert blender.get("'toadstool slices' in bpy.data.images")
    assert blender.get("len(bpy.data.objects['toadstool'].data.polygons)") > 100
    assert clean(blender)


IN_NEW_WINDOW = """
windows = bpy.context.window_manager.windows
area = windows[-1].screen.areas[0]
result = (len(windows), area.ui_type, area.spaces.active.image.name)
"""


def test_without_an_image_editor_a_picture_gets_a_window(blender):
    """In Blender's default workspace, Layout, there is none. A window that the button's operator
    opened itself would crash Blender, but only at a real click."""
    blender.do("bpy.data.objects['Cube'].select_set(True)")
    for name in HIDDEN:
        blender.do(f"close_panel('XRAY_PT_{name}')")
    blender.do("open_panel('XRAY_PT_slices'); show_tab()")
    time.sleep(1)
    blender.click_operator("xray.slices")
    blender.until("len(bpy.context.window_manager.windows) == 2")
    time.sleep(2)
    assert blender.do(IN_NEW_WINDOW) == [2, "IMAGE_EDITOR", "X-Ray Slices"]
    blender.shot("new-window")
    # The second time the window is there.
    blender.do("with bpy.context.temp_override(**view3d()): bpy.ops.xray.slices()")
    time.sleep(1)
    assert blender.do(IN_NEW_WINDOW) == [2, "IMAGE_EDITOR", "X-Ray Slices"]
    assert clean(blender)
