"""Data-parallel training: one run on several processes started by torchrun.

torchrun --nproc-per-node 8 -m runtime train --config FILE --data DIR --out DIR

Every process has the whole model and its own batches. Gradients are averaged, so all processes take
the same steps. The first process writes checkpoints and metrics. Without torchrun there is only one
process, and the functions here do nothing.
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
    """Connect the processes started by torchrun; yields the device of this process."""
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
        if not cuda:
            # Gloo's threads take the GIL to release the tensors of the last reduction. One that
            # does so while the interpreter ends aborts the process; waiting here lets it finish.
            dist.barrier()
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor with its mean over the processes."""
    if processes() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = (flat / processes()).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def any_of(here: bool, device: torch.device) -> bool:
    """Whether `here` is true in any process. All processes must call this."""
    if processes() == 1:
        return here
    answer = torch.tensor(float(here), device=device)
    dist.all_reduce(answer, dist.ReduceOp.MAX)
    return bool(answer)
