"""Training on several processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from runtime.xray.training import Trainer, train

ROOT = Path(__file__).parents[2]


def torchrun(config, meshes: Path, out: Path, *options: str) -> None:
    out.mkdir(exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config)))
    command = (
        f"-m torch.distributed.run --nproc-per-node 2 --master-port 0 --standalone"
        f" -m runtime train --config {out / 'config.json'} --data {meshes} --out {out} --device cpu"
    )
    subprocess.run(
        [sys.executable, *command.split(), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )


def state(folder: Path):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(config, meshes, tmp_path):
    config = replace(config, samples=16)
    start = Trainer(config, "cpu").model.state_dict()
    train(replace(config, batch=8), meshes, tmp_path / "one")
    torchrun(config, meshes, tmp_path / "two")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert two["samples"] == one["samples"] == 16
    assert two["steps"] == one["steps"] == 2
    # Terms over hits are means over a process's own, so they agree but nearly. A process that
    # learned alone would be six times as far off.
    assert distance(two["model"], one["model"]) < 0.2 * distance(start, one["model"])
    # Metrics and weights are written once.
    files = {path.name for path in (tmp_path / "two").iterdir()}
    assert files >= {"checkpoint.pt", "model.safetensors", "tensorboard"}
    # It goes on where it was, on as many processes or on one.
    torchrun(replace(config, samples=24), meshes, tmp_path / "two", "--resume")
    assert state(tmp_path / "two")["samples"] == 24
    alone = train(replace(config, samples=28), meshes, tmp_path / "two", resume=True)
    assert alone.samples == 28
