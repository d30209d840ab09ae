"""Makes the demo's mesh and reference image, which the repo owns: a toadstool cottage.

python tests/demo/make_assets.py   (with bpy; the results are committed)
"""

from __future__ import annotations

import math
from pathlib import Path

import bpy

HERE = Path(__file__).parent
COLORS = {
    "cap": (0.62, 0.03, 0.02),
    "cream": (0.8, 0.68, 0.48),
    "white": (0.85, 0.85, 0.82),
    "wood": (0.2, 0.08, 0.025),
    "glass": (0.12, 0.35, 0.6),
    "grass": (0.1, 0.3, 0.04),
}


def material(name: str) -> bpy.types.Material:
    """A matt material of one colour (linear)."""
    made = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0, 0):
        made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*COLORS[name], 1)
    shader.inputs["Roughness"].default_value = 0.8
    return made


def finish(name: str, smooth: bool = True) -> bpy.types.Object:
    """Colour and smooth the active object."""
    made = bpy.context.object
    made.data.materials.append(bpy.data.materials.get(name) or material(name))
    for polygon in made.data.polygons:
        polygon.use_smooth = smooth
    return made


def ball(name: str, location, scale, segments: int = 24) -> bpy.types.Object:
    """A scaled sphere."""
    bpy.ops.mesh.primitive_uv_sphere_add(
        segments=segments, ring_count=segments // 2, location=location, scale=scale
    )
    bpy.ops.object.transform_apply(location=False, rotation=False)
    return finish(name)


def build() -> None:
    """The cottage, z up, door to -y."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cone_add(
        vertices=32, radius1=0.42, radius2=0.3, depth=0.8, location=(0, 0, 0.4)
    )
    finish("cream")
    cap = ball("cap", (0, 0, 0.78), (0.72, 0.72, 0.52), 40)
    # Flatten the cap's underside.
    for vertex in cap.data.vertices:
        vertex.co.z = max(vertex.co.z, -0.06)
    for azimuth, height, size in (
        (-95, 38, 0.14),
        (-50, 18, 0.1),
        (-140, 22, 0.11),
        (-20, 48, 0.12),
        (20, 15, 0.12),
        (80, 35, 0.13),
        (140, 20, 0.11),
        (170, 52, 0.12),
        (-165, 50, 0.1),
        (-80, 75, 0.12),
        (50, 62, 0.1),
        (110, 12, 0.1),
    ):
        a, h = math.radians(azimuth), math.radians(height)
        direction = (math.cos(h) * math.cos(a), math.cos(h) * math.sin(a), math.sin(h))
        center = (0.71 * direction[0], 0.71 * direction[1], 0.78 + 0.51 * direction[2])
        ball("white", center, (size, size, size * 0.6), 14)
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0, -0.36, 0.2), scale=(0.2, 0.12, 0.4))
    finish("wood", smooth=False)
    ball("white", (0.06, -0.43, 0.2), (0.018, 0.018, 0.018), 10)
    for x in (-0.24, 0.24):
        ball("glass", (x, -0.25, 0.5), (0.075, 0.06, 0.075), 14)
    bpy.ops.mesh.primitive_cylinder_add(vertices=40, radius=0.6, depth=0.08, location=(0, 0, -0.02))
    finish("grass")
    bpy.ops.mesh.primitive_cylinder_add(
        vertices=14, radius=0.08, depth=0.4, location=(0.38, 0.15, 1.2)
    )
    finish("wood")
    bpy.ops.object.select_all(action="SELECT")
    bpy.context.view_layer.objects.active = cap
    bpy.ops.object.join()
    cap.name = cap.data.name = "Toadstool"


def photograph() -> None:
    """Render the reference image: 512 x 512, transparent, seen from a little above."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 64
    scene.cycles.use_denoising = False
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = 512
    scene.render.image_settings.color_mode = "RGBA"
    scene.view_settings.view_transform = "Standard"
    world = bpy.data.worlds.new("world")
    if bpy.app.version < (5, 0, 0):
        world.use_nodes = True
    world.node_tree.nodes["Background"].inputs[0].default_value = (0.75, 0.8, 0.9, 1)
    world.node_tree.nodes["Background"].inputs[1].default_value = 0.7
    scene.world = world
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle = 2.2, 0.3
    sun.rotation_euler = (math.radians(45), 0, math.radians(-35))
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens, camera.data.sensor_width = 35, 32
    elevation, azimuth, distance = math.radians(18), math.radians(25), 2.3
    camera.location = (
        distance * math.cos(elevation) * math.sin(azimuth),
        -distance * math.cos(elevation) * math.cos(azimuth),
        0.62 + distance * math.sin(elevation),
    )
    camera.rotation_euler = (math.pi / 2 - elevation, 0, azimuth)
    for made in (sun, camera):
        scene.collection.objects.link(made)
    scene.camera = camera
    scene.render.filepath = str(HERE / "toadstool.png")
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    build()
    bpy.ops.export_scene.gltf(filepath=str(HERE / "toadstool.glb"), export_format="GLB")
    photograph()
