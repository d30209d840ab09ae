"""The layers of an X-Ray as objects in the scene, which can be peeled, exploded and edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector
from numpy.typing import NDArray

from ...xray_addon.camera import Camera
from ...xray_addon.dataset.cameras import PUBLISHED_DISTANCE
from ...xray_addon.errors import XRayError
from ...xray_addon.files.transforms import read_applied_transform, read_transforms
from ...xray_addon.layer_meshes import layer_faces
from ...xray_addon.progress import Progress
from ...xray_addon.reconstruction import reconstruct
from ...xray_addon.settings.rebuild import RebuildSettings
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.xray import Points, XRay
from ..convert import (
    MeshArrays,
    active_collection,
    add_object,
    mesh_from_points,
    mesh_from_surface,
    mesh_steps,
    read_points,
)
from ..convert.display import show_as_points
from ..convert.node_sources import image_nodes
from ..convert.staging import TemporaryData
from ..results import replace_steps
from ..tasks import jobs
from ..tasks.lasting import Lasting

REBUILDING = Progress("rebuild", message="Rebuilding the mesh")
FORMS = ("mesh", "points", "layers")
# Vertex group that marks the hits to delete.
DELETE = "Delete"
# Minimum weight of a marked hit.
MARKED = 0.5
# A rebuilt mesh is reduced to the detail of the one before it if that has less than this share of
# its faces, and never to fewer than this.
HARDLY_MORE, LEAST_FACES = 0.8, 100
# Number of vertices that tell whether a mesh was moved as a whole.
PROBES = 32


@dataclass(frozen=True)
class Placed:
    """An X-Ray and its camera.

    moved : the matrix (4, 4) from the object's place in its scene to where the camera sees it.
    """

    xray: XRay
    camera: Camera
    moved: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))


def load_placed(path: str | Path) -> Placed:
    """Read an X-Ray and its camera: `images/<uid>/transforms.json` beside `xrays/<uid>/`.

    A transforms.json in the file's own folder is used too. Without one, the camera is on the -y
    side with the published lens.

    Raises XRayError for missing and invalid files.
    """
    path = Path(path)
    xray = XRay.load(path)
    if not len(xray.index):
        raise XRayError("empty_xray", f"{path.name} has no hits.", "Choose another file.")
    _, height, width = xray.shape
    beside = (
        path.parent.parent.parent / "images" / path.parent.name / "transforms.json",
        path.parent / "transforms.json",
    )
    for candidate in beside:
        if candidate.is_file():
            cameras = read_transforms(candidate, width, height)
            if path.stem in cameras:
                moved = read_applied_transform(candidate)
                return Placed(xray, cameras[path.stem], moved)
    camera = Camera.look_at((0.0, -PUBLISHED_DISTANCE, 0.0), width=width, height=height)
    return Placed(xray, camera)


def import_xray(path: str | Path, form: str = "mesh") -> list[bpy.types.Object]:
    """Add the X-Ray at `path` to the current scene, at the place where it was captured.

    form : "mesh" reconstructs it, "points" adds its hits, "layers" a mesh over the hits of each
        layer, in a collection.

    Raises XRayError, and ValueError for an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}, got {form!r}")
    path = Path(path)
    placed = load_placed(path)
    name = path.stem if path.parent.name in ("", ".") else f"{path.parent.name} {path.stem}"
    if form == "layers":
        objects = list(add_layers(placed.xray, placed.camera, name).objects)
    else:
        if form == "mesh":
            mesh = mesh_from_surface(reconstruct(placed.xray, placed.camera), name)
        else:
            mesh = mesh_from_points(placed.xray.points(placed.camera), name)
        obj = add_object(mesh, active_collection())
        if form == "points":
            show_as_points(obj, _spacing(placed.xray, placed.camera))
        obj["xray_hits"] = placed.xray.hits_per_layer.tolist()
        objects = [obj]
    back = Matrix(np.linalg.inv(placed.moved).tolist())
    for item in objects:
        item["xray_file"] = str(path)
        item.matrix_world = back
    return objects


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """One layer of an X-Ray as the arrays of a mesh.

    number : of the layer, 0 for the nearest. points : its hits. pixel : (N,) of the hits.
    faces : as `layer_faces`.
    """

    number: int
    points: Points
    pixel: NDArray[np.int32]
    faces: Sequence[NDArray[np.int64]]


def layer_arrays(xray: XRay, camera: Camera) -> list[LayerArrays]:
    """The non-empty layers, by NumPy alone, so any thread can do it."""
    points = xray.points(camera)
    pixel = (xray.index % (xray.shape[1] * xray.shape[2])).astype(np.int32)
    stops = np.cumsum(xray.hits_per_layer)
    found = []
    for number, (stop, count) in enumerate(zip(stops, xray.hits_per_layer, strict=True)):
        part = slice(int(stop - count), int(stop))
        hits = Points(points.positions[part], points.normals[part], points.colors[part])
        if count:
            found.append(LayerArrays(number, hits, pixel[part], layer_faces(xray, camera, number)))
    return found


def layer_mesh(arrays: LayerArrays, name: str) -> bpy.types.Mesh:
    """A mesh over the hits of one layer; `name` is that of the X-Ray.

    Each hit is a vertex with its normal, colour and pixel as attributes, so that `read_layers`
    can read it after editing.
    """
    title = f"Layer {arrays.number + 1:02d} {name}"  # the Outliner cuts off the end
    return mesh_from_points(arrays.points, title, arrays.pixel, arrays.faces)


def add_layers(
    xray: XRay,
    camera: Camera,
    name: str,
    made: Iterable[tuple[LayerArrays, bpy.types.Mesh]] | None = None,
    *,
    parent: bpy.types.Object | None = None,
) -> bpy.types.Collection:
    """Add a mesh over the hits of each non-empty layer, in a new collection.

    made : the layers with their meshes; None makes them here. If there is a `parent`, the layers
    belong to it and move with it, `rebuild_steps` replaces its mesh, and the collection is hidden
    at first.
    """
    if made is None:
        made = [(part, layer_mesh(part, name)) for part in layer_arrays(xray, camera)]
    made = list(made)
    above = active_collection()
    collection: Any = bpy.data.collections.new(f"{name} Layers")
    above.children.link(collection)
    collection["xray_shape"] = list(xray.shape)
    collection["xray_dropped"] = xray.dropped
    collection["xray_camera"] = _camera_to_dict(camera)
    positions = np.concatenate([part.points.positions for part, _ in made])
    collection["xray_size"] = float(np.ptp(positions, axis=0).max())
    for part, mesh in made:
        obj: Any = add_object(mesh, collection)
        obj["xray_layer"] = part.number
        # Weight Paint paints into the active group.
        obj.vertex_groups.new(name=DELETE)
    if parent is not None:
        parent["xray_layers"] = collection
        for layer in collection.objects:
            layer.parent = parent
        place_layers(parent)
        collection.hide_viewport = collection.hide_render = True
    return collection


def set_frame(obj: Any, frame: Matrix) -> None:
    """Store the transform from the frame of the generator of `obj` to its mesh, and move its layers
    there."""
    obj["xray_frame"] = {"matrix": _numbers(frame), "places": _some_places(obj.data)}
    place_layers(obj)


def frame_of(obj: Any) -> Matrix:
    """The transform of `set_frame`, and what has moved the mesh as a whole since, such as Apply
    Scale or Set Origin."""
    stored = obj.get("xray_frame")
    if stored is None:
        return Matrix()
    if "scale" in stored:  # of an older file
        return Matrix.Translation(stored["shift"]) @ Matrix.Scale(stored["scale"], 4)
    frame = Matrix(_square(stored["matrix"]).tolist())
    return _movement(stored["places"], _some_places(obj.data)) @ frame


def place_layers(obj: Any) -> None:
    """Move the layers of `obj` to its mesh. Those that a user has moved stay as far from it."""
    collection, frame = obj.get("xray_layers"), frame_of(obj)
    for layer in layer_objects(collection) if collection is not None else ():
        if layer.parent != obj:  # `obj` is a duplicate
            continue
        placed = layer.get("xray_placed")
        if placed is None or not np.allclose(layer.matrix_parent_inverse, _square(placed)):
            # Blender has moved it against the mesh, and wrongly if it was hidden.
            layer.matrix_basis = Matrix()
            layer.location = (0, 0, 0)
        layer.matrix_parent_inverse = frame
        layer["xray_placed"] = _numbers(frame)


def _numbers(matrix: Matrix) -> list[float]:
    return [float(x) for x in np.ravel(np.array(matrix))]


def _square(numbers: Any) -> NDArray[np.float64]:
    return np.reshape(numbers, (4, 4)).astype(np.float64)


def _some_places(mesh: Any) -> list[float]:
    """The number of vertices, and the positions of PROBES of them."""
    count = len(mesh.vertices)
    numbers = np.linspace(0, count - 1, PROBES).astype(int) if count else ()
    return [float(count), *(x for number in numbers for x in mesh.vertices[int(number)].co)]


def _movement(before: Sequence[float], after: Sequence[float]) -> Matrix:
    """The affine transform between two results of `_some_places`; none if the mesh was edited."""
    if before[0] != after[0] or np.array_equal(before, after):
        return Matrix()
    old, new = (np.reshape(places[1:], (-1, 3)) for places in (before, after))
    old = np.column_stack([old, np.ones(len(old))])
    change, _, rank, _ = np.linalg.lstsq(old, new, rcond=None)
    far = np.abs(old @ change - new).max(initial=0.0)
    if rank < 4 or far > 1e-4 * np.ptp(new, axis=0).max():
        return Matrix()
    return Matrix([*change.T.tolist(), (0, 0, 0, 1)])


def layers_of(obj: Any) -> Any:
    """The collection of layers that contains `obj` or belongs to it, or None."""
    if obj is None:
        return None
    if "xray_layer" in obj:
        return next((c for c in obj.users_collection if "xray_camera" in c), None)
    return obj.get("xray_layers")


def layer_objects(collection: Any) -> list[Any]:
    """The layers in a collection made by `add_layers`, front to back."""
    layers = [obj for obj in collection.objects if "xray_layer" in obj]
    return sorted(layers, key=lambda obj: int(obj["xray_layer"]))


def show_layers(collection: Any, peel: int, explode: float) -> None:
    """Hide the first `peel` layers, and move each away from the next along the view.

    explode : distance between two layers, in sizes of the object. The layers are moved by their
        delta transform, so their data and the locations set by a user do not change.
    """
    layers = layer_objects(collection)
    camera = _camera_from_dict(collection["xray_camera"])
    forward = Vector((-camera.camera_to_world[:3, 2]).tolist())
    for place, obj in enumerate(layers):
        obj.hide_viewport = obj.hide_render = place < peel
        steps = (place - (len(layers) - 1) / 2) * explode * collection["xray_size"]
        obj.delta_location = obj.matrix_basis.to_3x3() @ forward * steps


def read_layers(collection: Any) -> Placed:
    """The X-Ray in the layers' current meshes, without deleted and marked hits.

    A hit is marked by its weight in the vertex group "Delete". Depths and colours are read again,
    so vertices moved along their rays and painted colours are included. Added vertices are not:
    each pixel of a layer keeps its first vertex. Leaves Edit Mode and other modes.

    Raises XRayError `no_hits_left`.
    """
    shape = tuple(collection["xray_shape"])
    camera = _camera_from_dict(collection["xray_camera"])
    pixels = shape[1] * shape[2]
    if bpy.context.mode != "OBJECT":  # Edit Mode has its own copy of the mesh
        bpy.ops.object.mode_set(mode="OBJECT")
    found: list[tuple[NDArray[Any], ...]] = []
    for obj in layer_objects(collection):
        points, pixel = read_points(obj.data)
        inside = (pixel >= 0) & (pixel < pixels)
        kept = np.flatnonzero(inside & ~_marked(obj, len(points)))
        _, first = np.unique(pixel[kept], return_index=True)
        kept = kept[first]
        offset = points.positions[kept].astype(np.float64) - camera.position
        found.append(
            (
                pixel[kept].astype(np.int64) + int(obj["xray_layer"]) * pixels,
                np.linalg.norm(offset, axis=1),
                points.normals[kept] @ camera.camera_to_world[:3, :3],
                points.colors[kept],
            )
        )
    if not sum(len(index) for index, *_ in found):
        raise XRayError("no_hits_left", "The layers have no hits left.", "Undo, and delete less.")
    index, depth, normal, color = (np.concatenate(parts) for parts in zip(*found, strict=True))
    xray = XRay.from_hits(shape, index, depth, normal, color, int(collection["xray_dropped"]))
    return Placed(xray, camera)


def mesh_of(collection: Any) -> Any:
    """The mesh object of the layers in `collection`, or None if it was removed.

    If it was duplicated, the active one of these objects counts.
    """
    active, objects = bpy.context.object, bpy.context.scene.objects
    candidates: Iterable[Any] = objects if active is None else (active, *objects)
    return next((obj for obj in candidates if obj.get("xray_layers") == collection), None)


def rebuild_steps(collection: Any, settings: RebuildSettings | None = None) -> jobs.Steps:
    """Reconstruct the mesh from the current layers in `collection`; the result is its object.

    The layers' mesh object gets the new mesh, finished with the same settings but for the height:
    the mesh lies on its layers. If there is no such object, it is created. It is shown in place of
    the layers, which are read at the call.

    Without a target, the triangles are about as large as those of the mesh that is replaced. If
    there is none, the new mesh has as many as the hits need.

    Raises XRayError `no_hits_left`, `no_surface`, `object_gone` and as `finish_steps`.
    """
    placed = read_layers(collection)
    name = collection.name.removesuffix(" Layers")
    target_faces = settings.target_faces if settings is not None else 0
    layers, replaced = Lasting(collection), mesh_of(collection)
    kept = None if replaced is None else Lasting(replaced)

    def before() -> Any:
        """The object whose mesh is replaced, or None for a new one."""
        found = None if kept is None else kept.find()
        if layers.find() is None or (kept is not None and found is None):
            raise XRayError("object_gone", "The layers were removed meanwhile.", "Try again.")
        return found

    def steps() -> jobs.Steps:
        def arrays() -> MeshArrays:
            surface = reconstruct(placed.xray, placed.camera)
            if not len(surface.faces):
                reason = "The remaining hits form no surface."
                raise XRayError("no_surface", reason, "Undo, and delete less.")
            return MeshArrays.of(surface)

        made = yield from jobs.in_thread(arrays, REBUILDING)
        frame = Matrix()

        def make() -> jobs.Steps:
            nonlocal frame
            before()
            with TemporaryData() as owned:
                mesh = owned.own((yield from jobs.reporting(mesh_steps(made, name), REBUILDING)))
                found = before()
                owned.keep()
            if found is not None:
                frame = frame_of(found)
                mesh.transform(frame)
            return mesh, _how_to_finish(mesh, found, target_faces)

        def owner() -> Any:
            found = before()
            if found is None:
                return _new_owner(layers.find())
            return found

        obj, _ = yield from replace_steps(make, owner)
        found = layers.find()
        if kept is None:  # meanwhile the unfinished mesh had the name
            obj.name = obj.data.name = found.name.removesuffix(" Layers")
        if "xray_frame" in obj:
            set_frame(obj, frame)
        obj["xray_hits"] = placed.xray.hits_per_layer.tolist()
        found.xray.visible = False  # in place of them, the mesh is shown
        return obj

    return steps()


def _how_to_finish(mesh: Any, before: Any, target_faces: int) -> ResultSettings:
    """How to finish `mesh`, and its materials: those of the object `before`, if it is not new."""
    settings = ResultSettings()
    if before is not None:
        _keep_materials(mesh, before.data)
        if "xray_result" in before:
            stored = ResultSettings.from_dict(before["xray_result"].to_dict())
            settings = replace(stored, height=0.0)
        if not settings.target_faces and settings.topology == "triangles":
            settings = replace(settings, target_faces=_as_detailed(mesh, before.data))
    return replace(settings, target_faces=target_faces) if target_faces else settings


def _new_owner(collection: Any) -> Any:
    """A new object with an empty mesh, to which the layers belong."""
    first = layer_objects(collection)[0]
    obj: Any = add_object(bpy.data.meshes.new("Mesh"), bpy.context.scene.collection)
    obj.matrix_world = Matrix.LocRotScale(
        first.location, first.matrix_basis.to_quaternion(), first.scale
    )
    obj["xray_layers"] = collection
    return obj


def _as_detailed(mesh: Any, before: Any) -> int:
    """The number of triangles at which those of `mesh` are about as large as those of `before`.

    It is 0 if `mesh` has hardly more.
    """
    triangles, area = len(before.loops) - 2 * len(before.polygons), _area(before)
    if not area:
        return 0
    wanted = round(triangles * _area(mesh) / area)
    return max(wanted, LEAST_FACES) if wanted < HARDLY_MORE * len(mesh.polygons) else 0


def _area(mesh: Any) -> float:
    areas = np.empty(len(mesh.polygons), dtype=np.float32)
    mesh.polygons.foreach_get("area", areas)
    return float(areas.sum(dtype=np.float64))


def _keep_materials(mesh: Any, before: Any) -> None:
    """Give `mesh` the materials of `before`, because a user may have changed them.

    Not if these show textures for which `mesh` has no UV map.
    """
    if not mesh.uv_layers and any(map(image_nodes, before.materials)):
        return
    made = list(mesh.materials)
    mesh.materials.clear()
    for material in before.materials:
        mesh.materials.append(material)
    for material in made:
        if material is not None and not material.users:
            bpy.data.materials.remove(material)


def _marked(obj: Any, count: int) -> NDArray[np.bool_]:
    """(count,) bool: whether each vertex is marked for deletion."""
    marked = np.zeros(count, dtype=bool)
    group = obj.vertex_groups.get(DELETE)
    if group is not None:
        for vertex in obj.data.vertices:
            for weight in vertex.groups:
                if weight.group == group.index and weight.weight >= MARKED:
                    marked[vertex.index] = True
    return marked


def _camera_to_dict(camera: Camera) -> dict[str, Any]:
    return {
        "size": [camera.width, camera.height],
        "lens": [camera.fov_x, camera.cx, camera.cy, camera.pixel_offset],
        "matrix": camera.camera_to_world.reshape(-1).tolist(),
    }


def _camera_from_dict(data: Any) -> Camera:
    width, height = data["size"]
    fov_x, cx, cy, offset = data["lens"]
    matrix = np.array(data["matrix"]).reshape(4, 4)
    return Camera(width, height, fov_x, matrix, cx, cy, offset)


def _spacing(xray: XRay, camera: Camera) -> float:
    """The distance between neighbouring hits at the middle of the object."""
    return float(np.median(xray.hit_depth)) / camera.focal
