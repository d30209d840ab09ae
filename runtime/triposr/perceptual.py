"""LPIPS (Zhang et al. 2018) with VGG16, if its two weight files are available.

Files: `vgg16-397923af.pth` (torchvision's) and `vgg.pth` (of the LPIPS authors, version 0.1).
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.errors import XRayError

VGG_FILE = "vgg16-397923af.pth"
LINEAR_FILE = "vgg.pth"
_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALLEST = 16  # px: four times halved
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """LPIPS (B,) of pairs of pictures (B, 3, H, W), 0..1."""

    def __init__(self) -> None:
        super().__init__()
        # Numbered as in torchvision, so that keys match: convolutions and ReLUs, then a pool.
        modules: list[nn.Module] = []
        self._taps: list[int] = []
        before = 3
        for stage in _WIDTHS:
            for width in stage:
                modules += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self._taps.append(len(modules) - 1)
            modules.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*modules[:-1])
        self.linear = nn.ParameterList(torch.zeros(1, stage[-1], 1, 1) for stage in _WIDTHS)
        self.requires_grad_(False)

    @classmethod
    def load(cls, folder: Path) -> PerceptualDistance:
        """Load the two files in `folder`; raises XRayError `missing_weights`, `bad_weights`."""
        missing = [name for name in (VGG_FILE, LINEAR_FILE) if not (folder / name).is_file()]
        if missing:
            raise XRayError(
                "missing_weights",
                f"LPIPS's weights {' and '.join(missing)} are not in {folder}.",
                "Put them there, or leave lpips_folder empty to train without LPIPS.",
            )
        model = cls()
        try:
            vgg = torch.load(folder / VGG_FILE, map_location="cpu", weights_only=True)
            convolutions = {
                name.removeprefix("features."): tensor
                for name, tensor in vgg.items()
                if name.startswith("features.")
            }
            model.features.load_state_dict(convolutions, strict=True)
            linear = torch.load(folder / LINEAR_FILE, map_location="cpu", weights_only=True)
            model.linear.load_state_dict(
                {str(i): linear[f"lin{i}.model.1.weight"] for i in range(len(_WIDTHS))}, strict=True
            )
        except (
            OSError,
            RuntimeError,
            EOFError,
            KeyError,
            AttributeError,
            UnpicklingError,
        ) as error:
            raise XRayError(
                "bad_weights",
                f"The files in {folder} are not LPIPS's weights ({error}).",
                "Download them again, or leave lpips_folder empty.",
            ) from error
        return model.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """See the class."""
        shift, scale = (first.new_tensor(v).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        x, y = ((2 * picture - 1 - shift) / scale for picture in (first, second))
        total = first.new_zeros(len(first))
        weights = iter(self.linear)
        for number, module in enumerate(self.features):
            x, y = module(x), module(y)
            if number in self._taps:
                difference = (functional.normalize(x) - functional.normalize(y)).square()
                total = total + (difference * next(weights)).sum(dim=1).mean(dim=(1, 2))
        return total
