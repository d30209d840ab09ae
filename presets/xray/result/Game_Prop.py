"""Few triangles with a texture, as a game engine takes them."""

import math

import bpy

generate = bpy.context.scene.xray.generate

generate.topology = "triangles"
generate.target_faces = 5000
generate.symmetry = "none"
generate.height = 0.0
generate.color = "texture"
generate.bake_size = 1024
generate.smooth_angle = math.radians(30)
generate.asset = False
