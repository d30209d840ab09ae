"""Builds shader nodes that emit a material's colour and alpha as light, for baking."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...xray_addon.errors import XRayError
from .factors import DEFAULTS
from .materials import emits
from .node_sources import group_output, source_of
from .staging import TEMPORARY, Stage


class NodeBuilder:
    """Adds nodes to one tree. Colours are passed in and returned as output sockets."""

    def __init__(self, stage: Stage, tree: Any) -> None:
        self.stage, self.tree = stage, tree
        self._alphas = [
            node.outputs["Alpha"]
            for node in tree.nodes
            if node.bl_idname == "ShaderNodeTexImage" and node.outputs["Alpha"].is_linked
        ]

    def with_alphas(self, color: Any) -> Any:
        """`color`, with every image's alpha output kept in use.

        Cycles multiplies an image by its alpha if nothing uses the alpha output, and emission
        does not use it.
        """
        for alpha in self._alphas:
            color = self.mix("ADD", 1e-9, color, alpha)
        return color

    def value(self, socket: Any) -> Any:
        """An output socket with an input's value: its source, or a constant."""
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
        """A constant grey."""
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
        """The result of `network` for a shader inside a group, as an output of a group copy."""
        inner = self.stage.own(node.node_tree.copy())
        node.node_tree = inner
        end = group_output(inner)
        shader = next(s for s in end.inputs if s.identifier == output.identifier)
        builder = NodeBuilder(self.stage, inner)
        result = network(builder, shader)
        if result is None:
            return None
        result = builder.with_alphas(result)
        made = inner.interface.new_socket(TEMPORARY, in_out="OUTPUT", socket_type="NodeSocketColor")
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
        raise cannot_bake(node.id_data.name, "a shader goes into a group")
    return node, link.from_socket


def color_of(build: NodeBuilder, socket: Any) -> Any:
    """The colour that a shader socket shows; black if it shows none."""
    found = _shown(build, socket)
    return build.constant(0.0) if found is None else found


def _shown(build: NodeBuilder, socket: Any) -> Any:
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


def _times(build: NodeBuilder, color: Any, strength: Any) -> Any:
    return build.mix("MULTIPLY", 1.0, build.value(color), build.value(strength))


def factor_of(name: str) -> Callable[[NodeBuilder, Any], Any]:
    """A function like `color_of` that makes a grey of a shader's "Metallic" or "Roughness".

    The factors of mixed shaders are mixed in the same way.
    """

    def network(build: NodeBuilder, socket: Any) -> Any:
        found = _factor(build, socket, name)
        return build.constant(DEFAULTS[name]) if found is None else found

    return network


def _factor(build: NodeBuilder, socket: Any, name: str) -> Any:
    node, output = _shader_node(socket)
    if node is None or node.bl_idname == "ShaderNodeBsdfTransparent":
        return None
    inputs = node.inputs
    if name in inputs:
        return build.value(inputs[name])
    match node.bl_idname:
        case "ShaderNodeGroup" if node.node_tree is not None:
            return build.into_group(node, output, partial(_factor, name=name))
        case "ShaderNodeMixShader":
            first, second = (_factor(build, shader, name) for shader in inputs[1:3])
            if first is None or second is None:
                return first if second is None else second
            return build.mix("MIX", build.value(inputs[0]), first, second)
        case "ShaderNodeAddShader":
            first, second = (_factor(build, shader, name) for shader in inputs[:2])
            return second if first is None else first
    return build.constant(DEFAULTS[name])


def alpha_of(build: NodeBuilder, socket: Any) -> Any:
    """The opacity of a shader socket, as a grey."""
    found = _opacity(build, socket)
    return build.constant(1.0) if found is None else found


def _opacity(build: NodeBuilder, socket: Any) -> Any:
    """The opacity of a shader socket, or None if it is fully opaque."""
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


def cannot_bake(name: str, reason: str) -> XRayError:
    """The error for materials that cannot be baked."""
    return XRayError(
        "cannot_bake",
        f"The materials of {name} cannot be baked: {reason.strip().rstrip('.')}.",
        "Simplify them to textures and colours, or leave the object out.",
    )
