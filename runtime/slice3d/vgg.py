"""VGG features: the first layers of Slice3D's networks (VGG16 with batch norm), and its loss.

Layers have their index in torchvision's `vgg16_bn` and `vgg19`, so that published weights fit;
nothing is imported from torchvision or downloaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

# Convolutions before each pooling.
_VGG16 = (2, 2, 3, 3, 3)
_VGG19 = (2, 2, 4, 4, 4)
# Where torchvision's vgg16_bn is cut: after the last convolution of each stage, before its norm.
_VGG16_CUTS = (0, 4, 11, 21, 31, 41)
_VGG19_CUTS = (0, 3, 8, 13, 22, 31)


def vgg16_stages(channels: Sequence[int] = (64, 128, 256, 512, 512)) -> list[nn.Sequential]:
    """Five stages, each with half the width of the one before; `channels` of their outputs.

    A stage ends with its last convolution: norm, ReLU and pooling belong to the next stage.
    """
    return _cut(_layers(channels, _VGG16, normed=True), _VGG16_CUTS)


def vgg19_stages() -> list[nn.Sequential]:
    """The five stages of VGG19 that the loss compares."""
    return _cut(_layers((64, 128, 256, 512, 512), _VGG19, normed=False), _VGG19_CUTS)


def features(stages: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """The output of each stage for images (B, 3, H, W)."""
    found = []
    for stage in stages:
        images = stage(images)
        found.append(images)
    return found


def _layers(channels: Sequence[int], repeats: Sequence[int], *, normed: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for width, count in zip(channels, repeats, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            if normed:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            before = width
        layers.append(nn.MaxPool2d(2))
    return layers


def _cut(layers: Sequence[nn.Module], cuts: Sequence[int]) -> list[nn.Sequential]:
    return [
        nn.Sequential(OrderedDict((str(place), layers[place]) for place in range(start, stop)))
        for start, stop in pairwise(cuts)
    ]
