"""Images that only Blender reads reach the runtime as pixels, with the colours that they show."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import numpy as np
import pytest

LIGHT = (0.5, 0.2, 0.05)  # linear
ENCODED = (188, 124, 63)


@pytest.fixture
def images(part):
    return part("operators.convert.images")


@pytest.fixture
def read(images):
    """The pixels that reach the runtime for an image or a path, and the file if it is its own."""

    def file(image):
        path = images.shared_file(image)
        return (images.shown_pixels(image) if path is None else images.read_image(path)), path

    return file


@pytest.fixture
def saved(xray, tmp_path):
    """An image of one colour, its top half three times as green, in a file of some format."""

    def file(kind, suffix, depth="8"):
        made = bpy.data.images.new("made", 12, 8, float_buffer=True)
        pixels = np.ones((8, 12, 4), np.float32)
        pixels[..., :3] = LIGHT
        pixels[4:, :, 1] *= 3
        made.pixels.foreach_set(pixels.reshape(-1))
        scene = bpy.context.scene
        scene.view_settings.view_transform = "Standard"
        settings = scene.render.image_settings
        settings.file_format = kind
        if depth != "8":
            settings.color_depth = depth
        path = tmp_path / f"image.{suffix}"
        made.save_render(str(path), scene=scene)
        settings.file_format = "PNG"
        return path

    return file


@pytest.mark.parametrize(
    ("kind", "suffix", "depth"),
    [
        ("OPEN_EXR", "exr", "16"),
        ("OPEN_EXR", "exr", "32"),
        ("HDR", "hdr", "8"),
        ("DPX", "dpx", "8"),
        ("CINEON", "cin", "8"),
        ("IRIS", "rgb", "8"),
        ("PNG", "png", "16"),
        ("TIFF", "tif", "16"),
    ],
)
def test_an_image_on_disk_reaches_the_runtime_as_the_same_packed(read, saved, kind, suffix, depth):
    if kind == "IRIS" and bpy.app.version < (4, 5):
        pytest.skip("Blender 4.2.0 cannot read the IRIS images that it writes")
    path = saved(kind, suffix, depth)
    image = bpy.data.images.load(str(path))
    pixels, file = read(image)
    assert file is None
    assert pixels.shape == (8, 12, 4)
    assert np.abs(pixels[7, 0, :3].astype(int) - ENCODED).max() <= 3
    assert pixels[0, 0, 1] > pixels[7, 0, 1] + 50, "the right way up"
    image.pack()
    assert np.array_equal(read(image)[0], pixels)


@pytest.mark.parametrize(("kind", "suffix"), [("OPEN_EXR", "exr"), ("HDR", "hdr"), ("DPX", "dpx")])
def test_so_does_a_file_that_only_blender_reads(read, saved, kind, suffix):
    before = len(bpy.data.images) + 1  # the one that was saved
    pixels, file = read(saved(kind, suffix, "16" if suffix == "exr" else "8"))
    assert file is None
    assert np.abs(pixels[7, 0, :3].astype(int) - ENCODED).max() <= 3
    assert len(bpy.data.images) == before


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_files_that_the_runtime_reads_alike_stay(read, saved, kind, suffix):
    path = saved(kind, suffix)
    assert read(bpy.data.images.load(str(path)))[1] == path
    assert read(path)[1] == path


def test_a_byte_image_in_another_colour_space_is_shown_as_such(read, saved):
    image = bpy.data.images.load(str(saved("PNG", "png")))
    image.colorspace_settings.name = "Non-Color"
    pixels, file = read(image)
    assert file is None
    assert pixels[7, 0, 2] > ENCODED[2] + 40, "its values are taken for light"


def test_transparency_is_straight(read, saved):
    image = bpy.data.images.load(str(saved("OPEN_EXR", "exr", "32")))
    assert image.alpha_mode == "PREMUL"
    pixels = np.tile(np.array([*LIGHT, 1.0], np.float32) / 2, (8, 12, 1))
    image.pixels.foreach_set(pixels.reshape(-1))
    image.update()
    found, _ = read(image)
    assert np.abs(found[0, 0].astype(int) - (*ENCODED, 128)).max() <= 3


def test_a_heic_photo_is_left_to_the_runtime_which_names_it(images, xray, tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    assert images.shared_file(path) == path
    assert images.shared_file(bpy.data.images.load(str(path))) == path


def test_the_render_result_is_what_was_rendered(read, cube, part):
    scene = bpy.context.scene
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0, -6, 0), (np.pi / 2, 0, 0)
    scene.camera, scene.world = camera, bpy.data.worlds.new("World")
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x, scene.render.resolution_y = 24, 16
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "JPEG"
    bpy.ops.render.render()
    pixels, _ = read(bpy.data.images["Render Result"])
    assert pixels.shape == (16, 24, 4)
    assert pixels[8, 12, 3] == 255
    assert pixels[0, 0, 3] == 0
    assert scene.render.image_settings.file_format == "JPEG", "the scene is as it was"


def test_a_render_result_before_the_render_says_so(images, part):
    def save_render(*_, **__):
        raise RuntimeError("Image 'Render Result' does not have any image data")

    result = SimpleNamespace(name="Render Result", type="RENDER_RESULT", save_render=save_render)
    with pytest.raises(part("xray_addon.errors").XRayError, match="no pixels yet") as caught:
        images._rendered_pixels(result)
    assert caught.value.code == "unreadable_image"
    assert "F12" in caught.value.remedy


def test_a_painted_float_image_is_handed_over_as_painted(read, saved):
    image = bpy.data.images.load(str(saved("OPEN_EXR", "exr", "32")))
    image.pixels[0:3] = (1.0, 1.0, 1.0)
    assert read(image)[0][7, 0].tolist() == [255, 255, 255, 255]
