"""Slices from one cast are those of meshes that Blender really cuts."""

from __future__ import annotations

import bmesh
import numpy as np
import pytest

from xray_addon import Camera, Surface, cast
from xray_addon.slices.slicing import (
    EVERY_HIT,
    NAMES,
    SLABS,
    placement,
    published_camera,
    slice_surface,
    slice_xray,
)

SIZE = 128
VIEWS = 4
# A hit whose slab this changes, in scene units, is within 1e-4 px of a cut.
NUDGE = 1e-4 * 1.2 / (35 / 32 * SIZE)


def shapes() -> dict[str, bmesh.types.BMesh]:
    made = {name: bmesh.new() for name in ("cube", "ball", "cone", "grid", "monkey")}
    bmesh.ops.create_cube(made["cube"], size=1)
    bmesh.ops.create_icosphere(made["ball"], subdivisions=3, radius=1)
    bmesh.ops.create_cone(
        made["cone"], cap_ends=False, segments=32, radius1=1, radius2=0.3, depth=2
    )
    bmesh.ops.create_grid(made["grid"], x_segments=8, y_segments=8, size=1)
    bmesh.ops.create_monkey(made["monkey"])
    for mesh in made.values():  # what is bent across a quad depends on how it is split
        bmesh.ops.triangulate(mesh, faces=mesh.faces)
    return made


def surface_of(mesh: bmesh.types.BMesh) -> Surface:
    triangulated = mesh.copy()
    bmesh.ops.triangulate(triangulated, faces=triangulated.faces)
    triangulated.verts.index_update()
    vertices = np.array([v.co for v in triangulated.verts]).reshape(-1, 3)
    faces = [[v.index for v in face.verts] for face in triangulated.faces]
    triangulated.free()
    return Surface(vertices, np.array(faces, dtype=np.int64).reshape(-1, 3))


def cut(mesh: bmesh.types.BMesh, axis: int, low: float | None, high: float | None) -> Surface:
    """What lies between two planes across an axis; the cuts are left open."""
    piece = mesh.copy()
    for place, sign in ((low, -1.0), (high, 1.0)):
        if place is None:
            continue
        point, normal = np.zeros(3), np.zeros(3)
        point[axis], normal[axis] = place, sign
        bmesh.ops.bisect_plane(
            piece,
            geom=[*piece.verts, *piece.edges, *piece.faces],
            plane_co=point,
            plane_no=normal,
            clear_outer=True,
        )
    surface = surface_of(piece)
    piece.free()
    return surface


def nudged(surface: Surface, camera: Camera) -> np.ndarray:
    """(12, H, W) depths of slices whose slabs lie a hair to either side; NaN where they differ."""
    seen = surface.transformed(camera.world_to_camera)
    middle = slice_surface(surface, camera).depth
    xray = cast(surface, camera, EVERY_HIT)
    for shift in (-NUDGE, NUDGE):
        moved = slice_xray(xray, camera, bounds=seen.bounds + shift).depth
        middle[moved != middle] = np.nan
    return middle


@pytest.mark.parametrize("name", ["cube", "ball", "cone", "grid", "monkey"])
@pytest.mark.parametrize("view", range(VIEWS))
def test_slices_equal_those_of_cut_meshes(name, view):
    random = np.random.default_rng(view)
    mesh = shapes()[name]
    stretch = np.diag([*random.uniform(0.4, 1.0, 3), 1.0])
    surface = surface_of(mesh).transformed(stretch)
    matrix = placement(surface) @ stretch
    camera = published_camera(random.uniform(0, 2 * np.pi), random.uniform(-0.2, 0.7), size=SIZE)
    # Cut as the published script does: moved into the camera's axes.
    into_camera = camera.world_to_camera @ matrix
    for vertex in mesh.verts:
        vertex.co = into_camera[:3, :3] @ np.array(vertex.co) + into_camera[:3, 3]
    seen = surface_of(mesh)
    at_origin = Camera(SIZE, SIZE, camera.fov_x, np.eye(4))
    slices = slice_surface(seen, at_origin)
    expected = nudged(seen, at_origin)
    assert np.isnan(expected).sum() < 20
    low, high = seen.bounds
    differing = compared = 0
    for axis, letter in enumerate("XYZ"):
        places = np.linspace(low[axis], high[axis], SLABS + 1)
        for slab in range(SLABS):
            number = slab + 1 if letter == "X" else SLABS - slab
            piece = cut(
                mesh,
                axis,
                places[slab] if slab else None,
                places[slab + 1] if slab + 1 < SLABS else None,
            )
            here = NAMES.index(f"{letter}_{number}")
            clear = np.isfinite(expected[here])
            got = slices.depth[here]
            wanted = cast(piece, at_origin, 1).depth[0]
            wrong = clear & (np.abs(got - wanted) > 1e-5)
            differing += int(wrong.sum())
            compared += int((wanted > 0).sum())
    mesh.free()
    assert compared > 1000
    assert differing == 0
