"""Makes materials for existing meshes, with only the second network of Omages."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from ...xray_addon.settings.omage import OmageSettings
from ...xray_addon.systems import find_system
from ...xray_addon.systems.system import Inputs
from ..convert import new_material
from ..results import in_object_mode
from ..runtime import service
from .encoding import encode_objects

if TYPE_CHECKING:
    from ...xray_addon.generated import Generated
    from ...xray_addon.systems.omages import OmagesSettings
    from ..tasks import jobs

UV_MAP = "Omage"
CHANGED = "it was changed or removed while its material was made"
RESOLUTION, NETWORK_RESOLUTION = 1024, 64


def material_steps(obj: bpy.types.Object, category: str, settings: OmagesSettings) -> jobs.Steps:
    """Give the mesh `obj` a material of its category, on a new UV map; the result is `obj`.

    The material replaces that of the first slot, which all faces then use. Other UV maps stay.

    Raises XRayError at once for an unknown category, for an object that is not a mesh or has
    modifiers that change its faces (`other_faces`), and those of encoding; later the runtime's.
    """
    find_system(settings.generator).check(Inputs(category=category))
    encoding = OmageSettings(resolution=RESOLUTION, downsample=NETWORK_RESOLUTION)
    corners = _corners(obj)
    omage, report = encode_objects([obj], encoding)
    name = obj.name

    def steps() -> jobs.Steps:
        with tempfile.TemporaryDirectory(prefix="xray-") as folder:
            path = Path(folder) / "geometry.npz"
            omage.save(path)
            given = replace(settings, geometry=str(path))
            generated = yield from service.generate_steps(Inputs(category=category), given)
        found = yield from in_object_mode(lambda: _found(name))
        if not np.array_equal(_corners(found), corners):
            raise _other_faces(name, CHANGED)
        _apply(found, generated, corners, report.uvs)
        return found

    return steps()


def _found(name: str) -> Any:
    objects: Any = bpy.data.objects
    obj = objects.get(name)
    if obj is None:
        raise _other_faces(name, CHANGED)
    return obj


def _corners(obj: Any) -> NDArray[np.int32]:
    """(M, 3) the loops of the mesh's triangles, in the order of the encoding."""
    if obj.type != "MESH":
        raise _other_faces(obj.name, "it is no mesh")
    depsgraph = bpy.context.evaluated_depsgraph_get()
    evaluated = obj.evaluated_get(depsgraph).data
    if (len(evaluated.loops), len(evaluated.polygons)) != (
        len(obj.data.loops),
        len(obj.data.polygons),
    ):
        raise _other_faces(obj.name, "its modifiers change its faces")
    evaluated.calc_loop_triangles()
    corners = np.empty(3 * len(evaluated.loop_triangles), dtype=np.int32)
    evaluated.loop_triangles.foreach_get("loops", corners)
    return corners.reshape(-1, 3)


def _apply(
    obj: Any, generated: Generated, corners: NDArray[np.int32], uvs: NDArray[np.float64]
) -> None:
    mesh = obj.data
    layer = mesh.uv_layers.get(UV_MAP) or mesh.uv_layers.new(name=UV_MAP, do_init=False)
    if layer is None:
        raise _other_faces(obj.name, "it has as many UV maps as Blender allows")
    places = np.zeros((len(mesh.loops), 2), dtype=np.float32)
    # Faces too small for the omage get its corner.
    places[corners] = np.nan_to_num(uvs)
    layer.uv.foreach_set("vector", places.reshape(-1))
    material: Any = new_material(f"{obj.name} Omage", generated.surface.materials[0], False)
    tree = material.node_tree
    source = tree.nodes.new("ShaderNodeUVMap")
    source.uv_map, source.location = layer.name, (-900, 0)
    for node in tree.nodes:
        if node.bl_idname == "ShaderNodeTexImage":
            tree.links.new(source.outputs["UV"], node.inputs["Vector"])
    if len(mesh.materials):
        mesh.materials[0] = material
    else:
        mesh.materials.append(material)
    mesh.polygons.foreach_set("material_index", np.zeros(len(mesh.polygons), dtype=np.int32))
    mesh.update()


def _other_faces(name: str, reason: str) -> XRayError:
    return XRayError(
        "other_faces",
        f"{name} cannot take a material of its own: {reason}.",
        "Choose a mesh and apply the modifiers that change its faces.",
    )
