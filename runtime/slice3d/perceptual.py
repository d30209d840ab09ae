"""The perceptual loss for drawn slices: features of VGG19."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.errors import XRayError

from ..torch_helpers.tensors import read_pickle
from .vgg import features, vgg19_stages

_PREFIX = "vggptlossfunc.vgg."
_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)


class SliceLoss(nn.Module):
    """The published content loss: weighted absolute differences of five stages' features."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.slice1, self.slice2, self.slice3, self.slice4, self.slice5 = vgg19_stages()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """The loss () of pictures (B, 3, H, W) in -1..1."""
        stages = (self.slice1, self.slice2, self.slice3, self.slice4, self.slice5)
        pairs = (
            features(stages, ((pictures + 1) / 2 - self.mean) / self.std)
            for pictures in (made, wanted)
        )
        terms = [
            weight * functional.l1_loss(got, want)
            for weight, got, want in zip(_WEIGHTS, *pairs, strict=True)
        ]
        return torch.stack(terms).sum()


def load_slice_loss(path: Path) -> SliceLoss:
    """Load the VGG19 of a published regression checkpoint; its weights are not trained.

    Raises XRayError `missing_weights`, `bad_weights`, `unsafe_weights`.
    """
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {path}, which vgg_from names.",
            "Name a published regression checkpoint of Slice3D, or leave vgg_from empty.",
        )
    state = read_pickle(path).get("model", {})
    own = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(_PREFIX)
    }
    loss = SliceLoss()
    try:
        loss.load_state_dict(own)
    except RuntimeError as error:
        raise XRayError(
            "bad_weights",
            f"{path} does not hold the VGG19 that compares slices.",
            "Name a published regression checkpoint of Slice3D, or leave vgg_from empty.",
        ) from error
    return loss.eval().requires_grad_(False)
