"""An omage in a real window: encoded, painted, and made a mesh again."""

from __future__ import annotations

import time

# The 3D view in two, the right half an Image Editor.
SPLIT = """
with bpy.context.temp_override(**view3d()):
    bpy.ops.screen.area_split(direction="VERTICAL", factor=0.55)
window = bpy.context.window_manager.windows[0]
views = [area for area in window.screen.areas if area.type == "VIEW_3D"]
min(views, key=lambda area: area.x).type = "IMAGE_EDITOR"
result = True
"""
# One square of the cube's cross of sides in red. Debian's Blender comes without its brushes, so the
# pixels are set as a brush would.
PAINT = """
import numpy as np
window = bpy.context.window_manager.windows[0]
area = next(area for area in window.screen.areas if area.type == "IMAGE_EDITOR")
region = next(region for region in area.regions if region.type == "WINDOW")
with bpy.context.temp_override(window=window, area=area, region=region):
    bpy.ops.image.view_all(fit_view=True)
image = area.spaces.active.image
width, height = image.size
pixels = np.empty(width * height * 4, np.float32)
image.pixels.foreach_get(pixels)
pixels = pixels.reshape(height, width, 4)
pixels[: height // 4, :, :3] = 1, 0, 0
image.pixels.foreach_set(pixels.reshape(-1))
image.update()
result = image.name
"""
# How many of the mesh's corners are red, of how many: by the texture at their UVs.
RED = """
import numpy as np
mesh = bpy.data.objects["Cube.001"].data
tree = mesh.materials[0].node_tree
node = next(n for n in tree.nodes if n.bl_idname == "ShaderNodeTexImage"
            and n.outputs["Color"].links[0].to_socket.name == "Base Color")
width, height = node.image.size
pixels = np.empty(width * height * 4, np.float32)
node.image.pixels.foreach_get(pixels)
pixels = pixels.reshape(height, width, 4)
uvs = np.empty(2 * len(mesh.loops), np.float32)
mesh.uv_layers[0].uv.foreach_get("vector", uvs)
column, row = (np.rint(uvs.reshape(-1, 2).T * (width - 1))).astype(int)
seen = pixels[row, column]
red = (seen[:, 0] > 0.9) & (seen[:, 1] < 0.2)
result = (int(red.sum()), len(red))
"""


def test_a_painted_patch_is_red_in_the_mesh(blender):
    # Without those above it, where there is no room for all of them.
    blender.do("for name in ('capture', 'dataset', 'slices'): close_panel(f'XRAY_PT_{name}')")
    blender.do("open_panel('XRAY_PT_omage'); show_tab()")
    blender.do(SPLIT)
    blender.until("show_tab()")
    blender.do("bpy.context.scene.xray.omage.resolution = 128; show_tab()")
    time.sleep(1)
    blender.click_operator("xray.object_to_omage")
    blender.until("'Cube albedo' in bpy.data.images", 60)
    blender.shot("encoded")
    assert blender.do(PAINT) == "Cube albedo"
    time.sleep(1)
    blender.shot("painted")
    blender.click_operator("xray.omage_to_object")
    blender.until("'Cube.001' in bpy.data.objects", 60)
    blender.do(
        """
bpy.data.objects["Cube"].hide_set(True)
for space in (area.spaces.active for area in bpy.context.screen.areas if area.type == "VIEW_3D"):
    space.shading.color_type = "TEXTURE"
"""
    )
    time.sleep(2)
    blender.shot("a-mesh-again")
    red, all_corners = blender.do(RED)
    assert 0 < red < all_corners
    text = blender.log.read_text()
    assert "Traceback" not in text, text
