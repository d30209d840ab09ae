"""Follows a node's input to its source: an output, a constant or an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.files.signatures import first_bytes, unread_image

_WRAPS = {"REPEAT": "repeat", "EXTEND": "extend", "MIRROR": "mirror", "CLIP": "clip"}


@dataclass(frozen=True)
class ImageSource:
    """An image as a texture node reads it. `unpacked`: colours are not multiplied by alpha."""

    image: Any
    wrap: str
    interpolation: str
    unpacked: bool
    uv_map: str = ""
    uv_transform: tuple[tuple[float, ...], ...] | None = None

    def samples_like(self, other: ImageSource) -> bool:
        """Whether both read the same texels."""
        return replace(self, unpacked=other.unpacked) == other

    def placed_like(self, other: ImageSource) -> bool:
        """Whether both read their images at the same UV coordinates."""
        return replace(self, image=other.image).samples_like(other)


# The stack of group nodes entered so far, innermost last.
Groups = tuple[Any, ...]


def source_of(socket: Any, groups: Groups = ()) -> tuple[Any, Groups]:
    """The output socket that feeds `socket`, through reroutes, groups and muted nodes.

    None if nothing feeds it; the group node's input socket if that input is unlinked.
    """
    while True:
        link = next((ln for ln in socket.links if ln.is_valid and not ln.is_muted), None)
        if link is None:
            return None, groups
        node, output = link.from_node, link.from_socket
        if node.mute and node.bl_idname != "NodeReroute":
            through = next((ln for ln in node.internal_links if ln.to_socket == output), None)
            if through is None:
                return None, groups
            socket = through.from_socket
            if not socket.is_linked:
                return socket, groups
        elif node.bl_idname == "NodeReroute":
            socket = node.inputs[0]
        elif node.bl_idname == "ShaderNodeGroup" and node.node_tree is not None:
            inside = group_output(node.node_tree)
            if inside is None:
                return None, groups
            socket = next(s for s in inside.inputs if s.identifier == output.identifier)
            groups = (*groups, node)
            if not socket.is_linked:
                return socket, groups
        elif node.bl_idname == "NodeGroupInput" and groups:
            socket = next(s for s in groups[-1].inputs if s.identifier == output.identifier)
            groups = groups[:-1]
            if not socket.is_linked:
                return socket, groups
        else:
            return output, groups


def group_output(tree: Any) -> Any:
    """The Group Output node of a tree, or None."""
    found = [node for node in tree.nodes if node.bl_idname == "NodeGroupOutput"]
    return next((node for node in found if node.is_active_output), found[0] if found else None)


def image_nodes(material: Any) -> list[Any]:
    """The image nodes of a material (or None), also those in its node groups."""
    found, trees = [], [material.node_tree if material is not None else None]
    while trees:
        tree = trees.pop()
        for node in tree.nodes if tree is not None else ():
            if node.bl_idname == "ShaderNodeTexImage":
                found.append(node)
            elif node.bl_idname == "ShaderNodeGroup":
                trees.append(node.node_tree)
    return found


def constant_value(socket: Any, groups: Groups) -> float | None:
    """The value of a float socket, or None if nodes compute it."""
    output, groups = source_of(socket, groups)
    if output is None:
        return float(socket.default_value)
    if not output.is_output or output.node.bl_idname == "ShaderNodeValue":
        return float(output.default_value)
    return None


def label(node: Any) -> str:
    """The name of a node's type in Blender."""
    return str(node.bl_label or node.bl_idname)


def missing_images(node: Any) -> tuple[str, ...]:
    """The images that a texture node shows as magenta in Cycles, described for people."""
    image = node.image
    if image is None:
        return (f"of the node {node.name}",)
    if image.source == "TILED":
        found = [_tile_file(image, tile.number) for tile in image.tiles]
        return tuple(_described(path) for path in found if path and not os.path.isfile(path))
    if all(image.size):
        return ()
    path = bpy.path.abspath(image.filepath, library=image.library)
    return (_described(path) if path else image.name,)


def _tile_file(image: Any, number: int) -> str:
    """The file of one tile of a tiled image; "" if it is packed."""
    if image.packed_files:
        return ""
    path = str(bpy.path.abspath(image.filepath, library=image.library))
    column, row = (number - 1001) % 10 + 1, (number - 1001) // 10 + 1
    return path.replace("<UDIM>", str(number)).replace("<UVTILE>", f"u{column}_v{row}")


def _described(path: str) -> str:
    """The name of an image file; if the file exists, also what is wrong with it."""
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        kind = unread_image(first_bytes(path))
    except (OSError, ValueError):
        return name
    return f"{name} (it {kind.what if kind else 'cannot be read'})"


def image_source(node: Any, groups: Groups, *, unpacked: bool) -> tuple[ImageSource, str]:
    """The image that a texture node reads, and the reason if that is incomplete, else ""."""
    reason = ""
    if node.projection != "FLAT":
        reason = "it projects an image without UVs"
    elif node.image.source in ("SEQUENCE", "MOVIE", "TILED"):
        reason = f"an image is a {node.image.source.lower()} one"
    (uv_map, transform), lost = _uv_source(node.inputs["Vector"], groups)
    source = ImageSource(
        node.image,
        _WRAPS[node.extension],
        "closest" if node.interpolation == "Closest" else "linear",
        unpacked,
        uv_map,
        None if transform is None else tuple(tuple(row) for row in transform.tolist()),
    )
    return source, reason or lost


_Uv = tuple[str, NDArray[np.float64] | None]


def _uv_source(socket: Any, groups: Groups) -> tuple[_Uv, str]:
    """The UV map of an image's vector, its (2, 3) transform, and the reason if these are
    incomplete, else ""."""
    output, groups = source_of(socket, groups)
    if output is None or not output.is_output:
        return ("", None), ""
    node = output.node
    match node.bl_idname:
        case "ShaderNodeUVMap" if not node.from_instancer:
            return (node.uv_map, None), ""
        case "ShaderNodeTexCoord" if output.name == "UV" and not node.from_instancer:
            return ("", None), ""
        case "ShaderNodeMapping":
            (uv_map, inner), reason = _uv_source(node.inputs["Vector"], groups)
            matrix = np.eye(3) if inner is None else np.vstack([inner, (0.0, 0.0, 1.0)])
            if any(s.is_linked for s in node.inputs if s.name != "Vector"):
                reason = reason or "an image's mapping varies"
            turned = node.inputs["Rotation"].default_value
            if node.vector_type not in ("POINT", "TEXTURE", "VECTOR") or turned[0] or turned[1]:
                reason = reason or "an image's mapping leaves the UV plane"
            return (uv_map, (_mapping_matrix(node) @ matrix)[:2]), reason
    return ("", None), f"an image's coordinates come from {label(node)}"


def _mapping_matrix(node: Any) -> NDArray[np.float64]:
    """The (3, 3) transform of a Mapping node in the UV plane."""

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
