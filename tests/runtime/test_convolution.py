"""Convolutions by Winograd's method equal direct ones, and training on a CPU uses them."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional

from runtime.torch_helpers import convolution
from runtime.torch_helpers.convolution import convolve
from runtime.xray.training import Trainer, TrainingConfig


def inputs(*, height: int = 12, width: int = 8, size: int = 3) -> list[torch.Tensor]:
    """A random image of 3 channels, a kernel and a bias for 5, which all want gradients."""
    random = torch.Generator().manual_seed(1)
    shapes = (2, 3, height, width), (5, size, size, 3), (5,)
    return [torch.randn(shape, generator=random).requires_grad_() for shape in shapes]


def direct(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """By torch, in float64."""
    kernel = kernel.double().permute(0, 3, 1, 2)
    return functional.conv2d(x.double(), kernel, bias.double(), padding="same")


@pytest.fixture
def winograds(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes that were convolved by Winograd's method."""
    shapes = []
    winograd = convolution._winograd()
    assert winograd is not None, "numba is missing"

    def counted(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        shapes.append(x.shape)
        return winograd(x, kernel, bias)

    monkeypatch.setattr(convolution, "_winograd", lambda: counted)
    return shapes


def test_results_and_gradients_are_those_of_a_direct_convolution(winograds):
    tensors = inputs()
    weights = torch.randn(2, 5, 12, 8, generator=torch.Generator().manual_seed(2))
    got, want = convolve(*tensors), direct(*tensors)
    assert winograds
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-4)
    for mine, true in zip(
        torch.autograd.grad((got * weights).sum(), tensors),
        torch.autograd.grad((want * weights).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [{"height": 10}, {"width": 6}, {"size": 1}, {"size": 5}])
def test_other_sizes_are_convolved_directly(winograds, size):
    tensors = inputs(**size)
    torch.testing.assert_close(convolve(*tensors).double(), direct(*tensors), rtol=0, atol=2e-5)
    assert not winograds


def test_nothing_but_training_uses_it(winograds):
    tensors = inputs()
    with torch.no_grad():
        convolve(*tensors)
    convolve(*(tensor.to(torch.bfloat16) for tensor in tensors))
    assert not winograds


def test_without_numba_convolutions_are_direct(monkeypatch):
    monkeypatch.setitem(sys.modules, "runtime.torch_helpers.winograd", None)
    convolution._winograd.cache_clear()
    try:
        assert convolution._winograd() is None
        tensors = inputs()
        torch.testing.assert_close(convolve(*tensors).double(), direct(*tensors), atol=2e-5, rtol=0)
    finally:
        convolution._winograd.cache_clear()


def test_a_training_step_is_the_same_either_way(winograds, monkeypatch):
    monkeypatch.setattr("runtime.xray.training.training_dtype", lambda _: torch.float32)
    random = torch.Generator().manual_seed(3)
    frames = torch.rand(2, 2, 8, 16, 16, generator=random) * 2 - 1
    batch = {
        "image": torch.rand(2, 4, 32, 32, generator=random),
        "frames": frames,
        "pose": torch.full((2, 3), 0.3),
    }
    losses = []
    for method in ("winograd", "direct"):
        if method == "direct":
            monkeypatch.setattr(convolution, "_winograd", lambda: None)
        torch.manual_seed(4)
        trainer = Trainer(
            TrainingConfig(
                batch=2,
                samples=100,
                layers=2,
                resolution=16,
                image_resolution=32,
                channels=(16, 32),
                blocks=(1, 1),
            ),
            "cpu",
        )
        losses.append([trainer.step(batch)["loss"] for _ in range(4)])
    assert winograds
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
