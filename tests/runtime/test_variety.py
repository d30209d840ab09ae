"""What training adds to clean pictures of low-poly meshes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from runtime.meshes.collection import MeshCache, list_meshes
from runtime.xray.data import CastDataset
from runtime.xray.training import TrainingConfig
from runtime.xray.variety import (
    VARIETIES,
    composed,
    compressed,
    is_one_color,
    matted,
    rounded,
    solid_texture,
)
from xray_addon import Surface
from xray_addon.surface import Material


def samples(meshes, count: int, variety: tuple[str, ...]) -> list[dict[str, torch.Tensor]]:
    dataset = CastDataset(
        list_meshes(meshes),
        seed=0,
        layers=4,
        resolution=16,
        image_resolution=32,
        batch=2,
        variety=variety,
    )
    source = iter(dataset)
    return [next(source) for _ in range(count)]


@pytest.mark.parametrize("variety", [*((name,) for name in VARIETIES), VARIETIES])
def test_images_and_frames_still_agree(meshes, variety):
    agreement = []
    for item in samples(meshes, 12, variety):
        assert item["image"].shape == (4, 32, 32)
        assert item["image"].min() >= 0
        assert item["image"].max() <= 1
        assert item["frames"].isfinite().all()
        alpha = torch.nn.functional.avg_pool2d(item["image"][3:], 2)[0]
        agreement.append(float(((alpha > 0.5) == (item["frames"][0, 7] > 0)).float().mean()))
    assert np.mean(agreement) > 0.9


def test_each_changes_the_samples(meshes):
    plain = samples(meshes, 24, ())
    for name in ("materials", "shapes", "scenes", "cameras", "photos"):
        changed = samples(meshes, 24, (name,))
        assert any(
            not torch.equal(a["image"], b["image"]) for a, b in zip(plain, changed, strict=True)
        )


def test_one_colour_is_told(meshes):
    assert is_one_color(MeshCache(list_meshes(meshes)).surface(0))
    square = Surface([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]], [[0, 1, 2]])
    assert is_one_color(square)
    assert not is_one_color(replace(square, corner_colors=np.eye(3)[None]))
    texture = np.zeros((2, 2, 3), dtype=np.uint8)
    assert not is_one_color(replace(square, materials=[Material(texture=texture)]))


def test_patterns_are_colours_that_vary_in_space():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3))
    for seed in range(12):
        colors = solid_texture(np.random.default_rng(seed))(points)
        assert colors.shape == (500, 3)
        assert (colors >= 0).all()
        assert (colors <= 1).all()
        assert colors.std(axis=0).max() > 0.01


def test_rounding_keeps_a_closed_body_closed_and_rounds_it(meshes):
    box = MeshCache(list_meshes(meshes)).surface(1)
    smooth = rounded(box, np.random.default_rng(0))
    assert smooth.is_watertight
    assert len(smooth.faces) > len(box.faces)
    # Its sides stay where they are, its corners recede.
    np.testing.assert_allclose(smooth.bounds, box.bounds, atol=0.02)
    farthest = np.linalg.norm(box.vertices, axis=1).max()
    assert 0.8 < np.linalg.norm(smooth.vertices, axis=1).max() / farthest < 0.99
    lengths = np.linalg.norm(smooth.corner_normals, axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert smooth.corner_colors.shape == (len(smooth.faces), 3, 3)


def test_a_composed_object_has_both_parts_side_by_side_or_stacked(meshes):
    cache = MeshCache(list_meshes(meshes))
    ball, box = cache.surface(0), cache.surface(1)
    for seed in range(8):
        both = composed(ball, box, np.random.default_rng(seed))
        count = len(ball.faces)
        assert len(both.faces) == count + len(box.faces)
        first, second = both.vertices[both.faces[:count]], both.vertices[both.faces[count:]]
        gap = np.maximum(
            second.min(axis=(0, 1)) - first.max(axis=(0, 1)),
            first.min(axis=(0, 1)) - second.max(axis=(0, 1)),
        )
        assert gap.max() == pytest.approx(0, abs=1e-9)  # they touch and do not overlap
        np.testing.assert_allclose(both.corner_colors[:count], ball.corner_colors)


def test_matting_errors_stay_near_the_outline():
    size = 32
    axis = np.arange(size) - size / 2 + 0.5
    alpha = (axis[:, None] ** 2 + axis**2 < 100).astype(np.float32)
    image = np.dstack([np.full((size, size, 3), 0.5, np.float32), alpha])
    changed = 0
    for seed in range(20):
        got = matted(image, np.random.default_rng(seed))
        assert got.shape == image.shape
        assert got.dtype == np.float32
        assert ((got[..., 3] > 0.5) == (alpha > 0.5)).mean() > 0.85
        assert got[0, 0, 3] < 0.5
        changed += not np.array_equal(got, image)
    assert 3 < changed < 15


def test_jpeg_changes_colours_a_little_and_keeps_alpha():
    image = np.random.default_rng(0).uniform(0.4, 0.6, (32, 32, 4)).astype(np.float32)
    results = [compressed(image, np.random.default_rng(seed)) for seed in range(10)]
    assert all(np.array_equal(got[..., 3], image[..., 3]) for got in results)
    errors = [np.abs(got - image).max() for got in results]
    assert 0 < sum(error > 0 for error in errors) < 10
    assert max(errors) < 0.3


def test_unknown_varieties_are_refused():
    with pytest.raises(ValueError, match="smell"):
        TrainingConfig(variety=("smell",))
