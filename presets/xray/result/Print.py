"""One closed mesh, 10 cm high, for a 3D printer."""

import bpy

scene = bpy.context.scene
generate = scene.xray.generate

generate.topology = "quads"
generate.target_faces = 100_000
generate.symmetry = "none"
generate.height = 0.1 / scene.unit_settings.scale_length
generate.color = "keep"
generate.smooth_angle = 0.0
generate.asset = False
