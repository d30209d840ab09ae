"""Layers at a finer size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runtime.meshes.collection import list_meshes
from runtime.xray.data import CastDataset
from runtime.xray.networks.base import image_to_input
from runtime.xray.networks.upsampler import Upsampler, coarse_guess, enlarge_frames
from runtime.xray.training import Trainer, TrainingConfig, losses
from runtime.xray.weights import load_weights

SIZE = 32


@pytest.fixture
def small(config) -> TrainingConfig:
    """An upsampler from 8 to 32 pixels."""
    return replace(
        config, network="upsampler", resolution=SIZE, image_resolution=SIZE, fold=4, batch=8
    )


def batch(meshes: Path) -> dict[str, torch.Tensor]:
    """Eight samples of which frames and image are of the fine size."""
    source = iter(
        CastDataset(
            list_meshes(meshes), seed=0, layers=4, resolution=SIZE, image_resolution=SIZE, batch=8
        )
    )
    samples = [next(source) for _ in range(8)]
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def test_before_training_it_is_the_interpolation(small, meshes):
    samples = batch(meshes)
    model = small.model()
    assert isinstance(model, Upsampler)
    frames = coarse_guess(samples["frames"], 4, torch.Generator().manual_seed(0))
    got = model(image_to_input(samples["image"]), frames).frames
    torch.testing.assert_close(got, frames)


def test_it_learns_what_interpolation_cannot_know(small, meshes, tmp_path):
    trainer = Trainer(replace(small, samples=1000), "cpu")
    samples = batch(meshes)
    for _ in range(31):
        trainer.step(samples)
    trainer.save(tmp_path)
    model, _ = load_weights(tmp_path / "model.safetensors", "cpu")
    frames = coarse_guess(samples["frames"], 4, torch.Generator().manual_seed(5))
    with torch.no_grad():
        got = trainer.model(image_to_input(samples["image"]), frames)
        kept = model(image_to_input(samples["image"]), frames)
    after, before = (
        losses(replace(got, frames=f), samples["frames"], samples["elevation"])
        for f in (got.frames, frames)
    )
    assert after["depth"] < 0.9 * before["depth"]
    assert after["hit"] < 0.9 * before["hit"]
    # The file holds the averaged weights, which are still on their way.
    assert not torch.equal(kept.frames, frames)


def test_a_guess_is_near_the_truth_and_reproducible(meshes):
    frames = batch(meshes)["frames"]

    def guess(seed: int) -> torch.Tensor:
        return coarse_guess(frames, 4, torch.Generator().manual_seed(seed))

    assert torch.equal(guess(1), guess(1))
    assert not torch.equal(guess(1), guess(2))
    hit = frames[:, :, 7] > 0
    overlap = ((guess(1)[:, :, 7] > 0) & hit).sum() / ((guess(1)[:, :, 7] > 0) | hit).sum()
    assert overlap > 0.6
    off = (guess(1)[:, :, 0] - frames[:, :, 0]).abs()[hit]
    assert off.median() < 0.1


def test_enlarged_frames_say_where_they_have_values():
    frames = torch.zeros(1, 2, 8, 8, 8)
    frames[:, :, 7] = -5
    frames[:, 0, 7, 2:6, 2:6] = 5
    frames[:, 0, 0] = -0.25
    fine, known = enlarge_frames(frames, 32)
    assert fine.shape == (1, 2, 8, 32, 32)
    torch.testing.assert_close(fine[0, 0, 0, 8:24, 8:24], torch.full((16, 16), -0.25))
    assert known[0, 0].all()  # within the reach of the values' spreading
    assert not known[0, 1].any()
    assert ((fine[0, 0, 7] > 0).float().mean() - 0.25).abs() < 0.03
