"""The real scans of the benchmarks, as training sees objects; the meshes are in XRAY_ASSETS."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.meshes.collection import list_meshes  # noqa: E402
from runtime.xray.data import CastDataset  # noqa: E402

ASSETS = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))


def scans(
    samples: int,
    *,
    resolution: int = 64,
    image_resolution: int = 128,
    every: int = 1,
) -> Iterator[dict[str, torch.Tensor]]:
    """A batch of `samples` pictures and frames of each scan, or of `every` how many-th."""
    for file in list_meshes(ASSETS / "bench")[::every]:
        source = CastDataset(
            [file],
            seed=1,
            layers=8,
            resolution=resolution,
            image_resolution=image_resolution,
            batch=2,
        )
        taken = list(itertools.islice(source, samples))
        yield {name: torch.stack([sample[name] for sample in taken]) for name in taken[0]}
