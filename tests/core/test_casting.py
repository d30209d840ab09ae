"""`cast` is exact ray casting: against Embree, against formulas, and in how hits pair up."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from trimesh.ray.ray_pyembree import RayMeshIntersector

from xray_addon import Camera, Material, Surface, XRay, cast
from xray_addon.casting import sample_texture

BACKENDS = ["numpy", *(["numba"] if importlib.util.find_spec("numba") else [])]

SIZE = 48


def surface_of(mesh: trimesh.Trimesh) -> Surface:
    return Surface(mesh.vertices, mesh.faces)


def look(azimuth: float, elevation: float, distance: float = 2.5, size: int = SIZE) -> Camera:
    flat = math.cos(elevation)
    eye = (flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation))
    return Camera.look_at(distance * np.array(eye), width=size, height=size)


def hit_counts(xray: XRay) -> np.ndarray:
    return xray.hit.sum(axis=0)


angles = st.tuples(st.floats(-math.pi, math.pi), st.floats(-1.5, 1.5))
closed_meshes = st.sampled_from(
    [
        trimesh.creation.box(),
        trimesh.creation.icosphere(2),
        trimesh.creation.torus(0.7, 0.3, 24, 12),
        trimesh.creation.cylinder(0.5, 1.0, sections=17),
        trimesh.creation.annulus(0.3, 0.6, 0.5, sections=12),
    ]
)


@given(closed_meshes, angles)
@settings(max_examples=60, deadline=None)
def test_rays_through_closed_surfaces_hit_an_even_number_of_times(mesh, view):
    assert (hit_counts(cast(surface_of(mesh), look(*view), 32)) % 2 == 0).all()


def test_rays_through_shared_vertices_and_edges_pair_up():
    # A grid-aligned box whose edges and corners lie exactly on pixel rays.
    mesh = trimesh.creation.box().subdivide().subdivide()
    camera = replace(
        Camera.look_at((0, -1.5, 0), fov_x=math.pi / 2, width=64, height=64), pixel_offset=0.0
    )
    counts = hit_counts(cast(surface_of(mesh), camera, 32))
    # The near face is one unit away and spans 32 px; its edges lie on rays and half belong to it.
    assert set(np.unique(counts)) == {0, 2}
    assert (counts > 0).sum() == 32**2


def test_a_shared_diagonal_is_hit_exactly_once():
    sheet = Surface(
        np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
    )
    camera = replace(Camera.look_at((0, -1, 0), width=32, height=32), pixel_offset=0.0)
    assert (hit_counts(cast(sheet, camera, 4)) == 1).all()


def test_depths_of_a_sphere_follow_the_formula():
    sphere = surface_of(trimesh.creation.icosphere(6))
    camera = look(0.3, 0.4, distance=3.0)
    xray = cast(sphere, camera, 4)
    row, column = np.indices((SIZE, SIZE))
    ray = camera.ray_directions(row, column) @ camera.camera_to_world[:3, :3].T
    along = -(ray @ camera.position)
    gap = 1 - (9 - along**2)
    inside = gap > 0.01
    assert (xray.hit[0] == (gap > 0))[np.abs(gap) > 0.01].all()
    half = np.sqrt(gap[inside])
    np.testing.assert_allclose(xray.depth[0][inside], along[inside] - half, atol=3e-3)
    np.testing.assert_allclose(xray.depth[1][inside], along[inside] + half, atol=3e-3)


def test_thickness_of_a_box_and_hole_of_a_torus():
    xray = cast(surface_of(trimesh.creation.box((1, 2, 1))), look(-math.pi / 2, 0, size=49))
    assert xray.depth[1, 24, 24] - xray.depth[0, 24, 24] == pytest.approx(2.0, abs=1e-6)
    torus = cast(surface_of(trimesh.creation.torus(0.7, 0.3)), look(0, math.pi / 2, size=49))
    assert hit_counts(torus)[24, 24] == 0
    edge_on = cast(surface_of(trimesh.creation.torus(0.7, 0.3)), look(0, 0, size=49))
    assert hit_counts(edge_on)[24, 24] == 4


def embree_hits(surface: Surface, camera: Camera):
    """(pixel, distance) of every hit by the oracle."""
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    row, column = np.divmod(np.arange(camera.width * camera.height), camera.width)
    ray = camera.ray_directions(row, column) @ camera.camera_to_world[:3, :3].T
    origin = np.broadcast_to(camera.position, ray.shape)
    points, pixel, face = RayMeshIntersector(mesh).intersects_location(origin, ray)
    return pixel, np.linalg.norm(points - camera.position, axis=1), face


def edge_distance_and_count(surface: Surface, camera: Camera, pixel: int) -> tuple[float, int]:
    """Distance in pixels from a pixel's ray to the nearest projected edge, and the number of
    faces around it, both in double precision."""
    seen = (surface.vertices - camera.position) @ camera.camera_to_world[:3, :3]
    xy = np.stack([seen[:, 0] / -seen[:, 2], seen[:, 1] / seen[:, 2]], axis=1) * camera.focal
    xy += (camera.cx - camera.pixel_offset, camera.cy - camera.pixel_offset)
    a = xy[surface.faces]
    along = a[:, [1, 2, 0]] - a
    towards = np.array([pixel % camera.width, pixel // camera.width]) - a
    side = along[..., 0] * towards[..., 1] - along[..., 1] * towards[..., 0]
    share = (towards * along).sum(axis=-1) / np.maximum((along**2).sum(axis=-1), 1e-30)
    nearest = np.clip(share, 0, 1)[..., None] * along
    inside = (side > 0).all(axis=1) | (side < 0).all(axis=1)
    return float(np.linalg.norm(nearest - towards, axis=-1).min()), int(inside.sum())


SCANS = [
    "bench/gso_geometry/lion_figure.glb",
    "bench/gso_geometry/porcelain_cup.glb",
    "bench/ycb_geometry/072-a_toy_airplane.glb",
    "train/kenney_furniture",
    "torture/generated/soup20k.glb",
    "torture/generated/thin_plate.glb",
]


@pytest.mark.parametrize("name", SCANS)
def test_hits_and_depths_agree_with_embree_on_real_meshes(assets: Path, name: str):
    path = assets / name
    path = sorted(path.glob("*.glb"))[3] if path.is_dir() else path
    mesh = trimesh.load_scene(path).to_geometry()
    surface = surface_of(mesh).normalized()
    camera = look(0.7, 0.5, distance=1.8, size=128)
    xray = cast(surface, camera, 1024)
    pixel, distance, _ = embree_hits(surface, camera)
    ours = hit_counts(xray).reshape(-1)
    theirs = np.bincount(pixel, minlength=128 * 128)
    for different in np.flatnonzero(ours != theirs):
        # Embree's single precision loses some hits that lie very close together.
        nearest_edge, count = edge_distance_and_count(surface, camera, different)
        assert nearest_edge < 1e-4 or ours[different] == count
    assert (ours != theirs).mean() < 0.005
    same = (ours == theirs)[pixel]
    order = np.lexsort((distance[same], pixel[same]))
    np.testing.assert_array_equal(
        np.flatnonzero(xray.depth[0].reshape(-1) > 0), np.flatnonzero(ours)
    )
    chosen = (ours == theirs)[xray.index % 128**2]
    mine = np.lexsort((xray.hit_depth[chosen], (xray.index % 128**2)[chosen]))
    difference = np.abs(xray.hit_depth[chosen][mine] - distance[same][order])
    # Embree works in single precision and loses digits on faces seen nearly edge-on.
    assert np.quantile(difference, 0.999) < 1e-5
    assert difference.max() < 1e-2


def test_the_published_encoder_gives_the_same_file(golden: Path):
    toy = np.load(golden / "xray/toy/expected.npz")
    colors = np.repeat(toy["mesh_face_colors"][:, None, :3] / 255.0, 3, axis=1)
    surface = Surface(toy["mesh_vertices"], toy["mesh_faces"], corner_colors=colors)
    camera = Camera(256, 256, 0.8575560450553894, toy["c2w"], pixel_offset=0)
    ours = cast(surface, camera, 16)
    theirs = XRay.load(golden / "xray/toy/xrays/toy/000.npz")
    assert np.abs(ours.hits_per_layer - theirs.hits_per_layer).max() <= 3
    both = ours.hit & theirs.hit
    np.testing.assert_allclose(ours.depth[both], theirs.depth[both], atol=1e-5)
    np.testing.assert_allclose(ours.color[both], theirs.color[both], atol=1e-5)
    wrong = np.abs(ours.normal - theirs.normal).max(axis=-1)[both] > 1e-5
    assert wrong.sum() <= 3


@given(angles, st.floats(1e-6, 1e6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_turning_and_scaling_the_scene_changes_nothing(view, scale, seed):
    surface = surface_of(trimesh.creation.torus(0.7, 0.3, 16, 8))
    camera = look(*view)
    turn = trimesh.transformations.random_rotation_matrix(np.random.default_rng(seed).random(3))
    to_world = turn @ camera.camera_to_world
    to_world[:3, 3] *= scale
    turned = surface.transformed(turn @ np.diag([scale, scale, scale, 1]))
    before = cast(surface, camera, 8)
    after = cast(turned, replace(camera, camera_to_world=to_world), 8)
    # A ray within rounding of an edge may fall to its other side.
    assert (hit_counts(before) != hit_counts(after)).sum() <= 2
    both = before.hit & after.hit & (hit_counts(before) == hit_counts(after))
    np.testing.assert_allclose(after.depth[both] / scale, before.depth[both], rtol=1e-4)
    np.testing.assert_allclose(after.normal[both], before.normal[both], atol=1e-4)


def test_both_sides_of_a_sheet_are_hit_and_normals_stay_as_wound():
    triangle = Surface(np.array([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]]), np.array([[0, 1, 2]]))
    front = cast(triangle, look(-math.pi / 2, 0, size=33), 4)
    back = cast(triangle, look(math.pi / 2, 0, size=33), 4)
    assert hit_counts(front)[16, 16] == hit_counts(back)[16, 16] == 1
    np.testing.assert_allclose(front.normal[0, 16, 16], (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(back.normal[0, 16, 16], (0, 0, -1), atol=1e-6)


def test_the_nearest_layers_are_kept_in_order_and_the_rest_is_counted():
    sheets = [trimesh.creation.box((2, 0.01, 2)).apply_translation((0, y, 0)) for y in range(3)]
    surface = surface_of(trimesh.util.concatenate(sheets))
    camera = look(-math.pi / 2, 0, distance=3, size=16)
    everything, two = cast(surface, camera, 16), cast(surface, camera, 2)
    assert everything.dropped == 0
    assert (np.diff(everything.depth, axis=0)[everything.hit[1:]] >= 0).all()
    assert two.dropped == len(everything.index) - len(two.index) > 0
    np.testing.assert_array_equal(two.depth, everything.depth[:2])


@pytest.mark.parametrize("size", [1, 2, 3, 8, 15, 16])
def test_hits_are_in_order_in_images_of_any_size(size):
    surface = surface_of(trimesh.creation.box())
    for azimuth in np.linspace(0, 6, 20):
        xray = cast(surface, look(azimuth, 0.5, 1.4, size), 4)
        assert (np.diff(xray.depth, axis=0)[xray.hit[1:]] >= 0).all()


def test_smooth_surfaces_have_interpolated_normals_and_flat_ones_have_facets():
    mesh = trimesh.creation.icosphere(1)
    flat = surface_of(mesh)
    smooth = replace(flat, corner_normals=mesh.vertex_normals[mesh.faces])
    camera = look(0.2, 0.1, distance=3)
    faceted, rounded = cast(flat, camera, 2), cast(smooth, camera, 2)
    positions = rounded.points(camera).positions
    true = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    assert (rounded.points(camera).normals * true).sum(axis=1).min() > 0.99
    assert len(np.unique(faceted.hit_normal.round(5), axis=0)) <= len(mesh.faces)
    np.testing.assert_allclose(np.linalg.norm(rounded.hit_normal, axis=1), 1, atol=1e-6)


def quad(**attributes) -> Surface:
    vertices = np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    return Surface(vertices, np.array([[0, 1, 2], [0, 2, 3]]), **attributes)


UVS = np.array([[[0.0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]])


def test_texture_is_sampled_at_each_hit_the_right_way_up():
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    surface = quad(corner_uvs=UVS, materials=[Material(texture=texture)])
    # One pixel a texel: pixel centres fall on texel centres.
    camera = Camera.look_at((0, -1, 0), fov_x=math.pi / 2, width=8, height=8)
    np.testing.assert_allclose(cast(surface, camera, 1).color[0], texture / 255.0, atol=1e-6)


def test_textures_repeat_and_are_interpolated():
    texture = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    samples = sample_texture(texture, np.array([[0.25, 0.5], [1.25, 7.5], [0.5, 0.5], [0.75, 0.5]]))
    np.testing.assert_allclose(samples[:, 0], [0, 0, 0.5, 1], atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hit_colours_are_the_texture_s_own_at_the_nearest_texel(backend):
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    material = Material(texture=texture, interpolation="closest")
    # Three pixels a texel, none on a texel's centre but the middle one.
    camera = Camera.look_at((0, -1, 0), fov_x=math.pi / 2, width=24, height=24)
    color = cast(quad(corner_uvs=UVS, materials=[material]), camera, 1, backend=backend).color[0]
    expected = texture[..., :3].repeat(3, axis=0).repeat(3, axis=1) / np.float32(255)
    np.testing.assert_array_equal(np.rint(color * 255), np.rint(expected * 255))
    np.testing.assert_allclose(color, expected, atol=1e-7)


def test_textures_wrap_as_asked():
    texture = np.array([[[0, 0, 0, 255], [100, 0, 0, 255], [200, 0, 0, 255]]], dtype=np.uint8)
    beyond = np.array([[-2.5 / 3, 0.5], [-0.5 / 3, 0.5], [3.5 / 3, 0.5], [4.5 / 3, 0.5]])
    for wrap, expected in {
        "repeat": [0, 200, 0, 100],
        "extend": [0, 0, 200, 200],
        "mirror": [200, 0, 200, 100],
        "clip": [0, 0, 0, 0],
    }.items():
        for interpolation in ("linear", "closest"):
            samples = sample_texture(texture, beyond, wrap, interpolation) * 255
            np.testing.assert_allclose(samples[:, 0], expected, atol=1e-9)
            np.testing.assert_allclose(samples[:, 3], 0 if wrap == "clip" else 255, atol=1e-9)
    # Upwards too, where rows count from the top.
    upright = texture.transpose(1, 0, 2)
    above = sample_texture(upright, np.array([[0.5, 3.5 / 3], [0.5, -0.5 / 3]]), "mirror")
    np.testing.assert_allclose(above[:, 0] * 255, [0, 200], atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rays_pass_where_the_texture_is_too_transparent(backend):
    texture = np.full((8, 8, 4), 255, dtype=np.uint8)
    texture[:, :4, 3] = 100  # the left half
    texture[:2, 4:, 3] = 0
    camera = Camera.look_at((0, -1, 0), fov_x=math.pi / 2, width=8, height=8)

    def front(threshold: float) -> XRay:
        material = Material(texture=texture, interpolation="closest", alpha_threshold=threshold)
        surface = Surface(
            np.vstack([quad().vertices, 2 * quad().vertices + np.array([0, 0.5, 0])]),
            np.vstack([quad().faces, quad().faces + 4]),
            corner_uvs=np.vstack([UVS, UVS]),
            face_material=np.array([0, 0, 1, 1]),
            materials=[material, Material()],
        )
        return cast(surface, camera, 1, backend=backend, faces=True)

    whole = np.full((8, 8), True)
    for threshold, opaque in (
        (0.0, whole),
        (0.3, texture[..., 3] >= 0.3 * 255),
        (100 / 255, texture[..., 3] >= 100),
        (0.5, texture[..., 3] >= 0.5 * 255),
        (1.0, texture[..., 3] == 255),
    ):
        xray = front(threshold)
        assert xray.hit.all()  # the sheet behind fills the holes, also with one layer
        np.testing.assert_array_equal((xray.hit_face < 2).reshape(8, 8), opaque)
        assert xray.dropped == opaque.sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_faces_of_hits_are_told_on_request(backend):
    mesh = trimesh.creation.icosphere(2)
    camera = look(0.4, 0.2)
    assert cast(surface_of(mesh), camera, 4, backend=backend).hit_face is None
    xray = cast(surface_of(mesh), camera, 4, backend=backend, faces=True)
    assert xray.hit_face.dtype == np.int32
    positions = xray.points(camera).positions
    corners = mesh.triangles[xray.hit_face]
    plane = np.einsum("ij,ij->i", positions - corners[:, 0], mesh.face_normals[xray.hit_face])
    np.testing.assert_allclose(plane, 0, atol=1e-5)
    inside = trimesh.triangles.points_to_barycentric(corners, positions)
    assert inside.min() > -1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shifted_principal_point_is_honoured(backend):
    surface = surface_of(trimesh.creation.torus(0.7, 0.3, 24, 12))
    wide = look(0.3, 0.4, size=64)
    whole = cast(surface, wide, 8, backend=backend)
    # The same rays, as a crop of the image to 40 x 24 px.
    crop = Camera(
        40,
        24,
        2 * math.atan(20 / wide.focal),
        wide.camera_to_world,
        wide.cx - 11,
        wide.cy - 25,
    )
    part = cast(surface, crop, 8, backend=backend)
    np.testing.assert_allclose(part.depth, whole.depth[:, 25:49, 11:51], atol=1e-6)
    np.testing.assert_allclose(part.normal, whole.normal[:, 25:49, 11:51], atol=1e-6)
    assert len(part.index) > 500
    inside = {tuple(np.round(p, 4)) for p in whole.points(wide).positions}
    assert {tuple(np.round(p, 4)) for p in part.points(crop).positions} <= inside


def test_colours_multiply_in_linear_light_and_pass_unchanged_alone():
    grey = np.full((2, 3, 3), 0.5)
    camera = Camera.look_at((0, -1, 0), width=4, height=4)
    assert cast(quad(corner_colors=grey), camera, 1).color[0, 1, 1] == pytest.approx([0.5] * 3)
    tinted = cast(quad(corner_colors=grey, materials=[Material((0.5, 1.0, 0.0))]), camera, 1)
    # sRGB 0.5 is 0.2140 in linear light; its square is sRGB 0.2369.
    assert tinted.color[0, 1, 1] == pytest.approx([0.2369, 0.5, 0.0], abs=1e-3)
    two = quad(
        face_material=np.array([0, 1]), materials=[Material((1.0, 0, 0)), Material((0, 0, 1.0))]
    )
    seen = np.unique(cast(two, camera, 1).hit_color, axis=0)
    np.testing.assert_allclose(seen, [[0, 0, 1], [1, 0, 0]])


def test_broken_geometry_is_left_out_and_the_rest_is_seen():
    vertices = np.array(
        [[-1.0, 0, -1], [1, 0, -1], [0, 0, 1], [np.nan, 0, 0], [np.inf, 1, 0], [0, 0, 0]]
    )
    whole = Surface(vertices, np.array([[0, 1, 2]]))
    broken = Surface(vertices, np.array([[0, 1, 2], [0, 1, 3], [4, 1, 2], [0, 0, 1], [5, 5, 5]]))
    camera = look(-math.pi / 2, 0.1)
    expected, got = cast(whole, camera, 4), cast(broken, camera, 4)
    np.testing.assert_array_equal(got.index, expected.index)
    np.testing.assert_array_equal(got.hit_depth, expected.hit_depth)


def test_an_empty_surface_gives_an_empty_xray():
    xray = cast(Surface(np.zeros((0, 3)), np.zeros((0, 3), dtype=int)), look(0, 0), 4)
    assert xray.shape == (4, SIZE, SIZE)
    assert len(xray.index) == 0


def test_faces_behind_the_camera_are_not_seen():
    behind = surface_of(trimesh.creation.box()).transformed(
        trimesh.transformations.translation_matrix((0, -10, 0))
    )
    assert len(cast(behind, look(-math.pi / 2, 0), 4).index) == 0


@given(angles, st.floats(0.0, 0.45))
@settings(max_examples=30, deadline=None)
def test_from_inside_a_closed_surface_every_ray_hits_an_odd_number_of_times(view, shift):
    # Most faces cross the camera's plane here.
    camera = replace(look(*view, distance=1.0), fov_x=2.0)
    matrix = camera.camera_to_world.copy()
    matrix[:3, 3] = (shift, 0, 0)
    box = surface_of(trimesh.creation.box().subdivide())
    counts = hit_counts(cast(box, replace(camera, camera_to_world=matrix), 8))
    assert (counts == 1).all()


def test_a_ground_plane_that_passes_under_the_camera_is_exact():
    plane = surface_of(trimesh.creation.box((1e4, 1e4, 1.0))).transformed(
        trimesh.transformations.translation_matrix((0, 0, -1.5))
    )
    camera = Camera.look_at((0, 0, 0), (0, 1, -0.2), width=SIZE, height=SIZE)
    xray = cast(plane, camera, 1)
    positions = xray.points(camera).positions
    near = np.linalg.norm(positions, axis=1) < 100
    assert near.sum() > SIZE * SIZE / 3
    np.testing.assert_allclose(positions[near, 2], -1.0, atol=1e-4)


def test_pixel_offset_zero_gives_the_published_rays():
    camera = replace(look(0, 0, size=8), pixel_offset=0.0)
    ray = camera.ray_directions(np.array([4, 0]), np.array([4, 0]))
    np.testing.assert_allclose(ray[0], (0, 0, -1), atol=1e-12)
    corner = np.array([-4 / camera.focal, 4 / camera.focal, -1])
    np.testing.assert_allclose(ray[1], corner / np.linalg.norm(corner), atol=1e-12)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="layers"):
        cast(quad(), look(0, 0), 0)
    with pytest.raises(ValueError, match="backend"):
        cast(quad(), look(0, 0), 4, backend="gpu")
    with pytest.raises(ValueError, match="8192"):
        cast(quad(), look(0, 0, size=9000), 1)
