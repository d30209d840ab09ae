"""Train Slice3D's networks on data in the published layout.

python -m runtime train --config runtime/slice3d/regression.json --data DATA --out DIR

Losses, rates and batches are the published ones. The result is a safetensors file that
`runtime.slice3d.weights` loads.
"""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.dataset.slice_layout import SLICES
from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..training.configs import read_config
from ..training.run import CHECKPOINT, refuse_another, run
from .data import SliceData, SliceDataset
from .diffusion import TRAINING_STEPS, SliceDiffusion, alphas_cumulated
from .networks import GTSliceNet, NetworkConfig, SliceNet
from .perceptual import SliceLoss, load_slice_loss
from .unet import DiffusionConfig, to_grid
from .weights import (
    DIFFUSION,
    FIELD,
    REGRESSION,
    load_first_stage,
    save_network,
)

AUTOENCODER = "autoencoder"
NETWORKS = (REGRESSION, FIELD, DIFFUSION, AUTOENCODER)
LOG_STEPS = 20
# How much the latents of our own autoencoder are drawn to a unit normal distribution.
_KL_WEIGHT = 1e-6
# Of an image and its twelve slices, how many it sees a step.
_AUTOENCODED = 4


@dataclass
class TrainingConfig:
    """How a network is built and trained.

    network : which: "regression", "gt_to_3d", "diffusion", or "autoencoder", the first stage of
        the diffusion where the published one is not at hand.
    size : fields of `NetworkConfig` or `DiffusionConfig` that differ from the published ones.
    epochs : rounds through the objects, each seen once from a random side. halve_epochs : after
        how many the learning rate is halved; 0 keeps it.
    queries : points of the field for each object. slices : folder of the data.
    vgg_weight : of the difference of VGG19's features, where vgg_from names a published
        regression checkpoint that holds them; "" trains without it.
    first_stage : the diffusion's autoencoder: the published diffusion checkpoint, latent
        diffusion's kl-f8 model.ckpt, or one that this trained.
    ema : share of the averaged weights that is kept at each step.
    """

    generator: str = "slice3d"
    network: str = REGRESSION
    seed: int = 0
    size: dict[str, Any] = field(default_factory=dict)
    batch: int = 16
    queries: int = 256
    epochs: int = 600
    learning_rate: float = 3e-4
    halve_epochs: int = 100
    vgg_weight: float = 1e-3
    vgg_from: str = ""
    first_stage: str = ""
    ema: float = 0.9999
    slices: str = SLICES
    background: str = ""
    split: str = "train"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {NETWORKS}, got {self.network!r}")
        if min(self.batch, self.queries, self.epochs) < 1:
            raise ValueError("batch, queries and epochs must be 1 or more")
        if not self.background:
            # As published: the regression sees black behind the object, the rest white.
            self.background = "black" if self.network == REGRESSION else "white"
        self.sizes()

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/slice3d/regression.json")

    def sizes(self) -> NetworkConfig | DiffusionConfig:
        """What the network is made of."""
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in self.size.items()
        }
        if self.network in (REGRESSION, FIELD):
            return NetworkConfig(**values)
        return DiffusionConfig(**values)


Losses = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class Trainer:
    """A network, its optimiser and where they are; `save` and `resume` keep all.

    objects : how many make an epoch.
    """

    def __init__(self, config: TrainingConfig, objects: int, device: str) -> None:
        torch.manual_seed(config.seed)
        torch.set_flush_denormal(True)
        self.config = config
        self.objects = objects
        self.device = torch.device(device)
        self.network, self._losses = self._built(config)
        self.network.to(self.device).train()
        self.averaged = None
        if config.network == DIFFUSION:
            # Its autoencoder is finished.
            self.network.first_stage.requires_grad_(False).eval()
            self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        learned = [p for p in self.network.parameters() if p.requires_grad]
        kind = torch.optim.AdamW if config.network == DIFFUSION else torch.optim.Adam
        self.optimizer = kind(learned, config.learning_rate, fused=True)
        self.random = torch.Generator(self.device).manual_seed(config.seed)
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0

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
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / (self.config.epochs * self.objects))

    def learning_rate(self) -> float:
        """Halved every `halve_epochs`."""
        config = self.config
        epoch = self.samples // self.objects
        return config.learning_rate * 0.5 ** (
            epoch // config.halve_epochs if config.halve_epochs else 0
        )

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss and their sum."""
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        terms = self._losses(batch)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self.samples += len(batch["image"])
        self.steps += 1
        if self.averaged is not None:
            self._average()
        return {name: float(term.detach()) for name, term in terms.items()} | {
            "loss": float(total.detach())
        }

    def _regression_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.network
        maps, slices = network.encode(batch["image"])
        distances = network.distance(maps, batch["points"])
        terms = {
            "distance": functional.l1_loss(distances, batch["distances"]),
            "slices": functional.l1_loss(slices, batch["slices"]),
        }
        if self.perceptual is not None:
            compared = self.perceptual(slices.flatten(0, 1), batch["slices"].flatten(0, 1))
            terms["vgg"] = self.config.vgg_weight * compared
        return terms

    def _field_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.network
        distances = network.distance(network.encode(batch["slices"]), batch["points"])
        return {"distance": functional.l1_loss(distances, batch["distances"])}

    def _autoencoder_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        first_stage: Any = self.network.first_stage
        pictures = torch.cat([batch["image"][:, None], batch["slices"]], dim=1).flatten(0, 1)
        count = _AUTOENCODED * len(batch["image"])
        chosen = torch.randperm(len(pictures), device=self.device, generator=self.random)[:count]
        pictures = pictures[chosen]
        posterior = first_stage.encode(pictures).latent_dist
        made = first_stage.decode(posterior.sample(self.random)).sample
        return {
            "pictures": functional.l1_loss(made, pictures),
            "kl": _KL_WEIGHT * posterior.kl().mean(),
        }

    def _diffusion_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network: Any = self.network
        count, slices = batch["slices"].shape[:2]
        with torch.no_grad():
            pictures = torch.cat([batch["slices"].flatten(0, 1), batch["image"]])
            tile = network.config.tile
            noise = self._noise((len(pictures), 4, tile, tile))
            if self.steps == 0:
                # As published: latents of the first batch get a spread of one.
                network.scale.fill_(1.0)
                network.scale.fill_(1 / network.encode(pictures, noise).std())
                self.averaged.scale.copy_(network.scale)  # type: ignore[union-attr]
            latents = network.encode(pictures, noise)
        grid = to_grid(latents[: count * slices].unflatten(0, (count, slices)))
        at = torch.randint(TRAINING_STEPS, (count,), device=self.device, generator=self.random)
        left = alphas_cumulated().to(self.device)[at].float()[:, None, None, None]
        noise = self._noise(grid.shape)
        noisy = left.sqrt() * grid + (1 - left).sqrt() * noise
        # The published code left the image's encoder as it was drawn; here it learns too.
        added = network.encoder(batch["image"])
        predicted = network.unet(noisy, at, latents[count * slices :], added)
        return {"noise": functional.l1_loss(predicted, noise)}

    def _noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self.random)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the present ones; faster at the beginning."""
        kept = min(self.config.ema, (1 + self.steps) / (10 + self.steps))
        assert self.averaged is not None
        for mean, now in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - kept)
            else:
                mean.copy_(now)

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each whole or not at all; raises XRayError `no_space`."""
        record = asdict(self.config) | {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
        }
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "steps": self.steps,
            "samples": self.samples,
            "seconds": self.seconds,
        }
        learned: Any = self.network if self.averaged is None else self.averaged
        try:
            with replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
                torch.save(state, stream)
            path = folder / f"{self.config.network}.safetensors"
            save_network(path, learned, {"training": json.dumps(record)})
        except (OSError, RuntimeError) as error:
            # Torch's writer hides the disk's error behind one of its own.
            first: BaseException = error.__context__ or error
            if not any(getattr(e, "errno", None) == errno.ENOSPC for e in (error, first)):
                raise
            raise XRayError(
                "no_space",
                f"The disk of {folder} is full; what was saved there before is unharmed.",
                "Free some space and go on with --resume.",
            ) from error

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises XRayError `bad_checkpoint`."""
        path = folder / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict(state["network"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.random.set_state(state["random"])
            self.steps, self.samples = state["steps"], state["samples"]
            self.seconds = state["seconds"]
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise XRayError(
                "bad_checkpoint",
                f"{path} cannot be resumed ({error}).",
                "Train without --resume, or give the configuration it was trained with.",
            ) from error


def train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> Trainer:
    """Train for `config.epochs`, for `minutes` at most, or until `progress` cancels.

    However it ends, a checkpoint is left in `out`. Raises XRayError.
    """
    if not resume:
        refuse_another(out)
    objects = SliceData(
        data,
        config.split,
        size=config.sizes().image_size,
        background=config.background,
        slices=config.slices,
    )
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, len(objects.uids), device)
    if resume:
        trainer.resume(out)
    run(
        trainer,
        SliceDataset(objects, config.queries, seed=config.seed, first_sample=trainer.samples),
        out,
        batch=config.batch,
        workers=config.workers,
        minutes=minutes,
        log_steps=LOG_STEPS,
        progress=progress,
    )
    return trainer
