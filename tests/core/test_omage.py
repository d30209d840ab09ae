"""Omages as published: what each pixel means, and the mesh they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xray_addon import XRayError
from xray_addon.color import linear_to_srgb
from xray_addon.files.png import read_png, write_png
from xray_addon.omage import Omage
from xray_addon.omage.normals import estimated_normals
from xray_addon.omage.patches import connected
from xray_addon.omage.pictures import VIEWS, views, write_pictures
from xray_addon.omage.resampling import downsample


@pytest.fixture(scope="module")
def published(golden):
    with np.load(golden / "omages_repr" / "expected.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def toy(golden):
    return Omage.load(golden / "omages_repr" / "toy_omage_64.npz")


def flat(size=8, low=2, high=6):
    """A square patch in the plane z = 0 that looks up, grey and rough."""
    values = np.zeros((size, size, 12))
    row, column = np.mgrid[low:high, low:high]
    values[low:high, low:high, 0] = column / size
    values[low:high, low:high, 1] = row / size
    values[low:high, low:high, 2] = 0.5
    values[low:high, low:high, 3] = 1
    values[low:high, low:high, 4:7] = 0.5, 0.5, 1
    values[low:high, low:high, 7:10] = 0.2
    values[low:high, low:high, 11] = 0.7
    return values


def same_parts(a, b):
    """Whether two labellings differ in their numbers alone."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_meshes_are_those_of_the_published_code(toy, published):
    mesh = toy.mesh()
    assert np.array_equal(mesh.faces, published["face"])
    np.testing.assert_allclose(mesh.vertices, published["vert"], atol=1e-6)
    np.testing.assert_allclose(mesh.uvs, published["uv"][mesh.faces], atol=1e-6)
    for values, name in ((toy.albedo, "color"), (toy.metallic, "metal"), (toy.roughness, "rough")):
        got = values.reshape(64 * 64, -1)[mesh.pixels]
        np.testing.assert_allclose(got, published[name], atol=1e-6)


def test_geometry_alone_gives_the_published_faces(toy, published):
    mesh = Omage(toy.values[..., :4]).mesh()
    assert np.array_equal(mesh.faces, published["face_geo_only"])
    np.testing.assert_allclose(mesh.vertices, published["vert_geo_only"], atol=1e-6)


def test_patches_are_the_published_ones(toy, published):
    assert np.array_equal(toy.patches, published["labels"])


def test_downsampling_snaps_borders_as_published(toy, published):
    fine = np.repeat(np.repeat(toy.channels(0, 12), 16, axis=0), 16, axis=1)
    small, snapped = downsample(fine, 16)
    assert np.array_equal(snapped, published["edge_down"])
    np.testing.assert_allclose(small, published["down_star"], atol=1e-3)


def test_a_block_at_a_border_is_the_mean_of_the_border_pixels():
    values = np.zeros((8, 8, 4))
    values[1:7, 1:7, 3] = 1
    values[1:7, 1:7, 0] = np.arange(1, 7)[:, None] / 10
    small, snapped = downsample(values, 4)
    assert snapped.all()
    # Rows 1, 2, 3 of the first block: all three pixels of row 1, one of each other row.
    np.testing.assert_allclose(small[0, 0, 0], (3 * 0.1 + 0.2 + 0.3) / 5)


@given(arrays(bool, (12, 12)))
def test_parts_touch_at_edges_and_corners(occupied):
    labels = connected(occupied)
    assert np.array_equal(labels > 0, occupied)
    walked = np.zeros_like(labels)
    for number, start in enumerate(np.argwhere(occupied).tolist(), 1):
        pending = [tuple(start)] if not walked[tuple(start)] else []
        while pending:
            row, column = pending.pop()
            inside = 0 <= row < 12 and 0 <= column < 12
            if inside and occupied[row, column] and not walked[row, column]:
                walked[row, column] = number
                pending += [(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    assert same_parts(labels, walked)


def test_decoding_gives_normals_uvs_and_colours():
    surface = Omage(flat()).decode()
    np.testing.assert_allclose(surface.corner_normals, np.broadcast_to((0, 0, 1), (18, 3, 3)))
    corners = surface.vertices[surface.faces].astype(float)
    up = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    assert (up > 0).all()
    texture = surface.materials[0].texture
    assert texture.shape == (8, 8, 3)
    assert tuple(texture[3, 3]) == (124, 124, 124)  # linear 0.2
    assert texture.any(axis=2).all()  # it goes on beyond the patch


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_what_is_saved_is_read_again(kind, tmp_path):
    values = flat()
    omage = Omage((values * 65535).astype(kind) if kind is np.uint16 else values.astype(kind))
    omage.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["arr_0"]
        assert archive["arr_0"].dtype == np.uint16
    again = Omage.load(tmp_path / "a.npz")
    np.testing.assert_allclose(again.channels(0, 12), omage.channels(0, 12), atol=1 / 65535)
    np.save(tmp_path / "b.npy", omage.values)
    assert np.array_equal(Omage.load(tmp_path / "b.npy").values, omage.values)


def test_a_whole_fraction_keeps_the_outline_and_other_sizes_keep_the_patches():
    omage = Omage(flat(32, 4, 28))
    assert omage.resized(32) is omage
    for size in (16, 24, 64):
        changed = omage.resized(size)
        assert changed.resolution == size
        assert changed.patches.max() == 1
        low, high = changed.mesh().vertices.min(axis=0), changed.mesh().vertices.max(axis=0)
        np.testing.assert_allclose(low[:2], -0.75, atol=2 / size)
        np.testing.assert_allclose(high[:2], 0.6875, atol=2 / size)
        np.testing.assert_allclose(changed.albedo[changed.occupied], 0.2)
    with pytest.raises(XRayError) as raised:
        omage.resized(1)
    assert raised.value.code == "bad_settings"


def test_stitching_closes_the_seam_between_two_patches():
    values = np.zeros((16, 16, 12))
    for low in (1, 8):
        row, column = np.mgrid[0:6, 0:6]
        part = values[4:10, low : low + 6]
        part[..., 0] = (column + (5.5 if low == 8 else 0)) / 12.5
        part[..., 1], part[..., 2] = row / 12.5, 0.5
        part[..., 3], part[..., 4:7] = 1, (0.5, 0.5, 1)
    omage = Omage(values)
    apart, together = omage.decode(), omage.decode(stitch=True)
    assert len(apart.vertices) == 72
    assert len(together.vertices) == 66
    assert len(together.faces) == len(apart.faces) == 100
    assert (apart.edge_face_counts == 1).sum() == 40
    assert (together.edge_face_counts == 1).sum() == 30


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((8, 8)), "shape"),
        (np.zeros((8, 4, 12)), "shape"),
        (np.zeros((8, 8, 7)), "shape"),
        (np.zeros((8, 8, 12), np.uint8), "uint8"),
        (np.zeros((8, 8, 12), np.int64), "int64"),
        (np.full((8, 8, 12), 1.5), "1.5"),
        (np.full((8, 8, 12), -0.5), "-0.5"),
        (np.full((8, 8, 4), np.nan), "NaN"),
    ],
)
def test_what_is_no_omage_is_refused_with_the_reason(values, reason):
    with pytest.raises(XRayError, match=reason) as raised:
        Omage(values)
    assert raised.value.code == "bad_omage"


def test_an_omage_with_nothing_in_it_has_no_mesh():
    values = flat()
    values[3, 2:6, 3] = values[2, 2:6, 3] = values[4, 2:6, 3] = 0  # a single row is left
    for empty in (np.zeros((8, 8, 12)), values):
        with pytest.raises(XRayError) as raised:
            Omage(empty).decode()
        assert raised.value.code == "empty_omage"


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(XRayError, match=r"nothing\.npz") as raised:
        Omage.load(tmp_path / "nothing.npz")
    assert raised.value.code == "missing_file"
    broken, other, objects = (tmp_path / name for name in ("a.npz", "b.npz", "c.npy"))
    broken.write_bytes(b"PK\3\4 and no more")
    np.savez(other, values=np.zeros((8, 8, 12)))
    np.save(objects, np.array([{}]), allow_pickle=True)
    for path in (broken, other, objects):
        with pytest.raises(XRayError, match=path.name) as raised:
            Omage.load(path)
        assert raised.value.code == "bad_omage"


@given(st.integers(0, 2**32 - 1))
def test_meshes_use_every_vertex_and_stay_in_the_image(seed):
    random = np.random.default_rng(seed)
    values = random.random((9, 9, 12))
    values[0, 0:2, 3] = values[1, 0, 3] = 1
    mesh = Omage(values).mesh()
    assert np.array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices)))
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1


def test_pictures_are_read_as_they_were_written(tmp_path):
    omage = Omage(flat())
    write_pictures(tmp_path, omage)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "albedo.png",
        "geometry.png",
        "metallic_roughness.png",
        "normal.png",
    ]
    geometry = read_png(tmp_path / "geometry.png")
    assert geometry.shape == (8, 8, 4)
    assert geometry.dtype == np.uint16
    again = Omage.load(tmp_path)
    assert again.notes == ()
    np.testing.assert_allclose(again.channels(0, 12), omage.channels(0, 12), atol=2e-4)
    albedo = read_png(tmp_path / "albedo.png")
    assert albedo[4, 4, 0] / 65535 == pytest.approx(linear_to_srgb(np.array(0.2)), abs=1e-4)


def test_eight_bits_are_taken_with_a_note_and_missing_normals_estimated(tmp_path):
    omage = Omage(flat())
    write_pictures(tmp_path, omage)
    (tmp_path / "normal.png").unlink()
    geometry = read_png(tmp_path / "geometry.png")
    write_png(tmp_path / "geometry.png", (geometry // 257).astype(np.uint8))
    again = Omage.load(tmp_path)
    assert "8 bits" in again.notes[0]
    assert "estimated" in again.notes[1]
    np.testing.assert_allclose(again.position, omage.position, atol=2 / 255)
    normal = again.normal[again.occupied]
    np.testing.assert_allclose(np.abs(normal), np.broadcast_to((0, 0, 1), normal.shape), atol=1e-9)


def test_folders_that_hold_no_pictures_of_an_omage(tmp_path):
    with pytest.raises(XRayError, match=r"geometry\.png") as raised:
        Omage.load(tmp_path)
    assert raised.value.code == "missing_file"
    write_pictures(tmp_path, Omage(flat()))
    write_png(tmp_path / "albedo.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(XRayError, match="sizes") as raised:
        Omage.load(tmp_path)
    assert raised.value.code == "bad_omage"
    write_png(tmp_path / "geometry.png", np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(XRayError, match="channels"):
        Omage.load(tmp_path)
    (tmp_path / "geometry.png").write_bytes(b"no picture")
    with pytest.raises(XRayError, match="PNG"):
        Omage.load(tmp_path)


def test_views_show_the_patches_and_nothing_beside_them():
    shown = views(Omage(flat()))
    assert tuple(shown) == VIEWS
    for picture in shown.values():
        assert picture.shape == (8, 8, 4)
        assert np.array_equal(picture[::-1, :, 3] > 0, Omage(flat()).occupied)
    assert tuple(views(Omage(flat()[..., :4]))) == ("position", "patches")


def test_estimated_normals_look_outwards_from_a_closed_object():
    # Six sides of a cube, each a patch, half of them mirrored in the image.
    values = np.zeros((24, 24, 4))
    expected = np.zeros((24, 24, 3))
    for number, (axis, sign) in enumerate((a, s) for a in range(3) for s in (-1, 1)):
        row, column = np.mgrid[0:5, 0:5] / 4 * 2 - 1
        part = np.zeros((5, 5, 3))
        part[..., axis], part[..., (axis + 1) % 3], part[..., (axis + 2) % 3] = sign, row, column
        place = np.s_[1 + number // 3 * 7 :, 1 + number % 3 * 7 :]
        values[place][:5, :5, :3] = (part + 1) / 2
        values[place][:5, :5, 3] = 1
        expected[place][:5, :5, axis] = sign
    omage = Omage(values)
    normal = estimated_normals(omage.occupied, omage.position)
    np.testing.assert_allclose(normal, expected, atol=1e-12)
