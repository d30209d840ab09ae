"""Data-parallel training: the same run on several processes, as torchrun starts them.

torchrun --nproc-per-node 8 -m runtime train --config FILE --data DIR --out DIR

Every process has the whole model and takes batches of its own; gradients are averaged, so all
take the same steps. The first one writes checkpoints and metrics. Without torchrun there is one
process and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Within it the processes that torchrun started work together; the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    if processes() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = (flat / processes()).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def any_of(here: bool, device: torch.device) -> bool:
    """Whether it is so in any of the processes; all must ask."""
    if processes() == 1:
        return here
    answer = torch.tensor(float(here), device=device)
    dist.all_reduce(answer, dist.ReduceOp.MAX)
    return bool(answer)
