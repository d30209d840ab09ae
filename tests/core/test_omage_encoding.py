"""Surfaces to omages and back: nothing moves, colours stay, and what is left out is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon import Material, Surface, XRayError
from xray_addon.color import srgb_to_linear
from xray_addon.omage import Omage
from xray_addon.omage.encoding import EXTENT, unusable
from xray_addon.omage.packing import pack


def box(x=2.0, y=1.0, z=0.5, material=None):
    """A box around (1, 2, 3) with a chart for each side, in a grid of 3 x 2."""
    surface = []
    uvs = []
    for number, (axis, sign) in enumerate((a, s) for a in range(3) for s in (-1, 1)):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        corners = np.zeros((4, 3))
        corners[:, axis] = sign
        corners[:, u] = [-1, 1, 1, -1]
        corners[:, v] = [-1, -1, 1, 1]
        square = (corners[:, [u, v]] + 1) * 0.15 + (number % 3 / 3, number // 3 / 2)
        triangles = np.array([[0, 1, 2], [0, 2, 3]])
        if sign < 0:
            triangles = triangles[:, ::-1]
        surface.append(corners[triangles])
        uvs.append(square[triangles])
    corners = np.concatenate(surface) * (x / 2, y / 2, z / 2) + (1, 2, 3)
    vertices, faces = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return Surface(
        vertices,
        faces.reshape(-1, 3),
        corner_uvs=np.concatenate(uvs),
        materials=[material] if material else (),
    )


def points(surface, count=4000):
    return surface.sample(count, seed=1)


def outside_box(places, half):
    """How far places lie from the surface of a box around 0."""
    gap = np.abs(places) - half
    return np.where(
        (gap <= 0).all(axis=1), -gap.max(axis=1), np.linalg.norm(np.maximum(gap, 0), axis=1)
    )


@pytest.mark.parametrize("resolution", [64, 100, 256])
def test_a_box_stays_a_box(resolution):
    omage, report = Omage.encoded(box(), resolution)
    assert (report.charts, report.dropped_charts, report.unwrapped) == (6, 0, "")
    assert report.dropped_area == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(report.centre, (1, 2, 3))
    assert report.scale == pytest.approx(EXTENT / 2)
    assert omage.patches.max() == 6
    surface = omage.decode()
    half = np.array([1, 0.5, 0.25]) * EXTENT / 2
    assert outside_box(points(surface), half).max() < 1e-6
    # The ring of pixels shows the edges themselves, so nothing is missing.
    low, high = surface.bounds
    np.testing.assert_allclose(high - low, 2 * half, atol=1e-6)
    area = np.linalg.norm(
        np.cross(*(np.diff(surface.vertices[surface.faces], axis=1).transpose(1, 0, 2))), axis=1
    )
    expected = 8 * (half[0] * half[1] + half[1] * half[2] + half[0] * half[2])
    assert area.sum() / 2 == pytest.approx(expected, rel=0.03)
    assert omage.decode(stitch=True).is_watertight


def test_faces_look_outwards_and_normals_are_kept():
    surface = Omage.encoded(box(), 64)[0].decode()
    corners = surface.vertices[surface.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(normal, axis=1) > 1e-9
    assert (np.einsum("ij,ij->i", normal, corners.mean(axis=1))[solid] > 0).all()
    axes = np.abs(surface.corner_normals)
    np.testing.assert_allclose(axes.max(axis=-1), 1)


def test_colours_are_those_of_the_texture():
    texture = np.zeros((2, 3, 3), np.uint8)
    texture[...] = [[(250, 0, 0), (0, 250, 0), (0, 0, 250)], [(90, 90, 0), (0, 90, 90), (9, 0, 9)]]
    material = Material(texture=texture, interpolation="closest")
    omage, _ = Omage.encoded(box(material=material), 64)
    # A side in linear light for each texel of the texture.
    found = np.unique(np.round(omage.albedo[omage.occupied], 4), axis=0)
    expected = np.unique(np.round(srgb_to_linear(texture.reshape(-1, 3) / 255), 4), axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    decoded = omage.decode().materials[0].texture
    shown = decoded.reshape(-1, 3)[decoded.any(axis=2).ravel()]
    assert {tuple(c) for c in shown.tolist()} == {tuple(c) for c in texture.reshape(-1, 3).tolist()}


def test_metal_and_roughness_are_those_of_the_material_and_come_back():
    rough = np.array([[0, 51], [102, 255]], np.uint8)
    material = Material(
        metallic=0.5, roughness=0.8, roughness_texture=rough, interpolation="closest"
    )
    omage, _ = Omage.encoded(box(material=material), 64)
    np.testing.assert_allclose(omage.metallic[omage.occupied], 0.5)
    found = np.unique(np.round(omage.roughness[omage.occupied], 4))
    np.testing.assert_allclose(found, [0, 0.16, 0.32, 0.8], atol=1e-4)
    decoded = omage.decode().materials[0]
    assert (decoded.metallic, decoded.roughness) == (1, 1)
    inside = omage.occupied[::-1]
    np.testing.assert_allclose(decoded.metallic_texture[inside], 128)
    assert set(decoded.roughness_texture[inside].tolist()) == {0, 41, 82, 204}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: replace(s, corner_uvs=None), "none"),
        (lambda s: replace(s, corner_uvs=s.corner_uvs * 0), "no place"),
        (lambda s: replace(s, corner_uvs=s.corner_uvs * 3 - 1), "-1"),
        (lambda s: replace(s, corner_uvs=s.corner_uvs % 0.3333), "overlap"),
        (lambda s: replace(s, corner_uvs=s.corner_uvs + np.nan), "finite"),
    ],
)
def test_uvs_that_do_not_serve_are_made_anew_and_the_report_says_why(change, reason):
    good = box()
    bad = change(good)
    assert reason in unusable(bad)
    with pytest.raises(XRayError, match=reason) as raised:
        Omage.encoded(bad, 64)
    assert raised.value.code == "needs_unwrap"
    omage, report = Omage.encoded(bad, 64, unwrap=lambda _: good.corner_uvs)
    assert reason in report.unwrapped
    np.testing.assert_allclose(omage.position, Omage.encoded(good, 64)[0].position)


def test_usable_uvs_are_used():
    assert unusable(box()) == ""
    omage = Omage.encode(box(), 64, unwrap=lambda _: pytest.fail("was unwrapped"))
    assert omage.resolution == 64


def test_objects_may_share_a_place_in_the_uv_map():
    one, two = box(), box(1, 1, 1)
    both = Surface(
        np.concatenate([one.vertices, two.vertices]),
        np.concatenate([one.faces, two.faces + len(one.vertices)]),
        corner_uvs=np.concatenate([one.corner_uvs, two.corner_uvs]),
    )
    assert "overlap" in unusable(both)
    _, report = Omage.encoded(both, 64, part=np.repeat([0, 1], len(one.faces)))
    assert (report.charts, report.unwrapped) == (12, "")


def test_specks_are_dropped_and_the_largest_kept():
    speck = box()
    uvs = speck.corner_uvs.copy()
    uvs[:2] = uvs[:2] * 0.01 + 0.97
    omage, report = Omage.encoded(replace(speck, corner_uvs=uvs), 64)
    assert (report.charts, report.dropped_charts) == (5, 1)
    assert report.dropped_area == pytest.approx(0.5 / 7, rel=1e-6)
    omage, report = Omage.encoded(box(), 64, patches=2)
    assert report.charts == omage.patches.max() == 2
    assert np.ptp(omage.position[omage.occupied][:, 2]) == pytest.approx(0.5, abs=1e-3)


def test_surfaces_that_cannot_be_encoded():
    flat = Surface(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    for surface in (flat, Surface(np.zeros((0, 3)), np.zeros((0, 3), int))):
        with pytest.raises(XRayError) as raised:
            Omage.encoded(surface, 64)
        assert raised.value.code == "no_faces"
    with pytest.raises(XRayError) as raised:
        Omage.encoded(replace(box(), corner_uvs=box().corner_uvs * 0.01), 64)
    assert raised.value.code == "no_charts"
    for resolution in (4, 10_000):
        with pytest.raises(XRayError) as raised:
            Omage.encoded(box(), resolution)
        assert raised.value.code == "bad_settings"


def test_broken_vertices_are_left_out():
    surface = box()
    vertices = np.concatenate([surface.vertices, [[np.nan, 0, 0]]])
    faces = np.concatenate([surface.faces, [[0, 1, 8]]])
    uvs = np.concatenate([surface.corner_uvs, surface.corner_uvs[:1]])
    omage, _ = Omage.encoded(Surface(vertices, faces, corner_uvs=uvs), 64)
    np.testing.assert_allclose(omage.values, Omage.encoded(box(), 64)[0].values, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_packed_boxes_lie_apart_by_a_cell(count, seed):
    sizes = np.random.default_rng(seed).random((count, 2))
    scale, places = pack(sizes, 32, 1 / 64)
    assert scale > 0
    first = np.floor(places * 32 - 0.5).astype(int)
    last = np.ceil((places + sizes * scale + 1 / 64) * 32 - 1e-6).astype(int)
    taken = np.zeros((33, 33), int)
    for (x, y), (right, top) in zip(first, last, strict=True):
        assert max(right, top) < 32
        assert (taken[y : top + 1, x : right + 1] == 0).all()
        taken[y:top, x:right] = 1
        # The cell to the right and above is free, also when another box comes later.
        taken[y : top + 1, right] += 1 - taken[y : top + 1, right]
        taken[top, x : right + 1] += 1 - taken[top, x : right + 1]
