"""Blender materials as what `Surface` knows: a base colour, a texture, a colour attribute.

A node tree can compute any colour; this follows what importers and artists build most: a shader's
colour from a value, an image, a colour attribute, or these multiplied. What it cannot follow
counts as its first colour input.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import linear_to_srgb
from ...xray_addon.surface import Material

# The grey, in linear light, that Blender shows where there is no material.
DEFAULT_GREY = (0.8, 0.8, 0.8)


@dataclass(frozen=True, eq=False)
class Look:
    """What colours the faces of one material.

    material : base colour and texture.
    uv_map : name of the UV map that the texture reads; "" for the one active in renders.
    uv_transform : (2, 3) affine map of the UVs, or None.
    color_attribute : name of the colour attribute that multiplies; "" for the one active in
        renders, None for none.
    """

    material: Material
    uv_map: str = ""
    uv_transform: NDArray[np.float64] | None = None
    color_attribute: str | None = None


@dataclass(frozen=True, eq=False)
class _Color:
    """A colour socket's value on its way: `rgb` is linear light."""

    rgb: NDArray[np.float64] = field(default_factory=lambda: np.array(DEFAULT_GREY))
    image: bpy.types.Image | None = None
    uv_map: str = ""
    uv_transform: NDArray[np.float64] | None = None
    color_attribute: str | None = None

    def times(self, other: _Color) -> _Color:
        """The product; where both have an image or an attribute, that of `self` stays."""
        source = self if self.image is not None else other
        return _Color(
            self.rgb * other.rgb,
            source.image,
            source.uv_map,
            source.uv_transform,
            other.color_attribute if self.color_attribute is None else self.color_attribute,
        )


_WHITE = _Color(np.ones(3))


class MaterialReader:
    """Turns Blender materials into looks, each material and each image once.

    looks : the materials met so far, in the order of their indices.
    """

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._index: dict[tuple[str, str], int] = {}
        self._textures: dict[str, NDArray[np.uint8] | None] = {}

    def index(self, material: bpy.types.Material | None, colored: bool) -> int:
        """The index into `looks` of `material`.

        `colored` says whether the mesh has a colour attribute: without a material it shows.
        """
        key = ("material", material.name_full) if material else ("none", str(colored))
        if key not in self._index:
            self._index[key] = len(self.looks)
            self.looks.append(self._read(material) if material else self._bare(colored))
        return self._index[key]

    def _bare(self, colored: bool) -> Look:
        return self._look(_Color(np.ones(3), color_attribute="") if colored else _Color())

    def _read(self, material: bpy.types.Material) -> Look:
        color = None
        tree = node_tree(material)
        if tree is not None:
            output = tree.get_output_node("ALL")
            surface = output.inputs["Surface"] if output else None
            if surface is not None:
                color = _shader_color(surface, ())
        if color is None:
            color = _Color(np.array(material.diffuse_color[:3], dtype=np.float64))
        return self._look(color)

    def _look(self, color: _Color) -> Look:
        # Blender's colours have single precision; the rest is noise that would hide pure white.
        red, green, blue = linear_to_srgb(color.rgb).round(7).tolist()
        texture = self._texture(color.image) if color.image else None
        return Look(
            Material((red, green, blue), texture),
            color.uv_map,
            color.uv_transform,
            color.color_attribute,
        )

    def _texture(self, image: bpy.types.Image) -> NDArray[np.uint8] | None:
        key = image.name_full
        if key not in self._textures:
            self._textures[key] = texture_from_image(image)
        return self._textures[key]


def node_tree(material: bpy.types.Material) -> Any:
    """The material's node tree, or None where it is shaded without nodes."""
    # From Blender 5.0 every material has nodes and asking is deprecated.
    if bpy.app.version < (5, 0, 0) and not material.use_nodes:
        return None
    return material.node_tree


def texture_from_image(image: Any) -> NDArray[np.uint8] | None:
    """(h, w, 3 or 4) uint8, sRGB-encoded, row 0 at the top; None where the file is missing."""
    width, height = image.size
    channels = image.channels
    if not width or not height or not channels:
        return None
    pixels = np.empty(width * height * channels, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    pixels = pixels.reshape(height, width, channels)[::-1]
    if channels < 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    # Byte images keep their file's encoding, float images are linear light.
    if image.is_float or image.colorspace_settings.name != "sRGB":
        pixels = np.concatenate([linear_to_srgb(pixels[..., :3]), pixels[..., 3:]], axis=2)
    texture: NDArray[np.uint8] = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return texture


# A stack of the group nodes that the walk has entered, innermost last.
_Groups = tuple[Any, ...]


def _source(socket: Any, groups: _Groups) -> tuple[Any, _Groups]:
    """The output socket that feeds `socket`, through reroutes and groups; None if nothing does."""
    while True:
        link = next((ln for ln in socket.links if ln.is_valid and not ln.is_muted), None)
        if link is None:
            return None, groups
        node, output = link.from_node, link.from_socket
        if node.bl_idname == "NodeReroute":
            socket = node.inputs[0]
        elif node.bl_idname == "ShaderNodeGroup" and node.node_tree is not None:
            inside = next(
                (n for n in node.node_tree.nodes if n.bl_idname == "NodeGroupOutput"), None
            )
            if inside is None:
                return None, groups
            socket = next(s for s in inside.inputs if s.identifier == output.identifier)
            groups = (*groups, node)
        elif node.bl_idname == "NodeGroupInput" and groups:
            socket = next(s for s in groups[-1].inputs if s.identifier == output.identifier)
            groups = groups[:-1]
            if not socket.is_linked:
                return socket, groups
        else:
            return output, groups


def _shader_color(socket: Any, groups: _Groups) -> _Color | None:
    """The colour of the first shader upstream of a shader socket that has one."""
    output, groups = _source(socket, groups)
    if output is None or output.node.bl_idname == "ShaderNodeBsdfTransparent":
        return None
    node = output.node
    for name in ("Base Color", "Color"):
        if name in node.inputs:
            return _socket_color(node.inputs[name], groups)
    for upstream in node.inputs:
        if upstream.type == "SHADER":
            color = _shader_color(upstream, groups)
            if color is not None:
                return color
    return None


def _socket_color(socket: Any, groups: _Groups) -> _Color:
    output, groups = _source(socket, groups)
    if output is None:
        return _constant(socket)
    if not output.is_output:  # an unlinked input of a group
        return _constant(output)
    node = output.node
    match node.bl_idname:
        case "ShaderNodeRGB":
            return _constant(output)
        case "ShaderNodeTexImage":
            if node.image is None:
                return _Color(np.zeros(3))
            uv_map, transform = _uv_source(node.inputs["Vector"], groups)
            return replace(_WHITE, image=node.image, uv_map=uv_map, uv_transform=transform)
        case "ShaderNodeVertexColor":
            return replace(_WHITE, color_attribute=node.layer_name)
        case "ShaderNodeAttribute":
            return replace(_WHITE, color_attribute=node.attribute_name)
        case "ShaderNodeMix" if node.data_type == "RGBA":
            inputs = {s.identifier: s for s in node.inputs}
            return _mixed(
                node, inputs["Factor_Float"], inputs["A_Color"], inputs["B_Color"], groups
            )
        case "ShaderNodeMixRGB":
            factor, a, b = list(node.inputs)[:3]
            return _mixed(node, factor, a, b, groups)
    for upstream in node.inputs:
        if upstream.type == "RGBA":
            return _socket_color(upstream, groups)
    return _Color()


def _mixed(node: Any, factor: Any, a: Any, b: Any, groups: _Groups) -> _Color:
    amount = 0.5 if factor.is_linked else float(factor.default_value)
    first, second = _socket_color(a, groups), _socket_color(b, groups)
    if node.blend_type == "MULTIPLY":
        return first.times(second) if amount >= 0.5 else first
    if first.image is second.image is None and first.color_attribute == second.color_attribute:
        return replace(first, rgb=first.rgb * (1 - amount) + second.rgb * amount)
    return second if amount > 0.5 else first


def _constant(socket: Any) -> _Color:
    value = np.array(socket.default_value, dtype=np.float64).reshape(-1)
    return _Color(value[:3] if len(value) >= 3 else np.repeat(value[:1], 3))


def _uv_source(socket: Any, groups: _Groups) -> tuple[str, NDArray[np.float64] | None]:
    """Which UV map an image's vector comes from, and the (2, 3) map that is applied to it."""
    output, groups = _source(socket, groups)
    node = output.node if output is not None and output.is_output else None
    if node is None or node.bl_idname not in ("ShaderNodeUVMap", "ShaderNodeMapping"):
        return "", None
    if node.bl_idname == "ShaderNodeUVMap":
        return node.uv_map, None
    uv_map, inner = _uv_source(node.inputs["Vector"], groups)
    matrix = np.eye(3) if inner is None else np.vstack([inner, (0.0, 0.0, 1.0)])
    return uv_map, (_mapping_matrix(node) @ matrix)[:2]


def _mapping_matrix(node: Any) -> NDArray[np.float64]:
    """(3, 3) of a Mapping node, seen in the plane of the UVs."""

    def value(name: str, fallback: tuple[float, float, float]) -> tuple[float, float, float]:
        socket = node.inputs.get(name)
        return tuple(socket.default_value) if socket and socket.enabled else fallback

    angle = value("Rotation", (0.0, 0.0, 0.0))[2]
    scale = value("Scale", (1.0, 1.0, 1.0))
    shift = value("Location", (0.0, 0.0, 0.0))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array(
        [
            [cos * scale[0], -sin * scale[1], shift[0]],
            [sin * scale[0], cos * scale[1], shift[1]],
            [0.0, 0.0, 1.0],
        ]
    )
    if node.vector_type == "TEXTURE" and scale[0] and scale[1]:
        return np.linalg.inv(matrix)
    return matrix
