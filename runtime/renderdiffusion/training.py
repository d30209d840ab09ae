"""Trains RenderDiffusion on single pictures with their cameras; the loss compares random pixels.

python -m runtime train --config runtime/renderdiffusion/config.json --data PICTURES --out DIR

See `data` for what PICTURES can be. --out gets `checkpoint.pt` (everything for resuming),
`model.safetensors` (the averaged weights, rounded, which the generator loads) and the metrics (see
`training.run`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.systems.renderdiffusion import NOISE_STEPS

from ..torch_helpers.devices import training_dtype
from ..torch_helpers.network_configs import differences
from ..torch_helpers.rays import camera_rays
from ..training import run
from ..training.configs import RunConfig
from ..training.muon import Optimizers, update_average
from ..training.trainer import WEIGHTS, term_values
from ..training.trainer import Trainer as SharedTrainer
from . import schedule
from .data import CameraDistribution, PictureDataset, read_pictures
from .networks import RenderDiffusion, RenderDiffusionConfig, at_size, to_network
from .renderer import Rays, render_rays
from .weights import load_model, read_record, save_model


@dataclass
class TrainingConfig(RunConfig):
    """How a model is built and trained.

    image_size to background : see `RenderDiffusionConfig`. samples : length of the learning
        rate's cosine schedule, and of the run unless it is stopped.
    rays, ray_samples : random pixels per picture, and intervals per ray.
    clean_share : share of the samples without noise; the others get 1 to 1,000 steps.
    most_snr : of the loss's weights, see `schedule.loss_weight`.
    alpha_weight : of the squared error of opacity, for pictures with alpha. Without it, parts as
        bright as the background may remain holes.
    novel_view_weight : of the regulariser on random views. Its target is what the model makes of
        such a view after adding noise. It more than doubles the time of a step, so it is computed
        on `novel_views` samples of a batch.
    azimuth, elevation : ranges, in degrees, of the random cameras of the regulariser and of
        pictures without a known camera.
    mirror, recolour : see `PictureDataset`. ema : of the averaged weights.
    start_from : initial weights instead of random ones, for the same network except for its image
        size; "" for none.
    """

    example: ClassVar[str] = "runtime/renderdiffusion/config.json"
    network_settings: ClassVar[tuple[str, ...]] = (
        *("image_size", "channels", "blocks", "fold", "plane_channels"),
        *("hidden", "self_condition", "box", "background"),
    )

    generator: str = "renderdiffusion"
    image_size: int = 32
    channels: tuple[int, ...] = (96, 224)
    blocks: tuple[int, ...] = (2, 4)
    fold: int = 2
    plane_channels: int = 16
    hidden: int = 32
    self_condition: bool = False
    box: float = 0.62
    background: tuple[float, ...] = (1.0, 1.0, 1.0)
    batch: int = 16
    samples: int = 100_000
    learning_rate: float = 2e-3
    ema: float = 0.999
    rays: int = 192
    ray_samples: int = 24
    clean_share: float = 0.3
    most_snr: float = 5.0
    alpha_weight: float = 0.5
    novel_view_weight: float = 0.0
    novel_views: int = 2
    azimuth: tuple[float, ...] = (-180.0, 180.0)
    elevation: tuple[float, ...] = (0.0, 45.0)
    mirror: float = 0.5
    recolour: float = 0.3
    start_from: str = ""

    def __post_init__(self) -> None:
        if min(self.batch, self.samples, self.rays, self.ray_samples) < 1:
            raise ValueError("batch, samples, rays and ray_samples must be 1 or more")
        for name in ("clean_share", "mirror", "recolour"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        for name in ("azimuth", "elevation"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"{name} must be two angles, the smaller one first: {bounds}")
        self.model_config()

    def length(self) -> int:
        """Samples of the whole run."""
        return self.samples

    def model_config(self) -> RenderDiffusionConfig:
        """The model's configuration."""
        return RenderDiffusionConfig(
            image_size=self.image_size,
            channels=tuple(self.channels),
            blocks=tuple(self.blocks),
            fold=self.fold,
            plane_channels=self.plane_channels,
            hidden=self.hidden,
            self_condition=self.self_condition,
            box=self.box,
            background=tuple(self.background),
        )

    def distribution(self) -> CameraDistribution:
        """The distribution of unknown cameras."""
        return CameraDistribution(
            (self.azimuth[0], self.azimuth[1]), (self.elevation[0], self.elevation[1])
        )


class Trainer(SharedTrainer[TrainingConfig]):
    """A model, its average and its optimisers.

    The U-Net's forward and backward passes run on a copy in `training_dtype`, the renderer's in
    single precision.
    """

    model: RenderDiffusion

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        if config.start_from:
            start = load_model(Path(config.start_from), device)
            names = [name for name in config.network_settings if name != "image_size"]
            if other := differences(start.config, config.model_config(), names):
                raise XRayError(
                    "bad_settings",
                    f"The configuration's network cannot start from {config.start_from}: {other}.",
                    "Give it the network of those weights; only the size of the image may differ.",
                )
            self.model = at_size(start, config.image_size).requires_grad_(True)
        else:
            self.model = RenderDiffusion(config.model_config()).to(self.device)
        self.model.train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        dtype = training_dtype(self.device)
        self.working = copy.deepcopy(self.model.encoder).to(
            dtype, memory_format=torch.channels_last
        )
        self.muon = Optimizers(self.model, kernels_of(self.model), config, dtype)
        self.optimizers = self.muon.both

    def dataset(self, data: Path) -> PictureDataset:
        """The pictures in `data`; raises as `read_pictures`."""
        config = self.config
        return PictureDataset(
            read_pictures(data, self.model.config),
            self.model.config,
            config.distribution(),
            rays=config.rays,
            mirror=config.mirror,
            recolour=config.recolour,
            seed=config.seed,
            batch=config.batch,
            first_batch=self.samples // config.batch,
        )

    def planes(self, noisy: Tensor, time: Tensor, last: Tensor | None = None) -> Tensor:
        """`RenderDiffusion.planes` by the working copy."""
        if self.model.config.self_condition:
            noisy = torch.cat([noisy, torch.zeros_like(noisy) if last is None else last], dim=1)
        planes: Tensor = self.working(noisy, time).float()
        return planes.unflatten(1, (3, -1))

    def see(
        self, planes: Tensor, origins: Tensor, directions: Tensor, random: torch.Generator
    ) -> Rays:
        """Render rays (B, R, 3), with a random sample in each interval."""
        config = self.model.config
        return render_rays(
            partial(self.model.field, planes),
            origins,
            directions,
            box=config.box,
            background=self.model.background,
            samples=self.config.ray_samples,
            random=random,
        )

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared errors of colour and opacity at the random pixels, weighted by min-SNR."""
        config = self.config
        # Depends only on the seed and the step, so that a resumed run continues identically.
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + self.steps)
        clean = batch["image"]
        count = len(clean)
        time = torch.randint(1, NOISE_STEPS + 1, (count,), generator=random)
        time *= torch.rand(count, generator=random) >= config.clean_share
        time = time.to(self.device)
        noise = torch.randn(clean.shape, generator=random).to(self.device)
        noisy = schedule.noised(clean, noise, time)
        origin, directions = batch["origin"], batch["directions"]
        last = None
        if config.self_condition and float(torch.rand((), generator=random)) < 0.5:
            with torch.no_grad():
                every = origin.expand_as(directions)
                last = self.picture(self.see(self.planes(noisy, time), every, directions, random))
        planes = self.planes(noisy, time, last)
        pixel = batch["pixel"]
        drawn = directions.gather(1, pixel[..., None].expand(-1, -1, 3))
        seen = self.see(planes, origin.expand_as(drawn), drawn, random)
        wanted = clean.flatten(2).mT.gather(1, pixel[..., None].expand(-1, -1, 3))
        weight = schedule.loss_weight(time, config.most_snr)
        color = (to_network(seen.color) - wanted).square().mean(dim=(1, 2))
        terms = {"color": (weight * color).mean()}
        if config.alpha_weight:
            alpha = (seen.alpha - batch["alpha"].gather(1, pixel)).square().mean(dim=1)
            terms["alpha"] = (weight * alpha).mean()
        if config.novel_view_weight:
            terms["novel_view"] = self.novel_view(planes[: config.novel_views], random)
        return terms

    def novel_view(self, planes: Tensor, random: torch.Generator) -> Tensor:
        """The difference between random views and what the model makes of them with noise.

        The target gets no gradient, so this is score distillation (Poole et al. 2022) in its
        clean-picture form.
        """
        config = self.model.config
        draw = np.random.default_rng(int(torch.randint(2**31, (), generator=random)))
        cameras = [self.config.distribution().draw(config, draw) for _ in planes]
        origins, directions = camera_rays(cameras, config.image_size, self.device)
        seen = self.picture(self.see(planes, origins, directions, random))
        with torch.no_grad():
            time = torch.randint(100, 901, (len(planes),), generator=random).to(self.device)
            noise = torch.randn(seen.shape, generator=random).to(self.device)
            made = self.planes(schedule.noised(seen, noise, time), time)
            wanted = self.picture(self.see(made, origins, directions, random))
        return functional.mse_loss(seen, wanted)

    def picture(self, rays: Rays) -> Tensor:
        """The network's picture (B, 3, S, S) from all rays of a picture."""
        size = self.model.config.image_size
        return to_network(rays.color).mT.unflatten(2, (size, size))

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        encoder = self.model.encoder
        with torch.no_grad():
            torch._foreach_copy_(list(self.working.parameters()), list(encoder.parameters()))
        terms = self.losses({name: tensor.to(self.device) for name, tensor in batch.items()})
        total = self.total(terms)
        for parameter in self.model.decoder.parameters():
            parameter.grad = None
        total.backward()
        for parameter, copied in zip(encoder.parameters(), self.working.parameters(), strict=True):
            parameter.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None
        self.muon.take_gradients()
        # The size of Muon's steps does not depend on the gradient's.
        self.move(total, self.muon.others)
        self.count(len(batch["image"]))
        update_average(self.average, self.model, self.config.ema, self.steps)
        return term_values(terms, total)

    def parts(self) -> dict[str, Any]:
        """Includes the average."""
        return super().parts() | {"average": self.average}

    def save_weights(self, folder: Path) -> None:
        """Write the averaged weights, rounded, which the generator loads."""
        save_model(folder / WEIGHTS, self.average, self.record())

    def load_weights(self, folder: Path) -> dict[str, Any]:
        """Load the weights written by `save_weights` in `folder`; returns their record."""
        path = folder / WEIGHTS
        model = load_model(path, str(self.device))
        if model.config != self.model.config:
            raise ValueError("it holds another network")
        self.model.load_state_dict(model.state_dict())
        self.average.load_state_dict(model.state_dict())
        return read_record(path)


def kernels_of(model: RenderDiffusion) -> list[nn.Parameter]:
    """The parameters that Muon trains: the kernels within the U-Net."""
    inner = (model.encoder.down, model.encoder.middle, model.encoder.up, model.encoder.shrink)
    modules = (
        m for part in (*inner, model.encoder.grow, model.encoder.skip) for m in part.modules()
    )
    return [module.weight for module in modules if isinstance(module, nn.Conv2d)]


train = partial(run.train, Trainer)
