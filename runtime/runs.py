"""A training run: batches until it has seen enough, checkpoints, metrics, progress.

Metrics go to `metrics.jsonl`, a line each, and to `tensorboard/`, both by samples.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from tensorboardX import SummaryWriter
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.progress import Cancelled, Progress, ProgressCallback

from . import parallel

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
CHECKPOINT_SECONDS = 120


class Trainer(Protocol):
    """What is trained; `step` counts `samples`, the run counts `seconds`."""

    device: torch.device
    samples: int
    seconds: float

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""

    def learning_rate(self) -> float:
        """That of the next step."""

    def save(self, folder: Path) -> None:
        """Write all that a resumed run needs."""


def refuse_another(out: Path) -> None:
    """Raise XRayError `bad_settings` where `out` holds a run already."""
    if (out / CHECKPOINT).exists():
        raise XRayError(
            "bad_settings",
            f"{out} holds a training run already.",
            "Go on with it by --resume, or choose another folder.",
        )


def run(
    trainer: Trainer,
    batches: Iterable[dict[str, Tensor]],
    out: Path,
    *,
    samples: int,
    minutes: float | None,
    log_steps: int,
    progress: ProgressCallback,
) -> None:
    """Train until `samples`, for `minutes` at most, or until `progress` cancels.

    However it ends, a checkpoint is left in `out`. log_steps : between two lines of metrics. Of
    several processes (see `parallel`) the first writes and reports, and all end together.
    """
    first_process = parallel.rank() == 0
    writer = SummaryWriter(str(out / TENSORBOARD)) if first_process else None
    began = last_save = time.monotonic()
    before, first = trainer.seconds, trainer.samples
    recent: list[dict[str, float]] = []
    try:
        for batch in batches:
            recent.append(trainer.step(batch))
            now = time.monotonic()
            trainer.seconds = before + now - began
            if len(recent) == log_steps:
                rate = (trainer.samples - first) / (now - began)
                if writer is not None:
                    _report(trainer, recent, rate, samples, out, writer, progress)
                recent = []
            late = minutes is not None and now - began >= minutes * 60
            if parallel.any_of(late or trainer.samples >= samples, trainer.device):
                break
            if first_process and now - last_save >= CHECKPOINT_SECONDS:
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
    rate: float,
    samples: int,
    out: Path,
    writer: SummaryWriter,
    progress: ProgressCallback,
) -> None:
    """Write the recent mean and tell how it goes."""
    line: dict[str, Any] = {
        name: round(sum(terms[name] for terms in recent) / len(recent), 5) for name in recent[0]
    }
    terms = " ".join(f"{name} {value:.4f}" for name, value in line.items())
    line |= {
        "samples": trainer.samples,
        "seconds": round(trainer.seconds),
        "rate": round(rate, 1),
        "learning_rate": trainer.learning_rate(),
    }
    with (out / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    for name in line.keys() - {"samples", "seconds"}:
        writer.add_scalar(name, line[name], trainer.samples)
    left = (samples - trainer.samples) / rate / 60
    text = f"{terms}, {rate:.1f} samples/s, {left:.0f} min left"
    progress(Progress("train", trainer.samples, samples, text))
