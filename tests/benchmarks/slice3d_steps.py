"""What fewer steps of DDIM cost Slice3D's sampling, apart from what a network adds.

    python tests/benchmarks/slice3d_steps.py DATA [--samples 64] [--detail 0.1]

The data are the slices of the first view of each object in DATA (`slice3d_data.py`), 16 px a side,
each blurred by normal noise of the spread `--detail` (the data's own is 1). Of such a mixture the
best denoiser is known, so the steps and the schedule are all that can be wrong. No network is
trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.slice3d.data import SliceData
from runtime.slice3d.diffusion import SliceDiffusion, alphas_cumulated
from runtime.slice3d.preparation import to_tensor
from runtime.slice3d.unet import DiffusionConfig

SIZE = 16
STEPS = (5, 10, 20, 50, 100, 200)
SMALLEST = DiffusionConfig(128, 32, (1, 1, 1, 1, 1), 2, (8, 8, 16, 16, 16), (32, 32, 32, 32))


class Mixture:
    """Examples (N, D) of spread 1, blurred by `detail`; its `denoise` takes a network's place."""

    def __init__(self, folder: Path, detail: float) -> None:
        data = SliceData(folder, "train", size=SIZE, background="white")
        examples = torch.stack([to_tensor(data.pictures(u, 0)[1:]).flatten() for u in data.uids])
        self.examples = (examples - examples.mean(0)) / examples.std()
        self.detail = detail
        self.alphas = alphas_cumulated().float()

    def denoise(self, noisy: Tensor, step: Tensor) -> Tensor:
        """The expected noise in (B, D) at `step`."""
        alpha = self.alphas[step[0]]
        spread = alpha * self.detail**2 + 1 - alpha
        shrunk = alpha.sqrt() * self.examples
        near = torch.softmax(-torch.cdist(noisy, shrunk).square() / (2 * spread), dim=1)
        return (1 - alpha).sqrt() / spread * (noisy - near @ shrunk)

    def nearest(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the nearest example, and the root mean square difference to it."""
        found = torch.cdist(samples, self.examples).min(dim=1)
        return found.indices, found.values / samples.shape[1] ** 0.5


def drawn(mixture: Mixture, count: int, steps: int, eta: float) -> Tensor:
    """`count` samples; the same noise for any number of steps to begin with."""
    model = SliceDiffusion(SMALLEST)
    model.unet.forward = mixture.denoise  # type: ignore[method-assign]
    random = torch.Generator().manual_seed(0)
    shape = (count, mixture.examples.shape[1])
    return model.sample(
        (),  # type: ignore[arg-type]
        steps,
        lambda _: torch.randn(shape, generator=random),
        eta=eta,
    )


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--detail", type=float, default=0.1)
    options = parser.parse_args()
    mixture = Mixture(options.data, options.detail)
    count = len(mixture.examples)
    even = count * (1 - (1 - 1 / count) ** options.samples)
    print(f"{count} examples, {options.samples} samples; drawn evenly they would hit {even:.0f}\n")
    print("| steps | examples hit | spread of detail | off 200 steps, without noise |")
    print("|---|---|---|---|")
    longest = drawn(mixture, options.samples, STEPS[-1], 0.0)
    for steps in STEPS:
        found, rest = mixture.nearest(drawn(mixture, options.samples, steps, 1.0))
        same = longest if steps == STEPS[-1] else drawn(mixture, options.samples, steps, 0.0)
        off = float((same - longest).square().mean().sqrt())
        detail = float(rest.mean()) / options.detail
        print(f"| {steps} | {len(found.unique())} | {detail:.2f} | {off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
