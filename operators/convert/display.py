"""Makes points visible: a Geometry Nodes modifier draws each vertex as a ball."""

from __future__ import annotations

from typing import Any

import bpy

GROUP = "X-Ray Points"


def show_as_points(obj: bpy.types.Object, spacing: float) -> None:
    """Draw the vertices of `obj` as balls that nearly touch; `spacing` is their distance."""
    group = _point_group()
    modifier: Any = obj.modifiers.new(GROUP, "NODES")
    modifier.node_group = group
    for item in group.interface.items_tree:
        if item.name == "Radius":
            _set_input(modifier, item.identifier, 0.6 * spacing)
        elif item.name == "Material":
            _set_input(modifier, item.identifier, obj.data.materials[0])


def _set_input(modifier: Any, identifier: str, value: Any) -> None:
    if hasattr(modifier, "properties"):  # from Blender 5.2 on
        getattr(modifier.properties.inputs, identifier).value = value
    else:
        modifier[identifier] = value


def _point_group() -> Any:
    group: Any = bpy.data.node_groups.get(GROUP)
    if group is not None:
        return group
    group = bpy.data.node_groups.new(GROUP, "GeometryNodeTree")
    group.is_modifier = True
    interface = group.interface
    interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    radius = interface.new_socket("Radius", in_out="INPUT", socket_type="NodeSocketFloat")
    radius.default_value, radius.min_value, radius.subtype = 0.005, 0.0, "DISTANCE"
    interface.new_socket("Material", in_out="INPUT", socket_type="NodeSocketMaterial")
    source = group.nodes.new("NodeGroupInput")
    points = group.nodes.new("GeometryNodeMeshToPoints")
    painted = group.nodes.new("GeometryNodeSetMaterial")
    result = group.nodes.new("NodeGroupOutput")
    for i, node in enumerate((source, points, painted, result)):
        node.location = (220 * i, 0)
    group.links.new(source.outputs["Geometry"], points.inputs["Mesh"])
    group.links.new(source.outputs["Radius"], points.inputs["Radius"])
    group.links.new(points.outputs["Points"], painted.inputs["Geometry"])
    group.links.new(source.outputs["Material"], painted.inputs["Material"])
    group.links.new(painted.outputs["Geometry"], result.inputs["Geometry"])
    return group
