"""The base class of all trainers: steps, learning rate, checkpoints and their errors.

A model's trainer defines its parameters, its dataset and its losses; `run.train` runs it.
"""

from __future__ import annotations

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

from xray_addon.errors import XRayError, is_no_space
from xray_addon.files.atomic import replacing
from xray_addon.files.json_files import parse_json
from xray_addon.files.json_schema import plain, table_of

from ..torch_helpers.devices import flush_denormals
from ..torch_helpers.tensors import read_tensors
from . import parallel
from .configs import RunConfig
from .numbered import Numbered

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
CHECKPOINT_SECONDS = 120
# Settings that decide which samples come, so that a resumed run must not change them.
_SAMPLES = ("seed", "batch")

Config = TypeVar("Config", bound=RunConfig)


class Trainer(ABC, Generic[Config]):
    """A model, its optimisers and the state of the run, which `save` and `resume` store.

    A subclass creates `model` and `optimizers`. The weight of each loss is the configuration's
    setting `<name>_weight`, or 1.

    weights_files : the names that `save_weights` may give its file. Only a run whose weights are
    in `WEIGHTS` can be resumed from these alone.
    log_steps : steps between two lines of metrics. several_processes : whether it can train on
    several processes (see `parallel`).
    """

    weights_files: tuple[str, ...] = (WEIGHTS,)
    log_steps = 50
    several_processes = False

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def __init__(self, config: Config, device: str) -> None:
        torch.manual_seed(config.seed)
        flush_denormals()
        self.config = config
        self.device = torch.device(device)
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0
        self.warm_starts = 0

    # Defined by each model

    @abstractmethod
    def dataset(self, data: Path) -> Numbered:
        """The samples in `data` from the run's current position; raises XRayError `no_data`."""

    @abstractmethod
    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, by name, without their weights; `batch` is on the device."""

    def parts(self) -> dict[str, Any]:
        """The objects with a `state_dict`, or lists of them, by their name in the checkpoint."""
        return {"model": self.model, "optimizers": self.optimizers}

    def counters(self) -> tuple[str, ...]:
        """The names of the attributes that store the run's progress."""
        return ("steps", "samples", "seconds", "warm_starts")

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write the weights for using the model, together with the `record`."""

    def load_weights(self, folder: Path) -> dict[str, Any]:
        """Load the weights written by `save_weights` in `folder`; returns their record."""
        path = folder / WEIGHTS
        self.model.load_state_dict(read_tensors(path))
        with safe_open(path, framework="pt") as archive:
            record: dict[str, Any] = parse_json(archive.metadata()["training"], table_of(plain))
        return record

    def finish(self, folder: Path) -> None:
        """Write the files that are only made at the end of a run."""

    # The run

    def done(self) -> float:
        """The completed share of the run, 0 to 1."""
        return min(1.0, self.samples / self.config.length())

    def learning_rate(self) -> float:
        """The learning rate of the next step: a linear warm-up, then a cosine."""
        config, done = self.config, self.done()
        begin = config.batch / config.length()  # so that the first step is not 0
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
        """Step each optimiser with the current gradients; skipped if they are not finite.

        limited : the parameters to which `gradient_norm` applies.
        """
        norm = nn.utils.clip_grad_norm_(limited, self.config.gradient_norm or math.inf)
        if torch.isfinite(norm) and torch.isfinite(loss):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate()
                optimizer.step()

    def count(self, samples: int) -> None:
        """Count one step with `samples` samples per process."""
        self.samples += samples * parallel.processes()
        self.steps += 1

    # Checkpoints

    @classmethod
    def has_run(cls, folder: Path) -> bool:
        """Whether `folder` contains a run, or the weights of one, which must not be overwritten."""
        return any((folder / name).exists() for name in (CHECKPOINT, *cls.weights_files))

    def is_due(self, seconds: float) -> bool:
        """Whether to save now, `seconds` after the last time."""
        return seconds >= CHECKPOINT_SECONDS

    def record(self) -> dict[str, Any]:
        """How the weights were trained, as plain data."""
        return asdict(self.config) | {
            "trained_samples": self.samples,
            "trained_seconds": round(self.seconds),
            "warm_starts": self.warm_starts,
        }

    def save(self, folder: Path) -> None:
        """Write checkpoint and weights, each atomically; raises XRayError `no_space`."""
        state = {"config": asdict(self.config)}
        state |= {name: _state(part) for name, part in self.parts().items()}
        state |= {name: getattr(self, name) for name in self.counters()}
        with full_disk_told(folder):
            with replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
                torch.save(state, stream)
            self.save_weights(folder)

    def resume(self, folder: Path) -> None:
        """Continue from the checkpoint in `folder`, or from weights if there are only these.

        From weights it continues at the same point of the schedule and the data, but with new
        optimisers; the record counts these `warm_starts`. Raises XRayError `bad_checkpoint`, also
        if seed, batch or network differ from those of the run.
        """
        path = folder / CHECKPOINT
        if not path.exists() and (folder / WEIGHTS).exists():
            self.start_warm(folder)
            return
        if not path.exists() and self.has_run(folder):
            raise XRayError(
                "bad_checkpoint",
                f"{folder} holds weights without {CHECKPOINT}, which --resume needs for this "
                "model.",
                f"Put the run's {CHECKPOINT} beside them, or train in another folder.",
            )
        with resuming(path):
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.check_same(state["config"], path)
            for name, part in self.parts().items():
                _restore(part, state[name])
            for name in self.counters():
                setattr(self, name, state[name])

    def check_same(self, before: Mapping[str, Any], path: Path) -> None:
        """Raise XRayError `bad_checkpoint` if seed, batch or network differ from the run's.

        before : the run's configuration, which is in `path`. Settings that it lacks are ignored.
        """
        now = asdict(self.config)
        names = [name for name in (*_SAMPLES, *self.config.network_settings) if name in before]
        # Through JSON, which has no tuples.
        other = [n for n in names if json.dumps(before[n]) != json.dumps(now[n])]
        if other:
            told = ", ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in other)
            raise XRayError(
                "bad_checkpoint",
                f"{path} is of a run with another configuration: {told}.",
                "Resume it with the configuration that it was trained with, or train in another "
                "folder.",
            )

    def start_warm(self, folder: Path) -> dict[str, Any]:
        """Continue from the weights in `folder`; returns their record."""
        with resuming(folder / WEIGHTS):
            record = self.load_weights(folder)
            self.check_same(record, folder / WEIGHTS)
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
    """Convert exceptions to XRayError `bad_checkpoint` for the file `path`."""
    try:
        yield
    except (
        *(OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError),
        *(UnpicklingError, SafetensorError),
    ) as error:
        raise XRayError(
            "bad_checkpoint",
            f"{path} cannot be resumed ({error}).",
            "Train without --resume, or use the configuration that it was trained with.",
        ) from error


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Convert errors of a full disk to XRayError `no_space`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise XRayError(
            "no_space",
            f"The disk of {folder} is full. Earlier checkpoints there are intact.",
            "Free some space and continue with --resume.",
        ) from error


def _is_full(error: BaseException) -> bool:
    # Torch replaces the disk's error with its own; safetensors only mentions it in the message.
    if any(e is not None and is_no_space(e) for e in (error, error.__context__)):
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
