"""Makes a long pass through a network cancellable between its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

INTERVAL = 0.5  # minimum s between two calls


@contextmanager
def interruptible(models: Iterable[nn.Module], alive: Callable[[], None]) -> Iterator[None]:
    """Call `alive` regularly while one of `models` runs; it may raise to cancel the work.

    It is called before items of each list of layers, which on a slow machine take seconds.
    """
    last = time.monotonic()

    def check(*_: object) -> None:
        nonlocal last
        if time.monotonic() <= last + INTERVAL:
            return
        # The recording of a CUDA graph must not be interrupted, and takes almost no time.
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return
        last = time.monotonic()
        alive()

    lists = (m for model in models for m in model.modules() if isinstance(m, nn.ModuleList))
    hooks = [item.register_forward_pre_hook(check) for items in lists for item in items]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
