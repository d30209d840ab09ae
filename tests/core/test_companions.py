"""The files that a mesh file names are found without an importer, whatever the file holds."""

from __future__ import annotations

import json
import os

import pytest

from xray_addon import XRayError
from xray_addon.dataset.companions import check_files, companion_hashes, named_files
from xray_addon.dataset.recipe import file_hash


def test_an_obj_names_its_materials_and_they_their_textures(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\n  mtllib a b.mtl\r\nmtllib none.mtl\nusemtl mtllib\n")
    (tmp_path / "my map.png").write_bytes(b"")
    (tmp_path / "a b.mtl").write_text(
        "newmtl m\nmap_Kd -s 1 1 1 my map.png\nbump -bm 0.5 sub\\n.png\nKd 1 1 1\nMAP_D gone.png\n"
    )
    names = [os.path.relpath(file, tmp_path) for file in named_files(path)]
    assert names == ["a b.mtl", "my map.png", os.path.join("sub", "n.png"), "gone.png", "none.mtl"]


@pytest.mark.parametrize("binary", [False, True])
def test_a_gltf_names_its_buffers_and_images(tmp_path, binary):
    document = {
        "buffers": [{"uri": "a%20b.bin"}, {"byteLength": 3}],
        "images": [{"uri": "data:image/png;base64,AA"}, {"uri": "t.png"}],
    }
    data = json.dumps(document).encode()
    if binary:
        data = b"glTF" + bytes(8) + len(data).to_bytes(4, "little") + b"JSON" + data + b"\0" * 40
    path = tmp_path / ("a.glb" if binary else "a.gltf")
    path.write_bytes(data)
    assert [file.name for file in named_files(path)] == ["a b.bin", "t.png"]


@pytest.mark.parametrize("suffix", [".obj", ".gltf", ".glb", ".ply"])
@pytest.mark.parametrize(
    "data", [b"", b"\0", b"[" * 10**5, b"mtllib \xff\0\n", b"glTF" + b"\xff" * 30]
)
def test_damaged_files_name_nothing_and_break_nothing(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    if data:
        check_files(path)
    assert len(named_files(path)) <= 1


def test_hashes_are_those_of_what_is_there(tmp_path):
    path = tmp_path / "meshes" / "a.obj"
    path.parent.mkdir()
    for file in (path, path.with_suffix(".mtl"), tmp_path / "t.png"):
        file.write_text(file.name)
    files = [path.with_suffix(".mtl"), path, tmp_path / "t.png", tmp_path / "meshes/gone.png"]
    assert companion_hashes(path, files) == {
        "../t.png": file_hash(tmp_path / "t.png"),
        "a.mtl": file_hash(path.with_suffix(".mtl")),
        "gone.png": "",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_as_a_texture_is_named_before_anything_opens_it(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("mtllib a.mtl\n")
    (tmp_path / "a.mtl").write_text("map_Kd t.png\n")
    check_files(path)
    os.mkfifo(tmp_path / "t.png")
    with pytest.raises(XRayError, match=r"t\.png is not a regular file"):
        check_files(path)
