"""Slices: which hits each of the twelve shows, and how they are drawn and laid out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from xray_addon import Camera, Surface, cast
from xray_addon.slices.slicing import (
    DISTANCE,
    EVERY_HIT,
    NAMES,
    placement,
    published_camera,
    slice_surface,
    slice_xray,
    tiled,
)

SIZE = 64


def ball(*centres: tuple[float, float, float], radius: float = 0.1) -> Surface:
    balls = [trimesh.creation.icosphere(3, radius).apply_translation(c) for c in centres]
    mesh = trimesh.util.concatenate(balls)
    return Surface(mesh.vertices, mesh.faces)


def front(size: int = SIZE) -> Camera:
    """Looks along +y: x is right in the image and z up."""
    return Camera.look_at((0, -DISTANCE, 0), width=size, height=size)


def shown(slices, name: str) -> np.ndarray:
    return slices.hit[NAMES.index(name)]


def test_slabs_are_numbered_from_the_left_from_the_top_and_from_the_viewer():
    # One ball in each corner of a box: left, right; up, down; near, far.
    corners = [(x, y, z) for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)]
    surface = ball(*corners)
    slices = slice_surface(surface, front())
    half = SIZE // 2
    assert shown(slices, "X_1")[:, :half].any()
    assert not shown(slices, "X_1")[:, half:].any()
    assert shown(slices, "X_4")[:, half:].any()
    assert not shown(slices, "X_4")[:, :half].any()
    assert shown(slices, "Y_1")[:half].any()
    assert not shown(slices, "Y_1")[half:].any()
    assert shown(slices, "Y_4")[half:].any()
    assert not shown(slices, "Y_4")[:half].any()
    for name in ("X_2", "X_3"):  # between the balls
        assert shown(slices, name).sum() < shown(slices, "X_1").sum() / 4
    near = slices.depth[NAMES.index("Z_1")]
    far = slices.depth[NAMES.index("Z_4")]
    assert near[near > 0].max() < DISTANCE < far[far > 0].min()


def test_a_slice_shows_the_nearest_hit_of_its_slab():
    # Three walls behind each other; all in one x-slab and one y-slab.
    walls = [trimesh.creation.box((0.4, 0.01, 0.4)).apply_translation((0, y, 0)) for y in (0, 0.2)]
    mesh = trimesh.util.concatenate([*walls, trimesh.creation.icosphere(2, 0.05)])
    surface = Surface(mesh.vertices, mesh.faces)
    camera = front()
    slices = slice_surface(surface, camera)
    layers = cast(surface, camera, 16)
    middle = SIZE // 2 - 1
    first = layers.depth[0, middle, middle]
    column = next(name for name in NAMES if name[0] == "X" and shown(slices, name)[middle, middle])
    assert slices.depth[NAMES.index(column), middle, middle] == first
    behind = slices.depth[NAMES.index("Z_4"), middle, middle]
    assert behind == pytest.approx(DISTANCE + 0.195, abs=1e-3)


def test_the_slices_along_an_axis_hold_every_hit_once():
    surface = ball((0, 0, 0), (0.1, 0.05, 0.2), radius=0.15)
    slices = slice_surface(surface, front())
    for places in slices.places:
        assert len(places) == len(slices.xray.index)
    # What the image shows is the nearest of all slices of an axis.
    first = slices.xray.depth[0]
    for letter in "XYZ":
        own = slices.depth[[i for i, name in enumerate(NAMES) if name[0] == letter]]
        nearest = np.where(own > 0, own, np.inf).min(axis=0)
        np.testing.assert_array_equal(np.where(np.isfinite(nearest), nearest, 0), first)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_both_casts_give_the_same_slices(backend):
    surface = ball((0.1, 0.2, 0.3), (0, 0, 0))
    got = slice_surface(surface, front(), backend=backend)
    np.testing.assert_array_equal(got.depth, slice_surface(surface, front()).depth)


def test_axis_aligned_slabs_follow_the_world_and_not_the_camera():
    surface = ball((-0.3, 0, 0), (0.3, 0, 0))
    behind = Camera.look_at((0, DISTANCE, 0), width=SIZE, height=SIZE)
    by_camera = slice_surface(surface, behind)
    by_axis = slice_surface(surface, behind, aligned="axis")
    half = SIZE // 2
    assert shown(by_camera, "X_1")[:, :half].any()
    # Seen from behind, the world's -x side is on the right.
    assert shown(by_axis, "X_1")[:, half:].any()
    assert not shown(by_axis, "X_1")[:, :half].any()


def seconds(work: Callable[[], object]) -> float:
    """Of CPU time, all threads together."""
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="the kernel is not compiled")
def test_twelve_shaded_slices_need_one_cast_only():
    # They cost 2.1 to 2.4 casts here. One cast for each slice would cost more than twelve.
    mesh = trimesh.creation.icosphere(5, 0.4)
    surface, camera = Surface(mesh.vertices, mesh.faces), front(256)
    # In turn, so that a busy moment meets both; the first round compiles.
    casts, slices = zip(
        *(
            (
                seconds(lambda: cast(surface, camera, EVERY_HIT)),
                seconds(lambda: slice_surface(surface, camera).pictures()),
            )
            for _ in range(20)
        ),
        strict=True,
    )
    assert min(slices) < 4 * min(casts)


def test_an_xray_gives_the_slices_of_its_surface():
    surface = ball((0, 0, 0), (0.2, 0.1, 0.1))
    camera = front()
    whole = slice_surface(surface, camera)
    captured = cast(surface, camera, 16)
    bounds = surface.transformed(camera.world_to_camera).bounds
    np.testing.assert_array_equal(slice_xray(captured, camera, bounds=bounds).depth, whole.depth)
    # Without its bounds they are those of the hits, a pixel or so less.
    close = slice_xray(captured, camera).depth > 0
    assert (close != whole.hit).mean() < 0.02


def test_pictures_are_grey_and_clear_where_a_slice_is_empty():
    surface = ball((0, 0, 0), radius=0.3)
    slices = slice_surface(surface, front())
    pictures = slices.pictures()
    assert pictures.shape == (12, SIZE, SIZE, 4)
    np.testing.assert_array_equal(pictures[..., 3] > 0, slices.hit)
    inside = pictures[slices.hit]
    assert (inside[:, 0] == inside[:, 1]).all()
    assert (inside[:, 1] == inside[:, 2]).all()
    # The sky alone gives 0.4 in linear light, which is 0.67 encoded.
    assert inside[:, 0].min() >= 169
    assert np.ptp(inside[:, 0].astype(int)) > 20
    assert (pictures[~slices.hit] == 0).all()


def test_pictures_can_keep_the_colours_of_an_xray():
    surface = ball((0, 0, 0), radius=0.3)
    surface.corner_colors = np.full((len(surface.faces), 3, 3), (0.9, 0.2, 0.1))
    camera = front()
    pictures = slice_xray(cast(surface, camera, 16), camera).pictures(grey=None)
    inside = pictures[pictures[..., 3] > 0].astype(int)
    assert (inside[:, 0] > 2 * inside[:, 1]).all()


def test_tiles_stand_in_the_networks_order():
    pictures = np.zeros((12, 2, 2, 4), dtype=np.uint8)
    pictures[..., 3] = 255
    pictures[..., 0] = np.arange(12)[:, None, None]
    sheet = tiled(pictures)
    assert sheet.shape == (6, 8, 4)
    assert sheet[::2, ::2, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    clear = np.zeros((12, 2, 2, 4), dtype=np.uint8)
    assert (tiled(clear, 200) == 200).all()


def test_the_published_placement_has_a_diagonal_of_one_and_its_camera_sees_all_of_it():
    surface = Surface(*box_arrays((4, 2, 1), (7, 8, 9)))
    placed = surface.transformed(placement(surface))
    low, high = placed.bounds
    assert np.linalg.norm(high - low) == pytest.approx(1)
    np.testing.assert_allclose(low + high, 0, atol=1e-12)
    camera = published_camera(azimuth=np.pi / 2, elevation=0.3)
    assert np.linalg.norm(camera.position) == pytest.approx(DISTANCE)
    assert camera.position[1] > 0
    assert camera.focal / camera.width == pytest.approx(35 / 32)
    hit = cast(placed, camera, 1).hit[0]
    assert hit.any()
    assert not hit[0].any()
    assert not hit[:, 0].any()


def box_arrays(size, centre) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.box(size).apply_translation(centre)
    return mesh.vertices, mesh.faces


def test_what_cannot_be_sliced_is_refused():
    surface = ball((0, 0, 0))
    with pytest.raises(ValueError, match="aligned"):
        slice_surface(surface, front(), aligned="view")
    with pytest.raises(ValueError, match="no faces"):
        slice_surface(Surface(surface.vertices, np.zeros((0, 3), int)), front())
    with pytest.raises(ValueError, match="pixels"):
        slice_xray(cast(surface, front(), 4), front(32))
    away = Camera.look_at((0, -1, 0), (0, -2, 0), width=8, height=8)
    with pytest.raises(ValueError, match="no hits"):
        slice_xray(cast(surface, away, 4), away)
    with pytest.raises(ValueError, match="single point"):
        placement(Surface(np.zeros((3, 3)), np.array([[0, 1, 2]])))
