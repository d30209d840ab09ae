"""Small images by the built-in shader, for a first look; all else as published."""

import bpy

dataset = bpy.context.scene.xray.dataset

for item in dataset.bl_rna.properties:
    if item.identifier not in ("rna_type", "name", "source", "path", "collection", "directory"):
        dataset.property_unset(item.identifier)

dataset.image = "cast"
dataset.image_size = 256
