"""Training of a `Network` on meshes that are cast on the fly, or on a dataset on disk.

python -m runtime train --config FILE --data DIR --out DIR [--minutes N] [--resume]

DIR holds the meshes, or is a dataset in the published layout, a folder of tars, a tar or a
metadata.jsonl; --out gets `checkpoint.pt` (everything a resumed run needs),
`model.safetensors` (the averaged weights, rounded, what the generator loads) and
the metrics (see `runs`). Several processes can train together, see `parallel`.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..meshes.collection import list_meshes
from ..training import parallel
from ..training.configs import read_config
from ..training.datasets import XRayDataset
from ..training.run import CHECKPOINT, refuse_another, run
from .batches import BatchDataset
from .data import CastDataset, Pairs
from .networks import make_network
from .networks.base import Network, NetworkConfig, Prediction, image_to_input
from .networks.upsampler import coarse_guess
from .sampling import noised
from .stored import StoredDataset, stored_places
from .variety import VARIETIES
from .weights import load_weights, save_weights

LOG_STEPS = 50
WEIGHTS = "model.safetensors"
AVERAGE_STEPS = 4  # between two updates of the averaged weights


@dataclass
class TrainingConfig:
    """One file a model: how it is built and trained.

    network to ordered : see `NetworkConfig`.
    batch : samples a step; they come in pairs, so an even number.
    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    compute_minutes : where above 0, both are counted in these minutes instead, which the steps
        themselves take: CPU time on a CPU, so that runs on a busy machine can be compared.
    warmup : share of the run in which the learning rate rises.
    denoise_share : part of each batch that learns to denoise the hidden layers, which sampling
        needs; the rest learns to predict in one pass.
    fill_weight : of the depth where a layer has no hit, which is then that of the layer before
        it; for an `ordered` network, whose gaps are to close there.
    cast : where meshes are cast: "workers", in the loader's, or "device", where the model trains,
        a batch at a time; the samples are the same. On a device there is no variety.
    variety : which of `variety.VARIETIES` the samples have.
    start_from : weights (safetensors) to begin with instead of random ones; "" for none.
    """

    seed: int = 0
    network: str = "stacked"
    layers: int = 8
    resolution: int = 64
    image_resolution: int = 128
    channels: tuple[int, ...] = (96, 224, 288)
    blocks: tuple[int, ...] = (2, 2, 3)
    fold: int = 2
    frame_features: int = 32
    ordered: bool = False
    batch: int = 32
    samples: int = 146_000
    compute_minutes: float = 0.0
    warmup: float = 0.04
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
    fill_weight: float = 0.0
    workers: int = 1
    split: str = "train"
    exclude: tuple[str, ...] = ()
    cast: str = "workers"
    variety: tuple[str, ...] = ()
    start_from: str = ""

    def __post_init__(self) -> None:
        if self.batch < 2 or self.batch % 2:
            raise ValueError(f"batch must be an even number, got {self.batch}")
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}")
        unknown = set(self.variety) - set(VARIETIES)
        if unknown:
            raise ValueError(f"variety takes {VARIETIES}, got {sorted(unknown)}")
        if self.cast not in ("workers", "device"):
            raise ValueError(f"cast must be workers or device, got {self.cast!r}")
        if self.cast == "device" and self.variety:
            raise ValueError("cast on a device makes no variety: leave variety out")
        self.network_config()

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/xray/config.json")

    def network_config(self) -> NetworkConfig:
        """What the network is made of."""
        return NetworkConfig(
            network=self.network,
            layers=self.layers,
            resolution=self.resolution,
            image_resolution=self.image_resolution,
            channels=self.channels,
            blocks=self.blocks,
            fold=self.fold,
            frame_features=self.frame_features,
            ordered=self.ordered,
        )

    def model(self) -> Network:
        """A new model with random weights."""
        return make_network(self.network_config())


def losses(prediction: Prediction, frames: Tensor, elevation: Tensor) -> dict[str, Tensor]:
    """Each term's mean: depth, normal and colour (L1 over the hits), hit, elevation and fill.

    frames (B, L, 8, S, S) as in `data.to_frames`, elevation (B,). fill : the depth behind the
    last hit of a ray, which is to stay that of this hit.
    """
    got = prediction.frames
    hit = frames[:, :, 7] > 0
    count = hit.sum().clamp(min=1)

    def over_hits(first: int, last: int) -> Tensor:
        error = (got[:, :, first:last] - frames[:, :, first:last]).abs().mean(dim=2)
        return (error * hit).sum() / count

    filled = torch.where(hit, frames[:, :, 0], -1).cummax(dim=1).values
    behind = hit[:, :1] & ~hit
    beyond = ((got[:, :, 0] - filled).abs() * behind).sum() / behind.sum().clamp(min=1)
    return {
        "depth": over_hits(0, 1),
        "normal": over_hits(1, 4),
        "color": over_hits(4, 7),
        "hit": functional.binary_cross_entropy_with_logits(got[:, :, 7], hit.float()),
        "elevation": (prediction.elevation - elevation).abs().mean(),
        "fill": beyond,
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
        self.kernels = self.model.kernels()
        known = {id(kernel) for kernel in self.kernels}
        self.others = [p for p in self.model.parameters() if id(p) not in known]
        # Muon takes matrices: the same numbers, an output channel a row.
        self.matrices = [torch.nn.Parameter(k.detach().flatten(1)) for k in self.kernels]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                self.matrices,
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
        self.compute_seconds = 0.0
        self.warm_starts = 0

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        config = self.config
        if config.compute_minutes:
            return min(1.0, self.compute_seconds / (60 * config.compute_minutes))
        return min(1.0, self.samples / config.samples)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        config, done = self.config, self.done()
        begin = config.batch / config.samples  # the first step moves too
        warm = min(1.0, (done + begin) / config.warmup) if config.warmup else 1.0
        return config.learning_rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        config = self.config
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        began = clock()
        image = image_to_input(batch["image"].to(self.device))
        frames = batch["frames"].to(self.device)
        elevation = batch["elevation"].to(self.device)
        seen, share = self._seen(frames)
        with torch.no_grad():
            torch._foreach_copy_(list(self.half.parameters()), list(self.model.parameters()))
        prediction = self.half(image, seen, share)
        terms = losses(prediction, frames, elevation)
        total = sum(getattr(config, f"{name}_weight") * term for name, term in terms.items())
        assert isinstance(total, Tensor)
        total.backward()
        for parameter, half in zip(self.model.parameters(), self.half.parameters(), strict=True):
            parameter.grad = None if half.grad is None else half.grad.float()
            half.grad = None
        parallel.average([p.grad for p in self.model.parameters() if p.grad is not None])
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        # Muon's steps have a size of their own, whatever the gradient's.
        norm = torch.nn.utils.clip_grad_norm_(self.others, config.gradient_norm)
        if torch.isfinite(norm) and torch.isfinite(total):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate()
                optimizer.step()
        self.samples += len(image) * parallel.processes()
        self.steps += 1
        if self.steps % AVERAGE_STEPS == 0:
            self._update_average()
        told = {name: float(term.detach()) for name, term in terms.items()}
        told["loss"] = float(total.detach())
        self.compute_seconds += clock() - began
        return told

    def _seen(self, frames: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Frames that the network sees: those to denoise and their share of signal (B,).

        Time 0 with empty frames is the one-pass predictor; None where all are. An upsampler sees
        frames that were coarse.
        """
        config = self.config
        generator = torch.Generator().manual_seed(
            config.seed * 1_000_003 + self.samples + parallel.rank()
        )
        if config.network == "upsampler":
            return coarse_guess(frames, config.fold, generator), None
        if not config.denoise_share:
            return None, None
        denoised = torch.rand(len(frames), generator=generator) < config.denoise_share
        share = (torch.rand(len(frames), generator=generator) * denoised).to(self.device)
        noise = torch.randn(frames.shape, generator=generator).to(self.device)
        kept = denoised.to(self.device)[:, None, None, None, None]
        return noised(frames, noise, share) * kept, share

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
            "compute_seconds": self.compute_seconds,
            "warm_starts": self.warm_starts,
        }
        with replacing(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        done = {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
            "trained_compute_seconds": round(self.compute_seconds),
            "warm_starts": self.warm_starts,
        }
        save_weights(folder / WEIGHTS, self.average, asdict(self.config) | done)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`, or where only weights are from these.

        From weights it goes on at the same place of the schedule and the data, but the optimisers
        begin anew; the record counts these `warm_starts`. Raises XRayError `bad_checkpoint` and
        what `load_weights` raises.
        """
        path = folder / CHECKPOINT
        if not path.exists() and (folder / WEIGHTS).exists():
            self._start_warm(folder / WEIGHTS)
            return
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
        self.seconds, self.compute_seconds = state["seconds"], state["compute_seconds"]
        self.warm_starts = state["warm_starts"]

    def _start_warm(self, path: Path) -> None:
        model, record = load_weights(path, str(self.device))
        if model.config != self.model.config:
            raise XRayError(
                "bad_checkpoint",
                f"{path} holds another network.",
                "Give the configuration it was trained with.",
            )
        self.model.load_state_dict(model.state_dict())
        self.average.load_state_dict(model.state_dict())
        self.samples = record["trained_samples"]
        self.steps = self.samples // self.config.batch
        self.seconds = record["trained_seconds"]
        self.compute_seconds = record.get("trained_compute_seconds", 0)
        self.warm_starts = record.get("warm_starts", 0) + 1


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
    dataset = _dataset(config, data, trainer.samples, trainer.device)
    whole = isinstance(dataset, BatchDataset)
    run(
        trainer,
        dataset,
        out,
        batch=None if whole else config.batch,
        workers=0 if whole else config.workers,
        minutes=minutes,
        log_steps=LOG_STEPS,
        progress=progress,
    )
    return trainer


def _dataset(config: TrainingConfig, data: Path, samples: int, device: torch.device) -> Pairs:
    """What this process learns from in `data` once all have had so many `samples`."""
    shape: dict[str, int] = {
        "seed": config.seed,
        "layers": config.layers,
        "resolution": config.resolution,
        "image_resolution": config.image_resolution,
        "batch": config.batch,
        "first_batch": samples // config.batch + parallel.rank(),
        "batch_step": parallel.processes(),
    }
    if places := stored_places(data):
        return StoredDataset(XRayDataset(places), **shape)
    files = list_meshes(data, split=config.split, exclude=config.exclude)
    if config.cast == "device":
        return BatchDataset(files, device=device, **shape)
    return CastDataset(files, variety=config.variety, **shape)
