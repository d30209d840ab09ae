"""Files are named by what they are, not by their names."""

from __future__ import annotations

import pytest

from xray_addon.errors import XRayError
from xray_addon.files.signatures import stand_in, stand_in_at, unread_image
from xray_addon.xray import XRay

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1048576\n"


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (POINTER, "Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--ab.glb\n", "git-annex pointer"),
        (b"<!DOCTYPE html>\n<html lang=en>", "web page"),
        (b"\xef\xbb\xbf  \r\n<HTML><head>", "web page"),
        (b'<?xml version="1.0"?><!DOCTYPE html>', "web page"),
        (b"<!-- saved from x -->\n<html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code>', "error message"),
        (b'{"error": "Repository not found"}', "error message"),
        (b'{\n  "message": "Not Found",', "error message"),
        (b"404: Not Found", "error message"),
        (b"Access denied", "error message"),
        (b"", "empty file"),
    ],
)
def test_stand_ins_are_named_with_what_to_do(begin, said):
    kind = stand_in(begin)
    assert said in kind.what
    assert kind.remedy.endswith(".")
    assert said in unread_image(begin).what


@pytest.mark.parametrize(
    "begin",
    [
        b"glTF\x02\0\0\0",
        b'{"asset": {"version": "2.0"}}',
        b"ply\nformat ascii 1.0\n",
        b"solid name\n",
        b"# 404 vertices\nv 0 0 0\n",
        b"v 404 500 1\nv 1 2 3\nv 4 5 6\nf 1 2 3\n",
        b"404 500 1\n" * 40,
        b"#usda 1.0\n",
        b"BLENDER-v405",
        b"PK\x03\x04",
        b"\x89PNG\r\n\x1a\n",
        b'<?xml version="1.0"?><svg>',
    ],
)
def test_files_themselves_are_no_stand_ins(begin):
    assert stand_in(begin) is None


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "a HEIC photo"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2", "a video"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
        (b"v/1\x01\x02\0\0\0", "an OpenEXR image"),
        (b"#?RADIANCE\n", "a Radiance HDR image"),
        (b"XPDS\0\0 \0", "a DPX image"),
        (b"8BPS\0\x01", "a Photoshop file"),
        (b"DDS |\0\0\0", "a DDS texture"),
        (b"\xabKTX 20\xbb", "a KTX texture"),
        (b"%PDF-1.7", "a PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "a vector drawing"),
        (b"glTF\x02\0\0\0", "a mesh, not an image"),
    ],
)
def test_images_that_are_not_read_are_named(begin, said):
    kind = unread_image(begin)
    assert kind.what.startswith(f"is {said}")
    assert kind.remedy


def test_what_cannot_be_opened_is_nothing(tmp_path):
    assert stand_in_at(tmp_path / "gone") is None
    assert stand_in_at(tmp_path) is None
    assert stand_in_at("a\0b") is None
    assert stand_in_at(object()) is None


def test_a_pointer_in_an_x_rays_place_is_named(tmp_path):
    path = tmp_path / "000.npz"
    path.write_bytes(POINTER)
    with pytest.raises(XRayError, match="Git LFS pointer") as caught:
        XRay.load(path)
    assert caught.value.code == "bad_xray_file"
