"""Bakes procedural materials: Cycles renders the colour of a node tree into a texture.

The colour network (base colour plus emission) is taken out of the shaders and baked as emission,
so that neither lighting nor metallic shading darkens it. Everything happens on copies in a
temporary scene. The user's objects, materials and scene are not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.casting.texels import cast_uvs
from ...xray_addon.errors import XRayError
from ...xray_addon.omage.charts import areas
from ...xray_addon.surface import Material, Surface
from ..interface.standard_output import quietly
from .factors import DEFAULTS
from .materials import (
    MaterialReader,
    node_tree,
    surface_socket,
    texture_from_image,
    with_nodes,
)
from .node_trees import NodeBuilder, alpha_of, cannot_bake, color_of, factor_of
from .staging import TEMPORARY, Stage, set_engine
from .surfaces import FaceSources, slot_materials, solid_instances, surface_and_sources
from .visibility import shown_in

if TYPE_CHECKING:
    from ...xray_addon.settings.dataset import DatasetSettings

# Rays per texel. Material colours have no noise, so these only antialias.
SAMPLES = 4
# Texels by which colours extend beyond their UV islands, to avoid seams.
MARGIN = 8
# The user's UV map is used if at most this share of its texels is covered twice.
MAX_OVERLAP = 0.002
# Side in texels of the image in which overlap is measured.
OVERLAP_SIZE = 512


@dataclass(frozen=True, eq=False)
class _Baked:
    """The bake of one mesh: which polygons are baked, their UVs by loop (N, 2), the texture.

    factors : metallic and roughness fields of `Material`; empty if they were not requested.
    """

    polygons: NDArray[np.bool_]
    loop_uvs: NDArray[np.float32]
    corners: NDArray[np.int32]
    texture: NDArray[np.uint8]
    factors: dict[str, Any]


def read_surface(
    objects: Sequence[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    settings: DatasetSettings,
    *,
    factors: bool = False,
) -> tuple[Surface, FaceSources]:
    """The evaluated faces of `objects` in world space with their materials' colours.

    As `surface_and_sources`, but procedural materials are baked first at `settings.bake_size`; if
    `settings.materials` is "skip" they raise an error instead. factors : also read metallic and
    roughness.

    Raises XRayError `no_faces`, `needs_baking` with each material and its reason, `cannot_bake`,
    `no_renderer`.
    """
    objects = list(objects)
    reader = MaterialReader(alpha_clip=settings.alpha_clip, factors=factors)
    surface, sources = surface_and_sources(objects, depsgraph, reader, settings.visible_in)
    reasons = _reasons(objects, depsgraph, reader, settings.visible_in)
    if not reasons:
        return surface, sources
    if settings.materials == "skip":
        each = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        raise XRayError(
            "needs_baking",
            f"Some materials are not just textures, colour attributes and constants ({each}).",
            "Turn on baking of materials, or simplify them.",
        )
    baked = _with_baked(surface, sources, objects, depsgraph, set(reasons), settings, factors)
    return baked, sources


def _reasons(
    objects: Sequence[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    reader: MaterialReader,
    visible_in: str,
) -> dict[str, str]:
    """The reason for each material, by name, that cannot be read without baking."""
    if not any(appearance.reason for appearance in reader.appearances):
        return {}
    found = {}
    with shown_in(visible_in, depsgraph):
        for instance in solid_instances(objects, depsgraph, visible_in):
            source: Any = instance.object
            # `surface_and_sources` only met materials that are in one of these two lists.
            materials = [slot.material for slot in source.material_slots]
            materials += list(getattr(source.data, "materials", ()))
            for material in materials:
                if material is not None and (
                    reason := reader.appearances[reader.index(material, False)].reason
                ):
                    found[material.name_full] = reason
    return found


def _with_baked(
    surface: Surface,
    sources: FaceSources,
    objects: Sequence[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    names: set[str],
    settings: DatasetSettings,
    factors: bool = False,
) -> Surface:
    """`surface` with baked textures on the faces whose material is in `names`."""
    count = len(surface.faces)
    uvs = surface.corner_uvs
    uvs = np.zeros((count, 3, 2), np.float32) if uvs is None else np.array(uvs)
    colors = None if surface.corner_colors is None else np.array(surface.corner_colors)
    assert surface.face_material is not None
    index, materials = np.array(surface.face_material), list(surface.materials)
    with Stage() as stage:
        copies = stage.add_copies(objects, depsgraph, settings.visible_in)
        if len(copies) != len(sources.objects):
            raise cannot_bake(objects[0].name, "its instances changed while they were read")
        baked: dict[str, _Baked | None] = {}
        slots: dict[str, int] = {}
        for number, copy in enumerate(copies):
            mesh = copy.data
            if mesh.name not in baked:
                baked[mesh.name] = _bake(stage, copy, names, settings, factors)
                slots[mesh.name] = len(materials)
                if (found := baked[mesh.name]) is not None:
                    threshold = 0.5 if found.texture.shape[2] == 4 else 0.0
                    material = Material(
                        texture=found.texture, wrap="extend", alpha_threshold=threshold
                    )
                    materials.append(replace(material, **found.factors))
            result = baked[mesh.name]
            if result is None:
                continue
            own = np.flatnonzero(sources.object == number)
            chosen = result.polygons[sources.face[own]]
            uvs[own[chosen]] = result.loop_uvs[result.corners[chosen]]
            index[own[chosen]] = slots[mesh.name]
            if colors is not None:
                colors[own[chosen]] = 1.0
    return replace(
        surface, corner_uvs=uvs, corner_colors=colors, face_material=index, materials=materials
    )


def _bake(
    stage: Stage, copy: Any, names: set[str], settings: DatasetSettings, factors: bool
) -> _Baked | None:
    """Bake the materials of one copy that are in `names`; None if it has none of them."""
    mesh = copy.data
    materials = slot_materials(mesh, copy)
    wanted = np.array([m is not None and m.name_full in names for m in materials])
    slot = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("material_index", slot)
    polygons = wanted[np.minimum(slot, len(materials) - 1)]
    if not polygons.any():
        return None
    layer = _free_uvs(mesh, polygons) or unwrap(stage, copy, polygons)
    size = settings.bake_size
    # The image holds linear light in floats; it is encoded once, when it is read.
    image = stage.own(bpy.data.images.new(TEMPORARY, size, size, float_buffer=True))
    ignored = stage.own(bpy.data.images.new(TEMPORARY, 1, 1))
    for number, material in enumerate(materials):
        if wanted[number]:
            made = stage.own(material.copy())
        else:
            made = stage.own(bpy.data.materials.new(TEMPORARY))
            with_nodes(made)
        _set_target(node_tree(made), image if wanted[number] else ignored)
        if number < len(mesh.materials):
            mesh.materials[number] = made
        else:
            mesh.materials.append(made)
    baking = [mesh.materials[n] for n in np.flatnonzero(wanted)]
    restore = [_emit(stage, material, color_of) for material in baking]
    _run_bake(stage, copy, layer)
    texture = texture_from_image(image)
    if texture is None:
        raise cannot_bake(copy.name, "the texture is empty")
    texture = texture[..., :3]
    if settings.alpha_clip:
        for material, (tree, shader) in zip(baking, restore, strict=True):
            _relink(material, tree, shader)
            _emit(stage, material, alpha_of)
        _run_bake(stage, copy, layer)
        alpha = _pixels(image, size)[..., :1]
        if (alpha < 0.5).any():
            encoded = np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
            texture = np.concatenate([texture, encoded], axis=2)
    found: dict[str, Any] = {}
    for name in DEFAULTS if factors else ():
        for material, (tree, shader) in zip(baking, restore, strict=True):
            _relink(material, tree, shader)
            _emit(stage, material, factor_of(name))
        _run_bake(stage, copy, layer)
        grey = _pixels(image, size)[..., 0]
        found[name.lower()] = 1.0
        found[f"{name.lower()}_texture"] = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    mesh.calc_loop_triangles()
    corners = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    return _Baked(polygons, loop_uvs(mesh, layer), corners.reshape(-1, 3), texture, found)


def _pixels(image: Any, size: int) -> NDArray[np.float32]:
    """(size, size, 4), row 0 at the top."""
    pixels = np.empty(size * size * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    return pixels.reshape(size, size, 4)[::-1]


def loop_uvs(mesh: Any, layer: str) -> NDArray[np.float32]:
    """(N, 2) UV coordinates of each loop."""
    uvs = np.empty(2 * len(mesh.loops), dtype=np.float32)
    mesh.uv_layers[layer].uv.foreach_get("vector", uvs)
    return uvs.reshape(-1, 2)


def _free_uvs(mesh: Any, polygons: NDArray[np.bool_]) -> str:
    """Name of a UV map with the polygons inside the image and without overlap, or ""."""
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    corners = np.empty(3 * count, dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    owner = np.empty(count, dtype=np.int32)
    mesh.loop_triangles.foreach_get("polygon_index", owner)
    corners = corners.reshape(-1, 3)[polygons[owner]]
    for layer in sorted(mesh.uv_layers, key=lambda layer: not layer.active_render):
        uvs = loop_uvs(mesh, layer.name)[corners]
        if not np.isfinite(uvs).all() or uvs.min() < 0 or uvs.max() > 1:
            continue
        seen = cast_uvs(uvs, OVERLAP_SIZE, 2)
        first, second = seen.hits_per_layer
        # A face without UV area would have no texel of its own.
        if first and second <= MAX_OVERLAP * first and areas(uvs).all():
            return str(layer.name)
    return ""


def unwrap(stage: Stage, copy: Any, polygons: NDArray[np.bool_]) -> str:
    """Make a UV map of the chosen polygons with Smart UV Project; returns its name.

    copy : an object in the stage. Raises XRayError `cannot_bake`.
    """
    mesh = copy.data
    shown = next((layer.name for layer in mesh.uv_layers if layer.active_render), "")
    layer = mesh.uv_layers.new(name=TEMPORARY, do_init=False)
    if layer is None:
        raise cannot_bake(copy.name, "it has as many UV maps as Blender allows")
    name = str(layer.name)
    mesh.uv_layers.active = layer
    if shown:
        mesh.uv_layers[shown].active_render = True
    mesh.polygons.foreach_set("select", polygons)
    mesh.polygons.foreach_set("hide", np.zeros(len(polygons), dtype=bool))
    try:
        with _active(stage, copy):
            bpy.ops.object.mode_set(mode="EDIT")
            with bpy.context.temp_override(edit_object=copy):
                bpy.ops.uv.smart_project(
                    angle_limit=math.radians(66.0),
                    island_margin=MARGIN / 4096,
                    area_weight=0.0,
                    correct_aspect=False,
                    scale_to_bounds=False,
                )
            bpy.ops.object.mode_set(mode="OBJECT")
    except RuntimeError as error:
        raise cannot_bake(copy.name, str(error)) from error
    return name


def _active(stage: Stage, copy: Any) -> Any:
    """A context in which `copy` is active and the only selected object."""
    scene = stage.scene
    view_layer = scene.view_layers[0]
    for obj in scene.objects:
        obj.select_set(obj is copy, view_layer=view_layer)
    copy.select_set(True, view_layer=view_layer)
    view_layer.objects.active = copy
    view_layer.update()
    return bpy.context.temp_override(
        scene=scene,
        view_layer=view_layer,
        object=copy,
        active_object=copy,
        selected_objects=[copy],
        selected_editable_objects=[copy],
    )


def _set_target(tree: Any, image: Any) -> None:
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    for other in tree.nodes:
        other.select = False
    node.select = True
    tree.nodes.active = node


def _run_bake(stage: Stage, copy: Any, layer: str) -> None:
    scene = stage.scene
    set_engine(scene, "CYCLES", "Cycles")
    scene.cycles.device = "CPU"
    scene.cycles.samples, scene.cycles.use_denoising = SAMPLES, False
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.max_bounces = 0
    scene.render.bake.use_selected_to_active = False
    try:
        with _active(stage, copy), quietly():
            done: Any = bpy.ops.object.bake(
                type="EMIT", uv_layer=layer, margin=MARGIN, use_clear=True, save_mode="INTERNAL"
            )
    except RuntimeError as error:
        raise cannot_bake(copy.name, str(error)) from error
    if done != {"FINISHED"}:
        raise cannot_bake(copy.name, "it was cancelled")


# Colour networks


def _emit(stage: Stage, material: Any, network: Any) -> tuple[Any, Any]:
    """Emit the output of `network` for the material's shader; returns what to restore."""
    tree = node_tree(material)
    surface = surface_socket(material)
    if tree is None or surface is None or not surface.is_linked:
        raise cannot_bake(material.name, "it has no shader")
    shader = surface.links[0].from_socket
    builder = NodeBuilder(stage, tree)
    result = network(builder, surface)
    light = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(builder.with_alphas(result), light.inputs["Color"])
    tree.links.new(light.outputs["Emission"], surface)
    return tree, shader


def _relink(material: Any, tree: Any, shader: Any) -> None:
    tree.links.new(shader, surface_socket(material))
