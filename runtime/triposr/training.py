"""Train TripoSR on meshes of one's own. One picture goes in, other views are compared.

python -m runtime train --config runtime/triposr/config.json --data MESHES --out DIR

Loss as in the paper: squared error of colours on white, LPIPS where its weights are there, and
cross-entropy of the mask. The result is a folder that `--generator triposr --checkpoint` takes.
"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..checkpoints import locate
from ..meshes.collection import list_meshes
from ..training.configs import read_config
from ..training.run import CHECKPOINT, refuse_another, run
from .config import TripoSRConfig, VitConfig
from .data import PairConfig, PairDataset
from .field import query, render_rays
from .model import TripoSR
from .perceptual import SMALLEST, PerceptualDistance
from .weights import load_weights, save_weights

LOG_STEPS = 20


@dataclass
class TrainingConfig:
    """How a network is built and trained.

    network : `TripoSRConfig`'s fields that differ from the published ones; "vit" likewise.
    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    views : compared for each picture, of view_size px, of each a patch of patch_size px.
    lpips_folder : with LPIPS's weight files; "" trains without it.
    start_from : weights to begin with instead of random ones, as `checkpoints.locate` takes
        them ("triposr" for the published); "" for none.
    """

    generator: str = "triposr"
    seed: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    samples: int = 100_000
    warmup_samples: int = 2_000
    learning_rate: float = 4e-4
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    views: int = 3
    view_size: int = 64
    patch_size: int = 16
    mask_weight: float = 0.05
    lpips_weight: float = 2.0
    lpips_folder: str = ""
    workers: int = 1
    split: str = "train"
    exclude: tuple[str, ...] = ()
    start_from: str = ""

    def __post_init__(self) -> None:
        if min(self.batch, self.samples, self.views, self.patch_size) < 1:
            raise ValueError("batch, samples, views and patch_size must be 1 or more")
        if self.patch_size > self.view_size:
            raise ValueError(f"a patch of {self.patch_size} px is larger than its view")
        self.model_config()

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/triposr/config.json")

    def model_config(self) -> TripoSRConfig:
        """What the network is made of."""
        values = dict(self.network)
        return TripoSRConfig(vit=VitConfig(**values.pop("vit", {})), **values)


def _evaluate(model: TripoSR, code: Tensor, points: Tensor) -> Tensor:
    return query(code, model.decoder, points, model.config.radius)


class Trainer:
    """A model, its optimiser and where they are; `save` and `resume` keep all."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        # Small activations turn into denormals, which CPUs compute ten times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
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
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.95),
            fused=True,
        )
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / self.config.samples)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        config = self.config
        warm = min(1.0, (self.samples + config.batch) / max(config.warmup_samples, 1))
        return config.learning_rate * warm * (1 + math.cos(math.pi * self.done())) / 2

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
        # Kept off 0 and 1, where the logarithm has no end.
        bounded = opacity.clamp(1e-4, 1 - 1e-4)
        terms = {
            "color": functional.mse_loss(color, batch["color"]),
            "mask": functional.binary_cross_entropy(bounded, batch["alpha"].clamp(0, 1)),
        }
        if self.perceptual is not None:
            got, wanted = (c.flatten(0, 1).movedim(-1, 1) for c in (color, batch["color"]))
            terms["lpips"] = self.perceptual(got, wanted).mean()
        return terms

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss and their weighted sum."""
        config = self.config
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        terms = self.losses(batch)
        weights = {"color": 1.0, "mask": config.mask_weight, "lpips": config.lpips_weight}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.samples += len(batch["image"])
        self.steps += 1
        return {name: float(term.detach()) for name, term in terms.items()} | {
            "loss": float(total.detach())
        }

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each whole or not at all; raises XRayError `no_space`."""
        record = asdict(self.config) | {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
        }
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "samples": self.samples,
            "seconds": self.seconds,
        }
        try:
            with replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
                torch.save(state, stream)
            save_weights(folder, self.model, {"training": json.dumps(record)})
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
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
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
    """Train until `config.samples`, for `minutes` at most, or until `progress` cancels.

    However it ends, a checkpoint is left in `out`. Raises XRayError.
    """
    if not resume:
        refuse_another(out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, device)
    if resume:
        trainer.resume(out)
    network = trainer.model.config
    dataset = PairDataset(
        list_meshes(data, split=config.split, exclude=config.exclude),
        PairConfig(network.image_size, config.views, config.view_size, config.patch_size),
        seed=config.seed,
        first_sample=trainer.samples,
    )
    run(
        trainer,
        dataset,
        out,
        batch=config.batch,
        workers=config.workers,
        minutes=minutes,
        log_steps=LOG_STEPS,
        progress=progress,
    )
    return trainer
