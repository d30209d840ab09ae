"""How fast TripoSR's meshes are made, beside the published procedure, on the same field.

Run by hand in the runtime's environment:

    OMP_NUM_THREADS=1 python tests/benchmarks/triposr.py                   # the mesh, on the CPU
    python tests/benchmarks/triposr.py --device cuda --network             # all of it, on a GPU
    python tests/benchmarks/triposr.py --checkpoint DIR --image FILE       # with trained weights

`published` queries all points of the grid in chunks of 8192 and marches through all cells; `ours`
is what the generator does. Without a checkpoint, the field is one of the published size (three
planes of 40 x 64 x 64, ten linear layers) fitted to a chair of thin legs, rods and plates: random
weights have no surface. Times are wall clock, and the process's CPU time, which on a shared
machine is the one to compare. `--network` times image to scene code at the published size with
random weights: eager attention as published, ours in float32, ours in bfloat16.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.meshes.extraction import march, sample_surface, strides_for  # noqa: E402
from runtime.triposr import field  # noqa: E402
from runtime.triposr.config import TripoSRConfig  # noqa: E402
from runtime.triposr.extraction import GridField, density_level  # noqa: E402
from runtime.triposr.generator import TripoSRGenerator  # noqa: E402
from runtime.triposr.model import FieldPerceptron, TripoSR  # noqa: E402

PUBLISHED_CHUNK = 8192
THRESHOLD = 25.0
TOLERANCE = 1e-3


@dataclass
class Timed:
    """What `work` gave, and what it took: s, s of CPU, bytes of GPU memory at most."""

    result: Any
    wall: float
    cpu: float
    memory: int

    @classmethod
    def of(cls, work: Callable[[], Any], device: torch.device, repeat: int) -> Timed:
        """The fastest of `repeat` runs."""
        best = None
        for _ in range(repeat):
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            wall, cpu = time.perf_counter(), time.process_time()
            result = work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            if best is None or wall < best.wall:
                best = cls(result, wall, cpu, memory)
        assert best is not None
        return best

    def row(self, name: str) -> str:
        memory = f"{self.memory / 2**20:8.0f} MB" if self.memory else ""
        return f"{name:28}{self.wall:10.3f} s{self.cpu:10.3f} s CPU {memory}"


def chair(points: Tensor) -> Tensor:
    """Signed distance (N,) to a chair, negative inside."""
    x, y, z = points.unbind(-1)

    def box(cx: float, cy: float, cz: float, hx: float, hy: float, hz: float) -> Tensor:
        q = torch.stack([(x - cx).abs() - hx, (y - cy).abs() - hy, (z - cz).abs() - hz], dim=-1)
        return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0)

    parts = [box(0, 0, 0, 0.35, 0.35, 0.02), box(-0.33, 0, 0.35, 0.015, 0.35, 0.35)]
    parts += [
        torch.maximum(torch.hypot(x - a, y - b) - 0.02, (z + 0.3).abs() - 0.3)
        for a in (-0.3, 0.3)
        for b in (-0.3, 0.3)
    ]
    parts.append(torch.stack([x, y, z - 0.2], dim=-1).norm(dim=-1) - 0.15)
    parts.append(torch.hypot(torch.hypot(x - 0.1, y) - 0.25, z - 0.45) - 0.015)
    return torch.stack(parts).amin(dim=0)


def fitted(config: TripoSRConfig, device: torch.device, steps: int) -> tuple[Tensor, Any]:
    """A scene code and a perceptron whose density is that of the chair."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    size = 2 * config.plane_size
    planes = (0.3 * torch.randn(3, config.plane_channels, size, size, device=device)).detach()
    planes.requires_grad_()
    decoder = FieldPerceptron(config).to(device)
    optimizer = torch.optim.Adam(
        [{"params": [planes], "lr": 3e-2}, {"params": decoder.parameters(), "lr": 3e-3}]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-2, 3e-3], total_steps=steps)
    pool = (torch.rand(400_000, 3, device=device) * 2 - 1) * config.radius
    near = pool[chair(pool).abs() < 0.04]
    for _ in range(steps):
        even = pool[torch.randint(len(pool), (3000,), device=device)]
        close = near[torch.randint(len(near), (3000,), device=device)]
        points = torch.cat([even, close + 0.004 * torch.randn_like(close)])
        level = density_level(THRESHOLD, config.density_bias)
        wanted = (level - chair(points) / 0.02 * 6).clamp(-6, 8)
        raw = field.query(planes, decoder, points, config.radius)[:, 0]
        optimizer.zero_grad()
        (raw - wanted).square().mean().backward()
        optimizer.step()
        schedule.step()
    return planes.detach(), decoder.requires_grad_(False)


def published_mesh(
    planes: Tensor, decoder: Any, config: TripoSRConfig, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """All points of the grid in chunks, all cells."""
    axis = torch.linspace(-config.radius, config.radius, resolution, device=planes.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    parts = [
        field.density(
            field.query(planes, decoder, part, config.radius)[:, 0], config.density_bias
        ).log()
        for part in points.split(PUBLISHED_CHUNK)
    ]
    values = torch.cat(parts).view(3 * (resolution,)) - np.log(THRESHOLD)
    vertices, faces, _, _ = marching_cubes(values.cpu().numpy(), 0.0, gradient_direction="ascent")
    return vertices / (resolution - 1) * (2 * config.radius) - config.radius, faces


def our_mesh(
    planes: Tensor, decoder: Any, config: TripoSRConfig, resolution: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """As `TripoSRGenerator.surface` does it, without colours; and how many points it took."""
    chunks = TripoSRGenerator(None, str(planes.device)).chunks  # type: ignore[arg-type]
    grid = GridField(planes, decoder, resolution, chunks)
    level = density_level(THRESHOLD, config.density_bias)
    steps = strides_for(resolution, planes.shape[-1])
    sparse = sample_surface(grid, resolution, level, planes.device, strides=steps)
    return *march(sparse, config.radius), sparse.evaluated


@torch.inference_mode()
def compare_meshes(arguments: argparse.Namespace, device: torch.device) -> bool:
    """Both ways to a mesh; whether ours is the same and fast enough."""
    config = TripoSRConfig()
    if arguments.checkpoint:
        generator = TripoSRGenerator.load(arguments.checkpoint, arguments.device)
        config, decoder = generator.model.config, generator.model.decoder
        planes = generator.encode(arguments.image)
    else:
        with torch.inference_mode(False):
            planes, decoder = fitted(config, device, arguments.fit)
    resolution = arguments.resolution
    ours = Timed.of(lambda: our_mesh(planes, decoder, config, resolution), device, arguments.repeat)
    theirs = Timed.of(
        lambda: published_mesh(planes, decoder, config, resolution),
        device,
        arguments.repeat if device.type == "cuda" else 1,
    )
    vertices, faces, evaluated = ours.result
    wanted, wanted_faces = theirs.result
    far = max(
        float(cKDTree(wanted).query(vertices)[0].max()),
        float(cKDTree(vertices).query(wanted)[0].max()),
    )
    print(f"{resolution}^3, {torch.get_num_threads()} threads, {device}")
    print(theirs.row("published mesh"))
    print(ours.row("ours"))
    print(
        f"times as fast: {theirs.wall / ours.wall:.1f} wall, {theirs.cpu / ours.cpu:.1f} CPU; "
        f"points evaluated: {evaluated / resolution**3:.1%}"
    )
    print(
        f"vertices {len(wanted)} and {len(vertices)}, faces {len(wanted_faces)} and {len(faces)}, "
        f"farthest vertex {far:.2e} of the box's half side {config.radius}"
    )
    fast = max(theirs.wall / ours.wall, theirs.cpu / ours.cpu)
    return far < TOLERANCE and len(wanted_faces) == len(faces) and fast >= 5


def eager_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as the published code computes it, all weights in memory."""
    weights = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return weights.softmax(dim=-1) @ value


@torch.inference_mode()
def compare_networks(arguments: argparse.Namespace, device: torch.device) -> None:
    """Image to scene code, three ways."""
    torch.manual_seed(0)
    model = TripoSR(TripoSRConfig()).to(device).eval()
    image = torch.rand(1, 3, 512, 512, device=device)
    fused = functional.scaled_dot_product_attention

    def eager() -> Tensor:
        functional.scaled_dot_product_attention = eager_attention
        try:
            return model(image)
        finally:
            functional.scaled_dot_product_attention = fused

    def half() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model(image).float()

    for _ in range(2 if device.type == "cuda" else 0):
        model(image)
    first = Timed.of(eager, device, arguments.repeat)
    print(first.row("network, eager attention"))
    for name, work in (("ours, float32", lambda: model(image)), ("ours, bfloat16", half)):
        timed = Timed.of(work, device, arguments.repeat)
        error = (timed.result - first.result).abs().max() / first.result.abs().max()
        print(f"{timed.row(name)}  {first.wall / timed.wall:.2f} times, off by {error:.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fit", type=int, default=300, help="steps of fitting the chair")
    parser.add_argument("--network", action="store_true", help="also time image to scene code")
    parser.add_argument("--checkpoint", help="trained weights instead of the fitted chair")
    parser.add_argument("--image", help="what they are given")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    good = compare_meshes(arguments, device)
    if arguments.network:
        compare_networks(arguments, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:.0f} MB; {'passed' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
