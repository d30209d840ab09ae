"""Colours of materials that compute them: Cycles bakes what a node tree shows into a texture.

The colour network is taken out of the shaders (base colour, plus what glows) and baked as
emission, so that neither light nor metal darkens it. All of it happens on copies in a temporary
scene; the user's objects, materials and scene are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.camera import Camera
from ...xray_addon.casting import cast
from ...xray_addon.errors import XRayError
from ...xray_addon.surface import Material, Surface
from ..interface.standard_output import quietly
from .materials import (
    MaterialReader,
    emits,
    group_output,
    node_tree,
    source_of,
    surface_socket,
    texture_from_image,
)
from .staging import Stage
from .surfaces import FaceSources, slot_materials, solid_instances, surface_and_sources

if TYPE_CHECKING:
    from ...xray_addon.settings import DatasetSettings
    from ...xray_addon.xray import XRay

# Rays a texel: what a material shows has no noise, so these only smooth it.
SAMPLES = 4
# Texels that a texture goes on beyond its islands, so that no seam shows.
MARGIN = 8
# A UV map of the user's serves where at most this share of its texels is covered twice.
MAX_OVERLAP = 0.002
# Texels along the side of the image in which overlap is looked for.
OVERLAP_SIZE = 512

_UV_MAP = "X-Ray (temporary)"


@dataclass(frozen=True, eq=False)
class _Baked:
    """Of one mesh: which polygons are baked, their UVs by loop (N, 2), and the texture."""

    polygons: NDArray[np.bool_]
    loop_uvs: NDArray[np.float32]
    corners: NDArray[np.int32]
    texture: NDArray[np.uint8]


def read_surface(
    objects: Sequence[bpy.types.Object],
    depsgraph: bpy.types.Depsgraph,
    settings: DatasetSettings,
) -> tuple[Surface, FaceSources]:
    """The evaluated faces of `objects` in world space with the colours their materials show.

    As `surface_and_sources`; materials that compute their colour are baked first, at
    `settings.bake_size`, or with `settings.materials` "skip" refused.

    Raises XRayError `no_faces`, `needs_baking` with each material and its reason, `cannot_bake`.
    """
    objects = list(objects)
    reader = MaterialReader(alpha_clip=settings.alpha_clip)
    surface, sources = surface_and_sources(objects, depsgraph, reader)
    reasons = _reasons(objects, depsgraph, reader)
    if not reasons:
        return surface, sources
    if settings.materials == "skip":
        each = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        raise XRayError(
            "needs_baking",
            f"Colours are more than textures, colour attributes and constants ({each}).",
            "Let them be baked, or simplify the materials.",
        )
    return _with_baked(surface, sources, objects, depsgraph, set(reasons), settings), sources


def _reasons(
    objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph, reader: MaterialReader
) -> dict[str, str]:
    """Why each material that cannot be followed is so, by name."""
    if not any(look.reason for look in reader.looks):
        return {}
    found = {}
    for instance in solid_instances(objects, depsgraph):
        source: Any = instance.object
        # Every material that `surface_and_sources` met is in one of these.
        materials = [slot.material for slot in source.material_slots]
        materials += list(getattr(source.data, "materials", ()))
        for material in materials:
            if material is not None and (
                reason := reader.looks[reader.index(material, False)].reason
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
) -> Surface:
    """`surface` with baked textures on the faces whose material is one of `names`."""
    count = len(surface.faces)
    uvs = surface.corner_uvs
    uvs = np.zeros((count, 3, 2), np.float32) if uvs is None else np.array(uvs)
    colors = None if surface.corner_colors is None else np.array(surface.corner_colors)
    assert surface.face_material is not None
    index, materials = np.array(surface.face_material), list(surface.materials)
    with Stage() as stage:
        copies = stage.add_copies(objects, depsgraph)
        if len(copies) != len(sources.objects):
            raise _cannot_bake(objects[0].name, "its instances changed while they were read")
        baked: dict[str, _Baked | None] = {}
        slots: dict[str, int] = {}
        for number, copy in enumerate(copies):
            mesh = copy.data
            if mesh.name not in baked:
                baked[mesh.name] = _bake(stage, copy, names, settings)
                slots[mesh.name] = len(materials)
                if (found := baked[mesh.name]) is not None:
                    threshold = 0.5 if found.texture.shape[2] == 4 else 0.0
                    materials.append(
                        Material(texture=found.texture, wrap="extend", alpha_threshold=threshold)
                    )
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


def _bake(stage: Stage, copy: Any, names: set[str], settings: DatasetSettings) -> _Baked | None:
    """Bake those materials of one copy that are in `names`; None where it has none."""
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
    # Linear light in floats, which are encoded once, when they are read.
    image = stage.own(bpy.data.images.new(_UV_MAP, size, size, float_buffer=True))
    ignored = stage.own(bpy.data.images.new(_UV_MAP, 1, 1))
    for number, material in enumerate(materials):
        if wanted[number]:
            made = stage.own(material.copy())
        else:
            made = stage.own(bpy.data.materials.new(_UV_MAP))
            if bpy.app.version < (5, 0, 0):
                made.use_nodes = True
        _set_target(node_tree(made), image if wanted[number] else ignored)
        if number < len(mesh.materials):
            mesh.materials[number] = made
        else:
            mesh.materials.append(made)
    baking = [mesh.materials[n] for n in np.flatnonzero(wanted)]
    restore = [_emit(stage, material, _color_of) for material in baking]
    _run_bake(stage, copy, layer)
    texture = texture_from_image(image)
    if texture is None:
        raise _cannot_bake(copy.name, "the texture is empty")
    texture = texture[..., :3]
    if settings.alpha_clip:
        for material, (tree, shader) in zip(baking, restore, strict=True):
            _relink(material, tree, shader)
            _emit(stage, material, _alpha_of)
        _run_bake(stage, copy, layer)
        opacity = np.empty(size * size * 4, dtype=np.float32)
        image.pixels.foreach_get(opacity)
        alpha = opacity.reshape(size, size, 4)[::-1, :, :1]
        if (alpha < 0.5).any():
            encoded = np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
            texture = np.concatenate([texture, encoded], axis=2)
    mesh.calc_loop_triangles()
    corners = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    return _Baked(polygons, loop_uvs(mesh, layer), corners.reshape(-1, 3), texture)


def loop_uvs(mesh: Any, layer: str) -> NDArray[np.float32]:
    """(N, 2) of each loop in a UV map."""
    uvs = np.empty(2 * len(mesh.loops), dtype=np.float32)
    mesh.uv_layers[layer].uv.foreach_get("vector", uvs)
    return uvs.reshape(-1, 2)


def _free_uvs(mesh: Any, polygons: NDArray[np.bool_]) -> str:
    """The name of a UV map in which the chosen polygons lie inside the image and apart; or ""."""
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    corners = np.empty(3 * count, dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    owner = np.empty(count, dtype=np.int32)
    mesh.loop_triangles.foreach_get("polygon_index", owner)
    corners = corners.reshape(-1, 3)[polygons[owner]]
    for layer in sorted(mesh.uv_layers, key=lambda layer: not layer.active_render):
        uvs = loop_uvs(mesh, layer.name)[corners].reshape(-1, 2)
        if not np.isfinite(uvs).all() or uvs.min() < 0 or uvs.max() > 1:
            continue
        seen = cast_uvs(uvs, OVERLAP_SIZE, 2)
        first, second = seen.hits_per_layer
        area = np.abs(np.cross(uvs[1::3] - uvs[::3], uvs[2::3] - uvs[::3]))
        # A face that the map gives no area would have no texel of its own.
        if first and second <= MAX_OVERLAP * first and (area > 0).all():
            return str(layer.name)
    return ""


def cast_uvs(uvs: NDArray[np.floating], size: int, layers: int) -> XRay:
    """Which triangles (`hit_face`) cover each texel of a square image, by their UVs (3M, 2)."""
    # The image as a pinhole camera sees a unit square one unit away.
    pose = np.eye(4)
    pose[:3, 3] = (0.5, 0.5, 1.0)
    camera = Camera(size, size, 2 * np.arctan(0.5), pose)
    flat = np.concatenate([uvs, np.zeros((len(uvs), 1))], axis=1)
    return cast(Surface(flat, np.arange(len(uvs)).reshape(-1, 3)), camera, layers, faces=True)


def unwrap(stage: Stage, copy: Any, polygons: NDArray[np.bool_]) -> str:
    """A new UV map of the chosen polygons, made by Smart UV Project; returns its name.

    copy : an object in the stage. Raises XRayError `cannot_bake`.
    """
    mesh = copy.data
    shown = next((layer.name for layer in mesh.uv_layers if layer.active_render), "")
    layer = mesh.uv_layers.new(name=_UV_MAP, do_init=False)
    if layer is None:
        raise _cannot_bake(copy.name, "it has as many UV maps as Blender allows")
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
        raise _cannot_bake(copy.name, str(error)) from error
    return name


def _active(stage: Stage, copy: Any) -> Any:
    """A context in which `copy` is the one active and selected object."""
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
    scene.render.engine = "CYCLES"
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
        raise _cannot_bake(copy.name, str(error)) from error
    if done != {"FINISHED"}:
        raise _cannot_bake(copy.name, "it was cancelled")


def _cannot_bake(name: str, reason: str) -> XRayError:
    return XRayError(
        "cannot_bake",
        f"The materials of {name} cannot be baked: {reason.strip().rstrip('.')}.",
        "Simplify them to textures and colours, or leave the object out.",
    )


# Colour networks


def _emit(stage: Stage, material: Any, network: Any) -> tuple[Any, Any]:
    """Show what `network` makes of the material's shader as light; returns what to put back."""
    tree = node_tree(material)
    surface = surface_socket(material)
    if tree is None or surface is None or not surface.is_linked:
        raise _cannot_bake(material.name, "it has no shader")
    shader = surface.links[0].from_socket
    builder = _Builder(stage, tree)
    result = network(builder, surface)
    light = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(builder.with_alphas(result), light.inputs["Color"])
    tree.links.new(light.outputs["Emission"], surface)
    return tree, shader


def _relink(material: Any, tree: Any, shader: Any) -> None:
    tree.links.new(shader, surface_socket(material))


class _Builder:
    """Adds nodes to one tree; colours in and out are output sockets of it."""

    def __init__(self, stage: Stage, tree: Any) -> None:
        self.stage, self.tree = stage, tree
        self._alphas = [
            node.outputs["Alpha"]
            for node in tree.nodes
            if node.bl_idname == "ShaderNodeTexImage" and node.outputs["Alpha"].is_linked
        ]

    def with_alphas(self, color: Any) -> Any:
        """`color`, with the alpha of every image still in use.

        Cycles darkens an image by its alpha where nothing uses that, and emission does not.
        """
        for alpha in self._alphas:
            color = self.mix("ADD", 1e-9, color, alpha)
        return color

    def value(self, socket: Any) -> Any:
        """What an input socket holds, as an output: its source, or a constant."""
        link = next((ln for ln in socket.links if ln.is_valid and not ln.is_muted), None)
        if link is not None:
            return link.from_socket
        if socket.type == "RGBA":
            node = self.tree.nodes.new("ShaderNodeRGB")
            node.outputs[0].default_value = socket.default_value
        else:
            node = self.tree.nodes.new("ShaderNodeValue")
            node.outputs[0].default_value = socket.default_value
        return node.outputs[0]

    def constant(self, value: float) -> Any:
        """The same grey everywhere."""
        node = self.tree.nodes.new("ShaderNodeRGB")
        node.outputs[0].default_value = (value, value, value, 1.0)
        return node.outputs[0]

    def mix(self, kind: str, factor: Any, a: Any, b: Any) -> Any:
        """A Mix node; `factor` is an output or a number."""
        node = self.tree.nodes.new("ShaderNodeMix")
        node.data_type, node.blend_type = "RGBA", kind
        node.clamp_factor, node.clamp_result = True, False
        inputs = {socket.identifier: socket for socket in node.inputs}
        if isinstance(factor, (int, float)):
            inputs["Factor_Float"].default_value = factor
        else:
            self.tree.links.new(factor, inputs["Factor_Float"])
        self.tree.links.new(a, inputs["A_Color"])
        self.tree.links.new(b, inputs["B_Color"])
        return next(s for s in node.outputs if s.identifier == "Result_Color")

    def into_group(self, node: Any, output: Any, network: Any) -> Any:
        """What `network` makes of a shader inside a group, led out of a copy of the group."""
        inner = self.stage.own(node.node_tree.copy())
        node.node_tree = inner
        end = group_output(inner)
        shader = next(s for s in end.inputs if s.identifier == output.identifier)
        builder = _Builder(self.stage, inner)
        result = network(builder, shader)
        if result is None:
            return None
        result = builder.with_alphas(result)
        made = inner.interface.new_socket(_UV_MAP, in_out="OUTPUT", socket_type="NodeSocketColor")
        inner.links.new(result, next(s for s in end.inputs if s.identifier == made.identifier))
        return next(s for s in node.outputs if s.identifier == made.identifier)


def _shader_node(socket: Any) -> tuple[Any, Any]:
    """The node and output that feed a shader socket within its tree, through reroutes."""
    link = next((ln for ln in socket.links if ln.is_valid and not ln.is_muted), None)
    while link is not None and link.from_node.bl_idname == "NodeReroute":
        link = next((ln for ln in link.from_node.inputs[0].links if ln.is_valid), None)
    if link is None:
        return None, None
    node = link.from_node
    if node.mute:
        through = next((ln for ln in node.internal_links if ln.to_socket == link.from_socket), None)
        return _shader_node(through.from_socket) if through else (None, None)
    if node.bl_idname == "NodeGroupInput":
        raise _cannot_bake(node.id_data.name, "a shader goes into a group")
    return node, link.from_socket


def _color_of(build: _Builder, socket: Any) -> Any:
    """The colour that a shader socket shows; black where it shows none."""
    found = _shown(build, socket)
    return build.constant(0.0) if found is None else found


def _shown(build: _Builder, socket: Any) -> Any:
    node, output = _shader_node(socket)
    if node is None or node.bl_idname == "ShaderNodeBsdfTransparent":
        return None
    inputs = node.inputs
    match node.bl_idname:
        case "ShaderNodeGroup" if node.node_tree is not None:
            return build.into_group(node, output, _shown)
        case "ShaderNodeBsdfPrincipled":
            base = build.value(inputs["Base Color"])
            if not emits(node):
                return base
            glow = _times(build, inputs["Emission Color"], inputs["Emission Strength"])
            return build.mix("ADD", 1.0, base, glow)
        case "ShaderNodeEmission" | "ShaderNodeBackground":
            return _times(build, inputs["Color"], inputs["Strength"])
        case "ShaderNodeMixShader":
            first, second = _shown(build, inputs[1]), _shown(build, inputs[2])
            if first is None or second is None:
                return first if second is None else second
            return build.mix("MIX", build.value(inputs[0]), first, second)
        case "ShaderNodeAddShader":
            first, second = _shown(build, inputs[0]), _shown(build, inputs[1])
            if first is None or second is None:
                return first if second is None else second
            return build.mix("ADD", 1.0, first, second)
    for name in ("Base Color", "Color"):
        if name in inputs:
            return build.value(inputs[name])
    return None


def _times(build: _Builder, color: Any, strength: Any) -> Any:
    return build.mix("MULTIPLY", 1.0, build.value(color), build.value(strength))


def _alpha_of(build: _Builder, socket: Any) -> Any:
    """How opaque a shader socket is, as a grey."""
    found = _opacity(build, socket)
    return build.constant(1.0) if found is None else found


def _opacity(build: _Builder, socket: Any) -> Any:
    """None where it is opaque all over."""
    node, output = _shader_node(socket)
    if node is None:
        return None
    inputs = node.inputs
    match node.bl_idname:
        case "ShaderNodeBsdfTransparent":
            return build.constant(0.0)
        case "ShaderNodeGroup" if node.node_tree is not None:
            return build.into_group(node, output, _opacity)
        case "ShaderNodeMixShader":
            factor, _ = source_of(inputs[0])
            if factor is not None and factor.node.bl_idname == "ShaderNodeLightPath":
                return _opacity(build, inputs[2])
            first, second = _opacity(build, inputs[1]), _opacity(build, inputs[2])
            if first is None and second is None:
                return None
            return build.mix(
                "MIX",
                build.value(inputs[0]),
                build.constant(1.0) if first is None else first,
                build.constant(1.0) if second is None else second,
            )
    return build.value(inputs["Alpha"]) if "Alpha" in inputs else None
