"""Reads Blender materials into what `Surface` can hold: base colour, texture, colour attribute.

A node tree can compute any colour. This module follows the trees that importers and artists build
most often: a shader's colour from a value, an image, a colour attribute, or a product of these,
through groups, reroutes and muted nodes. Any other node falls back to its first colour input, and
the appearance records the reason, so that `baking` can bake the colour instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import linear_to_srgb
from ...xray_addon.surface import Material
from .factors import DEFAULTS, Factor, is_clear, shader_factor
from .node_sources import (
    Groups,
    ImageSource,
    constant_value,
    image_source,
    label,
    missing_images,
    source_of,
)

# The grey, in linear light, that Blender shows for faces without a material.
DEFAULT_GREY = (0.8, 0.8, 0.8)
# The colour that Blender shows for a missing image file.
MISSING = (1.0, 0.0, 1.0)
# Threshold for blended alpha: rays pass where a surface is less than half opaque.
BLENDED_THRESHOLD = 0.5

# Colour spaces of byte images whose values are linear light.
_LINEAR_SPACES = ("Non-Color", "Raw", "Linear", "Linear Rec.709")


@dataclass(frozen=True, eq=False)
class Appearance:
    """The colours of one material's faces.

    material : base colour and texture.
    uv_map : name of the texture's UV map; "" for the map that is active in renders.
    uv_transform : (2, 3) affine map of the UVs, or None.
    color_attribute : name of the colour attribute that multiplies the colour; "" for the one that
        is active in renders, None for none.
    reason : why this differs from what the material shows; "" if it does not.
    missing : names of missing image files. They are magenta, as in Blender, so that X-Rays agree
        with pictures.
    see_through : "clipped" if an image or nodes decide where the material is transparent;
        "transparent" if it is mostly transparent everywhere; otherwise "".
    """

    material: Material
    uv_map: str = ""
    uv_transform: NDArray[np.float64] | None = None
    color_attribute: str | None = None
    reason: str = ""
    missing: tuple[str, ...] = ()
    see_through: str = ""


@dataclass(frozen=True, eq=False)
class _Color:
    """The value of a colour socket while the tree is followed; `rgb` is linear light."""

    rgb: NDArray[np.float64] = field(default_factory=lambda: np.array(DEFAULT_GREY))
    image: ImageSource | None = None
    color_attribute: str | None = None
    reason: str = ""
    missing: tuple[str, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether the colour is the same everywhere."""
        return self.image is None and self.color_attribute is None

    def times(self, other: _Color) -> _Color:
        """The product. If both have an image or an attribute, that of `self` is kept."""
        reason = self.reason or other.reason
        if self.image is not None and other.image is not None:
            reason = reason or "it multiplies two images"
        elif self.color_attribute is not None and other.color_attribute is not None:
            reason = reason or "it multiplies two colour attributes"
        return _Color(
            self.rgb * other.rgb,
            other.image if self.image is None else self.image,
            other.color_attribute if self.color_attribute is None else self.color_attribute,
            reason,
            self.missing + other.missing,
        )

    def lost(self, reason: str) -> _Color:
        """The same colour, marked as incomplete because of `reason`."""
        return self if self.reason else replace(self, reason=reason)


@dataclass(frozen=True)
class _Alpha:
    """The transparency of a material: it is transparent if the image's alpha is below `threshold`.

    value : the opacity if it is the same everywhere.
    """

    image: ImageSource | None = None
    threshold: float = BLENDED_THRESHOLD
    reason: str = ""
    value: float = 1.0

    @property
    def see_through(self) -> str:
        """See `Appearance`."""
        if self.image is not None or self.reason:
            return "clipped"
        return "transparent" if self.value < BLENDED_THRESHOLD else ""


_WHITE = _Color(np.ones(3))


class MaterialReader:
    """Converts Blender materials to `Appearance`s; reads each material and image only once.

    alpha_clip : whether rays pass where a material's alpha clips its texture.
    factors : whether to read metallic and roughness too, and UVs that no texture reads.

    appearances : the materials read so far, in the order of their indices.
    """

    def __init__(self, *, alpha_clip: bool = False, factors: bool = False) -> None:
        self.appearances: list[Appearance] = []
        self.alpha_clip = alpha_clip
        self.factors = factors
        self._index: dict[tuple[str, str], int] = {}
        self._textures: dict[tuple[str, bool], NDArray[np.uint8] | None] = {}

    def index(self, material: bpy.types.Material | None, colored: bool) -> int:
        """The index into `appearances` of `material`.

        `colored` : whether the mesh has a colour attribute, which is shown if there is no material.
        """
        key = ("material", material.name_full) if material else ("none", str(colored))
        if key not in self._index:
            self._index[key] = len(self.appearances)
            self.appearances.append(self._read(material) if material else self._bare(colored))
        return self._index[key]

    def see_through(self, how: str) -> tuple[str, ...]:
        """Names of the materials read so far whose `Appearance.see_through` is `how`."""
        return tuple(
            sorted(
                name
                for (kind, name), place in self._index.items()
                if kind == "material" and self.appearances[place].see_through == how
            )
        )

    def _bare(self, colored: bool) -> Appearance:
        return self._appearance(
            _Color(np.ones(3), color_attribute="") if colored else _Color(), _Alpha()
        )

    def _read(self, material: bpy.types.Material) -> Appearance:
        color, alpha, see_through = None, _Alpha(), ""
        surface = surface_socket(material)
        if surface is not None:
            color = _shader_color(surface, ())
            found_alpha = _shader_alpha(surface, ())
            see_through = found_alpha.see_through
            if self.alpha_clip:
                alpha = found_alpha
        if color is None:
            color = _Color(np.array(material.diffuse_color[:3], dtype=np.float64))
        if not self.factors:
            return replace(self._appearance(color, alpha), see_through=see_through)
        if surface is None:
            found = {"Metallic": material.metallic, "Roughness": material.roughness}
            factors = {name: Factor(value) for name, value in found.items()}
        else:
            factors = {name: shader_factor(surface, name) for name in DEFAULTS}
        return replace(self._appearance(color, alpha, factors), see_through=see_through)

    def _appearance(
        self, color: _Color, alpha: _Alpha, factors: Mapping[str, Factor] = {}
    ) -> Appearance:
        # Blender's colours have single precision. The digits beyond are noise that would hide
        # pure white.
        rgb = linear_to_srgb(np.minimum(color.rgb, 1.0)).round(7)
        red, green, blue = rgb.tolist()
        source, reason = color.image, color.reason or alpha.reason
        if not reason and color.image is not None and (color.rgb > 1.0 + 1e-6).any():
            reason = "it brightens an image"
        texture = self._texture(source, straight=alpha.image is not None) if source else None
        threshold = 0.0
        if alpha.image is not None:
            clipping = self._texture(alpha.image, straight=True)
            if clipping is not None and clipping.shape[2] == 4:
                threshold = alpha.threshold
                if source is None or texture is None:
                    source, texture = alpha.image, clipping.copy()
                    texture[..., :3] = 255
                elif not alpha.image.samples_like(source):
                    threshold = 0.0
                    reason = reason or "its alpha comes from another image than its colour"
        material = Material((red, green, blue), texture)
        if source is not None:
            material = replace(
                material,
                wrap=source.wrap,
                interpolation=source.interpolation,
                alpha_threshold=threshold,
            )
        for name, factor in factors.items():
            reason = reason or factor.reason
            texture = None
            if factor.image is not None:
                if source is None:
                    source = factor.image
                    material = replace(
                        material, wrap=source.wrap, interpolation=source.interpolation
                    )
                if factor.image.placed_like(source):
                    texture = factor.texture()
                else:
                    reason = reason or f"its {name.lower()} and colour use different UVs"
            key = name.lower()
            values: dict[str, Any] = {key: factor.value, f"{key}_texture": texture}
            material = replace(material, **values)
        transform = source.uv_transform if source else None
        return Appearance(
            material,
            source.uv_map if source else "",
            None if transform is None else np.array(transform),
            color.color_attribute,
            reason,
            color.missing,
        )

    def _texture(self, source: ImageSource, straight: bool) -> NDArray[np.uint8] | None:
        unpacked = source.unpacked or straight
        key = (source.image.name_full, unpacked)
        if key not in self._textures:
            self._textures[key] = texture_from_image(source.image, unpacked=unpacked)
        return self._textures[key]


def node_tree(material: bpy.types.Material) -> Any:
    """The material's node tree, or None if it does not use nodes."""
    # From Blender 5.0 on, every material has nodes and `use_nodes` is deprecated.
    if bpy.app.version < (5, 0, 0) and not material.use_nodes:
        return None
    return material.node_tree


def with_nodes(datablock: Any) -> Any:
    """The node tree of a new material or world, enabled if it was not."""
    if bpy.app.version < (5, 0, 0):
        datablock.use_nodes = True
    return datablock.node_tree


def surface_socket(material: bpy.types.Material) -> Any:
    """The socket of the output that Cycles renders; None without nodes."""
    tree = node_tree(material)
    output = tree.get_output_node("CYCLES") if tree is not None else None
    return output.inputs["Surface"] if output else None


def texture_from_image(image: Any, *, unpacked: bool = True) -> NDArray[np.uint8] | None:
    """(h, w, 3 or 4) uint8, sRGB-encoded, row 0 at the top; None if the file is missing.

    unpacked : colours are not multiplied by alpha. Otherwise they are, as in Blender when a
        material does not use the image's alpha.
    """
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
    linear = image.is_float or image.colorspace_settings.name in _LINEAR_SPACES
    color, alpha = pixels[..., :3], pixels[..., 3:]
    associates = alpha.size and image.alpha_mode in ("STRAIGHT", "PREMUL") and not _is_data(image)
    # In memory float images are premultiplied by alpha, byte images are not.
    if associates and image.is_float and unpacked:
        color = color / np.where(alpha > 0, alpha, 1.0)
    elif associates and not image.is_float and not unpacked:
        color = color * alpha  # in encoded values, as Cycles does
    if linear:
        color = linear_to_srgb(color)
    # In place: a texture is often larger than the rest of an object.
    pixels[..., :3] = color
    np.clip(pixels, 0.0, 1.0, out=pixels)
    pixels *= 255.0
    return np.rint(pixels, out=pixels).astype(np.uint8)


def _is_data(image: Any) -> bool:
    return bool(image.colorspace_settings.is_data)


def emits(node: Any) -> bool:
    """Whether a Principled shader emits light."""
    strength, color = node.inputs.get("Emission Strength"), node.inputs.get("Emission Color")
    if strength is None or color is None or (not strength.is_linked and not strength.default_value):
        return False
    return bool(color.is_linked or any(color.default_value[:3]))


def _shader_color(socket: Any, groups: Groups) -> _Color | None:
    """The colour of the first shader upstream of a shader socket that has one."""
    output, groups = source_of(socket, groups)
    if output is None or output.node.bl_idname == "ShaderNodeBsdfTransparent":
        return None
    node = output.node
    if node.bl_idname == "ShaderNodeBsdfPrincipled" and emits(node):
        base = _socket_color(node.inputs["Base Color"], groups)
        if not base.constant or base.rgb.any() or base.reason:
            return base.lost("it glows on top of its base colour")
        return _emitted(node.inputs["Emission Color"], node.inputs["Emission Strength"], groups)
    if node.bl_idname == "ShaderNodeEmission":
        return _emitted(node.inputs["Color"], node.inputs["Strength"], groups)
    for name in ("Base Color", "Color"):
        if name in node.inputs:
            return _socket_color(node.inputs[name], groups)
    if node.bl_idname == "ShaderNodeMixShader":
        factor, first, second = node.inputs
        share = constant_value(factor, groups)
        if share is not None and (share <= 0 or share >= 1):
            return _shader_color(second if share >= 1 else first, groups)
    found = [
        color
        for upstream in node.inputs
        if upstream.type == "SHADER" and (color := _shader_color(upstream, groups)) is not None
    ]
    if len(found) > 1:
        missing = tuple(name for color in found for name in color.missing)
        return replace(found[0], missing=missing).lost(f"it mixes shaders ({label(node)})")
    return found[0] if found else None


def _emitted(color: Any, strength: Any, groups: Groups) -> _Color:
    emitted, amount = _socket_color(color, groups), constant_value(strength, groups)
    if amount is None:
        return emitted.lost("its glow varies")
    return replace(emitted, rgb=emitted.rgb * amount)


def _socket_color(socket: Any, groups: Groups) -> _Color:
    output, groups = source_of(socket, groups)
    if output is None:
        return _constant(socket)
    if not output.is_output:  # an unlinked input of a group
        return _constant(output)
    node = output.node
    match node.bl_idname:
        case "ShaderNodeRGB" | "ShaderNodeValue":
            return _constant(output)
        case "ShaderNodeTexImage":
            return _image_color(node, output, groups)
        case "ShaderNodeVertexColor" if output.name == "Color":
            return replace(_WHITE, color_attribute=node.layer_name)
        case "ShaderNodeAttribute" if output.name == "Color" and node.attribute_type == "GEOMETRY":
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
            color = _socket_color(upstream, groups)
            break
    else:
        color = _Color()
    return color.lost(f"its colour goes through {label(node)}")


def _image_color(node: Any, output: Any, groups: Groups) -> _Color:
    missing = missing_images(node)
    if missing and (node.image is None or not all(node.image.size)):
        return _Color(np.array(MISSING), missing=missing)
    uses_alpha = any(link.is_valid and not link.is_muted for link in node.outputs["Alpha"].links)
    source, reason = image_source(node, groups, unpacked=uses_alpha)
    color = replace(_WHITE, image=source, missing=missing)
    if output.name != "Color":
        return color.lost("its colour is the alpha of an image")
    space = node.image.colorspace_settings.name
    if not node.image.is_float and space not in ("sRGB", *_LINEAR_SPACES):
        reason = reason or f"an image is in the colour space {space}"
    return color.lost(reason) if reason else color


def _mixed(node: Any, factor: Any, a: Any, b: Any, groups: Groups) -> _Color:
    value = constant_value(factor, groups)
    amount = 0.5 if value is None else min(max(value, 0.0), 1.0)
    first, second = _socket_color(a, groups), _socket_color(b, groups)
    if value is not None and amount == 0.0:
        return first
    if node.blend_type == "MULTIPLY":
        if value is not None and amount == 1.0:
            return first.times(second)
        if value is not None and second.constant:
            return first.times(replace(second, rgb=1 - amount + amount * second.rgb))
        nearest = first.times(second) if amount >= 0.5 else first
    elif node.blend_type == "MIX":
        if value is not None and amount == 1.0:
            return second
        if value is not None and first.constant and second.constant:
            mixed = first.rgb * (1 - amount) + second.rgb * amount
            missing = first.missing + second.missing
            return _Color(mixed, reason=first.reason or second.reason, missing=missing)
        nearest = second if amount > 0.5 else first
    else:
        nearest = second if amount > 0.5 else first
    nearest = replace(nearest, missing=first.missing + second.missing)
    return nearest.lost(f"it mixes colours ({node.blend_type.replace('_', ' ').lower()})")


def _constant(socket: Any) -> _Color:
    value = np.array(socket.default_value, dtype=np.float64).reshape(-1)
    return _Color(value[:3] if len(value) >= 3 else np.repeat(value[:1], 3))


def _shader_alpha(socket: Any, groups: Groups) -> _Alpha:
    """Where a shader socket clips: by Principled's alpha, or mixed with a Transparent shader."""
    output, groups = source_of(socket, groups)
    if output is None:
        return _Alpha()
    node = output.node
    if node.bl_idname == "ShaderNodeBsdfTransparent":
        return _Alpha(value=0.0)
    if node.bl_idname == "ShaderNodeMixShader":
        factor, first, second = node.inputs
        share = constant_value(factor, groups)
        clear = is_clear(first, groups), is_clear(second, groups)
        if share is not None and (share <= 0 or share >= 1):
            return _shader_alpha(second if share >= 1 else first, groups)
        if clear == (True, False):
            fed, _ = source_of(factor, groups)
            if fed is not None and fed.node.bl_idname == "ShaderNodeLightPath":
                return _shader_alpha(second, groups)  # how importers build unlit materials
            return _socket_alpha(factor, groups)
        if clear == (False, True):
            if share is None:
                return _Alpha(reason="its transparency is inverted")
            return _Alpha(value=1.0 - share)
        return _Alpha()
    if "Alpha" in node.inputs:
        return _socket_alpha(node.inputs["Alpha"], groups)
    return _Alpha()


def _socket_alpha(socket: Any, groups: Groups) -> _Alpha:
    """Alpha from an image, through nodes that clip or scale it. Constants clip nothing."""
    value = constant_value(socket, groups)
    if value is not None:
        return _Alpha(value=value)
    output, groups = source_of(socket, groups)
    node = output.node
    if node.bl_idname == "ShaderNodeTexImage" and output.name == "Alpha":
        if node.image is None or node.image.alpha_mode == "NONE":
            return _Alpha()
        source, reason = image_source(node, groups, unpacked=True)
        return _Alpha(source, reason=reason)
    if node.bl_idname == "ShaderNodeMath":
        found = _math_alpha(node, groups)
        if found is not None:
            return found
    return _Alpha(reason=f"its alpha goes through {label(node)}")


def _math_alpha(node: Any, groups: Groups) -> _Alpha | None:
    a, b = node.inputs[:2]
    left, right = constant_value(a, groups), constant_value(b, groups)
    match node.operation:
        case "GREATER_THAN" if right is not None:
            return _clipped(_socket_alpha(a, groups), right)
        case "LESS_THAN" if left is not None:
            return _clipped(_socket_alpha(b, groups), left)
        case "ROUND":
            return _clipped(_socket_alpha(a, groups), 0.5)
        case "SUBTRACT" if left == 1.0:
            # 1 - (alpha < cutoff): how glTF's MASK is imported.
            output, inner = source_of(b, groups)
            if (
                output is not None
                and output.node.bl_idname == "ShaderNodeMath"
                and output.node.operation == "LESS_THAN"
            ):
                cutoff = constant_value(output.node.inputs[1], inner)
                if cutoff is not None:
                    return _clipped(_socket_alpha(output.node.inputs[0], inner), cutoff)
        case "MULTIPLY" if (left or right) is not None:
            scale = left if left is not None else right
            alpha = _socket_alpha(b if left is not None else a, groups)
            if scale is not None and scale > 0:
                return replace(alpha, threshold=min(alpha.threshold / scale, 1.0))
    return None


def _clipped(alpha: _Alpha, threshold: float) -> _Alpha:
    # At least half an 8-bit step, because a threshold of 0 clips nothing.
    return replace(alpha, threshold=min(max(threshold, 0.5 / 255), 1.0))
