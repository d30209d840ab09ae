"""What each of `variety.VARIETIES` brings: errors of the layers on scans, clean and as photos.

Run by hand in the runtime's environment, with the meshes in XRAY_ASSETS:

    OMP_NUM_THREADS=1 python tests/benchmarks/variety.py none=WEIGHTS colors=WEIGHTS ...

Every scan is seen from three sides, each with two lights: by the cameras that all weights have
trained with, and as `cameras` and `photos` do. Everything else is measured beside the first
weights, on the same pictures: the difference of the objects' means, with its 95 % interval.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scans import scans  # makes the runtime importable

from runtime.evaluation.protocols import interval
from runtime.xray.networks.base import Network, image_to_input
from runtime.xray.weights import load_weights

PICTURES = {"clean pictures": (), "as photos": ("cameras", "photos")}
SAMPLES = 6
MEASURES = ("depth of the first layer", "depth of the others", "hits that differ")


@torch.no_grad()
def errors(model: Network, batch: dict[str, torch.Tensor]) -> list[float]:
    """`MEASURES` of one pass: L1 in units of the frame's depth, and the share of hits."""
    got, truth = model(image_to_input(batch["image"])).frames, batch["frames"]
    hit = truth[:, :, 7] > 0
    off = (got[:, :, 0] - truth[:, :, 0]).abs()
    first, others = hit[:, :1], hit[:, 1:]
    wrong = (got[:, :, 7] > 0) != hit
    return [
        float(off[:, :1][first].mean()),
        float(off[:, 1:][others].mean()) if others.any() else 0.0,
        float(wrong.sum() / hit.sum()),
    ]


def main() -> int:
    """Print a table for each kind of picture."""
    torch.set_flush_denormal(True)
    models = {
        name: load_weights(Path(path), "cpu")[0]
        for name, path in (argument.split("=", 1) for argument in sys.argv[1:])
    }
    for kind, variety in PICTURES.items():
        rows: dict[str, list[list[float]]] = {name: [] for name in models}
        for batch in scans(SAMPLES, variety=variety):
            for name, model in models.items():
                rows[name].append(errors(model, batch))
        found = {name: np.array(values) for name, values in rows.items()}
        print(f"\n| {kind} | {' | '.join(MEASURES)} |\n|---|{'---|' * len(MEASURES)}")
        first = next(iter(found.values()))
        for name, values in found.items():
            print(f"| {name} | {' | '.join(cells(values, first))} |")
    return 0


def cells(values: NDArray[np.float64], first: NDArray[np.float64]) -> Iterator[str]:
    """Means over the objects (N, measures), and how they differ from the `first` weights'."""
    for mean, difference in zip(values.mean(axis=0), (values - first).T, strict=True):
        if not difference.any():
            yield f"{mean:.4f}"
            continue
        low, high = interval(list(difference), seed=0)
        yield f"{mean:.4f}, {difference.mean():+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    sys.exit(main())
