"""Converts `Surface` and `Points` to Blender meshes that show their colours unchanged."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import srgb_to_linear
from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import encode_png
from ...xray_addon.surface import TEXTURES, Material, Surface
from ...xray_addon.xray import Points
from .materials import with_nodes

COLOR_ATTRIBUTE = "Color"
NORMAL_ATTRIBUTE = "normal"
PIXEL_ATTRIBUTE = "pixel"
# Normals that differ by less than this (the sine of 0.05 degrees) are not stored.
NORMAL_TOLERANCE = 1e-3
# If most normals differ more than this from the mean of the adjacent faces, they are custom.
CERTAIN_DIFFERENCE = 0.05
ROWS_A_STEP = 50_000  # about 10 ms


@dataclass(frozen=True)
class MeshArrays:
    """A `Surface` as the arrays of a Blender mesh, so that filling the mesh is fast.

    Made with NumPy only, so any thread can do it. N vertices, E edges, 3M corners, M faces.

    position : (3N,) float32. edge_verts : (2E,), corner_vert, corner_edge : (3M,) int32.
    sharp_face : (M,) bool. normals : (3M, 3) float32; None if Blender's shading gives them.
    certain : whether Blender's shading certainly differs from `normals`.
    colors : (K, 4) float32 sRGB-encoded, per vertex if all corners of each agree, otherwise per
        corner.
    pngs : the textures of each material as PNG files, by the names of `Material`.
    """

    position: NDArray[np.float32]
    edge_verts: NDArray[np.int32]
    corner_vert: NDArray[np.int32]
    corner_edge: NDArray[np.int32]
    sharp_face: NDArray[np.bool_]
    normals: NDArray[np.float32] | None
    certain: bool
    colors: NDArray[np.float32] | None
    colors_domain: str
    uvs: NDArray[np.float32] | None
    material_index: NDArray[np.int32] | None
    materials: Sequence[Material]
    pngs: Sequence[Mapping[str, bytes]]

    @classmethod
    def of(cls, surface: Surface) -> MeshArrays:
        """The arrays of `surface`. Drops faces that repeat a vertex: Blender allows none."""
        surface = _without_repeated_corners(surface)
        vertices = surface.vertices.astype(np.float32)
        faces = surface.faces.astype(np.int32)
        corner_vert = faces.reshape(-1)
        ends = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
        ends = np.sort(ends, axis=1).astype(np.int64)
        keys, corner_edge = np.unique(ends[:, 0] << 32 | ends[:, 1], return_inverse=True)
        edge_verts = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=-1)
        sharp_face, normals, certain = _shading(vertices, faces, surface.corner_normals)
        colors, domain = _colors(surface, len(vertices))
        materials = surface.materials or (Material(),)
        return cls(
            vertices.reshape(-1),
            edge_verts.astype(np.int32).reshape(-1),
            corner_vert,
            corner_edge.astype(np.int32).reshape(-1),
            sharp_face,
            normals,
            certain,
            colors,
            domain,
            None if surface.corner_uvs is None else surface.corner_uvs.astype(np.float32),
            None if surface.face_material is None else surface.face_material.astype(np.int32),
            materials,
            [_encoded(material) for material in materials],
        )


def mesh_from_surface(surface: Surface, name: str) -> bpy.types.Mesh:
    """A mesh of `surface` with its colours, UVs, normals and materials.

    Faces that repeat a vertex are left out, because Blender does not allow them.
    """
    steps = mesh_steps(MeshArrays.of(surface), name)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def mesh_steps(arrays: MeshArrays, name: str) -> Generator[None, None, bpy.types.Mesh]:
    """`mesh_from_surface` in short steps that keep Blender responsive."""
    mesh = bpy.data.meshes.new(name)
    try:
        yield from _fill(mesh, arrays)
        for i, (material, pngs) in enumerate(zip(arrays.materials, arrays.pngs, strict=True)):
            suffix = f" {i + 1}" if len(arrays.materials) > 1 else ""
            colored = arrays.colors is not None
            mesh.materials.append(new_material(f"{name}{suffix}", material, colored, pngs))
            yield
    except GeneratorExit:
        with suppress(ReferenceError):  # removed by undo or by opening another file
            bpy.data.meshes.remove(mesh)
        raise
    return mesh


def _fill(mesh: Any, arrays: MeshArrays) -> Generator[None, None, None]:
    """Fill in geometry and attributes. Writing through `attributes` copies arrays directly; the
    older accessors (vertices, loops, edges) call a function per value.

    Every step gets `mesh.attributes` anew: if undo has removed the mesh, that raises
    ReferenceError, but a collection obtained before would not.
    """
    mesh.vertices.add(len(arrays.position) // 3)
    mesh.edges.add(len(arrays.edge_verts) // 2)
    mesh.loops.add(len(arrays.corner_vert))
    mesh.polygons.add(len(arrays.sharp_face))
    if not len(arrays.position):
        return
    mesh.attributes["position"].data.foreach_set("vector", arrays.position)
    yield
    if len(arrays.sharp_face):
        mesh.attributes[".edge_verts"].data.foreach_set("value", arrays.edge_verts)
        mesh.attributes[".corner_vert"].data.foreach_set("value", arrays.corner_vert)
        mesh.attributes[".corner_edge"].data.foreach_set("value", arrays.corner_edge)
        yield
        starts = np.arange(0, len(arrays.corner_vert), 3, dtype=np.int32)
        mesh.polygons.foreach_set("loop_start", starts)
        yield
        _attribute(mesh, "sharp_face", "BOOLEAN", "FACE").foreach_set("value", arrays.sharp_face)
    mesh.update()
    if arrays.material_index is not None:
        index = _attribute(mesh, "material_index", "INT", "FACE")
        index.foreach_set("value", arrays.material_index)
    if arrays.uvs is not None:
        layer = mesh.uv_layers.new(name="UVMap")
        mesh.attributes[layer.name].data.foreach_set("vector", arrays.uvs.reshape(-1))
    if arrays.colors is not None:
        _write_colors(mesh, arrays.colors, arrays.colors_domain)
    if arrays.normals is not None:
        yield
        yield from _write_normals(mesh, arrays.normals, arrays.certain)


def _attribute(mesh: Any, name: str, kind: str, domain: str) -> Any:
    """The values of one of Blender's built-in attributes."""
    return (mesh.attributes.get(name) or mesh.attributes.new(name, kind, domain)).data


def mesh_from_points(
    points: Points,
    name: str,
    pixel: NDArray[np.int32] | None = None,
    faces: Sequence[NDArray[np.int64]] = (),
) -> bpy.types.Mesh:
    """A mesh with one vertex per point and the attributes "Color", "normal" and "pixel".

    pixel : (N,) index of the X-Ray's pixel for each point.
    faces : arrays (M, K) of smooth-shaded polygons with K corners.
    """
    mesh: Any = bpy.data.meshes.new(name)
    mesh.vertices.add(len(points))
    mesh.vertices.foreach_set("co", points.positions.reshape(-1))
    sizes = np.repeat([part.shape[1] for part in faces], [len(part) for part in faces])
    mesh.loops.add(int(sizes.sum()))
    mesh.polygons.add(len(sizes))
    if len(sizes):
        corners = np.concatenate([part.reshape(-1) for part in faces])
        mesh.loops.foreach_set("vertex_index", corners.astype(np.int32))
        starts = np.cumsum(sizes) - sizes
        mesh.polygons.foreach_set("loop_start", starts.astype(np.int32))
        mesh.polygons.foreach_set("use_smooth", np.ones(len(sizes), dtype=bool))
    _write_colors(mesh, _rgba(points.colors), "POINT")
    mesh.attributes.new(NORMAL_ATTRIBUTE, "FLOAT_VECTOR", "POINT")
    mesh.attributes[NORMAL_ATTRIBUTE].data.foreach_set("vector", points.normals.reshape(-1))
    if pixel is not None:
        mesh.attributes.new(PIXEL_ATTRIBUTE, "INT", "POINT")
        mesh.attributes[PIXEL_ATTRIBUTE].data.foreach_set("value", pixel)
    mesh.update(calc_edges=True)
    mesh.materials.append(new_material(name, Material(), colored=True))
    return mesh


def read_points(mesh: bpy.types.Mesh) -> tuple[Points, NDArray[np.int32]]:
    """Read a mesh made by `mesh_from_points` in its current state; also its pixels (N,).

    Raises XRayError `no_attribute` if an attribute is missing or has another type.
    """
    count = len(mesh.vertices)

    def read(name: str, data_type: str, key: str, width: int, dtype: Any) -> NDArray[Any]:
        attribute: Any = mesh.attributes.get(name)
        if attribute is None or (attribute.data_type, attribute.domain) != (data_type, "POINT"):
            raise XRayError(
                "no_attribute",
                f"The mesh {mesh.name} has no vertex attribute {name}.",
                "Undo its removal, or import the X-Ray again.",
            )
        values = np.empty(count * width, dtype=dtype)
        attribute.data.foreach_get(key, values)
        return values.reshape(count, width)

    positions = np.empty(count * 3, dtype=np.float32)
    mesh.vertices.foreach_get("co", positions)
    colors = read(COLOR_ATTRIBUTE, "BYTE_COLOR", "color_srgb", 4, np.float32)
    normals = read(NORMAL_ATTRIBUTE, "FLOAT_VECTOR", "vector", 3, np.float32)
    pixel = read(PIXEL_ATTRIBUTE, "INT", "value", 1, np.int32)
    return Points(positions.reshape(-1, 3), normals, colors[:, :3]), pixel[:, 0]


def add_object(
    mesh: bpy.types.Mesh, collection: bpy.types.Collection, name: str = ""
) -> bpy.types.Object:
    """Make an object of `mesh` and link it to `collection`."""
    obj = bpy.data.objects.new(name or mesh.name, mesh)
    collection.objects.link(obj)
    return obj


def active_collection() -> Any:
    """The active collection, or the scene's if no object can be linked to the active one or be seen
    in it."""
    active: Any = bpy.context.collection
    if active is None or active.library is not None or active.override_library is not None:
        return bpy.context.scene.collection
    shown: Any = bpy.context.layer_collection
    return active if shown is None or shown.is_visible else bpy.context.scene.collection


def make_active(obj: bpy.types.Object) -> None:
    """Select only `obj` and make it active, if the view layer has it."""
    layer = bpy.context.view_layer
    layer.update()  # outdated if a script has removed objects
    for other in list(layer.objects.selected):
        other.select_set(False)
    if obj.name in layer.objects:
        obj.select_set(True)
        layer.objects.active = obj


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


def _shading(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], normals: NDArray[Any] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None, bool]:
    """`sharp_face`, `normals` and `certain` of `MeshArrays` for corner normals (M, 3, 3)."""
    if normals is None or not len(faces):
        return np.ones(len(faces), dtype=bool), None, False
    corners = vertices[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = _unit(area)
    sharp = np.abs(normals - flat[:, None]).max(axis=(1, 2)) < NORMAL_TOLERANCE
    if sharp.all():
        return sharp, None, False
    smooth = np.stack(
        [np.bincount(faces.ravel(), np.repeat(column, 3), len(vertices)) for column in area.T], -1
    )
    # Blender does not weight a vertex's faces by area, so similar normals may still differ.
    off = np.abs(_unit(smooth)[faces[~sharp]] - normals[~sharp]).max(axis=(1, 2))
    certain = bool(np.median(off) > CERTAIN_DIFFERENCE)
    if certain:
        sharp = np.zeros_like(sharp)
    return sharp, normals.astype(np.float32).reshape(-1, 3), certain


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _colors(surface: Surface, count: int) -> tuple[NDArray[np.float32] | None, str]:
    """RGBA and domain. Vertex colours, if corners agree, need a sixth of the memory."""
    colors = surface.corner_colors
    if colors is None:
        return None, "CORNER"
    at_vertices = np.ones((count, 3), dtype=colors.dtype)
    at_vertices[surface.faces] = colors
    if np.array_equal(at_vertices[surface.faces], colors):
        return _rgba(at_vertices), "POINT"
    return _rgba(colors.reshape(-1, 3)), "CORNER"


def _rgba(colors: NDArray[Any]) -> NDArray[np.float32]:
    rgba = np.ones((len(colors), 4), dtype=np.float32)
    rgba[:, :3] = np.clip(colors, 0.0, 1.0)
    return rgba


def _write_colors(mesh: Any, colors: NDArray[np.float32], domain: str) -> None:
    """colors (N, 4) sRGB-encoded. Stored as bytes, like X-Rays, in a quarter of the memory."""
    attribute = mesh.color_attributes.new(COLOR_ATTRIBUTE, "BYTE_COLOR", domain)
    attribute.data.foreach_set("color_srgb", colors.reshape(-1))
    mesh.color_attributes.active_color_index = 0
    mesh.color_attributes.render_color_index = 0


def _write_normals(
    mesh: Any, normals: NDArray[np.float32], certain: bool
) -> Generator[None, None, None]:
    """Store corner normals (K, 3) unless Blender's shading gives the same."""
    if not certain:
        shown = np.empty(normals.size, dtype=np.float32)
        mesh.corner_normals.foreach_get("vector", shown)
        if np.abs(shown - normals.reshape(-1)).max() <= NORMAL_TOLERANCE:
            return
        sharp = np.zeros(len(mesh.polygons), dtype=bool)
        _attribute(mesh, "sharp_face", "BOOLEAN", "FACE").foreach_set("value", sharp)
        yield
    if bpy.app.version >= (4, 5, 0):
        attribute = mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "CORNER")
        attribute.data.foreach_set("vector", normals.reshape(-1))
        mesh.update()
        return
    # Before 4.5 Blender only accepts them as one list.
    rows: list[list[float]] = []
    for start in range(0, len(normals), ROWS_A_STEP):
        rows += normals[start : start + ROWS_A_STEP].tolist()
        yield
    mesh.normals_split_custom_set(rows)


# Node settings of a texture; see `Material`.
_EXTENSIONS = {"repeat": "REPEAT", "extend": "EXTEND", "mirror": "MIRROR", "clip": "CLIP"}
_INTERPOLATIONS = {"linear": "Linear", "closest": "Closest"}


def new_material(
    name: str, material: Material, colored: bool, pngs: Mapping[str, bytes] | None = None
) -> bpy.types.Material:
    """A Principled material: colour attribute x texture x base colour, in linear light.

    pngs : the textures as PNG files, by the names of `Material`; None encodes them here.
    """
    pngs = _encoded(material) if pngs is None else pngs
    created = bpy.data.materials.new(name)
    tree = with_nodes(created)
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    shader = tree.nodes.new("ShaderNodeBsdfPrincipled")
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
        node = _texture_node(tree, name, pngs["texture"], material)
        factors.append(node)
        if material.alpha_threshold > 0 and material.texture.shape[2] == 4:
            _clip_alpha(tree, node.outputs["Alpha"], material.alpha_threshold, shader)
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
    for i, part in enumerate(("metallic", "roughness")):
        node = _set_factor(tree, shader.inputs[part.title()], name, material, part, pngs)
        if node is not None:
            node.location = (-600, -900 - 280 * i)
    if material.normal_texture is not None:
        node = _texture_node(tree, f"{name} normal", pngs["normal_texture"], material, data=True)
        bend = tree.nodes.new("ShaderNodeNormalMap")
        node.location, bend.location = (-600, -1500), (-250, -1500)
        tree.links.new(node.outputs["Color"], bend.inputs["Color"])
        tree.links.new(bend.outputs["Normal"], shader.inputs["Normal"])
    return created


def _encoded(material: Material) -> dict[str, bytes]:
    """The material's textures as PNG files. Blender itself would encode them on its main thread."""
    found = {}
    for name in TEXTURES:
        texture = getattr(material, name)
        if texture is not None:
            found[name] = encode_png(texture.reshape(*texture.shape[:2], -1))
    return found


def _set_factor(
    tree: Any, socket: Any, name: str, material: Material, part: str, pngs: Mapping[str, bytes]
) -> Any:
    """Set metallic or roughness: a number, or a texture times it. Returns the texture's node."""
    factor, png = getattr(material, part), pngs.get(f"{part}_texture")
    socket.default_value = factor
    if png is None:
        return None
    node = _texture_node(tree, f"{name} {part}", png, material, data=True)
    value = node.outputs["Color"]
    if factor != 1.0:
        times = tree.nodes.new("ShaderNodeMath")
        times.operation, times.location = "MULTIPLY", (-250, -900)
        tree.links.new(value, times.inputs[0])
        times.inputs[1].default_value = factor
        value = times.outputs[0]
    tree.links.new(value, socket)
    return node


def _clip_alpha(tree: Any, alpha: Any, threshold: float, shader: Any) -> None:
    """Link 1 - (alpha < threshold), as Blender imports glTF's MASK mode."""
    less, rest = tree.nodes.new("ShaderNodeMath"), tree.nodes.new("ShaderNodeMath")
    less.operation, rest.operation = "LESS_THAN", "SUBTRACT"
    less.location, rest.location = (-250, 280), (-80, 280)
    tree.links.new(alpha, less.inputs[0])
    less.inputs[1].default_value = threshold
    rest.inputs[0].default_value = 1.0
    tree.links.new(less.outputs[0], rest.inputs[1])
    tree.links.new(rest.outputs[0], shader.inputs["Alpha"])


def _texture_node(
    tree: Any, name: str, png: bytes, material: Material, *, data: bool = False
) -> Any:
    """An image node with the material's texture settings. data : values, not colours."""
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image_from_png(name, png, data=data)
    node.extension = _EXTENSIONS[material.wrap]
    node.interpolation = _INTERPOLATIONS[material.interpolation]
    return node


def image_from_png(name: str, png: bytes, *, data: bool = False) -> Any:
    """A packed image of a PNG file's content. data : values, not colours."""
    image: Any = bpy.data.images.new(name, 1, 1)
    image.pack(data=png, data_len=len(png))
    image.source = "FILE"
    if data:
        image.colorspace_settings.name = "Non-Color"
    return image
