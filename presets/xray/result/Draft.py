"""Few faces, for a first look or a background."""

import bpy

generate = bpy.context.scene.xray.generate

generate.topology = "triangles"
generate.target_faces = 3000
generate.symmetry = "none"
generate.height = 0.0
generate.color = "keep"
generate.smooth_angle = 0.0
generate.asset = False
