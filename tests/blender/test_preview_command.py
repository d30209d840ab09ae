"""Contact sheets: the command and the operator show what the function makes."""

from __future__ import annotations

import bpy
import numpy as np
import pytest


@pytest.fixture
def dataset(part, xray, tmp_path):
    """A small dataset of two objects with two views each."""
    for add in (bpy.ops.mesh.primitive_cube_add, bpy.ops.mesh.primitive_uv_sphere_add):
        add()
    settings = part("xray_addon.settings").CaptureSettings(views=2, layers=4, size=32)
    part("operators.dataset.plain").capture_objects(
        list(bpy.context.scene.objects), tmp_path / "data", settings
    )
    return tmp_path / "data"


def titles(views) -> list[str]:
    return [view.title for view in views]


def test_an_item_shows_all_its_views(part, dataset):
    views = part("operators.dataset.preview").dataset_views(dataset, uid="Cube")
    assert titles(views) == ["Cube  view 000", "Cube  view 001"]
    assert views[0].image.shape == (64, 64, 4)
    assert not bpy.data.images
    # The picture is the file's: its alpha is the first layer's silhouette.
    assert part("xray_addon.metrics").silhouette_iou(views[0].image[..., 3], views[0].xray) > 0.9


def test_a_sample_shows_each_item_once_and_is_reproducible(part, dataset):
    views = part("operators.dataset.preview").dataset_views
    assert {title.split()[0] for title in titles(views(dataset, sample=9))} == {"Cube", "Sphere"}
    assert titles(views(dataset, sample=2, seed=5)) == titles(views(dataset, sample=2, seed=5))
    assert len({tuple(titles(views(dataset, sample=1, seed=seed))) for seed in range(20)}) > 1


def test_what_lies_behind_the_last_layer_is_that_of_the_row(part, tmp_path):
    bpy.ops.mesh.primitive_uv_sphere_add()
    item = part("xray_addon.dataset.manifest").Item("Sphere", "", name="Sphere")
    settings = part("xray_addon.settings").DatasetSettings(views=2, layers=1, size=32, image="none")
    load = part("operators.dataset.ops").load_objects
    steps = part("operators.dataset.capture").dataset_steps([item], tmp_path, settings, load)
    part("operators.tasks.jobs").run(steps)
    for view in part("operators.dataset.preview").dataset_views(tmp_path, uid="Sphere"):
        assert view.dropped == view.xray.hits_per_layer[0] > 100
        assert ("dropped", str(view.dropped)) in part(
            "xray_addon.pictures.contact_sheet"
        ).statistics(view)


def test_an_empty_folder_is_no_item(part, dataset):
    (dataset / "xrays" / "A").mkdir()
    views = part("operators.dataset.preview").dataset_views
    for seed in range(5):
        assert len(views(dataset, sample=2, seed=seed)) == 2


def test_an_item_without_images(part, dataset):
    for image in (dataset / "images").rglob("*.png"):
        image.unlink()
    assert all(v.image is None for v in part("operators.dataset.preview").dataset_views(dataset))


def test_the_command_writes_what_the_function_makes(part, dataset, tmp_path):
    out = tmp_path / "sheet.png"
    command = ["preview", str(dataset), "--uid", "Sphere", "--layers", "3", "--out", str(out)]
    assert part("operators.command").main(command) == 0
    preview = part("operators.dataset.preview")
    written = preview.read_image(out)
    np.testing.assert_array_equal(
        written[..., :3], preview.preview(dataset, uid="Sphere", layers=3)
    )


def test_the_operator_shows_what_the_function_makes(part, dataset):
    expected = part("operators.dataset.preview").preview(dataset, sample=1, seed=3)
    for _ in range(2):  # the second time it is the same image, not another
        assert bpy.ops.xray.preview(directory=str(dataset), sample=1, seed=3) == {"FINISHED"}
    bpy.ops.xray.preview(directory=str(dataset), uid="Cube")
    bpy.ops.xray.preview(directory=str(dataset), sample=1, seed=3)
    (image,) = bpy.data.images
    pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(pixels)
    shown = np.rint(pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, :3] * 255)
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere", "--out", "a.png"], 2),
        (["{data}", "--uid", "none", "--out", "a.png"], 1),
        (["{data}", "--uid", "../xrays/Cube", "--out", "a.png"], 1),
        (["{data}", "--sample", "0", "--out", "a.png"], 2),
        (["{data}", "--uid", "Cube", "--sample", "2", "--out", "a.png"], 2),
        (["{data}"], 2),
    ],
)
def test_what_cannot_be_shown(part, dataset, monkeypatch, tmp_path, arguments, code):
    monkeypatch.chdir(tmp_path)
    arguments = [argument.replace("{data}", str(dataset)) for argument in arguments]
    assert part("operators.command").main(["preview", *arguments]) == code
    assert not (tmp_path / "a.png").exists()


def test_a_picture_that_is_none(part, dataset):
    (dataset / "images" / "Cube" / "000.png").write_bytes(b"no image")
    with pytest.raises(part("xray_addon.errors").XRayError) as caught:
        part("operators.dataset.preview").preview(dataset, uid="Cube")
    assert caught.value.code == "unreadable_image"
    with pytest.raises(RuntimeError, match=r"000\.png cannot be read"):
        bpy.ops.xray.preview(directory=str(dataset), uid="Cube")
