"""Mesh files for printers and other programs, and a folder of images as input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xray_addon import Surface, XRayError
from xray_addon.files.atomic import replacing_together
from xray_addon.files.images import images_in
from xray_addon.files.mesh_formats import check_format, lost_in
from xray_addon.files.stl import write_stl
from xray_addon.image_folder import generate_each, output_files

TETRAHEDRON = Surface(
    [[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]
)


def read_stl(path: Path) -> np.ndarray:
    """The triangles (N, 4, 3) of a binary STL: its normal and its corners."""
    data = path.read_bytes()
    assert int.from_bytes(data[80:84], "little") == (len(data) - 84) // 50
    kind = np.dtype([("rows", "<f4", (4, 3)), ("attribute", "<u2")])
    return np.frombuffer(data, kind, offset=84)["rows"]


@pytest.mark.parametrize(("metres", "height"), [(1.0, 3000), (0.01, 30)])
def test_an_stl_is_in_millimetres_with_z_up(tmp_path, metres, height):
    write_stl(tmp_path / "a.stl", TETRAHEDRON, metres)
    rows = read_stl(tmp_path / "a.stl")
    assert rows[:, 1:].shape == (4, 3, 3)
    assert np.ptp(rows[:, 1:].reshape(-1, 3), axis=0)[2] == pytest.approx(height)
    # Normals point out of the body, and the corners turn around them.
    turn = np.cross(rows[:, 2] - rows[:, 1], rows[:, 3] - rows[:, 1])
    np.testing.assert_allclose(
        rows[:, 0], turn / np.linalg.norm(turn, axis=1, keepdims=True), atol=1e-6
    )
    assert (
        ((rows[:, 1:].mean(axis=1) - rows[:, 1:].mean(axis=(0, 1))) * rows[:, 0]).sum(1) > 0
    ).all()


def test_what_a_format_cannot_hold_is_said():
    assert "no colours" in lost_in(".STL")
    assert "millimetres" in lost_in(".stl")
    assert "vertex colours" in lost_in(".obj")
    assert lost_in(".glb") == lost_in(".blend") == lost_in(".blend", quads=True) == ""
    assert "quads" in lost_in(".glb", quads=True)
    check_format(Path("a.OBJ"), (".glb", ".obj"))
    with pytest.raises(XRayError, match=r"a\.ply cannot be written.*\.glb or \.obj"):
        check_format(Path("a.ply"), (".glb", ".obj"))


def test_files_that_belong_together_are_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.obj"
    with replacing_together(path) as temporary:
        temporary.write_text("mtllib a.mtl")
        temporary.with_suffix(".mtl").write_text("newmtl")
        assert list(path.parent.glob("a.*")) == []
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.mtl", "a.obj"]

    def fail():
        with replacing_together(path) as temporary:
            temporary.write_text("other")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "mtllib a.mtl"
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.mtl", "a.obj"]


@pytest.fixture
def images(tmp_path):
    for name in ("b.png", "a.jpg", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    return images_in(tmp_path)


def test_every_image_of_a_folder_has_a_file_of_its_own(images, tmp_path):
    assert [path.name for path in images] == ["a.jpg", "a.png", "b.png"]
    files = output_files(images, Path("out"), ".stl")
    assert files == [Path("out/a.jpg.stl"), Path("out/a.png.stl"), Path("out/b.stl")]
    with pytest.raises(XRayError, match="Name a folder"):
        output_files(images, Path("out.stl"), ".stl")
    with pytest.raises(XRayError, match="contains no images"):
        images_in(tmp_path / "nothing")


def test_an_error_of_one_image_does_not_stop_the_others(images):
    def make(image, file):
        if image.suffix == ".jpg":
            raise XRayError("no_object", "It is empty.", "Take another.")
        return {"faces": 12}

    said = []
    files = output_files(images, Path("out"), ".glb")
    code, answer = generate_each(images, files, make, said.append)
    assert code == 1
    assert [(Path(made["image"]).name, made["faces"]) for made in answer["made"]] == [
        ("a.png", 12),
        ("b.png", 12),
    ]
    assert [failure["code"] for failure in answer["failed"]] == ["no_object"]
    assert said[0] == "a.jpg: It is empty. Take another."
    assert said[-2:] == ["2 of 3 images are meshes, 1 failed", "  failed: a.jpg: It is empty."]


@pytest.mark.parametrize("code", ["missing_weights", "not_installed", "cancelled"])
def test_what_every_image_would_meet_ends_it(images, code):
    def make(image, file):
        raise XRayError(code, "No.")

    with pytest.raises(XRayError, match=r"No\."):
        generate_each(images, images, make, [].append)
