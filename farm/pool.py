"""Runs items on Blender workers on this machine. A crash or hang only costs its own item."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from xray_addon.dataset.attempt import give_up
from xray_addon.dataset.manifest import Item
from xray_addon.dataset.result import FAILED, ItemResult, stop_on
from xray_addon.dataset.store import claim, conflict, find, sweep, work_folder, writing
from xray_addon.dataset.worker import worker_command
from xray_addon.files.atomic import replacing
from xray_addon.settings.dataset import DatasetSettings

from .settings import FarmSettings
from .worker import Worker, WorkerLost, check

# Called on the main thread with each result. It may raise `Cancelled` to stop the run.
ResultCallback = Callable[[ItemResult], None]

# Lost workers after which an item is blamed even if it is unclear whether it caused the crash.
ATTEMPTS = 3


def ignore_result(_: ItemResult) -> None:
    """A `ResultCallback` that does nothing."""


def capture(
    items: Sequence[Item],
    folder: Path,
    settings: DatasetSettings,
    farm: FarmSettings,
    on_result: ResultCallback = ignore_result,
    replace: bool = False,
) -> list[ItemResult]:
    """Capture `items` into the dataset in `folder`; returns results in order of completion.

    Existing items are not captured again. An item that crashes its worker is recorded as failed,
    with the worker's output in `logs/<uid>.log`, and the run continues. `replace` removes items
    that were made with different settings.

    Raises XRayError `no_blender`, `worker_not_started`, those that stop a run, and those for
    unusable files named in the settings. Raises KeyboardInterrupt and the exceptions of
    `on_result` after all workers have ended.
    """
    if replace and conflict(folder, settings) is not None:
        sweep(folder)  # refuses links, e.g. in place of the log
        _try_worker(folder / "logs" / "worker.log", settings, farm)  # before anything is removed
    digest = claim(folder, settings, replace)
    results = []
    todo: deque[Item] = deque()
    for item in items:
        known = find(folder, item, digest)
        if known is None:
            todo.append(item)
        else:
            results.append(known)
            on_result(known)
    if not todo:
        return results
    try:
        with work_folder(folder) as own:
            pool = _Pool(todo, folder, own, settings, farm, digest, on_result)
            asyncio.run(pool.run())
    finally:
        with work_folder(folder):
            pass  # entering it removes the leftovers of killed workers
    return results + pool.results


def _try_worker(log: Path, settings: DatasetSettings, farm: FarmSettings) -> None:
    """Check in a separate folder that a worker starts with `settings`; raises as `check`."""
    with writing(log.parent):
        log.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="xray-") as folder:
        asyncio.run(check(worker_command(farm.blender, Path(folder), settings), log))


class _Pool:
    """One run over the items `todo`. Private files go to the folder `own`."""

    def __init__(
        self,
        todo: deque[Item],
        folder: Path,
        own: Path,
        settings: DatasetSettings,
        farm: FarmSettings,
        digest: str,
        on_result: ResultCallback,
    ) -> None:
        self.results: list[ItemResult] = []
        self._todo = todo
        self._folder = folder
        self._own = own
        self._farm = farm
        self._digest = digest
        self._on_result = on_result
        self._command = worker_command(farm.blender, folder.absolute(), settings)
        self._lost: Counter[str] = Counter()
        self._started = 0

    async def run(self) -> None:
        """Work until no items are left."""
        log = self._folder / "logs" / "worker.log"
        with writing(log.parent):
            log.parent.mkdir(exist_ok=True)
            await check(self._command, log)
            log.unlink(missing_ok=True)
        jobs = self._farm.jobs or _usable_cores()
        tasks = [asyncio.create_task(self._work()) for _ in range(min(jobs, len(self._todo)))]
        try:
            # `gather` would leave the other workers running after an exception.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _work(self) -> None:
        """Capture items with one worker at a time, replacing it as needed."""
        worker = None
        try:
            while self._todo:
                item = self._todo.popleft()
                known = find(self._folder, item, self._digest)  # made by another run
                if known is not None:
                    self._note(known)
                    continue
                if worker is not None and not worker.alive:
                    await worker.stop()
                    worker = None
                if worker is None:
                    self._started += 1
                    worker = Worker(self._command, self._own / f"worker-{self._started}.log")
                    await worker.start()
                if not await self._capture(worker, item) or self._is_used_up(worker):
                    await worker.stop()
                    worker = None
        finally:
            if worker is not None:
                await worker.stop()

    def _is_used_up(self, worker: Worker) -> bool:
        return worker.answered >= self._farm.recycle or worker.memory > self._farm.memory

    async def _capture(self, worker: Worker, item: Item) -> bool:
        """Capture `item`; returns whether the worker survived."""
        began, log_start = time.monotonic(), worker.log.stat().st_size
        try:
            result = await worker.capture(item, self._farm.timeout)
        except WorkerLost as lost:
            await worker.kill()
            self._lost[item.uid] += 1
            # A worker may also have died because of items that it made before.
            doubtful = lost.code == "worker_died" and (lost.by_hand or worker.answered > 0)
            if doubtful and self._lost[item.uid] < ATTEMPTS:
                self._todo.appendleft(item)
            else:
                self._blame(item, lost, worker, log_start, time.monotonic() - began)
            return False
        stop_on(result)
        self._note(result)
        return True

    def _blame(
        self, item: Item, lost: WorkerLost, worker: Worker, log_start: int, seconds: float
    ) -> None:
        """Record that `item` failed, unless its worker had completely written it."""
        log = self._log(item.uid)
        with writing(log.parent), worker.log.open("rb") as source, replacing(log) as temporary:
            source.seek(log_start)
            temporary.write_bytes(source.read())
        self._note(give_up(self._folder, item, self._digest, lost, log, seconds))

    def _note(self, result: ItemResult) -> None:
        if result.status != FAILED:
            with writing(self._folder / "logs"):
                self._log(result.uid).unlink(missing_ok=True)  # from an earlier attempt
        self.results.append(result)
        self._on_result(result)

    def _log(self, uid: str) -> Path:
        return self._folder / "logs" / f"{uid}.log"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
