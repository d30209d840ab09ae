"""Slice3D from an image to a mesh; where a test needs a shape, a ball stands for the field."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import runtime
from runtime.__main__ import main
from runtime.slice3d.diffusion import SliceDiffusion
from runtime.slice3d.generator import Slice3DGenerator, world_camera
from runtime.slice3d.networks import GTSliceNet, NetworkConfig, SliceField, SliceNet
from runtime.slice3d.painting import GREY, paint
from runtime.slice3d.slice_images import read_slices
from runtime.slice3d.unet import DiffusionConfig
from runtime.slice3d.weights import save_network
from xray_addon import Surface, XRayError, cast
from xray_addon.canonical import place
from xray_addon.progress import Cancelled, Progress
from xray_addon.slices.slicing import NAMES
from xray_addon.systems.slice3d import FRAME, PAGE, Slice3DSettings

SMALL = NetworkConfig(32, (8, 8, 16, 16, 16), 16, 4, 32, 2)
DIFFUSION = DiffusionConfig(32, 32, (1, 1, 1, 2, 2), 2, (8, 8, 16, 16, 16), (32, 32, 32, 32))
CENTRE, RADIUS = np.array([0.1, 0.0, 0.15]), 0.25  # world axes: x right, z up


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The three networks, small and untrained, in one folder."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_network(folder / "regression.safetensors", SliceNet(SMALL), {})
    save_network(folder / "gt_to_3d.safetensors", GTSliceNet(SMALL), {})
    model = SliceDiffusion(DIFFUSION)
    torch.nn.init.normal_(model.unet.out[2].weight, std=0.05)
    save_network(folder / "diffusion.safetensors", model, {})
    return folder


@pytest.fixture
def ball(monkeypatch):
    """Whatever the image, the field is that of a ball."""
    centre = torch.tensor([CENTRE[0], -CENTRE[2], CENTRE[1]], dtype=torch.float32)  # y down

    def distance(_self, _tables, points):
        return (points - centre).norm(dim=-1) - RADIUS

    monkeypatch.setattr(SliceField, "distance_by_tables", distance)


def picture(size: int = 128) -> np.ndarray:
    """A disc, red above and blue below, on a clear ground."""
    rows, columns = np.indices((size, size)) - size // 2
    rgba = np.zeros((size, size, 4), dtype=np.uint8)
    disc = rows**2 + columns**2 < (0.3 * size) ** 2
    rgba[disc & (rows < 0)] = (220, 30, 30, 255)
    rgba[disc & (rows >= 0)] = (30, 30, 220, 255)
    return rgba


def generate(folder: Path, image=None, progress=None, **options):
    loaded = runtime.load("slice3d", str(folder), "cpu")
    assert isinstance(loaded, Slice3DGenerator)
    settings = Slice3DSettings(grid_resolution=32, **options)
    return loaded.generate(picture() if image is None else image, settings, progress)


def test_the_mesh_arrives_upright_with_the_viewer_at_minus_y(weights, ball):
    result = generate(weights)
    low, high = result.surface.bounds
    np.testing.assert_allclose((low + high) / 2, CENTRE, atol=0.01)
    np.testing.assert_allclose(high - low, 2 * RADIUS, atol=0.02)
    assert result.surface.is_watertight
    assert result.camera.position[1] == pytest.approx(-1.2)
    # Faces look outwards: the first that the camera meets faces it.
    xray = cast(result.surface, result.camera, 2)
    layer = xray.index // (256 * 256)
    assert (xray.hit_normal[layer == 0, 2] > 0).mean() > 0.95


def test_it_is_evaluated_like_any_other_system(weights, tmp_path, monkeypatch):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    ball = trimesh.creation.icosphere(3)
    ball.export(meshes / "ball.glb")
    trimesh.creation.box((1.0, 0.5, 0.7)).export(meshes / "box.glb")
    # The field of a ball that is as wide in the image as the intake makes objects.
    placed = place(Surface(ball.vertices, ball.faces), 0.0, 0.0, frame=FRAME)
    assert placed is not None
    monkeypatch.setattr(
        SliceField,
        "distance_by_tables",
        lambda _self, _tables, points: points.norm(dim=-1) - placed[1] / 2,
    )
    arguments = ["evaluate", "--data", str(meshes), "--generator", "slice3d"]
    arguments += ["--checkpoint", str(weights), "--grid-resolution", "32"]
    assert main([*arguments, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["generator"] == "slice3d"
    assert results["settings"]["grid_resolution"] == 32
    found = {case["name"]: case["metrics"]["slice3d, mesh"] for case in results["cases"]}
    assert found["ball"]["cd"] < 0.02 < found["box"]["cd"]


@pytest.mark.parametrize(("size", "object_size"), [(128, 0.85), (128, 0.0), (400, 0.0)])
def test_what_is_seen_has_the_images_colours(weights, ball, size, object_size):
    result = generate(weights, picture(size), object_size=object_size)
    surface, camera = result.surface, result.camera
    colors = np.zeros((len(surface.vertices), 3))
    colors[surface.faces] = surface.corner_colors
    facing = surface.vertices[:, 1] < -0.1
    above = facing & (surface.vertices[:, 2] > 0.05)
    below = facing & (surface.vertices[:, 2] < -0.02)
    assert above.any()
    assert below.any()
    assert (colors[above, 0] > colors[above, 2]).all()
    assert (colors[below, 2] > colors[below, 0]).all()
    # Behind it is as red or blue as in front, or grey where that is asked for.
    behind = surface.vertices[:, 1] > 0.15
    assert (np.ptp(colors[behind], axis=1) > 0.3).all()
    plain = generate(weights, fill_hidden=False).surface
    colors[plain.faces] = plain.corner_colors
    assert (colors[behind] == GREY).all()
    assert camera.width == 256


def test_the_slices_are_a_picture_and_shown_while_they_are_made(weights, ball):
    told: list[Progress] = []
    result = generate(weights, progress=told.append)
    assert result.pictures["slices"].shape == (3 * 32, 4 * 32, 3)
    shown = [report.preview for report in told if report.preview is not None]
    assert shown
    assert shown[0].shape == (3 * 32, 4 * 32, 4)
    stages = [report.stage for report in told]
    assert stages.index("predict") < stages.index("mesh")
    shares = [report.fraction for report in told if report.stage == "mesh"]
    assert shares == sorted(shares)


def test_seeds_differ_in_the_generation_branch_alone(weights, ball):
    first = generate(weights, branch="generation", steps=1, seed=1).pictures["slices"]
    again = generate(weights, branch="generation", steps=1, seed=1).pictures["slices"]
    other = generate(weights, branch="generation", steps=1, seed=2).pictures["slices"]
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.1
    assert first.shape == (3 * 32, 4 * 32, 3)


def test_the_regression_sees_black_behind_the_object_and_the_generation_white(
    weights, ball, monkeypatch
):
    corners = []
    for network, method in ((SliceNet, "encode"), (SliceDiffusion, "condition")):
        original = getattr(network, method)

        def note(self, images, *rest, original=original):
            corners.append(float(images[0, :, 0, 0].mean()))
            return original(self, images, *rest)

        monkeypatch.setattr(network, method, note)
    generate(weights)
    generate(weights, branch="generation", steps=1)
    assert corners == [-1, 1]


def test_an_elevation_tilts_mesh_and_camera_alike(weights, ball):
    level, tilted = generate(weights), generate(weights, elevation=30.0)
    assert tilted.camera.position[2] == pytest.approx(0.6)
    np.testing.assert_allclose(
        cast(tilted.surface, tilted.camera, 1).depth,
        cast(level.surface, level.camera, 1).depth,
        atol=1e-4,
    )


def test_it_can_be_cancelled(weights):
    def stop(report: Progress) -> None:
        if report.stage == "mesh":
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(weights, progress=stop)


@pytest.fixture
def painted(tmp_path) -> Path:
    """Twelve slices as somebody painted them."""
    for number, name in enumerate(NAMES):
        image = np.full((32, 32, 4), 20 * number, dtype=np.uint8)
        image[:8] = 0
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return tmp_path


def test_slices_of_ones_own_become_a_mesh(weights, painted, ball):
    result = generate(weights, painted, branch="slices")
    np.testing.assert_allclose(result.surface.bounds.mean(axis=0), CENTRE, atol=0.01)
    assert result.surface.corner_colors is None
    assert result.pictures["slices"].shape == (3 * 32, 4 * 32, 3)
    read = read_slices(painted / "X_1.png")
    assert read.shape == (12, 32, 32, 3)
    assert (read[:, :8] == 255).all()
    assert read[:, 20, 20, 0].tolist() == [255, *range(20, 240, 20)]  # the first is clear


def test_missing_slices_are_named_and_sizes_must_agree(painted):
    (painted / "Z_2.png").rename(painted / "lost.png")
    with pytest.raises(XRayError, match=r"lacks 1 .*: Z_2\.") as caught:
        read_slices(painted)
    assert caught.value.code == "missing_slices"
    Image.new("RGB", (16, 16)).save(painted / "Z_2.png")
    with pytest.raises(XRayError, match=r"Z_2\.png has 16x16 pixels, X_1\.png has 32x32") as caught:
        read_slices(painted)
    assert caught.value.code == "other_sizes"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (np.zeros((8, 8, 4), np.uint8), "missing_slices"),
        (Image.new("RGB", (8, 8)), "missing_slices"),
        (np.zeros((11, 8, 8, 3), np.uint8), "missing_slices"),
        ([np.zeros((8, 8), np.uint8)] * 12, "unreadable_image"),
        (np.zeros((12, 8, 8, 3)), "unreadable_image"),
        ([np.zeros((8, 9, 3), np.uint8)] * 12, "other_sizes"),
    ],
)
def test_what_is_no_twelve_slices_is_told(given, code):
    with pytest.raises(XRayError) as caught:
        read_slices(given)
    assert caught.value.code == code


def test_an_object_at_the_border_is_refused(weights):
    image = picture()
    image[:, 0] = 255
    with pytest.raises(XRayError, match="left") as caught:
        generate(weights, image)
    assert caught.value.code == "object_at_border"


def test_an_image_without_alpha_is_cut_out(weights, ball):
    rgba = picture()
    rgb = np.where(rgba[..., 3:] > 0, rgba[..., :3], np.uint8(250))
    assert len(generate(weights, rgb).surface.faces) > 100


def test_an_empty_field_is_told(weights, monkeypatch):
    monkeypatch.setattr(SliceField, "distance_by_tables", lambda *given: given[2].norm(dim=-1) + 1)
    with pytest.raises(XRayError) as caught:
        generate(weights)
    assert caught.value.code == "nothing_predicted"


def test_missing_weights_say_what_to_fetch_from_where(tmp_path):
    with pytest.raises(XRayError) as caught:
        generate(tmp_path, branch="generation")
    text = str(caught.value)
    assert caught.value.code == "missing_weights"
    for part in (PAGE, "epoch=000103.ckpt", "116_208728_0.007433_0.9034.ckpt", str(tmp_path)):
        assert part in text
    assert "not stated" in text
    with pytest.raises(XRayError, match="112_146222") as caught:
        generate(tmp_path)
    assert "epoch=000103" not in str(caught.value)
    with pytest.raises(XRayError) as caught:
        runtime.load("slice3d", str(tmp_path / "nowhere"), "cpu")
    assert caught.value.code == "missing_weights"


def test_a_file_of_another_network_is_refused(weights):
    with pytest.raises(XRayError) as caught:
        generate(
            weights / "regression.safetensors",
            [np.zeros((8, 8, 3), np.uint8)] * 12,
            branch="slices",
        )
    assert caught.value.code == "other_weights"


def test_paint_takes_meshes_with_many_zeros_as_the_runtime_rounds():
    torch.set_flush_denormal(True)
    places = np.zeros((200, 3))
    places[:60, 0], places[:, 2] = 0.2, np.linspace(-0.2, 0.2, 200)
    places[::3, 1] = 0.1
    faces = np.arange(198).reshape(-1, 3)
    image = np.full((256, 256, 4), 255, dtype=np.uint8)
    assert paint(Surface(places, faces), image, world_camera()).shape == (200, 3)


def test_paint_leaves_what_is_behind_something_else():
    # Two walls behind each other: only the first is seen.
    wall = np.array([[-0.2, 0, -0.2], [0.2, 0, -0.2], [0.2, 0, 0.2], [-0.2, 0, 0.2]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    vertices = np.concatenate([wall, 0.5 * wall + (0, 0.3, 0)])
    surface = Surface(vertices, np.concatenate([faces, faces + 4]))
    image = np.full((256, 256, 4), 255, dtype=np.uint8)
    image[..., 1:3] = 0
    colors = paint(surface, image, world_camera(), spread=False)
    np.testing.assert_allclose(colors[:4], [[1, 0, 0]] * 4)
    np.testing.assert_allclose(colors[4:], GREY)
