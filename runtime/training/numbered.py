"""Endless samples that depend only on their number, so that a resumed run sees the same samples
as an uninterrupted one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info


class Numbered(IterableDataset):
    """The samples of chunk `first` and of every `step`-th one after it, in order.

    A loader takes one batch of each worker in turn. If chunks have the size of a batch, batches
    therefore do not depend on the number of workers.
    """

    whole_batches = False  # whether a sample is a whole batch, made in the training process

    def __init__(self, first: int = 0, step: int = 1) -> None:
        self.first = first
        self.step = step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for chunk in itertools.count(self.first + number * self.step, workers * self.step):
            yield from self.chunk(chunk)

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The samples of chunk `number`."""
        raise NotImplementedError
