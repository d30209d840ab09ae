"""As the published data were made: every setting at its default."""

import bpy

dataset = bpy.context.scene.xray.dataset

for item in dataset.bl_rna.properties:
    if item.identifier not in ("rna_type", "name", "source", "path", "collection", "directory"):
        dataset.property_unset(item.identifier)
