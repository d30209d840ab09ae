"""Trains Slice3D's networks on data in the published layout.

python -m runtime train --config runtime/slice3d/regression.json --data DATA --out DIR

Losses, rates and batch sizes are the published ones. The result is a safetensors file that
`runtime.slice3d.weights` loads.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.slices.layout import SLICES

from ..training import run
from ..training.configs import RunConfig
from ..training.trainer import Trainer as SharedTrainer
from .data import SliceData, SliceDataset
from .diffusion import TRAINING_STEPS, SliceDiffusion, alphas_cumulated
from .networks import GTSliceNet, NetworkConfig, SliceNet
from .perceptual import SliceLoss, load_slice_loss
from .unet import DiffusionConfig, to_grid
from .weights import DIFFUSION, FIELD, REGRESSION, load_first_stage, save_network

AUTOENCODER = "autoencoder"
NETWORKS = (REGRESSION, FIELD, DIFFUSION, AUTOENCODER)
# Pictures per step for the autoencoder, out of an image and its twelve slices.
_AUTOENCODED = 4

Losses = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class TrainingConfig(RunConfig):
    """How a network is built and trained.

    network : "regression", "gt_to_3d", "diffusion", or "autoencoder", the first stage of the
        diffusion if the published one is not available.
    size : fields of `NetworkConfig` or `DiffusionConfig` that differ from the published ones.
    epochs : rounds through the objects, each seen once from a random side. halve_epochs : epochs
        after which the learning rate is halved; 0 keeps it. As published, `warmup` and
        `final_rate` are not used, and `weight_decay` only by the diffusion.
    queries : points of the field per object. slices : folder of the data.
    slices_weight : of the regression's slices relative to its distances; 1 as published. Without
        ImageNet's weights at the start, the distances' gradient is thousands of times the slices'
        in the layers that learn which slice to draw, and all twelve become the same; 30 helps.
    vgg_weight : of the difference of VGG19's features. vgg_from : a published regression checkpoint
        that contains them; "" trains without.
    kl_weight : of the KL divergence of our own autoencoder's latents from a unit normal.
    first_stage : the diffusion's autoencoder: the published diffusion checkpoint, latent
        diffusion's kl-f8 model.ckpt, or one trained here.
    ema : decay of the averaged weights per step.
    background : "black" or "white"; "" for the network's published one.
    """

    example: ClassVar[str] = "runtime/slice3d/regression.json"
    # Not `size`: its dropout may change, and all else in it is checked by the tensors' shapes.
    network_settings: ClassVar[tuple[str, ...]] = ("network",)

    generator: str = "slice3d"
    network: str = REGRESSION
    size: dict[str, Any] = field(default_factory=dict)
    batch: int = 16
    queries: int = 256
    epochs: int = 600
    learning_rate: float = 3e-4
    gradient_norm: float = 0.0
    halve_epochs: int = 100
    slices_weight: float = 1.0
    vgg_weight: float = 1e-3
    vgg_from: str = ""
    kl_weight: float = 1e-6
    first_stage: str = ""
    ema: float = 0.9999
    slices: str = SLICES
    background: str = ""
    split: str = "train"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {NETWORKS}, got {self.network!r}")
        if min(self.batch, self.queries, self.epochs) < 1:
            raise ValueError("batch, queries and epochs must be 1 or more")
        unused = ["warmup", "final_rate"]
        if self.network != DIFFUSION:
            unused.append("weight_decay")
        if given := [name for name in unused if getattr(self, name) != getattr(RunConfig, name)]:
            raise ValueError(f"{', '.join(given)} would have no effect on this network")
        if not self.background:
            # As published: black behind the object for the regression, otherwise white.
            self.background = "black" if self.network == REGRESSION else "white"
        self.sizes()

    def sizes(self) -> NetworkConfig | DiffusionConfig:
        """The network's configuration."""
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in self.size.items()
        }
        if self.network in (REGRESSION, FIELD):
            return NetworkConfig(**values)
        return DiffusionConfig(**values)


class Trainer(SharedTrainer[TrainingConfig]):
    """A network and its optimiser. objects : number per epoch; known with the data."""

    weights_files = tuple(f"{network}.safetensors" for network in NETWORKS)
    log_steps = 20

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        self.objects = 1
        self.model, self._losses = self._built(config)
        self.model.to(self.device).train()
        self.averaged: nn.Module | None = None
        if config.network == DIFFUSION:
            # Its autoencoder is already trained.
            self.model.first_stage.requires_grad_(False).eval()
            self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        if config.network == DIFFUSION:
            self.optimizers = [
                torch.optim.AdamW(
                    learned, config.learning_rate, weight_decay=config.weight_decay, fused=True
                )
            ]
        else:
            self.optimizers = [torch.optim.Adam(learned, config.learning_rate, fused=True)]

    def dataset(self, data: Path) -> SliceDataset:
        """Random views of the objects in `data`."""
        config = self.config
        objects = SliceData(
            data,
            config.split,
            size=config.sizes().image_size,
            background=config.background,
            slices=config.slices,
        )
        self.objects = len(objects.uids)
        return SliceDataset(
            objects,
            config.queries,
            seed=config.seed,
            batch=config.batch,
            first_batch=self.samples // config.batch,
        )

    def _built(self, config: TrainingConfig) -> tuple[nn.Module, Losses]:
        sizes = config.sizes()
        if isinstance(sizes, NetworkConfig):
            if config.network == FIELD:
                return GTSliceNet(sizes), self._field_losses
            self.perceptual: SliceLoss | None = None
            if config.vgg_from:
                self.perceptual = load_slice_loss(Path(config.vgg_from)).to(self.device)
            return SliceNet(sizes), self._regression_losses
        network = SliceDiffusion(sizes)
        if config.network == AUTOENCODER:
            network.unet.requires_grad_(False)
            network.encoder.requires_grad_(False)
            return network, self._autoencoder_losses
        if not config.first_stage:
            raise XRayError(
                "bad_config",
                "The latent diffusion needs an autoencoder, and first_stage names none.",
                "Name kl-f8's model.ckpt, a published diffusion checkpoint, or one of your own "
                "that network 'autoencoder' has trained.",
            )
        load_first_stage(network, Path(config.first_stage))
        return network, self._diffusion_losses

    def done(self) -> float:
        """The completed share of the run, 0 to 1."""
        return min(1.0, self.samples / (self.config.epochs * self.objects))

    def learning_rate(self) -> float:
        """Halved every `halve_epochs`."""
        config = self.config
        epoch = self.samples // self.objects
        return config.learning_rate * 0.5 ** (
            epoch // config.halve_epochs if config.halve_epochs else 0
        )

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the network's loss."""
        return self._losses(batch)

    def count(self, samples: int) -> None:
        """Count one step, and update the averaged weights."""
        super().count(samples)
        if self.averaged is not None:
            self._average()

    def parts(self) -> dict[str, Any]:
        """Includes the averaged weights."""
        averaged = {} if self.averaged is None else {"averaged": self.averaged}
        return super().parts() | averaged

    def save_weights(self, folder: Path) -> None:
        """Write the weights for the generator; for the diffusion, the averaged ones."""
        learned: Any = self.model if self.averaged is None else self.averaged
        path = folder / f"{self.config.network}.safetensors"
        save_network(path, learned, {"training": json.dumps(self.record())})

    def _regression_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.model
        maps, slices = network.encode(batch["image"])
        distances = network.distance(maps, batch["points"])
        terms = {
            "distance": functional.l1_loss(distances, batch["distances"]),
            "slices": functional.l1_loss(slices, batch["slices"]),
        }
        if self.perceptual is not None:
            compared = self.perceptual(slices.flatten(0, 1), batch["slices"].flatten(0, 1))
            terms["vgg"] = compared
        return terms

    def _field_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.model
        distances = network.distance(network.encode(batch["slices"]), batch["points"])
        return {"distance": functional.l1_loss(distances, batch["distances"])}

    def _autoencoder_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        first_stage: Any = self.model.first_stage
        random = self._random()
        pictures = torch.cat([batch["image"][:, None], batch["slices"]], dim=1).flatten(0, 1)
        count = _AUTOENCODED * len(batch["image"])
        chosen = torch.randperm(len(pictures), device=self.device, generator=random)[:count]
        pictures = pictures[chosen]
        posterior = first_stage.encode(pictures).latent_dist
        made = first_stage.decode(posterior.sample(random)).sample
        return {
            "pictures": functional.l1_loss(made, pictures),
            "kl": posterior.kl().mean(),
        }

    def _diffusion_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.model
        random = self._random()
        count, slices = batch["slices"].shape[:2]
        with torch.no_grad():
            pictures = torch.cat([batch["slices"].flatten(0, 1), batch["image"]])
            tile = network.config.tile
            noise = _noise(random, (len(pictures), 4, tile, tile))
            if self.steps == 0:
                # As published: scale the latents of the first batch to a standard deviation of one.
                network.scale.fill_(1.0)
                network.scale.fill_(1 / network.encode(pictures, noise).std())
                self.averaged.scale.copy_(network.scale)  # type: ignore[union-attr]
            latents = network.encode(pictures, noise)
        grid = to_grid(latents[: count * slices].unflatten(0, (count, slices)))
        at = torch.randint(TRAINING_STEPS, (count,), device=self.device, generator=random)
        left = alphas_cumulated().to(self.device)[at].float()[:, None, None, None]
        noise = _noise(random, grid.shape)
        noisy = left.sqrt() * grid + (1 - left).sqrt() * noise
        # The published code leaves the image encoder's weights random; here they are trained.
        added = network.encoder(batch["image"])
        predicted = network.unet(noisy, at, latents[count * slices :], added)
        return {"noise": functional.l1_loss(predicted, noise)}

    def _random(self) -> torch.Generator:
        """Depends only on the seed and the step, so that a resumed run continues identically."""
        return torch.Generator(self.device).manual_seed((self.config.seed << 32) + self.steps)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the current ones; faster at first."""
        kept = min(self.config.ema, (1 + self.steps) / (10 + self.steps))
        assert self.averaged is not None
        for mean, now in zip(
            self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - kept)
            else:
                mean.copy_(now)


def _noise(random: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device=random.device, generator=random)


train = partial(run.train, Trainer)
