"""`reconstruct`: closed where the object is closed, open where it is open, and nothing between."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.metrics import f_score
from xray_addon.reconstruction import reconstruct
from xray_addon.surface import Surface
from xray_addon.xray import XRay

OBLIQUE = (1.2, -0.9, 0.8)
ANGLES = np.linspace(-math.pi / 2, math.pi / 2, 33)


def revolve(radius, height, sides=64, closed=False):
    """The profile (radius, height), lowest first, turned around z; outside out."""
    turn = np.arange(sides) * (2 * math.pi / sides)
    radius, height = np.broadcast_arrays(radius, height)
    vertices = np.stack(
        [
            radius[:, None] * np.cos(turn),
            radius[:, None] * np.sin(turn),
            np.repeat(height[:, None], sides, axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    rows = len(radius) if closed else len(radius) - 1
    i, j = (part.ravel() for part in np.mgrid[:rows, :sides])
    above, beside = (i + 1) % len(radius), (j + 1) % sides
    a, b, c, d = i * sides + j, i * sides + beside, above * sides + beside, above * sides + j
    return Surface(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def sphere(radius=0.5, centre=(0, 0, 0)):
    ball = revolve(radius * np.cos(ANGLES).clip(1e-9), radius * np.sin(ANGLES))
    return moved(ball, centre)


def bowl():
    """The lower half of a sphere of radius 0.5: one layer, its mouth at z = 0."""
    lower = ANGLES[ANGLES <= 1e-9]
    return revolve(0.5 * np.cos(lower).clip(1e-9), 0.5 * np.sin(lower))


def torus():
    around = np.arange(32) * (2 * math.pi / 32)
    return revolve(0.35 + 0.12 * np.cos(around), 0.12 * np.sin(around), closed=True)


def box(x=0.8, y=0.6, z=0.4):
    vertices = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / 2
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [[q[a], q[b], q[c]] for q in quads for a, b, c in ((0, 1, 2), (0, 2, 3))]
    return Surface(vertices * (x, y, z), np.array(faces))


def sheet(size=0.8):
    """A square in the plane z = 0 that faces up."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * (size / 2)
    return Surface(corners, np.array([[0, 1, 2], [0, 2, 3]]))


def moved(surface, offset):
    return Surface(surface.vertices + np.asarray(offset, dtype=float), surface.faces)


def together(*surfaces):
    starts = np.cumsum([0] + [len(s.vertices) for s in surfaces])
    return Surface(
        np.concatenate([s.vertices for s in surfaces]),
        np.concatenate([s.faces + start for s, start in zip(surfaces, starts, strict=False)]),
    )


def seen(surface, eye=OBLIQUE, size=128, layers=16):
    """The surface as it comes back from its X-Ray."""
    camera = Camera.look_at(eye, width=size, height=size)
    return reconstruct(cast(surface, camera, layers), camera)


def volume(surface):
    a, b, c = surface.vertices[surface.faces].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6


def area(surface):
    a, b, c = surface.vertices[surface.faces].transpose(1, 0, 2)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def euler(surface):
    return len(np.unique(surface.faces)) - len(surface.edge_face_counts) + len(surface.faces)


def layered(lists, size, normals=None):
    """An X-Ray with the given depths per (row, column); normals enter and leave in turn."""
    depth = np.zeros((max(map(len, lists.values())), *size))
    normal = np.zeros((*depth.shape, 3))
    for (row, column), depths in lists.items():
        depth[: len(depths), row, column] = depths
        normal[: len(depths), row, column, 2] = np.resize([1, -1], len(depths))
    return XRay(depth, normal if normals is None else normals, np.full((*depth.shape, 3), 0.5))


CLOSED = {"sphere": (sphere, 2), "torus": (torus, 0), "box": (box, 2)}


@pytest.mark.parametrize("eye", [OBLIQUE, (1.7, 0, 0), (0, 0.01, 1.6), (-0.6, 1.2, -0.9)])
@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_object_comes_back_closed_with_its_holes_and_its_volume(name, eye):
    make, characteristic = CLOSED[name]
    true = make()
    mesh = seen(true, eye)
    assert mesh.is_watertight
    assert euler(mesh) == characteristic
    assert volume(mesh) == pytest.approx(volume(true), rel=0.03)
    assert area(mesh) == pytest.approx(area(true), rel=0.06)


def test_every_hit_is_a_vertex():
    camera = Camera.look_at(OBLIQUE, width=64, height=64)
    xray = cast(torus(), camera, 8)
    vertices = reconstruct(xray, camera).vertices
    points = xray.points(camera).positions
    nearest = np.linalg.norm(points[:, None] - vertices[None], axis=-1).min(axis=1)
    assert nearest.max() < 1e-6


def test_faces_and_normals_point_outwards():
    mesh = seen(sphere())
    corners = mesh.vertices[mesh.faces]
    outward = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", flat, outward.mean(axis=1)) > 0).mean() > 0.999
    assert np.einsum("ijk,ijk->ij", mesh.corner_normals, outward).mean() > 0.98


@pytest.mark.parametrize("eye", [OBLIQUE, (1.2, 0.9, -0.8), (1.5, 0.1, 0.25)])
def test_a_sheet_stays_one_open_sheet(eye):
    mesh = seen(sheet(), eye)
    assert not mesh.is_watertight
    assert euler(mesh) == 1
    # It ends at its last hits, so the area may lack up to a pixel along the border.
    assert 0.85 * 0.64 < area(mesh) <= 0.64 + 1e-6
    assert np.abs(mesh.vertices[:, 2]).max() < 1e-6
    assert (mesh.corner_normals[..., 2] > 0.99).all()


@pytest.mark.parametrize("height", [0.15, 0.75, 2.0, -0.75])
def test_an_open_bowl_gets_no_skin_over_its_mouth(height):
    mesh = seen(bowl(), (1.3, 0, height), size=256)
    assert not mesh.is_watertight
    # It ends at its last hits: up to a pixel is lost along the border, more where it is steep.
    assert area(mesh) == pytest.approx(area(bowl()), rel=0.06)
    above = Camera.look_at((0, 0, 2), width=64, height=64)
    through = cast(mesh, above, 4)
    hit = through.index[np.linalg.norm(through.points(above).positions[:, :2], axis=1) < 0.4]
    assert len(hit) > 400
    assert len(np.unique(hit % (64 * 64))) == len(hit)


def test_no_web_joins_objects_behind_each_other():
    near, far = sphere(0.2, (0.5, 0, 0)), sphere(0.3, (-0.5, 0.1, 0.1))
    mesh = seen(together(near, far), (1.8, 0, 0))
    side = mesh.vertices[mesh.faces][..., 0] > 0
    assert (side.all(axis=1) | ~side.any(axis=1)).all()
    assert mesh.is_watertight
    assert euler(mesh) == 4


def test_no_web_joins_sheets_behind_each_other():
    upper = moved(sheet(0.4), (0, 0, 0.3))
    mesh = seen(together(upper, sheet(0.9)), (0.5, 0, 1.6))
    spread = np.ptp(mesh.vertices[mesh.faces][..., 2], axis=1)
    assert spread.max() < 1e-6
    assert area(mesh) == pytest.approx(0.4**2 + 0.9**2, rel=0.05)


def test_overlapping_solids_keep_both_surfaces():
    pair = together(sphere(0.3), sphere(0.3, (0.2, 0.1, 0.1)))
    mesh = seen(pair)
    assert mesh.is_watertight
    assert volume(mesh) == pytest.approx(volume(pair), rel=0.03)


def test_colours_are_carried():
    true = sphere()
    face_x = true.vertices[true.faces].mean(axis=1)[:, 0]
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    colors = np.where(face_x[:, None, None] > 0, red, blue)
    true.corner_colors = np.broadcast_to(colors, (len(true.faces), 3, 3))
    mesh = seen(true)
    x = mesh.vertices[mesh.faces][..., 0]
    assert (x > 0.15).any()
    assert (x < -0.15).any()
    np.testing.assert_allclose(mesh.corner_colors[x > 0.15], red[None].repeat((x > 0.15).sum(), 0))
    np.testing.assert_allclose(
        mesh.corner_colors[x < -0.15], blue[None].repeat((x < -0.15).sum(), 0)
    )


def test_an_object_cut_by_the_image_border_stays_open_there():
    mesh = seen(sphere(), (1.0, 0, 0), size=64)
    assert not mesh.is_watertight
    middle = np.linalg.norm(mesh.vertices[mesh.faces].mean(axis=1), axis=1)
    assert middle.min() > 0.47
    assert middle.max() < 0.53


def test_hits_beyond_the_last_layer_leave_the_mesh_open_without_a_skin():
    radii = np.array([0.5, 0.4, 0.3, 0.2])
    shells = together(
        *(sphere(r) if k % 2 == 0 else sphere(r).flipped() for k, r in enumerate(radii))
    )
    assert seen(shells).is_watertight
    cut = seen(shells, layers=6)
    assert not cut.is_watertight
    radius = np.linalg.norm(cut.vertices[cut.faces].mean(axis=1), axis=1)
    assert np.abs(radius[:, None] - radii).min(axis=1).max() < 0.03


def test_a_wall_thinner_than_a_pixel_gets_no_holes():
    radius, height = np.array([0.4, 0.4, 0.39, 0.39]), np.array([-0.4, 0.4, 0.4, -0.4])
    tube = revolve(radius, height, sides=128, closed=True)
    mesh = seen(tube, (0.3, 0, 1.6))
    assert mesh.is_watertight
    assert euler(mesh) == 0


def test_a_structure_one_pixel_wide_is_a_closed_manifold():
    needle = layered({(row, 4): [1.0, 1.1] for row in range(2, 7)}, (9, 9))
    mesh = reconstruct(needle, Camera.look_at((0, 0, 1), width=9, height=9))
    assert mesh.is_watertight
    assert euler(mesh) == 2
    assert volume(mesh) > 0


@pytest.mark.parametrize("seed", range(5))
def test_any_rays_that_enter_and_leave_in_turn_close(seed):
    random = np.random.default_rng(seed)
    pixels = np.argwhere(random.random((10, 10)) < 0.7) + 1
    lists = {tuple(p): np.sort(1 + random.random(2 * random.integers(1, 6))) for p in pixels}
    mesh = reconstruct(layered(lists, (12, 12)), Camera.look_at((0, 0, 1), width=12, height=12))
    assert len(mesh.faces) > 100
    assert mesh.is_watertight
    assert volume(mesh) > 0


@pytest.mark.parametrize("seed", range(5))
def test_no_edge_ever_has_more_than_two_faces(seed):
    random = np.random.default_rng(seed)
    shape = (8, 16, 16)
    depth = random.random(shape) * (random.random(shape) < 0.6)
    xray = XRay(
        depth, random.normal(size=(*shape, 3)), random.random((*shape, 3)), dropped=seed % 2
    )
    mesh = reconstruct(xray, Camera.look_at((0, 0, 1), width=16, height=16))
    assert len(mesh.faces) > 100
    assert (mesh.edge_face_counts <= 2).all()
    assert np.isfinite(mesh.corner_normals).all()


def test_normals_on_the_wrong_side_are_corrected_by_the_order_in_a_solid():
    camera = Camera.look_at(OBLIQUE, width=64, height=64)
    true = cast(torus(), camera, 8)
    wrong = np.random.default_rng(0).random(true.depth.shape) < 0.1
    xray = XRay(true.depth, np.where(wrong[..., None], -true.normal, true.normal), true.color)
    mesh = reconstruct(xray, camera)
    assert mesh.is_watertight
    assert volume(mesh) == pytest.approx(volume(torus()), rel=0.05)


def test_sheets_that_face_the_same_way_are_not_taken_for_a_solid():
    mesh = seen(together(sheet(), moved(sheet(), (0, 0, 0.02))), (0, 0.1, 1.5))
    assert np.ptp(mesh.vertices[mesh.faces][..., 2], axis=1).max() < 1e-6


def test_sheets_beside_a_larger_solid_are_not_taken_for_solids():
    leaves = together(moved(sheet(0.7), (-0.45, 0, 0)), moved(sheet(0.4), (-0.45, 0, 0.02)))
    mesh = seen(together(moved(box(0.6, 0.8, 0.3), (0.4, 0, 0)), leaves), (0, 0.1, 1.8))
    corners = mesh.vertices[mesh.faces]
    on_leaves = corners[corners[..., 0].max(axis=1) < 0]
    assert len(on_leaves) > 1000
    assert np.ptp(on_leaves[..., 2], axis=1).max() < 1e-6


def test_the_order_of_the_layers_does_not_matter():
    camera = Camera.look_at(OBLIQUE, width=64, height=64)
    true = cast(torus(), camera, 8)
    back_to_front = XRay(true.depth[::-1], true.normal[::-1], true.color[::-1])
    mesh = reconstruct(back_to_front, camera)
    assert mesh.is_watertight
    np.testing.assert_array_equal(mesh.faces, reconstruct(true, camera).faces)


def test_missing_and_zero_normals_do_no_harm():
    camera = Camera.look_at(OBLIQUE, width=32, height=32)
    true = cast(sphere(), camera, 4)
    for value in (0.0, math.nan):
        mesh = reconstruct(XRay(true.depth, np.full_like(true.normal, value), true.color), camera)
        assert len(mesh.faces) > 100
        assert np.isfinite(mesh.vertices).all()
        assert np.isfinite(mesh.corner_normals).all()


def test_an_empty_xray_gives_an_empty_surface():
    empty = XRay(np.zeros((4, 8, 8)), np.zeros((4, 8, 8, 3)), np.zeros((4, 8, 8, 3)))
    mesh = reconstruct(empty, Camera.look_at((0, 0, 1), width=8, height=8))
    assert mesh.faces.shape == (0, 3)
    assert mesh.corner_colors.shape == (0, 3, 3)
    assert not mesh.is_watertight


def test_a_camera_of_another_size_is_refused():
    xray = cast(sphere(), Camera.look_at(OBLIQUE, width=32, height=32), 4)
    with pytest.raises(ValueError, match="32x32"):
        reconstruct(xray, Camera.look_at(OBLIQUE, width=64, height=64))


def test_scale_does_not_matter():
    one = seen(torus(), OBLIQUE, size=64)
    for scale in (1e-5, 1e5):
        small = Surface(torus().vertices * scale, torus().faces)
        mesh = seen(small, np.array(OBLIQUE) * scale, size=64)
        assert mesh.is_watertight
        assert len(mesh.faces) == pytest.approx(len(one.faces), rel=0.02)
        assert volume(mesh) == pytest.approx(volume(one) * scale**3, rel=0.01)


def _read(path: Path) -> Surface:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.load(path, force="scene").to_geometry()
    return Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces)).normalized()


def test_a_scan_is_met_as_nearly_as_its_own_samples(assets):
    true = _read(assets / "bench" / "gso_geometry" / "yoshi_figure.glb")
    mesh = seen(true, OBLIQUE, size=256)
    assert mesh.is_watertight
    other = true.sample(5000, seed=1)
    itself = f_score(true.sample(5000, seed=2), other, 0.01)
    assert f_score(mesh.sample(5000, seed=3), other, 0.01) > itself - 0.02


def test_broken_meshes_do_no_harm(assets):
    read = 0
    for path in sorted((assets / "torture" / "generated").glob("*.glb")):
        true = _read(path)
        mesh = seen(true, OBLIQUE, size=64, layers=8)
        assert np.isfinite(mesh.vertices).all(), path.name
        assert (mesh.edge_face_counts <= 2).all(), path.name
        read += 1
    assert read
