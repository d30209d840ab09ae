"""The published decode, against what the published code gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xray_addon import Camera, XRay, decode_published


def camera(size: int) -> Camera:
    return Camera(size, size, 0.8575560450553894, np.eye(4), pixel_offset=0)


def training_frames(xray: XRay, step: int) -> np.ndarray:
    """The published training tensor by its definition: nearest pixels, near 0.6, far 1.8."""
    depth = xray.depth[:8, ::step, ::step]
    scaled = np.where(depth > 0, (depth - 0.6) / 1.2 * 2 - 1, -2)
    hit = np.where(depth > 0, 1, -1)
    normal = np.moveaxis(xray.normal[:8, ::step, ::step], -1, 1)
    color = np.moveaxis(xray.color[:8, ::step, ::step], -1, 1) * 2 - 1
    return np.concatenate([scaled[:, None], normal, color, hit[:, None]], axis=1)


@pytest.mark.parametrize("name", ["lr", "hr_style"])
def test_points_of_the_published_example(golden: Path, name):
    expected = np.load(golden / "xray/toy/expected.npz")
    (path,) = (golden / "xray/xrays").glob("0a0c75da*/000.npz")
    frames = training_frames(XRay.load(path), 4)
    points = decode_published(frames, camera(64), use_hit=name == "hr_style")
    centred = points.positions - points.positions.mean(axis=0)
    wanted = expected[f"example_{name}_points"]
    wanted = wanted - wanted.mean(axis=0)
    assert len(centred) == len(wanted)
    np.testing.assert_allclose(centred, wanted, atol=1e-5)
    if name == "lr":
        np.testing.assert_allclose(points.normals, expected["example_lr_normals"], atol=1e-5)
        np.testing.assert_allclose(points.colors, expected["example_lr_colors"], atol=1e-5)


def test_points_of_network_frames(golden: Path):
    expected = np.load(golden / "xray_small/expected.npz")
    frames = np.tanh(expected["frames"])
    points = decode_published(frames, camera(frames.shape[-1]))
    assert len(points) == expected["n_points"]
    centred = points.positions - points.positions.mean(axis=0)
    wanted = expected["points_of_tanh_frames"]
    step = len(points) // len(wanted) + (len(points) % len(wanted) > 0)
    np.testing.assert_allclose(centred[::step], wanted, atol=1e-5)


def frames_of(depths: list[float], hit: float = 1.0) -> np.ndarray:
    """One pixel, the given depth channel by layer."""
    frames = np.zeros((len(depths), 8, 1, 1))
    frames[:, 0, 0, 0] = depths
    frames[:, 3] = 2.0
    frames[:, 7] = hit
    return frames


@pytest.mark.parametrize(
    ("depths", "kept"),
    [
        ([-1.0, 0.0, 1.0], [False, True, False]),  # at near and at far there is no hit
        ([-5.0, 0.0, 5.0], [False, True, False]),  # values are clamped first
        ([0.5, 0.2, 0.3], [True, False, True]),  # a layer before its own predecessor
        ([0.0, 1.0, 0.0], [True, False, True]),  # a predecessor that was out counts as 0
    ],
)
def test_which_layers_count(depths, kept):
    frames = frames_of(depths)
    points = decode_published(frames, camera(1))
    assert len(points) == sum(kept)
    np.testing.assert_allclose(points.normals, [[0, 0, 1]] * len(points))


def test_the_hit_channel_counts_only_when_asked():
    frames = frames_of([0.0], hit=0.0)
    assert len(decode_published(frames, camera(1))) == 1
    assert len(decode_published(frames, camera(1), use_hit=True)) == 0


def test_bad_frames_are_refused():
    with pytest.raises(ValueError, match="8, H, W"):
        decode_published(np.zeros((8, 7, 4, 4)), camera(4))
    with pytest.raises(ValueError, match="finite"):
        decode_published(np.full((1, 8, 4, 4), np.nan), camera(4))
    with pytest.raises(ValueError, match="near"):
        decode_published(np.zeros((1, 8, 4, 4)), camera(4), near=2.0)
