"""Runs work in pieces that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from xray_addon.errors import XRayError, is_out_of_memory

log = logging.getLogger(__name__)

LEAST = 1024  # smallest piece; if it does not fit, the work fails


def out_of_memory(device: torch.device, remedy: str) -> XRayError:
    """The error for work that does not fit into the memory of `device`, with its remedy."""
    where = {"cuda": "graphics card", "mps": "graphics processor"}.get(device.type, "computer")
    return XRayError("out_of_memory", f"The {where} has not enough free memory.", remedy)


@contextmanager
def memory_errors(device: torch.device | str, remedy: str) -> Iterator[None]:
    """Convert torch's out-of-memory errors to XRayError `out_of_memory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(torch.device(device), remedy) from error


class Chunks:
    """Applies work to slices of a tensor. A slice that does not fit into memory is halved.

    size : items per slice; once reduced, it stays reduced.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, work: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """`work` of all items (N, ...), concatenated; raises XRayError `out_of_memory`."""
        if not len(items):
            return work(items)
        results: list[Tensor] = []
        done = 0
        while done < len(items):
            piece = items[done : done + self.size]
            try:
                results.append(work(piece))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.size <= LEAST:
                    raise out_of_memory(
                        items.device,
                        "Close other programs that use it and release the runtime's memory, "
                        "lower the mesh resolution, or set the device to the CPU.",
                    ) from error
                self.size = max(LEAST, min(self.size, len(items)) // 2)
                log.warning("out of memory: continuing with %d items at a time", self.size)
            else:
                done += len(piece)
                continue
            # Retried outside the handler, after the traceback has released its memory.
            if items.device.type == "cuda":
                torch.cuda.empty_cache()
        return torch.cat(results)
