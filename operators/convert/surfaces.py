"""Converts Blender objects to one `Surface` in world space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import linear_to_srgb
from ...xray_addon.surface import Surface
from .materials import Appearance, MaterialReader
from .visibility import Visibility, no_faces, shown_in

# Object types that may have faces once evaluated. An empty may instance a collection.
SOLID_TYPES = frozenset({"MESH", "CURVE", "SURFACE", "FONT", "META", "CURVES", "EMPTY"})


@dataclass(frozen=True, eq=False)
class FaceSources:
    """The object, material and polygon that each face of a surface comes from.

    objects : name of each object; every instance has its own entry. materials : names; "" for none.
    object, material : (M,) int32 indices into these, per face. face : (M,) int32 index of the
    polygon in the evaluated mesh.
    missing : names of missing image files that materials use.
    transparent : names of materials that are mostly transparent. clipped : names of materials whose
        transparency an image or nodes decide; see `Appearance.see_through`.
    step : the rounding step of single precision, in the scene's units, at the largest coordinates
        of the faces in their own meshes and, if there are several objects, of the objects'
        locations. place_step : the same for the locations alone.
    """

    objects: tuple[str, ...]
    materials: tuple[str, ...]
    object: NDArray[np.int32]
    material: NDArray[np.int32]
    face: NDArray[np.int32]
    missing: tuple[str, ...] = ()
    transparent: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    step: float = 0.0
    place_step: float = 0.0


@dataclass(frozen=True, eq=False)
class _Part:
    """The faces of one mesh. `material` (M,) indexes `materials`, the names of its slots."""

    surface: Surface
    polygon: NDArray[np.int32]
    material: NDArray[np.int32]
    materials: list[str]


def surface_from_objects(
    objects: Iterable[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    *,
    visible_in: str = "render",
) -> Surface:
    """The evaluated faces of `objects` in world space; see `surface_and_sources`."""
    return surface_and_sources(objects, depsgraph, visible_in=visible_in)[0]


def surface_and_sources(
    objects: Iterable[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    reader: MaterialReader | None = None,
    visible_in: str = "render",
) -> tuple[Surface, FaceSources]:
    """The evaluated faces of `objects` in world space, and where each comes from.

    Modifiers, parents, mirroring scales, instances (of collections, of Geometry Nodes, of
    vertices and faces) and object-level materials are included. Objects that are hidden in
    `visible_in` ("render" or "viewport") are not; see `visibility`. Modifiers have their viewport
    settings. A shared `reader` reads materials and images only once over several calls.

    Raises XRayError `no_faces` if there are no faces.
    """
    reader = reader or MaterialReader()
    wanted = list(objects)
    parts: list[Surface] = []
    sources: list[tuple[str, _Part]] = []
    steps: list[tuple[float, float]] = []
    local: dict[tuple[Any, ...], _Part | None] = {}
    with shown_in(visible_in, depsgraph):
        for instance in solid_instances(wanted, depsgraph, visible_in):
            obj: Any = instance.object
            materials = tuple(
                slot.material.name_full if slot.material else "" for slot in obj.material_slots
            )
            key = (obj.type, obj.data.as_pointer(), materials)
            if not instance.is_instance or key not in local:
                local[key] = _local_part(obj, depsgraph, reader)
            part = local[key]
            if part is not None:
                matrix = np.array(instance.matrix_world)
                parts.append(part.surface.transformed(matrix))
                sources.append((obj.name_full, part))
                steps.append(_float_steps(part.surface, matrix))
    if not parts:
        raise no_faces(wanted, depsgraph, visible_in)
    joined = _joined_sources(sources, reader)
    inside, places = (max(values) for values in zip(*steps, strict=True))
    step = max(inside, places) if len(parts) > 1 else inside
    return Surface.joined(parts), replace(joined, step=step, place_step=places)


def _float_steps(surface: Surface, matrix: NDArray[Any]) -> tuple[float, float]:
    """The rounding step of single precision at a mesh's vertices, and at its location in `matrix`,
    in the scene's units."""
    known = surface.vertices[np.isfinite(surface.vertices).all(axis=1)]
    farthest = np.abs(known).max(axis=0, initial=0.0)
    inside = np.abs(matrix[:3, :3]) @ np.spacing(farthest.astype(np.float32))
    places = np.spacing(np.abs(matrix[:3, 3]).astype(np.float32))
    return float(inside.max()), float(places.max())


def solid_instances(
    objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph, visible_in: str
) -> Iterator[Any]:
    """The visible instances of `objects` that may have faces; each is valid until the next.

    To be used inside `shown_in` with the same `visible_in`.
    """
    wanted = {obj.name_full for obj in objects}
    seen = Visibility(visible_in, depsgraph)
    for item in objects:
        if item.mode == "EDIT":
            item.update_from_editmode()
    for instance in depsgraph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner is None or owner.original.name_full not in wanted or not instance.show_self:
            continue
        if instance.object.type in SOLID_TYPES - {"EMPTY"} and seen.counts(instance):
            yield instance


def _local_part(
    obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph, reader: MaterialReader
) -> _Part | None:
    """The faces of one evaluated object in its own space, or None without faces.

    `face_material` indexes `reader.appearances`. All materials read so far belong to the part.
    """
    mesh = obj.to_mesh(depsgraph=depsgraph)
    try:
        return _read_mesh(mesh, obj, reader) if mesh is not None else None
    finally:
        obj.to_mesh_clear()


def _read_mesh(mesh: Any, obj: bpy.types.Object, reader: MaterialReader) -> _Part | None:
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    if not count:
        return None
    faces = _read(mesh.loop_triangles, "vertices", np.int32, (count, 3))
    corners = _read(mesh.loop_triangles, "loops", np.int32, (count, 3))
    polygon = _read(mesh.loop_triangles, "polygon_index", np.int32, (count,))
    vertices = _read(mesh.vertices, "co", np.float32, (len(mesh.vertices), 3))
    normals = _read(mesh.corner_normals, "vector", np.float32, (len(mesh.loops), 3))

    slots = slot_materials(mesh, obj)
    slot = np.minimum(
        _read(mesh.polygons, "material_index", np.int32, (len(mesh.polygons),)), len(slots) - 1
    )[polygon]
    colored = mesh.color_attributes.active_color_index >= 0 or len(mesh.color_attributes) > 0
    indices = np.array([reader.index(material, colored) for material in slots])
    appearances = [reader.appearances[i] for i in indices]
    surface = Surface(
        vertices,
        faces,
        corner_normals=normals[corners],
        corner_uvs=_uvs(mesh, corners, slot, appearances, always=reader.factors),
        corner_colors=_colors(mesh, faces, corners, polygon, slot, appearances),
        face_material=indices[slot],
        materials=[appearance.material for appearance in reader.appearances],
    )
    names = [material.name_full if material else "" for material in slots]
    return _Part(surface, polygon, slot, names)


def slot_materials(mesh: Any, obj: bpy.types.Object) -> list[bpy.types.Material | None]:
    """The material of each slot (at least one). Object materials override the mesh's."""
    materials = list(mesh.materials)
    for i, slot in enumerate(obj.material_slots):
        if i >= len(materials):
            materials.append(slot.material)
        elif slot.link == "OBJECT":
            materials[i] = slot.material
    return materials or [None]


def _uvs(
    mesh: Any,
    corners: NDArray[np.int32],
    slot: NDArray[np.int32],
    appearances: list[Appearance],
    *,
    always: bool,
) -> NDArray[np.float32] | None:
    """(M, 3, 2) from the UV map that each face's material reads.

    None if there is no UV map or, unless `always`, if no texture uses one.
    """
    layers = list(mesh.uv_layers)
    if not layers or not (
        always or any(appearance.material.texture is not None for appearance in appearances)
    ):
        return None
    active = next((layer for layer in layers if layer.active_render), layers[0])
    uvs = np.zeros((len(corners), 3, 2), dtype=np.float32)
    cache: dict[str, NDArray[np.float32]] = {}
    for i, appearance in enumerate(appearances):
        layer = mesh.uv_layers.get(appearance.uv_map) or active
        if layer.name not in cache:
            cache[layer.name] = _read(layer.uv, "vector", np.float32, (len(mesh.loops), 2))
        chosen = slot == i
        uv = cache[layer.name][corners[chosen]]
        if appearance.uv_transform is not None:
            uv = uv @ appearance.uv_transform[:, :2].T + appearance.uv_transform[:, 2]
        uvs[chosen] = uv
    return uvs


def _colors(
    mesh: Any,
    faces: NDArray[np.int32],
    corners: NDArray[np.int32],
    polygon: NDArray[np.int32],
    slot: NDArray[np.int32],
    appearances: list[Appearance],
) -> NDArray[np.float32] | None:
    """(M, 3, 3) from the colour attribute that each face's material reads, white elsewhere.

    As in Cycles, any attribute can be a colour: numbers are grey in linear light, and a missing
    attribute is black. Between corners an X-Ray interpolates encoded colours, Cycles linear light.
    """
    attributes = mesh.color_attributes
    colors: NDArray[np.float32] | None = None
    for i, appearance in enumerate(appearances):
        chosen = slot == i
        if appearance.color_attribute is None or not chosen.any():
            continue
        if appearance.color_attribute:
            attribute = mesh.attributes.get(appearance.color_attribute)
        else:
            index = max(attributes.render_color_index, 0)
            attribute = attributes[index] if index < len(attributes) else None
        if attribute is not None and attribute.domain == "EDGE":  # not shown on faces
            continue
        if colors is None:
            colors = np.ones((len(faces), 3, 3), dtype=np.float32)
        if attribute is None:
            colors[chosen] = 0.0
            continue
        index_of = {
            "POINT": faces,
            "CORNER": corners,
            "FACE": np.repeat(polygon[:, None], 3, axis=1),
        }[attribute.domain]
        colors[chosen] = _attribute_colors(attribute)[index_of[chosen]]
    return colors


def _attribute_colors(attribute: Any) -> NDArray[np.float32]:
    """(N, 3) sRGB-encoded colours of an attribute, as Cycles shows them."""
    count = len(attribute.data)
    match attribute.data_type:
        case "FLOAT_COLOR" | "BYTE_COLOR":
            # `color_srgb` encodes float colours, which are linear. Byte colours are as stored.
            return _read(attribute.data, "color_srgb", np.float32, (count, 4))[:, :3]
        case "FLOAT_VECTOR":
            light = _read(attribute.data, "vector", np.float32, (count, 3))
        case "FLOAT2":
            flat = _read(attribute.data, "vector", np.float32, (count, 2))
            light = np.concatenate([flat, np.zeros((count, 1), np.float32)], axis=1)
        case "FLOAT":
            light = np.repeat(_read(attribute.data, "value", np.float32, (count, 1)), 3, axis=1)
        case "INT" | "INT8":
            numbers = _read(attribute.data, "value", np.int32, (count, 1))
            light = np.repeat(numbers.astype(np.float32), 3, axis=1)
        case "BOOLEAN":
            flags = _read(attribute.data, "value", np.bool_, (count, 1))
            light = np.repeat(flags.astype(np.float32), 3, axis=1)
        case _:
            light = np.zeros((count, 3), dtype=np.float32)
    return linear_to_srgb(np.clip(light, 0.0, 1.0)).astype(np.float32)


def _joined_sources(parts: list[tuple[str, _Part]], reader: MaterialReader) -> FaceSources:
    counts = [len(part.polygon) for _, part in parts]
    names = sorted({name for _, part in parts for name in part.materials})
    index = {name: i for i, name in enumerate(names)}
    return FaceSources(
        tuple(name for name, _ in parts),
        tuple(names),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        np.concatenate(
            [
                np.array([index[name] for name in part.materials], dtype=np.int32)[part.material]
                for _, part in parts
            ]
        ),
        np.concatenate([part.polygon for _, part in parts]),
        tuple(sorted({name for appearance in reader.appearances for name in appearance.missing})),
        reader.see_through("transparent"),
        reader.see_through("clipped"),
    )


def _read(collection: Any, name: str, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    values: NDArray[Any] = np.empty(int(np.prod(shape)), dtype=kind)
    collection.foreach_get(name, values)
    return values.reshape(shape)
