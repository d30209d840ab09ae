"""Trains TripoSR on your own meshes. The input is one picture; the loss compares other views.

python -m runtime train --config runtime/triposr/config.json --data MESHES --out DIR

The loss is the paper's: squared error of colours on white, LPIPS if its weights are available, and
cross-entropy of the mask. Use the resulting folder with `--generator triposr --checkpoint`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError

from ..checkpoints import locate
from ..meshes.collection import list_meshes
from ..training import run
from ..training.configs import RunConfig
from ..training.trainer import Trainer as SharedTrainer
from .config import TripoSRConfig, VitConfig
from .data import PairConfig, PairDataset
from .field import query, render_rays
from .model import TripoSR
from .perceptual import SMALLEST, PerceptualDistance
from .weights import load_weights, save_weights


@dataclass
class TrainingConfig(RunConfig):
    """How a network is built and trained.

    network : fields of `TripoSRConfig` that differ from the published ones; "vit" likewise.
    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    views : number of compared views per picture, of view_size px, cropped to patch_size px.
    lpips_folder : folder of LPIPS's weight files; "" trains without LPIPS.
    start_from : initial weights instead of random ones, as in `checkpoints.locate` ("triposr" for
        the published ones); "" for none.
    """

    example: ClassVar[str] = "runtime/triposr/config.json"
    network_settings: ClassVar[tuple[str, ...]] = ("network",)

    generator: str = "triposr"
    network: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    samples: int = 100_000
    warmup: float = 0.02
    learning_rate: float = 4e-4
    final_rate: float = 0.0
    weight_decay: float = 0.05
    views: int = 3
    view_size: int = 64
    patch_size: int = 16
    mask_weight: float = 0.05
    lpips_weight: float = 2.0
    lpips_folder: str = ""
    split: str = "train"
    exclude: tuple[str, ...] = ()
    start_from: str = ""

    def __post_init__(self) -> None:
        if min(self.batch, self.samples, self.views, self.patch_size) < 1:
            raise ValueError("batch, samples, views and patch_size must be 1 or more")
        if self.patch_size > self.view_size:
            raise ValueError(f"a patch of {self.patch_size} px is larger than its view")
        self.model_config()

    def length(self) -> int:
        """Samples of the whole run."""
        return self.samples

    def model_config(self) -> TripoSRConfig:
        """The network's configuration."""
        values = dict(self.network)
        return TripoSRConfig(vit=VitConfig(**values.pop("vit", {})), **values)


def _evaluate(model: TripoSR, code: Tensor, points: Tensor) -> Tensor:
    return query(code, model.decoder, points, model.config.radius)


class Trainer(SharedTrainer[TrainingConfig]):
    """A `TripoSR` and its optimiser."""

    log_steps = 20
    model: TripoSR

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        if config.start_from:
            model = load_weights(locate(config.start_from))
        else:
            model = TripoSR(config.model_config())
        self.model = model.to(self.device).requires_grad_(True).train()
        self.perceptual = None
        if config.lpips_folder:
            if config.patch_size < SMALLEST:
                raise XRayError(
                    "bad_config",
                    f"LPIPS needs patches of {SMALLEST} px or more, not {config.patch_size}.",
                    "Raise patch_size, or leave lpips_folder empty.",
                )
            self.perceptual = PerceptualDistance.load(Path(config.lpips_folder)).to(self.device)
        self.optimizers = [
            torch.optim.AdamW(
                self.model.parameters(),
                config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.95),
                fused=True,
            )
        ]

    def dataset(self, data: Path) -> PairDataset:
        """Pictures and patches of the meshes in `data`."""
        config = self.config
        return PairDataset(
            list_meshes(data, split=config.split, exclude=config.exclude),
            PairConfig(
                self.model.config.image_size, config.views, config.view_size, config.patch_size
            ),
            seed=config.seed,
            batch=config.batch,
            first_batch=self.samples // config.batch,
        )

    def render(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Colours (B, V, P, P, 3) on white and opacity (B, V, P, P) along the batch's rays."""
        model = self.model
        network = model.config
        planes = model.scene_codes(model.image_tokens(batch["image"]))
        colors, opacities = [], []
        for number, code in enumerate(planes):
            color, opacity = render_rays(
                partial(_evaluate, model, code),
                batch["origins"][number].reshape(-1, 3),
                batch["directions"][number].reshape(-1, 3),
                network,
            )
            colors.append(color.view(batch["color"].shape[1:]))
            opacities.append(opacity.view(batch["alpha"].shape[1:]))
        return torch.stack(colors), torch.stack(opacities)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, by name; without weights."""
        color, opacity = self.render(batch)
        # Kept away from 0 and 1, where the logarithm is infinite.
        bounded = opacity.clamp(1e-4, 1 - 1e-4)
        terms = {
            "color": functional.mse_loss(color, batch["color"]),
            "mask": functional.binary_cross_entropy(bounded, batch["alpha"].clamp(0, 1)),
        }
        if self.perceptual is not None:
            got, wanted = (c.flatten(0, 1).movedim(-1, 1) for c in (color, batch["color"]))
            terms["lpips"] = self.perceptual(got, wanted).mean()
        return terms

    def save_weights(self, folder: Path) -> None:
        """Write the folder that the generator loads."""
        save_weights(folder, self.model, {"training": json.dumps(self.record())})


train = partial(run.train, Trainer)
