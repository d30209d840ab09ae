"""What the upsampler adds to interpolation: true layers known at 64 x 64, made 256 x 256.

Run by hand in the runtime's environment, with the meshes in XRAY_ASSETS:

    OMP_NUM_THREADS=1 python tests/benchmarks/upsampler.py WEIGHTS

Every scan from one side. Errors over the true hits, in units of the frames; hits as cross-entropy
and as the share that differs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scans import scans  # makes the runtime importable

from runtime.evaluation.protocols import interval
from runtime.xray.networks.base import image_to_input
from runtime.xray.networks.upsampler import coarse_guess
from runtime.xray.sampling import both_ways
from runtime.xray.training import losses
from runtime.xray.weights import load_weights

MEASURES = ("depth", "normal", "color", "hit")


@torch.no_grad()
def main() -> int:
    """Print a table."""
    torch.set_flush_denormal(True)
    model, _ = load_weights(Path(sys.argv[1]), "cpu")
    size, times = model.config.resolution, model.config.fold
    rows = []
    for item in scans(1, resolution=size, image_resolution=size):
        coarse = coarse_guess(item["frames"], times, torch.Generator().manual_seed(0))
        finer = both_ways(model, image_to_input(item["image"]), coarse)
        hit = item["frames"][:, :, 7] > 0
        both = []
        for frames in (coarse, finer.frames):
            terms = losses(replace(finer, frames=frames), item["frames"], item["elevation"])
            wrong = ((frames[:, :, 7] > 0) != hit).sum() / hit.sum()
            both.append([*(float(terms[name]) for name in MEASURES), float(wrong)])
        rows.append(both)
    before, after = np.array(rows).swapaxes(0, 1)
    print("| | interpolated | with the network | difference |\n|---|---|---|---|")
    for number, name in enumerate((*MEASURES, "hits that differ")):
        low, high = interval(list((after - before)[:, number]), seed=0)
        print(
            f"| {name} | {before[:, number].mean():.4f} | {after[:, number].mean():.4f} "
            f"| {low:+.4f} to {high:+.4f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
