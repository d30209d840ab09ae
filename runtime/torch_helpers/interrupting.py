"""A long pass through a network that can be ended between its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

INTERVAL = 0.5  # s at least between two calls


@contextmanager
def interruptible(models: Iterable[nn.Module], alive: Callable[[], None]) -> Iterator[None]:
    """Within this, `alive` is called while one of `models` works; it may raise to end the work.

    It hears of the items of each list of layers, which on a slow machine take seconds together.
    """
    last = time.monotonic()

    def check(*_: object) -> None:
        nonlocal last
        if time.monotonic() <= last + INTERVAL:
            return
        # While a CUDA graph is recorded nothing may stop it; it takes no time either.
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
