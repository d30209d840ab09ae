"""RenderDiffusion from its inputs to a mesh; where a test needs a shape, a ball is the field."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtime
from runtime.__main__ import main
from runtime.images.framing import frame, frame_with_mask
from runtime.images.redrawing import read_mask
from runtime.renderdiffusion.generator import (
    MADE_UP_FROM,
    SHEET_COLUMNS,
    RenderDiffusionGenerator,
)
from runtime.renderdiffusion.networks import RenderDiffusion, RenderDiffusionConfig
from runtime.renderdiffusion.weights import save_model
from xray_addon import Inputs, XRayError, cast
from xray_addon.progress import Cancelled, Progress
from xray_addon.systems.renderdiffusion import FRAME, RenderDiffusionSettings

SIZE = 32
CONFIG = RenderDiffusionConfig(
    image_size=SIZE, channels=(32,), blocks=(1,), plane_channels=4, hidden=8, samples=16
)
CENTRE, RADIUS = torch.tensor([0.1, 0.05, 0.0]), 0.3  # the object's frame: z up, front at -y


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small, untrained network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(path, RenderDiffusion(CONFIG), {})
    return path


@pytest.fixture
def ball(monkeypatch):
    """Whatever the planes, the field is a ball: red where x is large, blue where it is small."""

    def field(_self, _planes, points):
        density = 60.0 * ((points - CENTRE).norm(dim=-1) < RADIUS)
        red = (points[..., 0] > CENTRE[0]).float()
        return density, torch.stack([red, torch.zeros_like(red), 1 - red], dim=-1)

    monkeypatch.setattr(RenderDiffusion, "field", field)


def picture(size: int = 64) -> np.ndarray:
    """A disc, red above and blue below, on a clear ground."""
    rows, columns = np.indices((size, size)) - size // 2
    rgba = np.zeros((size, size, 4), dtype=np.uint8)
    disc = rows**2 + columns**2 < (0.3 * size) ** 2
    rgba[disc & (rows < 0)] = (220, 30, 30, 255)
    rgba[disc & (rows >= 0)] = (30, 30, 220, 255)
    return rgba


def half(size: int = 64) -> np.ndarray:
    """A mask of the image's lower half."""
    mask = np.zeros((size, size, 3), dtype=np.uint8)
    mask[size // 2 :] = 255
    return mask


def generate(weights: Path, inputs=None, progress=None, **options):
    loaded = runtime.load("renderdiffusion", str(weights), "cpu")
    assert isinstance(loaded, RenderDiffusionGenerator)
    options = {"grid_resolution": 32, "steps": 2, "orbit_views": 0} | options
    return loaded.generate(inputs, RenderDiffusionSettings(**options), progress)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """What the network sees of a framed image."""
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


# The mesh and its camera


def test_without_an_image_the_objects_front_is_at_minus_y(weights, ball):
    made = generate(weights)
    low, high = made.surface.bounds
    np.testing.assert_allclose((low + high) / 2, CENTRE, atol=0.03)
    np.testing.assert_allclose(high - low, 2 * RADIUS, atol=0.1)
    assert made.surface.is_watertight
    # The camera that it was denoised from.
    azimuth, elevation = MADE_UP_FROM
    level = FRAME.distance * math.cos(elevation)
    eye = (level * math.sin(azimuth), -level * math.cos(azimuth))
    np.testing.assert_allclose(made.camera.position[:2], eye, atol=1e-6)
    assert made.camera.position[2] == pytest.approx(FRAME.distance * math.sin(elevation))


def test_with_an_image_the_viewer_is_at_minus_y(weights, ball):
    made = generate(weights, picture(), find_camera=False, azimuth=90.0, elevation=30.0)
    eye = made.camera.position
    np.testing.assert_allclose(eye[[0, 2]], [0, FRAME.distance / 2], atol=1e-6)
    assert eye[1] < 0
    # The object's +x side, which is red, is turned to the viewer.
    colors = made.surface.corner_colors.reshape(-1, 3)
    toward = made.surface.vertices[made.surface.faces].reshape(-1, 3)[:, 1]
    assert (colors[toward < -0.2, 0] > 0.9).all()
    assert (colors[toward > 0.0, 2] > 0.9).all()
    # What the camera sees of the mesh is what the denoised picture shows.
    seen = cast(made.surface, made.camera.resized(SIZE, SIZE), 1).hit[0]
    shown = made.pictures["image"].min(axis=-1) < 128
    assert (seen == shown).mean() > 0.97


def test_the_camera_of_an_image_is_found_and_told(weights, monkeypatch):
    def field(_self, _planes, points):
        return 60.0 * (points.norm(dim=-1) < 0.45), (points / 0.9 + 0.5).clamp(0, 1)

    monkeypatch.setattr(RenderDiffusion, "field", field)
    loaded = runtime.load("renderdiffusion", str(weights), "cpu")
    planes = torch.zeros(1, 3, CONFIG.plane_channels, SIZE, SIZE)
    camera = CONFIG.camera(math.radians(60), math.radians(30))
    rendered = loaded.model.render(planes, [camera])
    seen = torch.cat([rendered.color, rendered.alpha.round()], dim=1)[0]
    made = generate(weights, (seen.permute(1, 2, 0) * 255).round().byte().numpy())
    assert len(made.notes) == 1
    assert "found to be from azimuth" in made.notes[0]
    azimuth, elevation = map(int, re.findall(r"\d+", made.notes[0]))
    assert abs(azimuth - 60) < 10
    assert abs(elevation - 30) < 10
    assert abs(made.camera.position[0]) < 1e-6


def test_a_texture_is_baked_instead_of_vertex_colours(weights, ball):
    surface = generate(weights, texture_size=128).surface
    assert surface.corner_colors is None
    texture = surface.materials[0].texture
    assert texture.shape == (128, 128, 3)
    assert (texture[..., 1] == 0).all()
    uvs = surface.corner_uvs.reshape(-1, 2)
    column, row = np.clip((uvs * 128).astype(int), 0, 127).T
    red = texture[127 - row, column, 0] > 128
    right = surface.vertices[surface.faces].reshape(-1, 3)[:, 0] > float(CENTRE[0])
    assert (red == right).mean() > 0.9


def test_a_field_that_is_thin_everywhere_is_meshed_all_the_same(weights, monkeypatch, caplog):
    def field(_self, _planes, points):
        density = 5.0 * (points.norm(dim=-1) < 0.4)
        return density, torch.ones_like(points)

    monkeypatch.setattr(RenderDiffusion, "field", field)
    made = generate(weights, density_threshold=25.0)
    assert made.surface.is_watertight
    assert "no density reaches 25; using 2.5" in caplog.text


def test_crumbs_beside_the_object_are_left_out(weights, monkeypatch):
    def field(_self, _planes, points):
        ball = points.norm(dim=-1) < 0.35
        crumb = (points - torch.tensor([0.5, 0.5, 0.5])).norm(dim=-1) < 0.03
        return 60.0 * (ball | crumb), torch.ones_like(points)

    monkeypatch.setattr(RenderDiffusion, "field", field)
    surface = generate(weights, grid_resolution=96).surface
    assert surface.bounds.max() < 0.4
    assert surface.is_watertight


def test_an_empty_field_is_told(weights, monkeypatch):
    def field(_self, _planes, points):
        return torch.zeros(points.shape[:2]), torch.ones_like(points)

    monkeypatch.setattr(RenderDiffusion, "field", field)
    with pytest.raises(XRayError) as caught:
        generate(weights)
    assert caught.value.code == "nothing_predicted"


# Pictures and progress


def test_views_of_the_field_are_one_picture_in_rows(weights, ball):
    made = generate(weights, picture(), orbit_views=6, find_camera=False)
    orbit = made.pictures["orbit"]
    assert orbit.shape == (2 * SIZE, SHEET_COLUMNS * SIZE, 3)
    views = [
        orbit[row : row + SIZE, column : column + SIZE].astype(float)
        for row in (0, SIZE)
        for column in range(0, SHEET_COLUMNS * SIZE, SIZE)
    ]
    # From the front red is on the right, from behind on the left.
    for view, right in ((views[0], True), (views[3], False)):
        red = (view[..., 0] > 200) & (view[..., 2] < 100)
        blue = (view[..., 2] > 200) & (view[..., 0] < 100)
        assert (np.nonzero(red)[1].mean() > np.nonzero(blue)[1].mean()) == right
    assert (views[6] == 255).all()
    assert "orbit" not in generate(weights, orbit_views=0).pictures


def test_the_picture_is_seen_while_it_is_denoised(weights, ball):
    told: list[Progress] = []
    generate(weights, progress=told.append, steps=3, orbit_views=2)
    steps = [report for report in told if report.stage == "predict"]
    assert [report.step for report in steps][-3:] == [1, 2, 3]
    shown = [report.preview for report in steps if report.preview is not None]
    assert shown[-1].shape == (256, 256, 4)
    assert (shown[-1][..., 3] == 255).all()
    stages = list(dict.fromkeys(report.stage for report in told))
    assert stages == ["predict", "mesh", "orbit"]


@pytest.mark.parametrize("stage", ["camera", "predict", "mesh", "orbit"])
def test_it_can_be_cancelled_at_every_stage(weights, ball, stage):
    def stop(report: Progress) -> None:
        if report.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(weights, picture(), stop, orbit_views=2)


def test_seeds_differ_and_repeat(weights):
    loaded = runtime.load("renderdiffusion", str(weights), "cpu")

    def planes(seed: int) -> torch.Tensor:
        settings = RenderDiffusionSettings(seed=seed, steps=2)
        return loaded.sample(None, CONFIG.camera(0.5, 0.3), settings).planes

    torch.testing.assert_close(planes(1), planes(1), rtol=0, atol=0)
    assert (planes(1) - planes(2)).abs().max() > 1e-3


def test_lack_of_memory_says_what_to_do(weights, monkeypatch):
    def field(_self, _planes, _points):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(RenderDiffusion, "field", field)
    with pytest.raises(XRayError) as caught:
        generate(weights)
    assert caught.value.code == "out_of_memory"


def test_the_command_line_writes_mesh_and_pictures(weights, ball, tmp_path, capsys):
    image, mask, out = (tmp_path / name for name in ("disc.png", "mask.png", "disc.glb"))
    Image.fromarray(picture()).save(image)
    Image.fromarray(half(32)).save(mask)
    words = ["generate", str(image), "--mask", str(mask), "-o", str(out), "--json"]
    words += ["--generator", "renderdiffusion", "--checkpoint", str(weights), "--device", "cpu"]
    words += ["--grid-resolution", "32", "--steps", "2", "--no-find-camera", "--orbit-views", "2"]
    assert main([*words, "--pictures", str(tmp_path / "pictures")]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    settings = {"grid_resolution": 32, "steps": 2, "find_camera": False}
    made = generate(weights, Inputs(image, mask), **settings, orbit_views=2)
    assert answer["faces"] == len(made.surface.faces)
    assert answer["notes"] == list(made.notes)
    assert made.notes[0] in told.err
    for name, shown in made.pictures.items():
        written = np.asarray(Image.open(tmp_path / "pictures" / f"{name}.png"))
        np.testing.assert_array_equal(written, shown)


# Reconstruction and inpainting


def test_t_r_reaches_the_sampling(weights, ball):
    """A reconstruction is one pass without noise, and many with."""
    counts = []
    for t_r in (0, 40):
        told: list[Progress] = []
        generate(weights, picture(), told.append, t_r=t_r, steps=5, find_camera=False)
        counts.append(max(report.of for report in told if report.stage == "predict"))
    assert counts == [1, 5]


@pytest.mark.parametrize("t_r", [-1, 1001])
def test_t_r_out_of_range_is_refused(t_r):
    with pytest.raises(XRayError, match="t_r must lie between 0 and 1000") as caught:
        RenderDiffusionSettings(t_r=t_r)
    assert caught.value.code == "bad_settings"


def test_known_pixels_come_back(weights, ball):
    image, mask = picture(), half()
    made = generate(weights, Inputs(image, mask), find_camera=False)
    framed, redrawn = frame_with_mask(image, mask[..., 0] > 0, SIZE, fill=FRAME.fill)
    given = on_white(framed)
    difference = np.abs(made.pictures["image"] - given).max(axis=-1)
    assert difference[~redrawn].max() <= 1
    assert difference[redrawn].max() > 50  # the ball is not the disc
    assert 0.1 < redrawn.mean() < 0.5


def test_a_mask_may_be_a_file_a_picture_or_another_images_alpha(tmp_path):
    mask = half()
    Image.fromarray(mask).save(tmp_path / "mask.png")
    # Its colours do not matter where it has an alpha channel.
    rgba = np.zeros((64, 64, 4), dtype=np.uint8)
    rgba[..., 3] = mask[..., 0]
    expected = mask[..., 0] > 0
    for given in (tmp_path / "mask.png", Image.fromarray(mask), mask, rgba):
        redrawn, size = read_mask(given, 64, 64)
        np.testing.assert_array_equal(redrawn, expected)
        assert size == (64, 64)
    opaque = np.dstack([mask, np.full((64, 64), 255, np.uint8)])
    np.testing.assert_array_equal(read_mask(opaque, 64, 64)[0], expected)


def test_a_mask_of_another_size_is_resampled_and_said(weights, ball, caplog):
    caplog.set_level(logging.INFO)
    told: list[Progress] = []
    inputs = Inputs(picture(), half(32))
    made = generate(weights, inputs, told.append, find_camera=False)
    same = generate(weights, Inputs(picture(), half()), find_camera=False)
    np.testing.assert_array_equal(made.pictures["image"], same.pictures["image"])
    text = "The mask has 32 x 32 pixels and was resampled to the image's 64 x 64."
    assert list(made.notes) == [text]
    assert text in [report.message for report in told]
    assert list(same.notes) == []


@pytest.mark.parametrize(("value", "reason"), [(0, "empty"), (255, "covers the whole image")])
def test_an_empty_and_a_full_mask_are_refused(weights, value, reason):
    mask = np.full((64, 64, 3), value, np.uint8)
    with pytest.raises(XRayError, match=reason) as caught:
        generate(weights, Inputs(picture(), mask))
    assert caught.value.code == "bad_mask"


def test_a_mask_needs_an_image(weights):
    with pytest.raises(XRayError, match="there is no image") as caught:
        generate(weights, Inputs(mask=half()))
    assert caught.value.code == "missing_image"


def test_an_image_without_an_object_is_refused(weights):
    clear = np.zeros((64, 64, 4), dtype=np.uint8)
    for inputs in (clear, Inputs(clear, half())):
        with pytest.raises(XRayError) as caught:
            generate(weights, inputs)
        assert caught.value.code == "no_object"


def test_what_the_mask_covers_has_room_in_the_frame():
    """A leg that was cut off is drawn below what is left."""
    rgba = np.zeros((64, 64, 4), dtype=np.uint8)
    rgba[10:20, 20:40] = 255
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:50, 20:30] = True
    framed, redrawn = frame_with_mask(rgba, mask, SIZE, fill=0.65)
    rows = np.flatnonzero((redrawn | (framed[..., 3] > 127)).any(axis=1))
    assert len(rows) == pytest.approx(0.65 * SIZE, abs=1)
    assert np.flatnonzero(redrawn.any(axis=1)).min() > np.flatnonzero(framed[..., 3].max(1)).min()
    # A mask within the object does not change the frame.
    within = np.zeros_like(mask)
    within[12:18, 25:30] = True
    same, _ = frame_with_mask(rgba, within, SIZE, fill=0.65)
    np.testing.assert_array_equal(same, frame(rgba, SIZE, fill=0.65))
