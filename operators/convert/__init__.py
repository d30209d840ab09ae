"""Converts between Blender data and arrays. No other package does this."""

from .cameras import add_camera, camera_from_object
from .materials import MaterialReader, texture_from_image
from .meshes import (
    COLOR_ATTRIBUTE,
    MeshArrays,
    active_collection,
    add_object,
    mesh_from_points,
    mesh_from_surface,
    mesh_steps,
    new_material,
    read_points,
)
from .surfaces import FaceSources, surface_and_sources, surface_from_objects

__all__ = [
    "COLOR_ATTRIBUTE",
    "FaceSources",
    "MaterialReader",
    "MeshArrays",
    "active_collection",
    "add_camera",
    "add_object",
    "camera_from_object",
    "mesh_from_points",
    "mesh_from_surface",
    "mesh_steps",
    "new_material",
    "read_points",
    "surface_and_sources",
    "surface_from_objects",
    "texture_from_image",
]
