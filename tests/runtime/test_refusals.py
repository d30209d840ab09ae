"""Chequered backgrounds and objects that the border cuts off are named."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from runtime.images.cutout import cut_out
from runtime.images.refusals import check_border, check_chequered
from xray_addon.errors import XRayError
from xray_addon.generated import reached_sides

BLUE = (40, 90, 200)


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "none"))


def chequered(width, height, square, greys=(255, 204), *, quality=0, scale=1.0) -> Image.Image:
    """An object on squares of two greys."""
    y, x = np.mgrid[:height, :width]
    grey = np.where((x // square + y // square) % 2, *greys).astype(np.uint8)
    image = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    image.paste(BLUE, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    if scale != 1.0:
        image = image.resize((round(width * scale), round(height * scale)))
    if not quality:
        return image
    stream = BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


@pytest.mark.parametrize(
    "image",
    [
        chequered(512, 512, 16),
        chequered(800, 600, 8, (255, 191), quality=70),
        chequered(1024, 1024, 10, (102, 153), quality=80),
        chequered(400, 300, 5, (255, 238)),
        chequered(1800, 1200, 8, quality=85),
        chequered(600, 600, 20, quality=60, scale=0.77),
        chequered(300, 300, 32, (200, 255), quality=90),
    ],
    ids=["usual", "jpeg", "dark", "small", "large", "resized", "wide"],
)
def test_a_drawn_chequered_background_is_named(image):
    with pytest.raises(XRayError, match="chequered") as caught:
        cut_out(image, online=False)
    assert caught.value.code == "fake_transparency"
    assert "transparen" in caught.value.remedy


def test_with_real_transparency_it_does_not_matter():
    image = chequered(256, 256, 16).convert("RGBA")
    alpha = np.zeros((256, 256), np.uint8)
    alpha[64:192, 64:192] = 255
    image.putalpha(Image.fromarray(alpha))
    assert cut_out(image, online=False).how == "alpha"


def striped() -> Image.Image:
    image = np.full((256, 256, 3), 255, np.uint8)
    image[:, 8::16] = image[:, 9::16] = 200
    return Image.fromarray(image)


def chess() -> Image.Image:
    return chequered(256, 256, 32, (250, 10))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))


def plain() -> Image.Image:
    image = Image.new("RGB", (256, 256), "white")
    image.paste(BLUE, (64, 64, 192, 192))
    return image


@pytest.mark.parametrize("make", [striped, chess, noise, plain])
def test_other_backgrounds_are_not_chequered(make):
    check_chequered(make())


@pytest.mark.parametrize(
    "box", [(-50, -50, 200, 200), (40, -10, 210, 300), (60, 90, 300, 300), (0, 60, 256, 256)]
)
def test_an_object_that_the_border_cuts_off_is_named(box):
    image = Image.new("RGB", (256, 256), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, fill=BLUE)
    draw.rectangle((box[0], 120, box[2], 140), fill=(240, 200, 40))
    with pytest.raises(XRayError, match="cuts off the object") as caught:
        check_border(image)
    assert caught.value.code == "object_at_border"


@pytest.mark.parametrize("make", [plain, noise, striped])
def test_a_border_that_cuts_nothing_off_is_not_blamed(make):
    check_border(make())


def test_where_nothing_serves_the_border_is_the_reason():
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    for i in range(-40, 256, 16):  # in many colours, of which no network makes anything
        draw.rectangle((i, -9, i + 15, 150), fill=(97 * i % 255, 31 * i % 255, 57 * i % 255))
    with pytest.raises(XRayError) as caught:
        cut_out(image, "plain", online=False)
    assert caught.value.code == "object_at_border"


@pytest.mark.parametrize(("left", "cut"), [(0, True), (4, False)])
def test_a_cut_out_tells_whether_it_reaches_the_border(left, cut):
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[20:40, left:30] = 255
    assert bool(reached_sides(rgba)) is cut
