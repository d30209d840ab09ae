"""`make picture`: README's picture, of a mesh that the weights that ship made in a real window.

The picture carries the checksum of those weights, and a test compares it with that of the file.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import rig
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PICTURE = rig.ROOT / "tests" / "demo" / "blender.png"
REFERENCE = rig.ROOT / "tests" / "demo" / "toadstool.png"
WEIGHTS = rig.ROOT / "runtime" / "weights" / "xray.safetensors"
RUNTIME = (rig.ROOT / ".venv" / "runtime").resolve()
HEIGHT = 700  # px
PREPARE = f"""
for obj in list(bpy.data.objects):
    bpy.data.objects.remove(obj)
others = tuple(f"XRAY_PT_{{part}}" for part in ("omage", "slices", "capture", "dataset"))
for name in [name for name in dir(bpy.types) if name.startswith(others)]:
    close_panel(name)
bpy.context.scene.xray.generate.image = bpy.data.images.load({str(REFERENCE)!r})
show_tab()
"""
# From the right and a little above, so near that the mesh fills the view.
LOOK = """
from mathutils import Euler
(obj,) = [obj for obj in bpy.data.objects if obj.type == "MESH"]
with bpy.context.temp_override(**view3d()):
    bpy.ops.view3d.view_selected()
space = view3d()["area"].spaces.active
space.region_3d.view_rotation = Euler((1.25, 0, 0.65)).to_quaternion()
space.region_3d.view_distance *= 1.5
space.shading.type = "MATERIAL"
show_tab()
"""
COMPILE_LIMIT = 300  # s for the first Material Preview, drawn by the processor
AREA = (
    "(lambda a, w: (a.x, w.height - a.y - a.height, a.x + a.width))"
    "(view3d()['area'], view3d()['window'])"
)


def main() -> int:
    """Make the picture; 0 when it is made."""
    try:
        folder = rig.rootfs()
    except rig.Unavailable as reason:
        sys.stderr.write(f"There is no Blender with a window: {reason}\n")
        return 1
    screen = rig.Screen(folder, RUNTIME / "venv" / "bin" / "python")
    try:
        user = rig.install_extension(screen)
        blender = rig.Blender(screen, "picture", user, XRAY_RUNTIME_DIR=str(RUNTIME))
        try:
            shot, (left, top, right) = photograph(blender)
        finally:
            blender.close()
    finally:
        screen.close()
    known = PngInfo()
    known.add_text("weights", hashlib.sha256(WEIGHTS.read_bytes()).hexdigest())
    with Image.open(shot) as image:
        cut = image.convert("RGB").crop((left, top, right, top + HEIGHT))
        cut.quantize(256).save(PICTURE, pnginfo=known, optimize=True)
    sys.stderr.write(f"Look at {PICTURE}.\n")
    return 0


def photograph(blender: rig.Blender) -> tuple[Path, tuple[int, int, int]]:
    """Press Generate; a shot of the screen, and left, top and right of the 3D view in it."""
    blender.until("show_tab()")
    blender.do(PREPARE)
    time.sleep(1)
    blender.click_operator("xray.generate")
    blender.until("any(obj.type == 'MESH' for obj in bpy.data.objects)", 180)
    jobs = f"__import__('sys').modules['{rig.MODULE}.operators.tasks.jobs']"
    blender.until(f"not {jobs}.queue", 60)
    time.sleep(1)
    blender.hover_view()
    blender.do(LOOK)
    for _ in range(3):
        blender.do("draw()", COMPILE_LIMIT)
        time.sleep(5)
    return blender.shot("window"), tuple(blender.get(AREA))


if __name__ == "__main__":
    sys.exit(main())
