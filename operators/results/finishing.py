"""Finishes a generated mesh: faces, symmetry, size, colours and shading."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from ...xray_addon.camera import Camera
from ...xray_addon.casting import sample_texture
from ...xray_addon.casting.texels import covered_texels
from ...xray_addon.pictures.shading import shade_surface
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.surface import Material
from ..convert import (
    COLOR_ATTRIBUTE,
    new_material,
    surface_from_objects,
    texture_from_image,
)
from ..convert.baking import MARGIN, loop_uvs, unwrap
from ..convert.node_sources import image_nodes
from ..convert.staging import TEMPORARY, Stage, TemporaryData

AXES = ("x", "y", "z")
# Number of quads if none is given.
QUADS = 20_000
# Quads that QuadriFlow makes at most: its time grows with their number.
FLOW_QUADS = 6_000
# How many seeds QuadriFlow gets, and how often the voxel size is corrected.
TRIES = 3
PREVIEW_SIZE = 256  # px
# The preview's viewpoint for an object of radius 1: slightly above and beside the viewer.
PREVIEW_EYE = np.array([1.0, -2.2, 0.9])


def finish(obj: bpy.types.Object, settings: ResultSettings) -> float:
    """Finish the mesh of `obj` according to `settings`, in this order: mirror, remesh, texture,
    smooth, scale, mark as an asset.

    `obj` need not be in a scene. Returns the scale factor, so that cameras and layers can be
    scaled too. `settings` are stored in the object. Raises XRayError `cannot_bake`.
    """
    reshape(obj, settings)
    return complete(obj, settings, asset_picture(obj) if settings.asset else None)


def is_reshaped(mesh: Any, settings: ResultSettings) -> bool:
    """Whether `settings` change `mesh` in more than its size."""
    return (
        settings.symmetry != "none"
        or settings.topology == "quads"
        or 0 < settings.target_faces < len(mesh.polygons)
        or settings.color == "texture"
        or (settings.color == "attribute" and bool(_textures_of(mesh)))
        or settings.smooth_angle > 0
    )


def reshape(obj: Any, settings: ResultSettings) -> None:
    """Do the slow part: faces, colours and shading. Raises XRayError `cannot_bake`."""
    if settings.symmetry != "none":
        _mirror(obj, AXES.index(settings.symmetry))
    reduces = 0 < settings.target_faces < len(obj.data.polygons)
    if settings.topology == "quads" or reduces or settings.color != "keep":
        _remake(obj, settings)
    if settings.smooth_angle:
        _clear_normals(obj.data)
        obj.data.shade_smooth()
        obj.data.set_sharp_from_angle(angle=math.radians(settings.smooth_angle))


def complete(obj: Any, settings: ResultSettings, picture: NDArray[np.float32] | None) -> float:
    """Do the fast part: scale, and mark as an asset with the preview `picture`.

    Returns the scale factor.
    """
    factor = _scale(obj.data, settings.height)
    if settings.asset and picture is not None:
        mark_as_asset(obj, picture)
    obj["xray_result"] = settings.to_dict()
    return factor


def _remake(obj: Any, settings: ResultSettings) -> None:
    """Change the faces, transfer the colours to them, and bake the texture."""
    with TemporaryData() as owned:
        colored = owned.own(obj.data.copy())
        textured = _color_by_texture(colored)
        quads = settings.topology == "quads"
        if quads:
            _remesh(obj, settings.target_faces or QUADS)
        elif 0 < settings.target_faces < len(obj.data.polygons):
            _decimate(obj, settings.target_faces)
        # A mesh with fewer triangles keeps its UV map, and with it the generator's texture.
        keeps_texture = textured and not quads and settings.color != "attribute"
        if COLOR_ATTRIBUTE not in colored.color_attributes or keeps_texture:
            return
        if settings.color == "texture":
            _bake(obj, colored, settings.bake_size)
        elif textured:
            _write_colors(obj.data, _nearest_colors(colored, vertex_positions(obj.data)))
            _replace_material(obj, Material(), colored=True)
        elif COLOR_ATTRIBUTE not in obj.data.color_attributes:
            _write_colors(obj.data, _nearest_colors(colored, vertex_positions(obj.data)))


def _mirror(obj: Any, axis: int) -> None:
    """Cut `obj` in the middle and replace the far half with a mirror image of the near half."""
    positions = vertex_positions(obj.data)
    middle = (positions.min(axis=0) + positions.max(axis=0))[axis] / 2
    shift = Matrix.Translation([middle if i == axis else 0.0 for i in range(3)])
    obj.data.transform(shift.inverted())
    this = [i == axis for i in range(3)]
    _apply(
        obj,
        "MIRROR",
        use_axis=this,
        use_bisect_axis=this,
        # The near half is the visible one: the viewer is on the -y side.
        use_bisect_flip_axis=[i == axis == 1 for i in range(3)],
        merge_threshold=1e-5,
    )
    obj.data.transform(shift)


def _remesh(obj: Any, target: int) -> None:
    """Replace the mesh of `obj` with about `target` quads; colours are lost.

    A closed mesh keeps its thin parts: QuadriFlow (Huang et al. 2018) covers its form with few
    quads, which are then split and moved onto it until there are enough. Any other mesh is made of
    voxels, which close it.
    """
    made = _quad_flow(obj.data, target) or _voxels(obj, target)
    made.shade_smooth()
    _replace(obj, made)


def _quad_flow(mesh: Any, target: int) -> Any:
    """A new closed mesh of about `target` quads in the form of `mesh`, in no more pieces; None if
    `mesh` is not closed, or QuadriFlow gives no such mesh in a few tries."""
    if not _is_closed(mesh):
        return None
    pieces, levels = _piece_count(mesh), max(0, math.ceil(math.log(target / FLOW_QUADS, 4)))
    few = asked = target / 4**levels
    made: Any = None
    for seed in range(TRIES):
        with Stage() as stage:
            quads = stage.add(mesh.copy())
            _run_quadriflow(stage, quads, round(asked), seed)
            count = len(quads.data.polygons)
            if (
                len(quads.data.loops) != 4 * count  # it has given up
                or not _is_closed(quads.data)
                or _piece_count(quads.data) > pieces
            ):
                continue
            asked *= few / count
            if made is not None:
                bpy.data.meshes.remove(made)
            made = _split(stage, quads, levels, mesh)
        if abs(count - few) < 0.1 * few:
            break
    return made


def _run_quadriflow(stage: Stage, obj: Any, target: int, seed: int) -> None:
    """Replace the faces of `obj`, in the stage, with QuadriFlow's quads."""
    _clear_normals(obj.data)
    layer = stage.scene.view_layers[0]
    layer.update()
    with bpy.context.temp_override(
        scene=stage.scene, view_layer=layer, object=obj, active_object=obj
    ):
        bpy.ops.object.quadriflow_remesh(mode="FACES", target_faces=target, seed=seed)


def _split(stage: Stage, obj: Any, levels: int, form: Any) -> Any:
    """A new mesh: that of `obj`, each face split in four `levels` times, moved onto the mesh
    `form`."""
    if levels:
        modifier = obj.modifiers.new("split", "SUBSURF")
        modifier.subdivision_type, modifier.levels = "SIMPLE", levels
        obj.modifiers.new("form", "SHRINKWRAP").target = _user_of(form, stage)
    depsgraph = _depsgraph(stage)
    return bpy.data.meshes.new_from_object(obj.evaluated_get(depsgraph), depsgraph=depsgraph)


def _is_closed(mesh: Any) -> bool:
    """Whether every edge of a mesh has two faces."""
    edges = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("edge_index", edges)
    return len(edges) > 0 and bool((np.bincount(edges, minlength=len(mesh.edges)) == 2).all())


def _piece_count(mesh: Any) -> int:
    """The number of connected pieces of a mesh."""
    ends = np.empty(2 * len(mesh.edges), dtype=np.int32)
    mesh.edges.foreach_get("vertices", ends)
    first, last = ends.reshape(-1, 2).T
    lowest = np.arange(len(mesh.vertices))
    while (lowest[first] != lowest[last]).any():
        low = np.minimum(lowest[first], lowest[last])
        np.minimum.at(lowest, lowest[first], low)
        np.minimum.at(lowest, lowest[last], low)
        lowest = lowest[lowest]
    return len(np.unique(lowest))


def _voxels(obj: Any, target: int) -> Any:
    """A new closed mesh of about `target` quads around `obj`, by Blender's voxel remesh."""
    source = obj.data
    area = np.empty(len(source.polygons), dtype=np.float32)
    source.polygons.foreach_get("area", area)
    # A closed surface of unit voxels has about 1.5 quads per unit of area.
    size = math.sqrt(1.5 * float(area.sum()) / target)
    for tried in range(1, TRIES + 1):
        made = _evaluated(obj, "REMESH", mode="VOXEL", voxel_size=size)
        count = len(made.polygons)
        if tried == TRIES or not count or abs(count - target) < 0.05 * target:
            break
        size *= math.sqrt(count / target)
        bpy.data.meshes.remove(made)
    return made


def _decimate(obj: Any, target: int) -> None:
    ratio = target / len(obj.data.polygons)
    _apply(obj, "DECIMATE", decimate_type="COLLAPSE", ratio=ratio)
    obj.data.shade_smooth()
    _remove_colors(obj.data)


def _apply(obj: Any, kind: str, **options: Any) -> None:
    """Replace the mesh of `obj` with the result of a modifier."""
    _replace(obj, _evaluated(obj, kind, **options))


def _evaluated(obj: Any, kind: str, **options: Any) -> Any:
    """A new mesh: `obj` with a modifier of type `kind` applied, without custom normals."""
    _clear_normals(obj.data)
    with Stage() as stage:
        user = _user_of(obj.data, stage)
        modifier = user.modifiers.new(kind, kind)
        for name, value in options.items():
            setattr(modifier, name, value)
        depsgraph = _depsgraph(stage)
        return bpy.data.meshes.new_from_object(
            user.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
        )


def _user_of(mesh: Any, stage: Stage) -> Any:
    """A new object in the stage that shares `mesh`."""
    user = stage.own(bpy.data.objects.new(TEMPORARY, mesh))
    stage.scene.collection.objects.link(user)
    return user


def _depsgraph(stage: Stage) -> Any:
    """The evaluated state of the stage."""
    layer = stage.scene.view_layers[0]
    layer.update()
    return layer.depsgraph


def _replace(obj: Any, mesh: Any) -> None:
    """Give `obj` the new `mesh`, which takes the old one's name."""
    before = obj.data
    name = before.name
    obj.data = mesh
    if not before.users:
        bpy.data.meshes.remove(before)
    mesh.name = name


def _clear_normals(mesh: Any) -> None:
    """Remove custom normals: they belong to faces that no longer exist."""
    if not mesh.has_custom_normals:
        return
    stored = mesh.attributes.get("custom_normal")
    if stored is not None and stored.data_type == "FLOAT_VECTOR":
        mesh.attributes.remove(stored)
    else:
        mesh.normals_split_custom_set(np.zeros((len(mesh.loops), 3)).tolist())


# Colours


def _bake(obj: Any, colored: Any, size: int) -> None:
    """Bake the colours of the mesh `colored` into a texture on a new UV map of `obj`."""
    mesh = obj.data
    texture = np.zeros((size, size, 3), dtype=np.uint8)
    with Stage() as stage:
        copy = stage.add(mesh.copy())
        layer = unwrap(stage, copy, np.ones(len(mesh.polygons), dtype=bool))
        uvs = loop_uvs(copy.data, layer)
    while mesh.uv_layers:
        mesh.uv_layers.remove(mesh.uv_layers[0])
    mesh.uv_layers.new(name="UVMap").uv.foreach_set("vector", uvs.reshape(-1))

    mesh.calc_loop_triangles()
    corners = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    ends = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", ends)
    triangles = vertex_positions(mesh)[ends.reshape(-1, 3)]
    covered = np.zeros((size, size), dtype=bool)
    for texel, face, weights in covered_texels(uvs[corners.reshape(-1, 3)], size):
        colors = _nearest_colors(colored, np.einsum("ij,ijk->ik", weights, triangles[face]))
        texture.reshape(-1, 3)[texel] = np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8)
        covered.reshape(-1)[texel] = True
    _spread(texture, covered)
    _remove_colors(mesh)
    colored.materials.clear()  # otherwise this unused mesh would keep the material alive
    _replace_material(obj, Material(texture=texture), colored=False)


def _replace_material(obj: Any, material: Material, *, colored: bool) -> None:
    """Replace the materials of `obj`; see `remove_unused`.

    colored : whether the new material shows the colour attribute.
    """
    mesh = obj.data
    before = list(mesh.materials)
    mesh.materials.clear()
    mesh.materials.append(new_material(obj.name, material, colored=colored))
    remove_unused(before, mesh.materials)


def remove_unused(before: Iterable[Any], after: Iterable[Any]) -> None:
    """Remove those of the materials `before` that nothing uses any more.

    A material that was replaced with another one in `after` leaves it its name.
    """
    for old, new in itertools.zip_longest(list(before), list(after)):
        if old is None or old.users:
            continue
        name = old.name
        bpy.data.materials.remove(old)
        if new is not None:
            new.name = name


def _color_by_texture(mesh: Any) -> bool:
    """Store the texture colours at a mesh's corners in the colour attribute.

    Returns whether the mesh has an image texture.
    """
    textures = {
        slot: texture
        for slot, image in _textures_of(mesh).items()
        if (texture := texture_from_image(image)) is not None
    }
    if not textures:
        return False
    slots, corners = (np.empty(len(mesh.polygons), np.int32) for _ in range(2))
    mesh.polygons.foreach_get("material_index", slots)
    mesh.polygons.foreach_get("loop_total", corners)
    slots = np.repeat(np.minimum(slots, len(mesh.materials) - 1), corners)
    colors = _corner_colors(mesh)
    uvs = loop_uvs(mesh, mesh.uv_layers[0].name).astype(np.float64)
    for slot, texture in textures.items():
        there = slots == slot
        colors[there] = sample_texture(texture, uvs[there])
    _remove_colors(mesh)
    attribute = mesh.color_attributes.new(COLOR_ATTRIBUTE, "BYTE_COLOR", "CORNER")
    attribute.data.foreach_set("color_srgb", colors.reshape(-1))
    return True


def _textures_of(mesh: Any) -> dict[int, Any]:
    """The images on a mesh's UV map, by material slot."""
    if not mesh.uv_layers:
        return {}
    found = {}
    for slot, material in enumerate(mesh.materials):
        image = next(filter(None, (node.image for node in image_nodes(material))), None)
        if image is not None:
            found[slot] = image
    return found


def _corner_colors(mesh: Any) -> NDArray[np.float32]:
    """(N, 4) sRGB-encoded colours at a mesh's corners; white without the colour attribute."""
    attribute = mesh.color_attributes.get(COLOR_ATTRIBUTE)
    if attribute is None:
        return np.ones((len(mesh.loops), 4), np.float32)
    values = np.empty(4 * len(attribute.data), np.float32)
    attribute.data.foreach_get("color_srgb", values)
    values = values.reshape(-1, 4)
    return values if attribute.domain == "CORNER" else values[_corner_vertices(mesh)]


def _spread(texture: NDArray[np.uint8], covered: NDArray[np.bool_]) -> None:
    """Extend colours beyond their UV islands, so that texture filtering shows no seams."""
    for _ in range(MARGIN):
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = np.roll(covered, step, axis=axis) & ~covered
            texture[beside] = np.roll(texture, step, axis=axis)[beside]
            covered |= beside


def _nearest_colors(colored: Any, points: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, 3) sRGB-encoded colours of the mesh `colored` nearest to each of `points` (N, 3)."""
    with Stage() as stage:
        source = stage.add(_with_vertex_colors(colored))
        mesh = bpy.data.meshes.new("points")
        mesh.vertices.add(len(points))
        mesh.vertices.foreach_set("co", points.astype(np.float32).reshape(-1))
        target = stage.add(mesh)
        _write_colors(mesh, np.zeros((len(points), 3), dtype=np.float32))
        modifier = target.modifiers.new("colors", "DATA_TRANSFER")
        modifier.object = source
        modifier.use_vert_data = True
        modifier.data_types_verts = {"COLOR_VERTEX"}
        modifier.vert_mapping = "POLYINTERP_NEAREST"
        return _vertex_colors(target.evaluated_get(_depsgraph(stage)).data)


def _with_vertex_colors(colored: Any) -> Any:
    """A copy of the mesh with one colour per vertex: the average of its corners' colours."""
    copy = colored.copy()
    if copy.color_attributes[COLOR_ATTRIBUTE].domain == "CORNER":
        vertex = _corner_vertices(copy)
        number = np.maximum(np.bincount(vertex, minlength=len(copy.vertices)), 1)
        mean = [
            np.bincount(vertex, column, len(copy.vertices)) / number
            for column in _corner_colors(copy).T[:3]
        ]
        _write_colors(copy, np.stack(mean, axis=-1).astype(np.float32))
    return copy


def _corner_vertices(mesh: Any) -> NDArray[np.int32]:
    """(N,) the vertex at each corner."""
    vertex = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", vertex)
    return vertex


def _vertex_colors(mesh: Any) -> NDArray[np.float32]:
    values = np.empty(4 * len(mesh.vertices), dtype=np.float32)
    mesh.color_attributes[COLOR_ATTRIBUTE].data.foreach_get("color_srgb", values)
    return values.reshape(-1, 4)[:, :3]


def _write_colors(mesh: Any, colors: NDArray[np.floating]) -> None:
    """Replace the colour attribute with `colors` (N, 3) at the vertices."""
    _remove_colors(mesh)
    attribute = mesh.color_attributes.new(COLOR_ATTRIBUTE, "BYTE_COLOR", "POINT")
    rgba = np.ones((len(colors), 4), dtype=np.float32)
    rgba[:, :3] = colors
    attribute.data.foreach_set("color_srgb", rgba.reshape(-1))
    mesh.color_attributes.active_color_index = 0
    mesh.color_attributes.render_color_index = 0


def _remove_colors(mesh: Any) -> None:
    attribute = mesh.color_attributes.get(COLOR_ATTRIBUTE)
    if attribute is not None:
        mesh.color_attributes.remove(attribute)


# Size and asset


def _scale(mesh: Any, height: float) -> float:
    """Scale the mesh to `height` metres (0: leave it); returns the factor."""
    if not height or not len(mesh.vertices):
        return 1.0
    extent = float(np.ptp(vertex_positions(mesh)[:, 2])) or 1.0
    factor = height / bpy.context.scene.unit_settings.scale_length / extent
    mesh.transform(Matrix.Diagonal((factor, factor, factor, 1.0)), shape_keys=True)
    return factor


def asset_picture(obj: Any) -> NDArray[np.float32]:
    """A preview of `obj`, (H, W, 4), row 0 at the bottom, by the built-in shader.

    Blender's own previews need a window.
    """
    with Stage() as stage:
        user = _user_of(obj.data, stage)
        surface = surface_from_objects([user], _depsgraph(stage))
    low, high = surface.bounds
    middle = (low + high) / 2
    radius = float(np.linalg.norm(surface.vertices - middle, axis=1).max())
    eye = middle + radius * PREVIEW_EYE
    camera = Camera.look_at(eye, middle, width=PREVIEW_SIZE, height=PREVIEW_SIZE)
    return shade_surface(surface, camera)[::-1].astype(np.float32) / 255


def mark_as_asset(obj: Any, picture: NDArray[np.float32]) -> None:
    """Mark `obj` as an asset. picture : its preview, (H, W, 4), row 0 at the bottom."""
    obj.asset_mark()
    obj.asset_data.description = "Generated from an image by X-Ray"
    preview = obj.preview_ensure()
    height, width = picture.shape[:2]
    preview.image_size = (width, height)
    preview.image_pixels_float.foreach_set(picture.reshape(-1))


def vertex_positions(mesh: Any) -> NDArray[np.float32]:
    """The vertices, (N, 3)."""
    positions = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", positions)
    return positions.reshape(-1, 3)
