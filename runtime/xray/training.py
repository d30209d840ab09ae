"""Training of `XRayPredictor` on meshes that are cast on the fly.

python -m runtime train --config FILE --data DIR --out DIR [--minutes N] [--resume]

DIR holds the meshes; --out gets `checkpoint.pt` (everything a resumed run needs),
`model.safetensors` (the averaged weights in half precision, what the generator loads) and
`metrics.jsonl`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from xray_addon.errors import XRayError
from xray_addon.files import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..configs import read_config
from ..runs import CHECKPOINT, refuse_another, run
from .data import CastDataset, list_meshes
from .model import Convolution, Prediction, XRayPredictor, image_to_input
from .weights import load_weights, save_weights

LOG_STEPS = 50
AVERAGE_STEPS = 4  # between two updates of the averaged weights


@dataclass
class TrainingConfig:
    """One file a model: how it is built and trained.

    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    denoise_share : part of each batch that learns to denoise, which sampling needs; the rest
        learns to predict in one pass.
    start_from : weights (safetensors) to begin with instead of random ones; "" for none.
    """

    seed: int = 0
    layers: int = 8
    resolution: int = 64
    image_resolution: int = 128
    channels: tuple[int, ...] = (96, 224, 288)
    blocks: tuple[int, ...] = (2, 2, 3)
    batch: int = 32
    samples: int = 146_000
    warmup_samples: int = 6_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    ema: float = 0.999
    denoise_share: float = 0.0
    depth_weight: float = 4.0
    hit_weight: float = 1.0
    normal_weight: float = 1.0
    color_weight: float = 1.0
    elevation_weight: float = 0.5
    workers: int = 1
    split: str = "train"
    exclude: tuple[str, ...] = ()
    start_from: str = ""

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/xray/config.json")

    def model(self) -> XRayPredictor:
        """A new model with random weights."""
        return XRayPredictor(
            layers=self.layers,
            resolution=self.resolution,
            image_resolution=self.image_resolution,
            channels=self.channels,
            blocks=self.blocks,
        )


def losses(prediction: Prediction, frames: Tensor, elevation: Tensor) -> dict[str, Tensor]:
    """Each term's mean: depth, normal and colour (L1 over the hits), hit and elevation.

    frames (B, L, 8, S, S) as in `data.to_frames`, elevation (B,).
    """
    got = prediction.frames
    hit = frames[:, :, 7] > 0
    count = hit.sum().clamp(min=1)

    def over_hits(first: int, last: int) -> Tensor:
        error = (got[:, :, first:last] - frames[:, :, first:last]).abs().mean(dim=2)
        return (error * hit).sum() / count

    return {
        "depth": over_hits(0, 1),
        "normal": over_hits(1, 4),
        "color": over_hits(4, 7),
        "hit": functional.binary_cross_entropy_with_logits(got[:, :, 7], hit.float()),
        "elevation": (prediction.elevation - elevation).abs().mean(),
    }


class Trainer:
    """A model, its average, its optimisers and where they are; `save` and `resume` keep all.

    The model's kernels learn by Muon (Jordan et al. 2024: momentum, orthogonalised), which here
    needs a fraction of the samples that AdamW does; all else by AdamW. Forward and backward run on
    a copy in bfloat16.
    """

    def __init__(self, config: TrainingConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        # Small activations turn into denormals, which CPUs compute ten times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
        if config.start_from:
            self.model, _ = load_weights(Path(config.start_from), device)
        else:
            self.model = config.model().to(self.device)
        self.model.train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.half = copy.deepcopy(self.model)
        for parameter in self.half.parameters():
            parameter.data = parameter.data.bfloat16()
        kernels = [
            module.weight for module in self.model.modules() if isinstance(module, Convolution)
        ]
        known = {id(kernel) for kernel in kernels}
        self.others = [p for p in self.model.parameters() if id(p) not in known]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                kernels,
                config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                self.others,
                config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.98),
                fused=True,
            ),
        ]
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        config = self.config
        warm = min(1.0, (self.samples + config.batch) / config.warmup_samples)
        done = min(1.0, self.samples / config.samples)
        return config.learning_rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        config = self.config
        image = image_to_input(batch["image"].to(self.device))
        frames = batch["frames"].to(self.device)
        elevation = batch["elevation"].to(self.device)
        noised, share = self._noised(frames)
        with torch.no_grad():
            torch._foreach_copy_(list(self.half.parameters()), list(self.model.parameters()))
        prediction = self.half(image, noised, share)
        terms = losses(prediction, frames, elevation)
        total = sum(getattr(config, f"{name}_weight") * term for name, term in terms.items())
        assert isinstance(total, Tensor)
        total.backward()
        for parameter, half in zip(self.model.parameters(), self.half.parameters(), strict=True):
            parameter.grad = None if half.grad is None else half.grad.float()
            half.grad = None
        # Muon's steps have a size of their own, whatever the gradient's.
        norm = torch.nn.utils.clip_grad_norm_(self.others, config.gradient_norm)
        if torch.isfinite(norm) and torch.isfinite(total):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate()
                optimizer.step()
        self.samples += len(image)
        self.steps += 1
        if self.steps % AVERAGE_STEPS == 0:
            self._update_average()
        return {name: float(term.detach()) for name, term in terms.items()} | {
            "loss": float(total.detach())
        }

    def _noised(self, frames: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Frames to denoise and their share of signal (B,).

        Time 0 with empty frames is the one-pass predictor; None where all are.
        """
        config = self.config
        if not config.denoise_share:
            return None, None
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.samples)
        denoised = torch.rand(len(frames), generator=generator) < config.denoise_share
        share = (torch.rand(len(frames), generator=generator) * denoised).to(self.device)
        noise = torch.randn(frames.shape, generator=generator).to(self.device)
        spread = share[:, None, None, None, None]
        kept = denoised.to(self.device)[:, None, None, None, None]
        return (spread * frames + (1 - spread) * noise) * kept, share

    def _update_average(self) -> None:
        # A short memory at first, so that the average does not remember the random start.
        keep = min(self.config.ema, self.steps / (self.steps + 10)) ** AVERAGE_STEPS
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.model.parameters()), 1 - keep
            )

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each whole or not at all."""
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "samples": self.samples,
            "seconds": self.seconds,
        }
        with replacing(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        done = {"trained_samples": self.samples, "trained_seconds": round(self.seconds)}
        save_weights(folder / "model.safetensors", self.average, asdict(self.config) | done)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises XRayError `bad_checkpoint`."""
        path = folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise XRayError(
                "bad_checkpoint",
                f"{path} cannot be resumed ({error}).",
                "Train without --resume, or give the configuration it was trained with.",
            ) from error
        self.steps, self.samples = state["steps"], state["samples"]
        self.seconds = state["seconds"]


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
    dataset = CastDataset(
        list_meshes(data, split=config.split, exclude=config.exclude),
        seed=config.seed,
        layers=config.layers,
        resolution=config.resolution,
        image_resolution=config.image_resolution,
        first_sample=trainer.samples,
    )
    loader = DataLoader(
        dataset,
        batch_size=config.batch,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    run(
        trainer,
        loader,
        out,
        samples=config.samples,
        minutes=minutes,
        log_steps=LOG_STEPS,
        progress=progress,
    )
    return trainer
