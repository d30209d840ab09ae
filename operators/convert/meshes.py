"""`Surface` and `Points` to Blender meshes that show their colours without further work."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import srgb_to_linear
from ...xray_addon.surface import Material, Surface
from ...xray_addon.xray import Points

COLOR_ATTRIBUTE = "Color"
# Normals that differ less than this (the sine of a twentieth of a degree) need not be stored.
NORMAL_TOLERANCE = 1e-3


def mesh_from_surface(surface: Surface, name: str) -> bpy.types.Mesh:
    """A mesh of `surface` with its colours, UVs, normals and materials.

    Faces without area or with a vertex twice are left out, as Blender cannot hold them.
    """
    surface = _without_repeated_corners(surface)
    mesh = bpy.data.meshes.new(name)
    count = len(surface.faces)
    mesh.vertices.add(len(surface.vertices))
    mesh.vertices.foreach_set("co", surface.vertices.astype(np.float32).reshape(-1))
    mesh.loops.add(3 * count)
    mesh.loops.foreach_set("vertex_index", surface.faces.astype(np.int32).reshape(-1))
    mesh.polygons.add(count)
    mesh.polygons.foreach_set("loop_start", np.arange(0, 3 * count, 3, dtype=np.int32))
    if surface.face_material is not None:
        mesh.polygons.foreach_set("material_index", surface.face_material.astype(np.int32))
    if surface.corner_uvs is not None:
        layer: Any = mesh.uv_layers.new(name="UVMap")
        layer.uv.foreach_set("vector", surface.corner_uvs.astype(np.float32).reshape(-1))
    if surface.corner_colors is not None:
        _write_colors(mesh, surface.corner_colors.reshape(-1, 3), "CORNER")
    mesh.update(calc_edges=True)
    _write_normals(mesh, surface.corner_normals)
    for i, material in enumerate(surface.materials or (Material(),)):
        suffix = f" {i + 1}" if len(surface.materials) > 1 else ""
        colored = surface.corner_colors is not None
        mesh.materials.append(_new_material(f"{name}{suffix}", material, colored))
    return mesh


def mesh_from_points(points: Points, name: str) -> bpy.types.Mesh:
    """A mesh of vertices alone, with the attributes "Color" and "normal"."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(points))
    mesh.vertices.foreach_set("co", points.positions.reshape(-1))
    _write_colors(mesh, points.colors, "POINT")
    normals: Any = mesh.attributes.new("normal", "FLOAT_VECTOR", "POINT")
    normals.data.foreach_set("vector", points.normals.reshape(-1))
    mesh.update()
    mesh.materials.append(_new_material(name, Material(), colored=True))
    return mesh


def add_object(
    mesh: bpy.types.Mesh, collection: bpy.types.Collection, name: str = ""
) -> bpy.types.Object:
    """An object of `mesh`, linked to `collection`."""
    obj = bpy.data.objects.new(name or mesh.name, mesh)
    collection.objects.link(obj)
    return obj


def _without_repeated_corners(surface: Surface) -> Surface:
    faces = surface.faces
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    if whole.all():
        return surface

    def kept(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values[whole]

    return Surface(
        surface.vertices,
        faces[whole],
        kept(surface.corner_normals),
        kept(surface.corner_uvs),
        kept(surface.corner_colors),
        kept(surface.face_material),
        surface.materials,
    )


def _write_colors(mesh: Any, colors: NDArray[np.floating[Any]], domain: str) -> None:
    """colors (N, 3) sRGB-encoded. Bytes: what X-Rays and images hold, a quarter of the memory."""
    attribute = mesh.color_attributes.new(COLOR_ATTRIBUTE, "BYTE_COLOR", domain)
    rgba = np.ones((len(colors), 4), dtype=np.float32)
    rgba[:, :3] = np.clip(colors, 0.0, 1.0)
    attribute.data.foreach_set("color_srgb", rgba.reshape(-1))
    mesh.color_attributes.active_color_index = 0
    mesh.color_attributes.render_color_index = 0


def _write_normals(mesh: Any, normals: NDArray[np.floating[Any]] | None) -> None:
    """Shade flat or smooth where that gives `normals` (M, 3, 3), else store them."""
    if normals is None:
        mesh.shade_flat()
        return
    count = len(mesh.polygons)
    if not count:
        return
    flat = np.empty(3 * count, dtype=np.float32)
    mesh.polygons.foreach_get("normal", flat)
    faceted = np.abs(normals - flat.reshape(-1, 1, 3)).max(axis=(1, 2)) < NORMAL_TOLERANCE
    mesh.polygons.foreach_set("use_smooth", ~faceted)
    mesh.update()
    shown = np.empty(9 * count, dtype=np.float32)
    mesh.corner_normals.foreach_get("vector", shown)
    if np.abs(shown - normals.reshape(-1)).max() > NORMAL_TOLERANCE:
        mesh.polygons.foreach_set("use_smooth", np.ones(count, dtype=bool))
        mesh.normals_split_custom_set(normals.reshape(-1, 3).tolist())


def _new_material(name: str, material: Material, colored: bool) -> bpy.types.Material:
    """A Principled material: colour attribute x texture x base colour, in linear light."""
    created = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0, 0):
        created.use_nodes = True
    tree: Any = created.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    shader = tree.nodes.new("ShaderNodeBsdfPrincipled")
    shader.inputs["Roughness"].default_value = 0.8
    tree.links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    base = srgb_to_linear(np.array(material.base_color, dtype=np.float64)).tolist()
    created.diffuse_color = (*base, 1.0)
    shader.inputs["Base Color"].default_value = (*base, 1.0)
    output.location, shader.location = (300, 0), (0, 0)

    factors = []
    if colored:
        node = tree.nodes.new("ShaderNodeVertexColor")
        node.layer_name = COLOR_ATTRIBUTE
        factors.append(node)
    if material.texture is not None:
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = _new_image(name, material.texture)
        factors.append(node)
    if factors and material.base_color != (1.0, 1.0, 1.0):
        node = tree.nodes.new("ShaderNodeRGB")
        node.outputs[0].default_value = (*base, 1.0)
        factors.append(node)
    color = None
    for i, node in enumerate(factors):
        node.location = (-600, -280 * i)
        if color is None:
            color = node.outputs["Color"]
            continue
        mix = tree.nodes.new("ShaderNodeMix")
        mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
        mix.location = (-250, -280 * (i - 1))
        inputs = {socket.identifier: socket for socket in mix.inputs}
        inputs["Factor_Float"].default_value = 1.0
        tree.links.new(color, inputs["A_Color"])
        tree.links.new(node.outputs["Color"], inputs["B_Color"])
        color = next(s for s in mix.outputs if s.identifier == "Result_Color")
    if color is not None:
        tree.links.new(color, shader.inputs["Base Color"])
    return created


def _new_image(name: str, texture: NDArray[np.uint8]) -> Any:
    height, width = texture.shape[:2]
    rgba = np.ones((height, width, 4), dtype=np.float32)
    rgba[..., : texture.shape[2]] = texture[::-1].astype(np.float32) / 255.0
    image: Any = bpy.data.images.new(name, width, height, alpha=texture.shape[2] == 4)
    image.pixels.foreach_set(rgba.reshape(-1))
    image.update()
    image.pack()
    return image
