"""`XRayPredictor`: one network that predicts an X-Ray from an image, in one pass or by sampling.

Layers are stacked as channels (arXiv 2404.14329 treats them as video frames) and 2x2 pixels are
folded into channels (pixel unshuffle), so that the network works at 32x32 for 64x64 frames, which
is what two CPU cores can train.

The network always predicts clean frames. With `time` 0 and zero frames as input it is a
regression; with noised frames x = time * clean + (1 - time) * noise it is the denoiser of flow
matching (Lipman et al. 2023) in its clean-data form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 8  # depth, normal x y z, red green blue, hit


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says.

    frames : (B, L, 8, S, S). Depth from -1 (near) to 1 (far), normal in camera space (not of
        unit length), colour from -1 to 1, and the logit of there being a hit.
    elevation : (B,) of the camera above the object's horizon, radians.
    """

    frames: Tensor
    elevation: Tensor

    def clean(self) -> Tensor:
        """The frames with the hit channel from -1 to 1, as they are noised for sampling."""
        head, hit = self.frames[:, :, :7], self.frames[:, :, 7:]
        hit = torch.tanh(hit / 2)
        return torch.cat([head * (hit > 0), hit], dim=2)


class XRayPredictor(ModelMixin, ConfigMixin):
    """A U-Net over folded pixels; see the module's docstring.

    layers, resolution : L and S of the frames. image_resolution : of the image, a multiple of S.
    """

    @register_to_config
    def __init__(
        self,
        layers: int = 8,
        resolution: int = 64,
        image_resolution: int = 128,
        fold: int = 2,
        frame_features: int = 32,
        block_out_channels: tuple[int, ...] = (64, 128, 192, 192),
        attention_blocks: tuple[int, ...] = (2, 3),
        layers_per_block: int = 1,
    ) -> None:
        super().__init__()
        self.fold = fold
        self.image_fold = fold * image_resolution // resolution
        self.frame_shape = (layers, CHANNELS, resolution, resolution)
        folded = layers * CHANNELS * fold**2
        blocks = range(len(block_out_channels))
        self.frame_in = nn.Conv2d(folded, frame_features, 1)
        # Depth depends on where in the image a pixel is, which convolutions cannot tell.
        axis = torch.linspace(-1, 1, resolution // fold)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        self.register_buffer("place", place, persistent=False)
        self.unet = UNet2DModel(
            sample_size=resolution // fold,
            in_channels=4 * self.image_fold**2 + frame_features + 2,
            out_channels=folded + 1,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            attention_head_dim=32,
            down_block_types=tuple(
                "AttnDownBlock2D" if i in attention_blocks else "DownBlock2D" for i in blocks
            ),
            up_block_types=tuple(
                "AttnUpBlock2D" if i in attention_blocks else "UpBlock2D" for i in reversed(blocks)
            ),
        )

    def forward(
        self, image: Tensor, frames: Tensor | None = None, time: Tensor | None = None
    ) -> Prediction:
        """Predict clean frames.

        image : (B, 4, I, I) from `image_to_input`. frames : (B, L, 8, S, S) noised, zeros
        without. time : (B,) share of signal in `frames`, 0..1, zeros without.
        """
        batch = len(image)
        if time is None:
            time = image.new_zeros(batch)
        folded_image = functional.pixel_unshuffle(image, self.image_fold)
        place = self.place.expand(batch, -1, -1, -1)
        if frames is None:  # what `frame_in` makes of zeros
            features = self.frame_in.bias[:, None, None].expand(batch, -1, *place.shape[-2:])
        else:
            features = self.frame_in(functional.pixel_unshuffle(frames.flatten(1, 2), self.fold))
        x = torch.cat([folded_image, features.to(folded_image), place], dim=1)
        y = self.unet(x, time * 1000).sample.float()  # (B, 4 * L * 8 + 1, S / 2, S / 2)
        out = functional.pixel_shuffle(y[:, :-1], self.fold)
        return Prediction(out.unflatten(1, self.frame_shape[:2]), y[:, -1].mean(dim=(1, 2)))


def image_to_input(rgba: Tensor) -> Tensor:
    """The network's image input (B, 4, I, I) from RGBA (B, 4, I, I), straight alpha, 0..1."""
    alpha = rgba[:, 3:]
    return torch.cat([rgba[:, :3] * alpha, alpha], dim=1) * 2 - 1


@torch.no_grad()
def sample(
    model: XRayPredictor,
    image: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    start: float = 0.3,
    on_step: Callable[[int], None] | None = None,
) -> Prediction:
    """One pass, then `steps` - 1 denoising steps that start from it at time `start`.

    Deterministic given `generator` (the noise is drawn once; steps are those of DDIM,
    Song et al. 2021).
    """
    prediction = model(image)
    if on_step is not None:
        on_step(1)
    if steps == 1:
        return prediction
    noise = torch.randn(
        (len(image), *model.frame_shape), generator=generator, device=generator.device
    ).to(image)
    for step in range(1, steps):
        time = start + (1 - start) * (step - 1) / (steps - 1)
        clean = prediction.clean()
        noised = time * clean + (1 - time) * noise
        prediction = model(image, noised, image.new_full((len(image),), time))
        noise = (noised - time * prediction.clean()) / (1 - time)
        if on_step is not None:
            on_step(step + 1)
    return prediction
