"""Runs a training: batches, checkpoints, metrics, progress.

Metrics are written to `metrics.jsonl`, one line each, and to `tensorboard/`, both by samples. Three
rates, in samples per second of all processes, show the bottleneck: `rate` of the whole run,
`model_rate` of the steps alone, and `data_rate` at which the loader's workers make samples.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from tensorboardX import SummaryWriter
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from xray_addon.errors import XRayError
from xray_addon.progress import Cancelled, Progress, ProgressCallback, ignore_progress

from . import parallel
from .configs import RunConfig
from .numbered import Numbered
from .trainer import Trainer

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
MAKING = "making_seconds"  # key of the time that it took to make a sample

Run = TypeVar("Run", bound=Trainer)


def train(
    kind: type[Run],
    config: RunConfig,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train until the run is done, for at most `minutes`, or until `progress` cancels.

    kind : the trainer's class. In any case, a checkpoint is written to `out`. Raises XRayError
    `bad_settings` if `out` contains a run and `resume` is not set, and those of the trainer.
    """
    if not resume and kind.has_run(out):
        raise XRayError(
            "bad_settings",
            f"{out} already contains a training run.",
            "Continue it with --resume, or choose another folder.",
        )
    trainer = kind(config, device)
    if resume:
        trainer.resume(out)
    dataset = trainer.dataset(data)
    out.mkdir(parents=True, exist_ok=True)
    run(trainer, dataset, out, minutes=minutes, progress=progress)
    trainer.finish(out)
    return trainer


class Timed(IterableDataset):
    """The samples of `dataset`, each with the seconds that it took to make."""

    def __init__(self, dataset: Numbered) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        began = time.perf_counter()
        for sample in self.dataset:
            yield sample | {MAKING: torch.tensor(time.perf_counter() - began)}
            began = time.perf_counter()


def run(
    trainer: Trainer,
    dataset: Numbered,
    out: Path,
    *,
    minutes: float | None,
    progress: ProgressCallback,
) -> None:
    """Train until the trainer is done, for at most `minutes`, or until `progress` cancels.

    In any case, a checkpoint is written to `out`. With several processes (see `parallel`), the
    first one writes and reports, and all end together.
    """
    whole = dataset.whole_batches
    workers = 0 if whole else trainer.config.workers
    loader = DataLoader(
        Timed(dataset),
        batch_size=None if whole else trainer.config.batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    first_process = parallel.rank() == 0
    writer = SummaryWriter(str(out / TENSORBOARD)) if first_process else None
    began = last_save = time.monotonic()
    before, first, first_done = trainer.seconds, trainer.samples, trainer.done()
    making = stepping = 0.0
    recent: list[dict[str, float]] = []
    over = parallel.any_of(first_done >= 1, trainer.device)
    try:
        for samples in () if over else loader:
            making += float(samples.pop(MAKING).sum())
            stepped = time.monotonic()
            recent.append(trainer.step(samples))
            now = time.monotonic()
            stepping += now - stepped
            trainer.seconds = before + now - began
            late = minutes is not None and now - began >= minutes * 60
            over = parallel.any_of(late or trainer.done() >= 1, trainer.device)
            if len(recent) == trainer.log_steps or over:
                if writer is not None:
                    seen = trainer.samples - first
                    rates = {
                        "rate": seen / (now - began),
                        "model_rate": seen / stepping,
                        "data_rate": seen * max(workers, 1) / making,
                    }
                    left = (now - began) * (1 - trainer.done()) / (trainer.done() - first_done)
                    _report(trainer, recent, rates, left, out, writer, progress)
                recent = []
            if over:
                break
            if first_process and trainer.is_due(now - last_save):
                trainer.save(out)
                last_save = now
    except (Cancelled, KeyboardInterrupt):
        log.info("cancelled after %d samples", trainer.samples)
        raise
    finally:
        if writer is not None:
            writer.close()
            trainer.save(out)


def _report(
    trainer: Trainer,
    recent: list[dict[str, float]],
    rates: dict[str, float],
    left: float,
    out: Path,
    writer: SummaryWriter,
    progress: ProgressCallback,
) -> None:
    """Write the mean of recent steps, and report progress. left : remaining seconds."""
    line: dict[str, Any] = {
        name: round(sum(terms[name] for terms in recent) / len(recent), 5) for name in recent[0]
    }
    terms = " ".join(f"{name} {value:.4f}" for name, value in line.items())
    line |= {name: round(rate, 1) for name, rate in rates.items()}
    line |= {
        "steps": trainer.steps,
        "samples": trainer.samples,
        "seconds": round(trainer.seconds),
        "learning_rate": trainer.learning_rate(),
    }
    with (out / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    for name in line.keys() - {"samples", "seconds"}:
        writer.add_scalar(name, line[name], trainer.samples)
    speed = "{rate:.1f} samples/s (model {model_rate:.1f}, data {data_rate:.1f})".format(**rates)
    text = f"{terms}, {speed}, {left / 60:.0f} min left"
    progress(Progress("train", trainer.samples, round(trainer.samples / trainer.done()), text))
