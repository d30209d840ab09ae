"""Train the geometry network, or the material network, on omages.

python -m runtime train --config runtime/omages/null2geo.json --data OMAGES --out DIR/geometry
python -m runtime train --config runtime/omages/geo2mat.json --data OMAGES --out DIR/material

OMAGES is a folder of `.npz` omages in folders called like categories, or the published
`df_p64_m02_res64.h5`. Losses and optimisers are the published ones. `--generator omages
--checkpoint DIR` finds the weights of both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..training.configs import read_config
from ..training.run import CHECKPOINT, refuse_another, run
from .data import SPLITS, OmageDataset, collection, split_numbers
from .objectives import GeometryObjective, MaterialObjective
from .sampling import Schedule
from .transformer import GeometryTransformer, TransformerConfig
from .unet import MaterialNetwork, UNetConfig
from .weights import GEOMETRY_FILE, MATERIAL_FILE, save_geometry, save_material

LOG_STEPS = 20
AVERAGE = 0.999  # how much of the running average stays at each step, of the material network


@dataclass
class TrainingConfig:
    """How a network is built and trained.

    part : "geometry" or "material". network : fields of `TransformerConfig` or `UNetConfig` that
    differ from the published ones. size : pixels along a side of the omages. samples : length of
    the run unless it is stopped. decay : share of the run, at its end, in which the learning rate
    falls to 0; it is constant as published. split : "train", "val" or "all", as published.
    """

    generator: str = "omages"
    part: str = "geometry"
    seed: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    batch: int = 4
    samples: int = 24_000_000
    warmup_samples: int = 0
    learning_rate: float = 1e-4
    decay: float = 0.0
    split: str = "all"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.part not in ("geometry", "material"):
            raise ValueError(f"part must be 'geometry' or 'material', got {self.part!r}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {self.split!r}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be 0 to 1, got {self.decay}")
        if min(self.batch, self.samples, self.size) < 1:
            raise ValueError("batch, samples and size must be 1 or more")
        self.network_config()

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/omages/null2geo.json")

    def network_config(self) -> TransformerConfig | UNetConfig:
        """What the network is made of."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in self.network.items()
        }
        if self.part == "geometry":
            return TransformerConfig(**values | {"size": self.size})
        return UNetConfig(**values)


class Trainer:
    """A network, its optimiser and where they are; `save` and `resume` keep all."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        # Small activations turn into denormals, which CPUs compute ten times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
        made = config.network_config()
        self.network: nn.Module
        if isinstance(made, TransformerConfig):
            self.network = GeometryTransformer(made)
            self.objective: Any = GeometryObjective(Schedule.geometry())
            trained: nn.Module = self.network
            kind: Any = partial(torch.optim.AdamW, weight_decay=0.0)
        else:
            self.network = MaterialNetwork(made)
            self.objective = MaterialObjective()
            # The labels' embedding stays as it began, as published.
            trained = self.network.unets
            kind = partial(torch.optim.Adam, betas=(0.9, 0.99))
        self.network.to(self.device).train()
        self.trained = [p for p in trained.parameters() if p.requires_grad]
        self.optimizer = kind(self.trained, config.learning_rate)
        self.average = [] if self.is_geometry else [p.detach().clone() for p in self.trained]
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0

    @property
    def is_geometry(self) -> bool:
        """Whether it is the geometry network."""
        return isinstance(self.network, GeometryTransformer)

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / self.config.samples)

    def learning_rate(self) -> float:
        """Linear warm-up, constant, then linear to 0."""
        config = self.config
        warm = min(1.0, (self.samples + config.batch) / max(config.warmup_samples, 1))
        left = min(1.0, (1 - self.done()) / max(config.decay, 1e-9))
        return config.learning_rate * warm * left

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        omage, label = batch["omage"].to(self.device), batch["label"].to(self.device)
        # Of the step alone, so that a resumed run draws what it would have drawn.
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.steps)
        clean = omage[:, :4] if self.is_geometry else omage
        # Published in float16, which would need its losses scaled.
        half = self.is_geometry and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            terms = self.objective.losses(self.network, clean, label, random)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.steps += 1
        self.samples += len(omage)
        if self.average:
            # In the beginning the average forgets faster, as the published one does.
            kept = min(AVERAGE, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.trained, 1 - kept)
        return {name: float(term.detach()) for name, term in terms.items()}

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each whole or not at all."""
        record = asdict(self.config) | {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
        }
        state = {
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "samples": self.samples,
            "seconds": self.seconds,
        }
        with replacing(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        if isinstance(self.network, GeometryTransformer):
            save_geometry(folder / GEOMETRY_FILE, self.network, self.steps, record)
        elif isinstance(self.network, MaterialNetwork):
            path = folder / MATERIAL_FILE
            save_material(path, self.network, self.steps, record, average=self.average)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises XRayError `bad_checkpoint`."""
        path = folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = state["average"]
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
    omages = collection(data)
    numbers = split_numbers(len(omages), config.split)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, device)
    if resume:
        trainer.resume(out)
    dataset = OmageDataset(omages, numbers, config.size, seed=config.seed, first=trainer.samples)
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
