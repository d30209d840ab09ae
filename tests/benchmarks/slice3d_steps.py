"""What fewer steps of DDIM cost a small latent diffusion that was trained on DATA.

    python tests/benchmarks/slice3d_steps.py diffusion.safetensors DATA [--objects 8] [--seeds 3]

Each split's first objects are sampled from view 0 with several seeds. PSNR is that of a sample's
twelve slices against the true ones, averaged over seeds and objects. Spread is how far the seeds of
an object lie apart: the standard deviation of a pixel, of 255.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.slice3d.data import SliceData
from runtime.slice3d.diffusion import Schedule, SliceDiffusion
from runtime.slice3d.preparation import to_tensor
from runtime.slice3d.unet import to_grid
from runtime.slice3d.weights import load_diffusion

STEPS = (5, 10, 20, 50, 100, 200)


def psnr(found: Tensor, truth: Tensor) -> float:
    """dB, averaged over all but the last four dimensions, of pictures (..., 12, 3, S, S)."""
    error = ((found.clamp(-1, 1) - truth) / 2).square().mean((-4, -3, -2, -1))
    return float(-10 * torch.log10(error).mean())


def drawn(model: SliceDiffusion, images: Tensor, seeds: int, steps: int) -> tuple[Tensor, float]:
    """Slices (K, B, 12, 3, S, S) of images (B, 3, S, S) by K seeds, and seconds of CPU for one."""
    random = torch.Generator().manual_seed(0)
    repeated = images.repeat(seeds, 1, 1, 1)
    condition = model.condition(repeated)
    shape = model.grid_shape(len(repeated))
    began = time.process_time()
    grid = model.sample(
        condition, Schedule.of(steps), lambda _: torch.randn(shape, generator=random)
    )
    seconds = (time.process_time() - began) / len(repeated)
    return model.decode(grid).unflatten(0, (seeds, len(images))), seconds


def first_views(data: SliceData, objects: int | None = None) -> Tensor:
    """(B, 13, 3, S, S): image and slices of the first objects, or of all."""
    return torch.stack([to_tensor(data.pictures(uid, 0)) for uid in data.uids[:objects]])


def measure(model: SliceDiffusion, pictures: Tensor, mean: Tensor, seeds: int) -> None:
    """Print the table of pictures (B, 13, 3, S, S). mean (12, 3, S, S) : of trained slices."""
    images, truth = pictures[:, 0], pictures[:, 1:]
    coded = model.encode(truth.flatten(0, 1)).unflatten(0, truth.shape[:2])
    best = psnr(model.decode(to_grid(coded)), truth)
    print(f"\n{len(images)} objects, {seeds} seeds. The autoencoder alone has {best:.1f} dB, the")
    print(f"mean of the slices that were trained on {psnr(mean, truth):.1f} dB.\n")
    print("| steps | PSNR, dB | spread of seeds, of 255 | s of CPU |")
    print("|---|---|---|---|")
    for steps in STEPS:
        found, seconds = drawn(model, images, seeds, steps)
        spread = float(found.clamp(-1, 1).var(0).mean().sqrt()) * 127.5
        print(f"| {steps} | {psnr(found, truth):.1f} | {spread:.1f} | {seconds:.2f} |", flush=True)


@torch.inference_mode()
def main() -> None:
    """Print a table for objects of the split train and one for those of val."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = load_diffusion(options.weights)
    trained, held_out = (
        SliceData(options.data, split, size=model.config.image_size, background="white")
        for split in ("train", "val")
    )
    mean = first_views(trained)[:, 1:].mean(0)
    for data in (trained, held_out):
        measure(model, first_views(data, options.objects), mean, options.seeds)


if __name__ == "__main__":
    main()
