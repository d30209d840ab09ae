"""Images: what can be read, how the object is cut out, and the rule it is framed by."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw
from scipy import ndimage

from runtime.images import networks
from runtime.images.cutout import cut_object, cut_out, move_edge, online_allowed
from runtime.images.framing import frame
from runtime.images.reading import focal_length, read_image
from runtime.segmentation.data import background as procedural_background
from xray_addon.errors import XRayError
from xray_addon.process.protocol import ONLINE_VARIABLE
from xray_addon.progress import Cancelled
from xray_addon.settings.generate import GenerateSettings

ROOT = Path(__file__).parents[2]
FILL = 0.85
RED, GREEN, BLUE = (220, 30, 40), (30, 180, 60), (20, 40, 200)


def _quadrants(width: int = 40, height: int = 20) -> Image.Image:
    """Red, green, blue and white, clockwise from the top left; wider than high."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=RED)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    draw.rectangle((width // 2, height // 2, width, height), fill=BLUE)
    return image


def _assert_quadrants(image: Image.Image, tolerance: int = 12) -> None:
    w, h = image.size
    spots = [(w // 4, h // 4), (3 * w // 4, h // 4), (3 * w // 4, 3 * h // 4), (w // 4, 3 * h // 4)]
    seen = [np.array(image.getpixel(spot))[:3] for spot in spots]
    np.testing.assert_allclose(seen, [RED, GREEN, BLUE, (255, 255, 255)], atol=tolerance)


def _write_png(path: Path, values: np.ndarray, color_type: int) -> Path:
    """A 16-bit PNG of (H, W, C) uint16, which Pillow itself writes for grey only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


def _disk(size: int, color: object, background: object, radius: float = 0.3) -> Image.Image:
    """A smooth-edged disk in the middle of a plain square."""
    image = Image.new("RGB", (4 * size, 4 * size), background)
    low, high = (0.5 - radius) * 4 * size, (0.5 + radius) * 4 * size
    ImageDraw.Draw(image).ellipse((low, low, high, high), fill=color)
    return image.resize((size, size), Image.Resampling.BOX)


def _disk_mask(size: int, radius: float = 0.3) -> np.ndarray:
    return np.asarray(_disk(size, "white", "black", radius))[..., 0] > 127


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _box_of(rgba: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(rgba[..., 3] > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _with_object(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A transparent image with one opaque red rectangle (left, top, right, bottom)."""
    rgba = np.zeros((height, width, 4), dtype=np.uint8)
    rgba[box[1] : box[3], box[0] : box[2]] = (*RED, 255)
    return rgba


# ---------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.jpg", {"quality": 95, "subsampling": 0}), ("a.webp", {"lossless": True}),
     ("a.bmp", {}), ("a.tif", {}), ("a.gif", {}), ("a.avif", {"quality": 95})],
)  # fmt: skip
def test_the_usual_formats_are_read_as_rgb(tmp_path, name, options):
    _quadrants().save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert image.size == (40, 20)
    _assert_quadrants(image)


def test_a_path_may_be_text_and_an_image_may_be_an_array_or_pil(tmp_path):
    _quadrants().save(tmp_path / "a.png")
    _assert_quadrants(read_image(str(tmp_path / "a.png")))
    _assert_quadrants(read_image(np.asarray(_quadrants())))
    _assert_quadrants(read_image(_quadrants()))
    assert read_image(np.zeros((3, 5, 4), np.uint8)).mode == "RGBA"


def test_the_callers_image_is_left_as_it_is():
    image = _quadrants(4096, 2048).convert("P")
    before = image.tobytes()
    assert read_image(image).size == (2048, 1024)
    assert image.mode == "P"
    assert image.tobytes() == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # Stored as a camera held that way stores it: the inverse of what EXIF asks to be done.
    stored = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _quadrants() if stored is None else _quadrants().transpose(stored)
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    upright = read_image(tmp_path / "a.jpg")
    assert upright.size == (40, 20)
    _assert_quadrants(upright)


def test_damaged_exif_does_not_keep_the_image_from_being_read(tmp_path):
    _quadrants().save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense", quality=95, subsampling=0)
    _assert_quadrants(read_image(tmp_path / "a.jpg"))
    assert focal_length(tmp_path / "a.jpg") == 0


@pytest.mark.parametrize(
    ("tags", "focal"),
    [
        ({0xA405: 26}, 26 / 43.27),
        ({0xA405: 26, 0xA002: 4000, 0xA003: 2000}, 26 / 43.27),
        ({0xA405: 26, 0xA002: 2000, 0xA003: 4000}, 26 / 43.27),  # stored on its side
        ({0xA405: 26, 0xA002: 3000, 0xA003: 2000}, 0),  # it was cropped
        ({0xA405: 0}, 0),
        ({0xA405: "long"}, 0),
        ({}, 0),
    ],
)
def test_the_focal_length_of_a_photo(tmp_path, tags: dict, focal: float):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    image = _quadrants()  # twice as wide as high
    image.save(tmp_path / "a.jpg", exif=exif)
    assert focal_length(tmp_path / "a.jpg") == pytest.approx(focal)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert focal_length(opened) == pytest.approx(focal)
    assert focal_length(np.asarray(image)) == 0


def test_greyscale_and_one_bit_become_rgb(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "l.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "1.png")
    assert read_image(tmp_path / "l.png").getpixel((1, 1)) == (77, 77, 77)
    assert read_image(tmp_path / "1.png").getpixel((1, 1)) == (255, 255, 255)


def test_greyscale_with_alpha_keeps_its_alpha(tmp_path):
    Image.new("LA", (4, 4), (200, 40)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((1, 1)) == (200, 200, 200, 40)


@pytest.mark.parametrize("value", [0, 257, 32896, 65535])
def test_sixteen_bits_become_eight_by_the_full_range(tmp_path, value):
    grey = np.full((4, 4), value, dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    _write_png(tmp_path / "rgb.png", np.repeat(grey[..., None], 3, axis=2), color_type=2)
    for name in ("grey.png", "grey.tif", "rgb.png"):
        assert read_image(tmp_path / name).getpixel((2, 2)) == (value // 257,) * 3


def test_sixteen_bit_alpha_is_kept(tmp_path):
    rgba = np.full((4, 4, 4), 65535, dtype=np.uint16)
    rgba[:2, :, 3] = 0
    for color_type, values in ((6, rgba), (4, rgba[..., 2:])):
        image = read_image(_write_png(tmp_path / "a.png", values, color_type))
        assert image.getpixel((0, 0))[3] == 0
        assert image.getpixel((0, 3)) == (255, 255, 255, 255)


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_and_32_bit_greys_are_scaled_by_the_range_they_fit(tmp_path, top):
    ramp = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "f.tif")
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "f.tif"))[..., 0].ravel(),
                               np.arange(256), atol=1)  # fmt: skip
    if top > 1:
        wide = read_image(Image.fromarray(ramp.astype(np.int32)))
        np.testing.assert_allclose(np.asarray(wide)[..., 0].ravel(), np.arange(256), atol=1)


def test_floats_that_are_no_numbers_become_black():
    image = read_image(Image.fromarray(np.array([[np.nan, -1.0], [np.inf, 1.0]], np.float32)))
    assert np.asarray(image)[..., 0].tolist() == [[0, 0], [0, 255]]


def test_palette_images_are_read_with_and_without_transparency(tmp_path):
    palette = _quadrants().quantize(4)
    palette.save(tmp_path / "plain.png")
    white = palette.getpixel((5, 15))
    palette.save(tmp_path / "clear.png", transparency=white)
    palette.save(tmp_path / "clear.gif", transparency=white)
    palette.save(tmp_path / "soft.png", transparency=bytes(100 + i for i in range(4)))
    _assert_quadrants(read_image(tmp_path / "plain.png"))
    for name in ("clear.png", "clear.gif"):
        image = read_image(tmp_path / name)
        assert image.mode == "RGBA"
        assert image.getpixel((5, 15))[3] == 0
        assert image.getpixel((5, 5))[3] == 255
    assert read_image(tmp_path / "soft.png").getpixel((5, 15))[3] == 100 + white


def test_a_colour_named_transparent_is_transparent(tmp_path):
    _quadrants().save(tmp_path / "rgb.png", transparency=RED)
    image = read_image(tmp_path / "rgb.png")
    assert (image.getpixel((5, 5))[3], image.getpixel((5, 15))[3]) == (0, 255)
    grey = Image.fromarray(np.array([[7, 40_000]], dtype=np.uint16))
    grey.save(tmp_path / "grey.png", transparency=7)
    alphas = np.asarray(read_image(tmp_path / "grey.png"))[..., 3]
    assert alphas.tolist() == [[0, 255]]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb(tmp_path, name):
    _quadrants().convert("CMYK").save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    _assert_quadrants(image, tolerance=40)


def test_cielab_becomes_rgb(tmp_path):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(_quadrants(), to_lab)
    lab.save(tmp_path / "a.tif")
    _assert_quadrants(read_image(tmp_path / "a.tif"), tolerance=16)  # 8-bit CIELAB is coarse


def _swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged, so that its use shows."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * profile[131], 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_icc_profile_is_converted_to_srgb(tmp_path, mode):
    image = Image.new("RGB", (4, 4), RED)
    if mode == "RGBA":
        image.putalpha(90)
    image.save(tmp_path / "a.png", icc_profile=_swapped_profile())
    red, green, *rest = read_image(tmp_path / "a.png").getpixel((1, 1))
    assert green > 200 > 60 > red
    assert rest[1:] == ([90] if mode == "RGBA" else [])


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_a_broken_icc_profile_is_ignored(tmp_path, profile):
    _quadrants().save(tmp_path / "a.png", icc_profile=profile)
    _assert_quadrants(read_image(tmp_path / "a.png"))


def test_an_icc_profile_of_another_colour_space_is_ignored(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("L", (4, 4), 100).save(tmp_path / "a.png", icc_profile=srgb)
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, name):
    frames = [_quadrants(), Image.new("RGB", (40, 20), "black")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    _assert_quadrants(read_image(tmp_path / name))


def test_one_pixel_is_an_image(tmp_path):
    Image.new("RGB", (1, 1), RED).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("a.png", (8000, 4000), (2048, 1024)), ("a.jpg", (8000, 4000), (2048, 1024)),
     ("a.png", (40_000, 1000), (2048, 51))],
)  # fmt: skip
def test_huge_images_are_reduced(tmp_path, name, size, expected):
    _quadrants(*size).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.size == expected
    _assert_quadrants(image)


def test_huge_and_turned_images_are_reduced_and_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _quadrants(6000, 3000).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.size == (2048, 1024)
    _assert_quadrants(image)


def test_between_pillows_warning_and_its_limit_an_image_is_read(tmp_path, monkeypatch):
    _quadrants(100, 60).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    _assert_quadrants(read_image(tmp_path / "a.png"))


def test_a_decompression_bomb_is_refused_with_the_limit(tmp_path, monkeypatch):
    _quadrants(100, 60).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000)
    with pytest.raises(XRayError, match="million pixels") as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.code == "unreadable_image"
    assert "2048" in caught.value.remedy


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "nowhere.png", tmp_path / ("x" * 5000), "null\0byte.png"):
        with pytest.raises(XRayError) as caught:
            read_image(path)
        assert caught.value.code == "missing_file"


def _text(path: Path) -> None:
    path.write_text("not an image")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def _bad_chunk(path: Path) -> None:
    _quadrants().save(path)
    data = bytearray(path.read_bytes())
    data[45:60] = b"\xff" * 15
    path.write_bytes(data)


def _no_width(path: Path) -> None:
    _write_png(path, np.zeros((4, 0, 3), dtype=np.uint16), color_type=2)


@pytest.mark.parametrize("make", [_text, _nothing, _truncated, _bad_chunk, _no_width, Path.mkdir])
def test_what_cannot_be_read_says_so(tmp_path, make):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(XRayError) as caught:
        read_image(path)
    assert caught.value.code == "unreadable_image"
    assert "a.png" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC photo"),
        (b"\xff\x0a\xfa\x1f\x10", "is a JPEG XL image"),
        (b"v/1\x01\x02\0\0\0", "is an OpenEXR image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"", "is an empty file"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tga", "a.heic"])
def test_what_an_image_really_is_is_said(tmp_path, name, begin, said):
    (tmp_path / name).write_bytes(begin + bytes(200) * bool(begin))
    with pytest.raises(XRayError, match=said) as caught:
        read_image(tmp_path / name)
    assert caught.value.code == "unreadable_image"
    assert caught.value.remedy


def test_a_truncated_jpeg_is_unreadable(tmp_path):
    _quadrants(400, 200).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(XRayError, match="truncated"):
        read_image(tmp_path / "a.jpg")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_anywhere_ends_in_an_image_or_an_error_for_people(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    name = data.draw(st.sampled_from(["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"]))
    _quadrants().save(folder / name)
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        outcome = read_image(folder / name).mode
    except XRayError as error:
        outcome = error.code
    assert outcome in ("RGB", "RGBA", "unreadable_image")


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8),
     np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(XRayError, match="array") as caught:
        read_image(array)
    assert caught.value.code == "unreadable_image"


# ------------------------------------------------------------------------------------ cutting out


@pytest.fixture
def weights_home(tmp_path, monkeypatch) -> Path:
    """rembg's folder, empty, with no way to the network."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    networks.release_rembg()
    yield tmp_path
    networks.release_rembg()


@pytest.fixture
def stand_in(monkeypatch, weights_home):
    """A session of rembg's that takes what is redder than blue for the object."""

    class Session:
        made = 0

        def predict(self, image: Image.Image) -> list[Image.Image]:
            red, _, blue = image.split()
            rows = np.asarray(red).astype(int) - np.asarray(blue)
            return [Image.fromarray(np.where(rows > 40, 255, 0).astype(np.uint8))]

    class Rembg:
        @staticmethod
        def new_session(model: str) -> Session:
            assert model == "u2net"
            Session.made += 1
            return Session()

    found = networks.importlib.import_module
    monkeypatch.setattr(
        networks.importlib, "import_module", lambda name: Rembg if name == "rembg" else found(name)
    )
    (weights_home / "u2net.onnx").write_bytes(b"stand-in")
    return Session


def test_online_access_is_off_unless_allowed(monkeypatch):
    monkeypatch.delenv(ONLINE_VARIABLE, raising=False)
    assert not online_allowed()
    monkeypatch.setenv(ONLINE_VARIABLE, "0")
    assert not online_allowed()
    monkeypatch.setenv(ONLINE_VARIABLE, "1")
    assert online_allowed()


@pytest.mark.usefixtures("weights_home")
def test_a_transparent_background_is_used_as_is():
    image = _disk(64, RED, "white")
    image.putalpha(_disk(64, "white", "black").convert("L"))
    for method in ("auto", "alpha"):
        cut = cut_out(image, method, online=False)
        assert cut.how == "alpha"
        assert cut.skipped == ()
        assert np.array_equal(cut.rgba, np.asarray(image))


@pytest.mark.usefixtures("weights_home")
def test_an_opaque_alpha_channel_is_no_cut_out():
    image = _disk(64, RED, "white").convert("RGBA")
    cut = cut_out(image, online=False)
    assert cut.how == "plain"
    assert "opaque" in cut.skipped[0]
    with pytest.raises(XRayError, match="alpha channel is opaque") as caught:
        cut_out(image, "alpha", online=False)
    assert caught.value.code == "no_cutout"


def test_rembg_is_used_where_its_weights_are(stand_in):
    reports = []
    for _ in range(2):
        cut = cut_out(_disk(64, RED, BLUE), online=False, progress=reports.append)
    assert cut.how == "rembg"
    assert _overlap(cut.rgba[..., 3] > 127, _disk_mask(64)) > 0.97
    assert stand_in.made == 1  # one session is kept
    assert {report.stage for report in reports} == {"background"}


@pytest.mark.usefixtures("stand_in")
def test_rembg_may_be_stopped():
    def stop(_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        cut_out(_disk(64, RED, BLUE), online=False, progress=stop)


@pytest.mark.usefixtures("stand_in")
def test_where_rembg_finds_nothing_the_next_way_is_tried():
    cut = cut_out(_disk(64, GREEN, BLUE), online=False)
    assert cut.how == "plain"
    assert "found no object" in cut.skipped[1]


def test_offline_without_weights_rembg_is_not_loaded(weights_home, monkeypatch):
    monkeypatch.setattr(networks.importlib, "import_module", lambda name: pytest.fail(name))
    cut = cut_out(_disk(64, RED, "white"), online=False)
    assert cut.how == "plain"
    assert str(weights_home) in cut.skipped[1]
    assert "online access is off" in cut.skipped[1]


@pytest.mark.usefixtures("weights_home")
def test_without_a_network_the_fetch_fails_and_the_next_way_is_tried(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    cut = cut_out(_disk(64, RED, "white"), online=True)
    assert cut.how == "plain"
    assert "could not be fetched" in cut.skipped[1]


def test_broken_weights_are_named_and_the_next_way_is_tried(weights_home):
    (weights_home / "u2net.onnx").write_bytes(b"nonsense")
    cut = cut_out(_disk(64, RED, "white"), online=True)
    assert cut.how == "plain"
    assert str(weights_home / "u2net.onnx") in cut.skipped[1]
    with pytest.raises(XRayError, match="damaged"):
        cut_out(_disk(64, RED, "white"), "rembg", online=False)


@pytest.mark.usefixtures("weights_home")
def test_a_runtime_without_rembg_says_so(monkeypatch):
    def missing(_: str) -> object:
        raise ImportError

    monkeypatch.setattr(networks.importlib, "import_module", missing)
    assert "not installed" in cut_out(_disk(64, RED, "white"), online=True).skipped[1]


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer of numbers, texts and messages."""
    result = b""
    for number, value in fields:
        if isinstance(value, int):
            result += bytes([number << 3]) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            result += bytes([number << 3 | 2]) + _varint(len(data)) + data
    return result


def _varint(value: int) -> bytes:
    rest = value >> 7
    return bytes([value & 127 | 128]) + _varint(rest) if rest else bytes([value])


def _redness_network() -> bytes:
    """ONNX whose output is its input, of which rembg's u2net session takes the red channel."""
    dims = b"".join(_message((1, _message((1, size)))) for size in (1, 3, 320, 320))
    tensor = _message((2, _message((1, _message((1, 1), (2, dims))))))
    values = [_message((1, name)) + tensor for name in ("input", "output")]
    node = _message((1, "input"), (2, "output"), (4, "Identity"))
    graph = _message((1, node), (2, "redness"), (11, values[0]), (12, values[1]))
    return _message((3, 0), (1, 8), (7, graph), (8, _message((2, 13))))


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_the_real_rembg_runs_a_network_put_in_its_folder(weights_home):
    (weights_home / "models" / "u2net").mkdir(parents=True)
    (weights_home / "models" / "u2net" / "u2net.onnx").write_bytes(_redness_network())
    cut = cut_out(_disk(640, (250, 20, 20), (20, 20, 20)), "rembg", online=False)
    assert cut.how == "rembg"
    assert _overlap(cut.rgba[..., 3] > 127, _disk_mask(640)) > 0.98


def test_rembg_is_loaded_without_compiling_what_is_not_used():
    """In a process of its own: here rembg is imported already."""
    code = (
        "import importlib, numba\n"
        "from runtime.images import networks\n"
        "with networks._numba_off():\n"
        "    import rembg\n"
        "module = importlib.import_module('pymatting.foreground.estimate_foreground_ml')\n"
        "assert callable(module._estimate_fb_ml)\n"
        "assert not hasattr(module._estimate_fb_ml, 'py_func'), 'compiled'\n"
        "assert hasattr(numba.njit(lambda: 1), 'py_func'), 'still off'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "variables",
    [{}, {"U2NET_HOME": "~/weights"}, {"XDG_DATA_HOME": "/data"}, {"REMBG_HOME": "/rembg"},
     {"XDG_DATA_HOME": ""}],
)  # fmt: skip
def test_weights_are_looked_for_where_rembg_looks(variables, monkeypatch):
    session = pytest.importorskip("rembg.sessions.u2net").U2netSession
    for name in ("U2NET_HOME", "XDG_DATA_HOME", "REMBG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = (Path(session.model_dir(), "u2net.onnx"), Path(session.legacy_home(), "u2net.onnx"))
    assert networks.weights_paths("u2net") == expected


def test_every_rembg_model_that_is_taken_is_known_to_rembg():
    assert set(networks.REMBG_MODELS) <= set(pytest.importorskip("rembg.sessions").sessions_names)


def test_the_edge_moves_by_the_margin() -> None:
    image = _disk(200, RED, "white")
    rgba = np.dstack([np.asarray(image), np.zeros((200, 200), np.uint8)])
    rows, columns = np.mgrid[:200, :200] - 99.5
    distance = np.hypot(rows, columns)
    rgba[distance < 60, 3] = 255
    for margin in (-0.05, 0.05):
        moved = move_edge(rgba, image, margin)
        radius = 60 + margin * 200
        assert (moved[distance < radius - 2, 3] == 255).all()
        assert (moved[distance > radius + 2] == 0).all()
        np.testing.assert_array_equal(moved[distance < 45], rgba[distance < 45])
    grown = move_edge(rgba, image.resize((400, 400)), 0.05)
    rim = (distance > 64) & (distance < 67)
    assert (grown[rim, :3] > 250).all()
    grown = move_edge(rgba, image.convert("RGBA"), 0.05)
    assert grown[rim, 1].mean() < 100  # red, and not the white behind


def test_an_edge_that_is_not_there_stays() -> None:
    whole = np.full((8, 8, 4), 255, np.uint8)
    for rgba in (whole, np.zeros_like(whole)):
        assert move_edge(rgba, Image.fromarray(whole), -0.1) is rgba


def test_settings_say_how_the_object_is_cut_out() -> None:
    image = np.asarray(_disk(200, RED, "white"))
    plain = cut_object(image, GenerateSettings(remove_background="plain"))
    grown = cut_object(image, GenerateSettings(remove_background="plain", margin=4.0))
    assert plain.how == grown.how == "plain"
    assert (grown.rgba[..., 3] > 0).sum() > 1.2 * (plain.rgba[..., 3] > 0).sum()
    with pytest.raises(XRayError, match="alpha"):
        cut_object(image, GenerateSettings(remove_background="alpha"))


# ------------------------------------------------------------------------------- built-in network

_TOADSTOOL = Image.open(Path(__file__).parents[1] / "demo" / "toadstool.png")


def _scene(seed: int, size: int = 512) -> Image.Image:
    """A procedural background that is not plain."""
    values = procedural_background(size, np.random.default_rng(seed))
    return Image.fromarray(np.rint(255 * values).astype(np.uint8))


def _photo(seed: int) -> tuple[Image.Image, np.ndarray]:
    """The demo's object before such a background, and where it is."""
    cut = _TOADSTOOL.convert("RGBA").resize((420, 420))
    photo = _scene(seed)
    photo.paste(cut, (46, 46), cut)
    mask = np.zeros((512, 512), dtype=bool)
    mask[46:466, 46:466] = np.asarray(cut)[..., 3] > 127
    return photo, mask


@pytest.mark.usefixtures("weights_home")
def test_a_photo_without_alpha_is_cut_out_by_the_network_that_comes_along():
    overlaps = []
    for seed in (0, 1, 2, 3):
        photo, mask = _photo(seed)
        cut = cut_out(photo, "built-in", online=False)
        assert cut.how == "built-in"
        assert cut.rgba.shape == (512, 512, 4)
        overlaps.append(_overlap(cut.rgba[..., 3] > 127, mask))
    assert np.mean(overlaps) > 0.9
    assert min(overlaps) > 0.7


@pytest.mark.usefixtures("weights_home")
def test_where_the_background_is_not_even_the_built_in_network_comes_before_plain():
    photo, _ = _photo(5)
    reports = []
    assert cut_out(photo, online=False, progress=reports.append).how == "built-in"
    assert {report.stage for report in reports} == {"background"}
    assert cut_out(_disk(256, RED, "white"), online=False).how == "plain"


def test_the_built_in_network_does_not_need_rembg(monkeypatch):
    found = networks.importlib.import_module

    def without_rembg(name: str) -> object:
        return pytest.fail(name) if name.startswith("rembg") else found(name)

    networks.release_rembg()  # an earlier test may have loaded the network
    monkeypatch.setattr(networks.importlib, "import_module", without_rembg)
    assert cut_out(_photo(5)[0], "built-in", online=False).how == "built-in"


@pytest.mark.parametrize("make", [lambda: _scene(1), lambda: _noise(320)], ids=["scene", "noise"])
def test_where_the_network_sees_no_object_it_says_so(make):
    with pytest.raises(XRayError, match="unsure what in the image") as caught:
        cut_out(make(), "built-in", online=False)
    assert caught.value.code == "no_cutout"


def test_a_network_that_is_damaged_or_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "BUILT_IN_WEIGHTS", tmp_path / "gone.onnx")
    with pytest.raises(XRayError, match=r"gone\.onnx is not there"):
        cut_out(_photo(0)[0], "built-in", online=False)
    (tmp_path / "gone.onnx").write_bytes(b"nonsense")
    networks.release_rembg()
    with pytest.raises(XRayError, match="damaged"):
        cut_out(_photo(0)[0], "built-in", online=False)


def test_a_guided_alpha_keeps_to_the_edges_of_the_image():
    mask = _disk_mask(512)
    rough = np.asarray(Image.fromarray(mask).resize((40, 40)).resize((512, 512)), dtype=np.float32)
    image = np.asarray(_disk(512, RED, BLUE))
    before = _overlap(rough > 0.5, mask)
    after = _overlap(networks._guided(rough, image) > 0.5, mask)
    assert before < 0.98
    assert after > 0.99


# ------------------------------------------------------------------------------- plain background


def _jpeg(image: Image.Image, path: Path, quality: int = 80) -> Image.Image:
    image.save(path, quality=quality)
    return read_image(path)


@pytest.mark.parametrize("background", ["white", "black", (128, 128, 128), (60, 170, 80)])
@pytest.mark.usefixtures("weights_home")
def test_an_object_on_a_plain_background_is_cut_out(tmp_path, background):
    image = _jpeg(_disk(256, RED, background), tmp_path / "a.jpg")
    cut = cut_out(image, online=False)
    assert cut.how == "plain"
    assert _overlap(cut.rgba[..., 3] > 127, _disk_mask(256)) > 0.97
    assert not cut.rgba[cut.rgba[..., 3] == 0].any()


def test_a_soft_gradient_and_a_soft_shadow_are_background(tmp_path):
    size = 256
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    shadow = 1 - 0.3 * np.exp(-(((x - 0.5) / 0.25) ** 2 + ((y - 0.8) / 0.06) ** 2))
    light = (235 - 50 * y - 25 * (x - 0.5) ** 2) * shadow
    paper = Image.fromarray(np.stack([light, light, 0.95 * light], axis=-1).astype(np.uint8))
    mask = _disk(size, "white", "black").convert("L")
    paper.paste(Image.new("RGB", (size, size), BLUE), mask=mask)
    cut = cut_out(_jpeg(paper, tmp_path / "a.jpg"), "plain", online=False)
    assert _overlap(cut.rgba[..., 3] > 127, _disk_mask(size)) > 0.95


def _with_shadow(
    ground: tuple[int, int, int],
    color: tuple[int, int, int],
    *,
    dark: float = 0.6,
    soft: float = 2.0,
    bottom: tuple[int, int, int] | None = None,
) -> tuple[Image.Image, np.ndarray]:
    """A standing box that casts a shadow to the right, and where the box is."""
    size = 256
    light = np.zeros((size, size), np.float32)
    light[176:206, 100:236] = 1.0
    shade = 1 - (1 - dark) * ndimage.gaussian_filter(light, soft)
    picture = np.array(ground) * shade[..., None]
    box = np.zeros((size, size), dtype=bool)
    box[60:204, 70:140] = True
    picture[box] = color
    picture[170:204, 70:140] = color if bottom is None else bottom
    return Image.fromarray(np.rint(picture).astype(np.uint8)), box


@pytest.mark.parametrize("ground", [(245, 245, 245), (128, 128, 128), (200, 220, 235)])
@pytest.mark.parametrize(("dark", "soft"), [(0.8, 6.0), (0.7, 2.0), (0.55, 1.0)])
def test_a_cast_shadow_is_no_slab(tmp_path, ground, dark, soft):
    image, box = _with_shadow(ground, RED, dark=dark, soft=soft)
    cut = cut_out(_jpeg(image, tmp_path / "a.jpg", 90), "plain", online=False)
    assert _overlap(cut.rgba[..., 3] > 127, box) > 0.96


@pytest.mark.parametrize("bottom", [(40, 40, 40), (90, 90, 95), (60, 62, 58)])
def test_dark_feet_in_the_grounds_hue_stay(tmp_path, bottom):
    image, box = _with_shadow((128, 128, 128), RED, dark=1.0, bottom=bottom)
    cut = cut_out(_jpeg(image, tmp_path / "a.jpg", 90), "plain", online=False)
    assert _overlap(cut.rgba[..., 3] > 127, box) > 0.96


def test_an_object_that_looks_like_a_shadow_stays(tmp_path):
    """A grey slab on grey ground: nothing else would be left."""
    image = Image.new("RGB", (256, 256), (200, 200, 200))
    image.paste((120, 120, 120), (40, 150, 220, 190))
    cut = cut_out(_jpeg(image, tmp_path / "a.jpg", 90), "plain", online=False)
    expected = np.zeros((256, 256), dtype=bool)
    expected[150:190, 40:220] = True
    assert _overlap(cut.rgba[..., 3] > 127, expected) > 0.95


def test_the_edge_is_soft_and_free_of_the_backgrounds_tint():
    cut = cut_out(_disk(256, RED, GREEN), "plain", online=False)
    soft = (cut.rgba[..., 3] > 10) & (cut.rgba[..., 3] < 245)
    assert soft.sum() > 100
    assert np.abs(cut.rgba[soft][:, :3].astype(int) - RED).max() <= 16
    coverage = np.asarray(_disk(256, "white", "black").convert("L")).astype(int)
    assert np.abs(cut.rgba[..., 3] - coverage).mean() < 0.5


def test_background_seen_through_the_object_is_background():
    ring = _disk(256, RED, "white", 0.4)
    ring.paste(_disk(256, "white", RED, 0.2).crop((64, 64, 192, 192)), (64, 64))
    cut = cut_out(ring, "plain", online=False)
    assert cut.rgba[128, 128, 3] == 0
    assert cut.rgba[128, 45, 3] == 255


def test_a_part_of_the_object_in_the_backgrounds_colour_stays():
    ring = _disk(256, RED, "white", 0.4)
    ring.paste("white", (124, 124, 128, 128))
    assert cut_out(ring, "plain", online=False).rgba[126, 126, 3] == 255


def test_an_object_may_touch_the_border():
    image = Image.new("RGB", (200, 200), "white")
    image.paste(RED, (60, 80, 140, 200))
    cut = cut_out(image, "plain", online=False)
    expected = np.zeros((200, 200), dtype=bool)
    expected[80:, 60:140] = True
    assert _overlap(cut.rgba[..., 3] > 127, expected) > 0.98


def test_large_images_are_cut_out_at_a_smaller_size():
    cut = cut_out(_disk(1500, RED, "white"), "plain", online=False)
    assert cut.rgba.shape == (1024, 1024, 4)
    assert _overlap(cut.rgba[..., 3] > 127, _disk_mask(1024)) > 0.98


def _noise(size: int = 128) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_a_busy_background_is_refused_with_what_was_tried_and_what_to_do(weights_home):
    with pytest.raises(XRayError) as caught:
        cut_out(_noise(), online=False)
    error = caught.value
    assert error.code == "no_cutout"
    assert error.message == "The object could not be told from its background."
    for part in ("transparent background", "plain one"):
        assert part in error.remedy
    assert str(error).count(". ") == 1  # two sentences
    for part in ("alpha: ", "rembg: ", "plain: the background is not plain", "u2net.onnx"):
        assert part in error.details
    assert str(weights_home) in error.details
    assert str(weights_home) not in str(error)


def test_stripes_are_no_plain_background():
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::16] = stripes[:, 1::16] = stripes[:, 2::16] = stripes[:, 3::16] = 200
    stripes[:, 4::16] = stripes[:, 5::16] = stripes[:, 6::16] = stripes[:, 7::16] = 200
    with pytest.raises(XRayError, match="not plain"):
        cut_out(Image.fromarray(stripes), "plain", online=False)


@pytest.mark.parametrize("color", ["white", "black", (90, 120, 200)])
def test_an_empty_image_has_no_object(color):
    with pytest.raises(XRayError, match="no object"):
        cut_out(Image.new("RGB", (64, 64), color), "plain", online=False)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 200)])
def test_a_tiny_image_has_no_background_to_speak_of(size):
    with pytest.raises(XRayError, match="too small"):
        cut_out(Image.new("RGB", size, "white"), "plain", online=False)


def test_an_unknown_method_is_refused():
    with pytest.raises(XRayError, match="magic"):
        cut_out(_quadrants(), "magic", online=False)


# ---------------------------------------------------------------------------------------- framing


def test_the_longer_side_of_the_object_fills_its_share_and_is_centred():
    framed = frame(_with_object(300, 200, (40, 90, 240, 140)), 256, fill=FILL)
    assert framed.shape == (256, 256, 4)
    assert framed.dtype == np.uint8
    left, top, right, bottom = _box_of(framed)
    assert right - left == pytest.approx(FILL * 256, abs=1)
    assert bottom - top == pytest.approx(FILL * 256 / 4, abs=1)
    assert left + right == pytest.approx(256, abs=1)
    assert top + bottom == pytest.approx(256, abs=1)


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(0, 300), y=st.integers(0, 300), width=st.integers(8, 400),
    height=st.integers(8, 400), pad=st.integers(0, 100), size=st.integers(32, 300),
    fill=st.floats(0.3, 0.95),
)  # fmt: skip
def test_the_box_lands_within_half_a_pixel(x, y, width, height, pad, size, fill):
    box = (x, y, x + width, y + height)
    framed = frame(_with_object(x + width + pad, y + height + pad, box), size, fill=fill)
    scale = fill * size / max(width, height)
    # Coverage, not whole pixels, says where an edge is: the opaque length of a row or column.
    alpha = framed[..., 3] / 255
    middle = size // 2
    half = (scale * width / 2, scale * height / 2)
    assume(min(half) >= 3)  # what is thinner is nowhere quite opaque
    for row, reach in ((alpha[middle], half[0]), (alpha[:, middle], half[1])):
        first, second = row[:middle].sum(), row[middle:].sum()
        assert middle - first == pytest.approx(size / 2 - reach, abs=0.5)
        assert middle + second == pytest.approx(size / 2 + reach, abs=0.5)


@pytest.mark.parametrize("fill", [0.05, 1e-9])
def test_a_small_share_costs_no_memory(fill):
    rgba = _with_object(1024, 1024, (100, 100, 900, 900))
    tracemalloc.start()
    framed = frame(rgba, 256, fill=fill)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert framed[..., 3].sum() / 255 == pytest.approx(max(256 * fill, 1) ** 2, rel=0.3)


@pytest.mark.parametrize("box", [(0, 0, 30, 50), (70, 20, 100, 80), (0, 0, 100, 80)])
def test_the_last_row_and_column_of_an_object_at_the_border_count(box):
    framed = frame(_with_object(100, 80, box), 200, fill=0.5)
    left, top, right, bottom = _box_of(framed)
    assert max(right - left, bottom - top) == pytest.approx(100, abs=1)
    assert (left + right, top + bottom) == (pytest.approx(200, abs=1), pytest.approx(200, abs=1))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(30, 300), height=st.integers(30, 300), size=st.integers(64, 300),
    fill=st.floats(0.4, 0.98), ellipse=st.booleans(),
)  # fmt: skip
def test_what_is_framed_already_passes_unchanged(width, height, size, fill, ellipse):
    image = Image.new("RGBA", (width + 20, height + 20))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if ellipse else draw.rectangle)((10, 10, width + 9, height + 9), fill=RED)
    once = frame(np.asarray(image), size, fill=fill)
    assert np.array_equal(once, frame(once, size, fill=fill))


def test_an_image_framed_to_the_pixel_is_returned_as_it_is():
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 4), dtype=np.uint8)
    noise[..., 3] = 0
    noise[19:237, 60:196, 3] = 255
    framed = frame(noise, 256, fill=FILL)
    shown = noise[..., 3] > 0
    assert np.array_equal(framed[shown], noise[shown])
    assert not framed[~shown].any()


def test_specks_apart_from_the_object_do_not_count():
    rgba = _with_object(200, 200, (50, 50, 150, 150))
    alone = frame(rgba, 128, fill=FILL)
    rgba[5:8, 190:193] = 255
    assert np.array_equal(frame(rgba, 128, fill=FILL), alone)
    rgba[0:12, 180:192] = 255  # more than a hundredth: a part of the object
    assert not np.array_equal(frame(rgba, 128, fill=FILL), alone)


def test_edges_carry_no_colour_from_transparent_pixels():
    rgba = _with_object(400, 400, (100, 100, 301, 301))
    rgba[rgba[..., 3] == 0, :3] = GREEN
    for size in (16, 64, 1000):
        framed = frame(rgba, size, fill=FILL)
        seen = framed[..., 3] > 16
        assert np.abs(framed[seen][:, :3].astype(int) - RED).max() <= 1
        assert not framed[framed[..., 3] == 0].any()


def test_beyond_the_image_all_is_transparent():
    framed = frame(_with_object(10, 40, (0, 0, 10, 40)), 200, fill=FILL)
    assert not framed[:, :70].any()
    assert not framed[:, 130:].any()
    assert framed[100, 100].tolist() == [*RED, 255]


def test_a_faint_veil_does_not_count_as_object_but_stays():
    rgba = _with_object(100, 100, (40, 40, 60, 60))
    rgba[30:70, 30:70, 3] = np.maximum(rgba[30:70, 30:70, 3], 60)
    framed = frame(rgba, 200, fill=0.5)
    left, _, right, _ = _box_of(framed)
    assert right - left == pytest.approx(100, abs=2)
    assert framed[100, 20, 3] == pytest.approx(60, abs=2)
    wide = frame(rgba, 200, fill=0.5, alpha_threshold=0.1)
    left, _, right, _ = _box_of(wide)
    assert right - left == pytest.approx(50, abs=2)


@pytest.mark.parametrize("at", [(0, 0), (4, 2), (9, 9)])
def test_one_pixel_is_an_object(at):
    framed = frame(_with_object(10, 10, (at[0], at[1], at[0] + 1, at[1] + 1)), 64, fill=FILL)
    assert framed[32, 32].tolist() == [*RED, 255]
    left, top, right, bottom = _box_of(framed)
    assert (left + right, top + bottom) == (64, 64)


def test_an_image_of_one_pixel_is_framed():
    framed = frame(np.array([[[1, 2, 3, 255]]], dtype=np.uint8), 15, fill=FILL)
    assert framed[7, 7].tolist() == [1, 2, 3, 255]


def test_an_image_of_8000_px_is_framed():
    framed = frame(_with_object(8000, 8000, (0, 1000, 8000, 5000)), 256, fill=FILL)
    left, top, right, bottom = _box_of(framed)
    assert (right - left, bottom - top) == (pytest.approx(218, abs=1), pytest.approx(109, abs=1))


@pytest.mark.parametrize("alpha", [0, 127])
def test_an_image_without_an_object_is_refused(alpha):
    with pytest.raises(XRayError) as caught:
        frame(np.full((20, 20, 4), alpha, dtype=np.uint8), 64, fill=FILL)
    assert caught.value.code == "no_object"


def test_framing_leaves_its_input_as_it_is_and_repeats():
    rgba = np.random.default_rng(0).integers(0, 255, (50, 70, 4), dtype=np.uint8)
    before = rgba.copy()
    assert np.array_equal(frame(rgba, 64, fill=FILL), frame(rgba, 64, fill=FILL))
    assert np.array_equal(rgba, before)


# ----------------------------------------------------------------------------------- real photos

_ROOT = Path(__file__).resolve().parents[2]
_PHOTOS = Path(os.environ.get("XRAY_ASSETS", _ROOT.parent / "shared" / "assets")) / "photos"
_FILES = sorted(p for p in _PHOTOS.glob("*/*") if p.suffix in (".webp", ".png", ".jpg"))


@pytest.mark.skipif(not _FILES, reason="no photos: set XRAY_ASSETS to the folder that holds them")
@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.usefixtures("weights_home")
def test_photos_are_cut_out_and_framed(path):
    image = read_image(path)
    cut = cut_out(image, online=False)
    assert cut.how in (("alpha",) if image.mode == "RGBA" else ("plain", "built-in"))
    assert 0.1 < (cut.rgba[..., 3] > 127).mean() < 0.75
    left, top, right, bottom = _box_of(frame(cut.rgba, 256, fill=FILL))
    assert max(right - left, bottom - top) == pytest.approx(218, abs=6)


@pytest.mark.skipif(not _FILES, reason="no photos: set XRAY_ASSETS to the folder that holds them")
def test_plain_backgrounds_give_nearly_the_alpha_that_artists_drew(tmp_path):
    # Photos with alpha, laid on grey and saved as JPEG, have a known answer.
    overlaps = []
    for path in [p for p in _FILES if p.suffix == ".webp"][::4]:
        image = read_image(path)
        flat = Image.new("RGBA", image.size, (128, 128, 128, 255))
        flat.alpha_composite(image)
        cut = cut_out(_jpeg(flat.convert("RGB"), tmp_path / "a.jpg"), "plain", online=False)
        overlaps.append(_overlap(cut.rgba[..., 3] > 127, np.asarray(image)[..., 3] > 127))
    assert np.mean(overlaps) > 0.96
    assert min(overlaps) > 0.9
