"""A temporary scene with copies of the user's evaluated objects, for rendering and baking.

The user's data is not changed. The copies have exactly the faces that are cast (the modifiers'
viewport settings, not their render settings). Everything is removed at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from .surfaces import slot_materials, solid_instances
from .visibility import no_faces, shown_in

TEMPORARY = "X-Ray (temporary)"  # name of temporary datablocks


class TemporaryData:
    """Datablocks that are removed at the end of a `with`, newest first."""

    def __init__(self) -> None:
        self._items: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._items:
            item = self._items.pop()
            # If the user opened another file between two steps, the datablock is already gone.
            with suppress(ReferenceError):
                _collection_of(item).remove(item)

    def own(self, item: Any) -> Any:
        """Register a new datablock for removal; returns it."""
        self._items.append(item)
        return item

    def keep(self) -> None:
        """Do not remove the registered datablocks."""
        self._items.clear()


class Stage(TemporaryData):
    """A temporary scene; use it in a `with`.

    scene : a new scene with Blender's default settings, at the user's current frame.
    objects : the copies made by `add_copies`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: list[Any] = []

    def __enter__(self) -> Self:
        frame = bpy.context.scene.frame_current
        self.scene: Any = bpy.data.scenes.new(TEMPORARY)
        self.scene.frame_current = frame
        return self

    def __exit__(self, *_: object) -> None:
        # The scene is removed first, because it uses the others.
        with suppress(ReferenceError):
            bpy.data.scenes.remove(self.scene)
        super().__exit__()

    def add(self, data: Any, owner: TemporaryData | None = None) -> Any:
        """Add a new object with new `data` (or None) to the scene."""
        owner = owner or self
        if data is not None:
            owner.own(data)
        obj = owner.own(bpy.data.objects.new(TEMPORARY, data))
        self.scene.collection.objects.link(obj)
        return obj

    def add_copies(
        self,
        objects: Sequence[bpy.types.Object],
        depsgraph: bpy.types.Depsgraph,
        visible_in: str = "render",
    ) -> list[Any]:
        """Add a mesh object, in the same place, for each visible instance of `objects`.

        Instances of one mesh share its copy. visible_in : see `visibility.shown_in`.
        Raises XRayError `no_faces`.
        """
        root = self.add(None)
        meshes: dict[tuple[Any, ...], Any] = {}
        with shown_in(visible_in, depsgraph):
            for instance in solid_instances(objects, depsgraph, visible_in):
                self._add_copy(instance, root, meshes, depsgraph)
        if not self.objects:
            raise no_faces(objects, depsgraph, visible_in)
        return self.objects

    def _add_copy(
        self,
        instance: Any,
        root: Any,
        meshes: dict[tuple[Any, ...], Any],
        depsgraph: bpy.types.Depsgraph,
    ) -> None:
        source: Any = instance.object
        materials = tuple(
            slot.material.name_full if slot.material else "" for slot in source.material_slots
        )
        key = (source.type, source.data.as_pointer(), materials)
        if not instance.is_instance or key not in meshes:
            meshes[key] = self._copy_mesh(source, depsgraph)
        mesh = meshes[key]
        if not len(mesh.polygons):
            return
        copy = self.own(bpy.data.objects.new(source.name, mesh))
        self.scene.collection.objects.link(copy)
        copy.color = source.color
        copy.pass_index = source.pass_index
        # Location, rotation and scale cannot hold shear; a parent's inverse can.
        copy.parent = root
        copy.matrix_parent_inverse = Matrix(instance.matrix_world)
        self.objects.append(copy)

    def move_by(self, shift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move all copies by about `shift` (3,), without rounding; returns the actual distance."""
        exact = np.asarray(shift, dtype=np.float32).astype(np.float64)
        for copy in self.objects:
            matrix = np.array(copy.matrix_parent_inverse, dtype=np.float64)
            matrix[:3, 3] += exact
            copy.matrix_parent_inverse = matrix.tolist()
        return exact

    def _copy_mesh(self, source: Any, depsgraph: bpy.types.Depsgraph) -> Any:
        mesh = self.own(
            bpy.data.meshes.new_from_object(
                source, preserve_all_data_layers=True, depsgraph=depsgraph
            )
        )
        for slot, material in enumerate(slot_materials(mesh, source)):
            original = material.original if material else None
            # Slots are replaced one by one: clearing them would assign every face to the first.
            if slot < len(mesh.materials):
                mesh.materials[slot] = original
            else:
                mesh.materials.append(original)
        return mesh


def set_engine(scene: Any, engine: str, name: str) -> None:
    """Render `scene` with `engine`; `name` is for people. Raises XRayError `no_renderer`."""
    try:
        scene.render.engine = engine
    except TypeError as error:
        raise XRayError(
            "no_renderer",
            f"This Blender has no {name} ({error}).",
            "Enable it in Preferences > Add-ons, or choose another renderer.",
        ) from error


def _collection_of(item: Any) -> Any:
    """The collection of `bpy.data` for datablocks of `item`'s type."""
    for kind, name in (
        (bpy.types.Object, "objects"),
        (bpy.types.Mesh, "meshes"),
        (bpy.types.Light, "lights"),
        (bpy.types.Camera, "cameras"),
        (bpy.types.World, "worlds"),
        (bpy.types.Image, "images"),
        (bpy.types.Material, "materials"),
        (bpy.types.ShaderNodeTree, "node_groups"),
    ):
        if isinstance(item, kind):
            return getattr(bpy.data, name)
    raise TypeError(f"no collection for {item!r}")
