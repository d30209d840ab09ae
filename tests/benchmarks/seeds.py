"""How much seeds change what is hidden, and whether they do so where the image leaves it open.

Run by hand in the runtime's environment, with the meshes in XRAY_ASSETS:

    OMP_NUM_THREADS=1 python tests/benchmarks/seeds.py VARIATION

Every fourth scan from one side, with the seeds 0 to 3. Depths are in units of the frame.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from scans import scans  # makes the runtime importable
from scipy.stats import spearmanr

from runtime.evaluation.protocols import interval
from runtime.xray.generator import STEPS
from runtime.xray.networks.base import image_to_input
from runtime.xray.sampling import sample
from runtime.xray.weights import DEFAULT_WEIGHTS, load_weights

SEEDS = 4


def main() -> int:
    """Print the means over the scans."""
    torch.set_flush_denormal(True)
    start = 1 - float(sys.argv[1])
    model, _ = load_weights(DEFAULT_WEIGHTS, "cpu")
    rows = []
    for batch in scans(1, every=4):
        image, truth = image_to_input(batch["image"]), batch["frames"][0, 1:]
        hit = truth[:, 7] > 0
        if not hit.any():
            continue
        frames = torch.stack(
            [
                sample(
                    model, image, STEPS, torch.Generator().manual_seed(seed), start=start
                ).frames[0, 1:]
                for seed in range(SEEDS)
            ]
        )
        error = (frames[:, :, 0] - truth[:, 0]).abs()[:, hit].mean(dim=1)
        spread = frames[:, :, 0].std(dim=0)[hit].mean()
        changed = (frames[:, :, 7] > 0).float().var(dim=0, unbiased=True).mul(2).sum() / hit.sum()
        rows.append([float(v) for v in (error.mean(), error.min(), spread, changed)])
    values = np.array(rows)
    names = ("error of a seed", "error of the best of 4", "spread of the seeds", "hits that differ")
    for name, column in zip(names, values.T, strict=True):
        low, high = interval(list(column), seed=0)
        print(f"{name}: {column.mean():.4f} ({low:.4f} to {high:.4f})")
    correlation = spearmanr(values[:, 0], values[:, 2])
    print(f"rank correlation of error and spread: {correlation.statistic:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
