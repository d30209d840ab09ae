"""What all trainers share: the step, the learning rate, checkpoints and their errors.

A model's trainer gives its parameters, its dataset and its losses; `run.train` runs it.
"""

from __future__ import annotations

import errno
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from ..torch_helpers.tensors import read_tensors
from . import parallel
from .configs import RunConfig
from .numbered import Numbered

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
CHECKPOINT_SECONDS = 120

Config = TypeVar("Config", bound=RunConfig)


class Trainer(ABC, Generic[Config]):
    """A model, its optimisers and where they are; `save` and `resume` keep all.

    A subclass makes `model` and `optimizers`. Its losses count by the settings `<name>_weight` of
    the configuration, 1 where there is none.

    log_steps : between two lines of metrics. several_processes : whether it can train on several
    (see `parallel`).
    """

    log_steps = 50
    several_processes = False

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def __init__(self, config: Config, device: str) -> None:
        torch.manual_seed(config.seed)
        # Small activations turn into denormals, which CPUs compute ten times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0
        self.warm_starts = 0

    # What a model gives

    @abstractmethod
    def dataset(self, data: Path) -> Numbered:
        """What is learned from in `data` from here on; raises XRayError `no_data`."""

    @abstractmethod
    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, by name, without their weights; `batch` is on the device."""

    def parts(self) -> dict[str, Any]:
        """What has a `state_dict`, or a list of such, by its name in the checkpoint."""
        return {"model": self.model, "optimizers": self.optimizers}

    def counters(self) -> tuple[str, ...]:
        """The attributes that count how far the run is."""
        return ("steps", "samples", "seconds", "warm_starts")

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write what the model is used with, and with it the `record`."""

    def load_weights(self, folder: Path) -> dict[str, Any]:
        """Take the weights that `save_weights` left in `folder`; returns their record."""
        path = folder / WEIGHTS
        self.model.load_state_dict(read_tensors(path))
        with safe_open(path, framework="pt") as archive:
            record: dict[str, Any] = json.loads(archive.metadata()["training"])
        return record

    def finish(self, folder: Path) -> None:
        """Write what only a run that has ended leaves."""

    # The run

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / self.config.length())

    def learning_rate(self) -> float:
        """That of the next step: a linear warm-up, then a cosine."""
        config, done = self.config, self.done()
        begin = config.batch / config.length()  # the first step moves too
        warm = min(1.0, (done + begin) / config.warmup) if config.warmup else 1.0
        fall = (1 + math.cos(math.pi * done)) / 2
        return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * fall)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss and, as "loss", their weighted sum."""
        count = len(next(iter(batch.values())))
        terms = self.losses({name: tensor.to(self.device) for name, tensor in batch.items()})
        total = self.total(terms)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        total.backward()
        self.move(total, self.model.parameters())
        self.count(count)
        return term_values(terms, total)

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms."""
        weighted = [getattr(self.config, f"{n}_weight", 1.0) * term for n, term in terms.items()]
        return torch.stack(weighted).sum()

    def move(self, loss: Tensor, limited: Iterable[nn.Parameter]) -> None:
        """A step of each optimiser by the gradients that are there; none where they are not finite.

        limited : the parameters whose gradients `gradient_norm` is for.
        """
        norm = nn.utils.clip_grad_norm_(limited, self.config.gradient_norm or math.inf)
        if torch.isfinite(norm) and torch.isfinite(loss):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate()
                optimizer.step()

    def count(self, samples: int) -> None:
        """A step is done, by so many samples of each process."""
        self.samples += samples * parallel.processes()
        self.steps += 1

    # Checkpoints

    @classmethod
    def has_run(cls, folder: Path) -> bool:
        """Whether `folder` holds a run that `resume` could go on with."""
        return (folder / CHECKPOINT).exists()

    def is_due(self, seconds: float) -> bool:
        """Whether to save now, so many seconds after the last time."""
        return seconds >= CHECKPOINT_SECONDS

    def record(self) -> dict[str, Any]:
        """How the weights were made, as plain data."""
        return asdict(self.config) | {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
            "warm_starts": self.warm_starts,
        }

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each whole or not at all; raises XRayError `no_space`."""
        state = {"config": asdict(self.config)}
        state |= {name: _state(part) for name, part in self.parts().items()}
        state |= {name: getattr(self, name) for name in self.counters()}
        with full_disk_told(folder):
            with replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
                torch.save(state, stream)
            self.save_weights(folder)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`, or where only weights are from these.

        From weights it goes on at the same place of the schedule and the data, but the optimisers
        begin anew; the record counts these `warm_starts`. Raises XRayError `bad_checkpoint`.
        """
        path = folder / CHECKPOINT
        if not path.exists() and (folder / WEIGHTS).exists():
            self.start_warm(folder)
            return
        with resuming(path):
            state = torch.load(path, map_location=self.device, weights_only=True)
            for name, part in self.parts().items():
                _restore(part, state[name])
            for name in self.counters():
                setattr(self, name, state[name])

    def start_warm(self, folder: Path) -> dict[str, Any]:
        """Go on from the weights in `folder`; returns their record."""
        with resuming(folder / WEIGHTS):
            record = self.load_weights(folder)
            self.samples = record["trained_samples"]
            self.seconds = record["trained_seconds"]
        self.steps = self.samples // self.config.batch
        self.warm_starts = record.get("warm_starts", 0) + 1
        return record


def term_values(terms: Mapping[str, Tensor], total: Tensor) -> dict[str, float]:
    """The terms of the loss and "loss" as numbers."""
    return {name: float(term.detach()) for name, term in (*terms.items(), ("loss", total))}


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Within it, what fails is told as XRayError `bad_checkpoint` of the file `path`."""
    try:
        yield
    except (
        *(OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError),
        *(UnpicklingError, SafetensorError),
    ) as error:
        raise XRayError(
            "bad_checkpoint",
            f"{path} cannot be resumed ({error}).",
            "Train without --resume, or give the configuration it was trained with.",
        ) from error


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Within it, a full disk is told as XRayError `no_space`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise XRayError(
            "no_space",
            f"The disk of {folder} is full; what was saved there before is unharmed.",
            "Free some space and go on with --resume.",
        ) from error


def _is_full(error: BaseException) -> bool:
    # Torch's writer hides the disk's error behind one of its own; safetensors says it in words.
    if any(getattr(e, "errno", None) == errno.ENOSPC for e in (error, error.__context__)):
        return True
    return any(words in str(error) for words in ("No space left", "PytorchStreamWriter failed"))


def _state(part: Any) -> Any:
    return [one.state_dict() for one in part] if isinstance(part, list) else part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if not isinstance(part, list):
        part.load_state_dict(state)
        return
    for one, kept in zip(part, state, strict=True):
        one.load_state_dict(kept)
