"""Reads a material's metallic and roughness: a number, optionally times a channel of an image.

This follows the trees that importers and artists build most often: a value, an image, one of its
channels, and either times a number, through groups, reroutes and muted nodes. For any other tree
the factor records the reason, so that `baking` can bake it instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...xray_addon.color import srgb_to_linear
from .node_sources import Groups, ImageSource, constant_value, image_source, label, source_of

# Blender's defaults, for shaders without such an input and for materials without a shader.
DEFAULTS = {"Metallic": 0.0, "Roughness": 0.5}
# Weights of red, green and blue when a colour is converted to a number.
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_CHANNELS = {"Red": 0, "Green": 1, "Blue": 2, "R": 0, "G": 1, "B": 2}
_ALPHA, _ALL = 3, -1


@dataclass(frozen=True)
class Factor:
    """A number, times a channel of an image if there is one.

    channel : 0 to 2, 3 for alpha, or -1 for luminance. reason : why this is incomplete, or "".
    """

    value: float
    image: ImageSource | None = None
    channel: int = _ALL
    reason: str = ""

    def texture(self) -> NDArray[np.uint8] | None:
        """(h, w) uint8, linear, row 0 at the top; None without an image."""
        if self.image is None:
            return None
        image = self.image.image
        width, height = image.size
        pixels = np.empty(width * height * image.channels, dtype=np.float32)
        image.pixels.foreach_get(pixels)
        pixels = pixels.reshape(height, width, image.channels)[::-1]
        if self.channel == _ALPHA:
            values = pixels[..., 3] if image.channels == 4 else np.ones((height, width))
        else:
            color = pixels[..., :3] if image.channels >= 3 else pixels[..., [0, 0, 0]]
            if not image.is_float and image.colorspace_settings.name == "sRGB":
                color = srgb_to_linear(color)
            values = color @ _LUMINANCE if self.channel == _ALL else color[..., self.channel]
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def shader_factor(socket: Any, name: str, groups: Groups = ()) -> Factor:
    """The factor at the input `name` (see `DEFAULTS`) of the shader that feeds a shader socket."""
    output, groups = source_of(socket, groups)
    if output is None:
        return Factor(DEFAULTS[name])
    node = output.node
    if name in node.inputs:
        return _socket_factor(node.inputs[name], groups)
    shaders = [upstream for upstream in node.inputs if upstream.type == "SHADER"]
    if node.bl_idname == "ShaderNodeMixShader":
        share = constant_value(node.inputs[0], groups)
        if share is not None and (share <= 0 or share >= 1):
            shaders = [shaders[1 if share >= 1 else 0]]
    found = [
        shader_factor(upstream, name, groups)
        for upstream in shaders
        if not is_clear(upstream, groups)
    ]
    if not found:
        return Factor(DEFAULTS[name])
    if any(factor != found[0] for factor in found):
        return replace(found[0], reason=f"it mixes shaders ({label(node)})")
    return found[0]


def is_clear(socket: Any, groups: Groups) -> bool:
    """Whether a shader socket is fully transparent."""
    output, _ = source_of(socket, groups)
    return output is None or output.node.bl_idname == "ShaderNodeBsdfTransparent"


def _socket_factor(socket: Any, groups: Groups) -> Factor:
    value = constant_value(socket, groups)
    if value is not None:
        return Factor(min(max(value, 0.0), 1.0))
    output, groups = source_of(socket, groups)
    node = output.node
    match node.bl_idname:
        case "ShaderNodeRGB":
            return Factor(float(np.array(output.default_value[:3]) @ _LUMINANCE))
        case "ShaderNodeTexImage":
            return _image_factor(node, _ALPHA if output.name == "Alpha" else _ALL, groups)
        case "ShaderNodeSeparateColor" | "ShaderNodeSeparateRGB" if output.name in _CHANNELS:
            source, inner = source_of(node.inputs[0], groups)
            is_rgb = getattr(node, "mode", "RGB") == "RGB"
            if is_rgb and source is not None and source.node.bl_idname == "ShaderNodeTexImage":
                return _image_factor(source.node, _CHANNELS[output.name], inner)
        case "ShaderNodeMath" if node.operation == "MULTIPLY":
            for number, other in ((0, 1), (1, 0)):
                times = constant_value(node.inputs[number], groups)
                if times is not None:
                    factor = _socket_factor(node.inputs[other], groups)
                    return replace(factor, value=min(max(factor.value * times, 0.0), 1.0))
    return Factor(0.5, reason=f"its {socket.name.lower()} goes through {label(node)}")


def _image_factor(node: Any, channel: int, groups: Groups) -> Factor:
    # Blender shows magenta for a missing image, which is meaningless as a number.
    if node.image is None or not all(node.image.size):
        return Factor(0.5)
    source, reason = image_source(node, groups, unpacked=False)
    return Factor(1.0, source, channel, reason)
