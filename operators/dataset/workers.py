"""Makes datasets of files in a second Blender process, which opens them one after the other.

The user's Blender keeps its open file. A file that crashes the process only costs one item.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...xray_addon.dataset import store
from ...xray_addon.dataset.attempt import give_up
from ...xray_addon.dataset.manifest import Item
from ...xray_addon.dataset.result import FAILED, ItemResult, stop_on
from ...xray_addon.dataset.worker import ITEM_TIMEOUT
from ...xray_addon.errors import XRayError
from ...xray_addon.progress import Progress
from ..tasks import jobs
from .capture import CLAIMING, DatasetRun
from .child import ChildBlender
from .rendering import check_environment

if TYPE_CHECKING:
    from ...xray_addon.settings.dataset import DatasetSettings

# How many items are looked up in one go. Between two goes the run can be cancelled.
LOOKED_UP = 200


def worker_steps(
    items: Sequence[Item], folder: str | Path, settings: DatasetSettings, replace: bool = False
) -> jobs.Steps:
    """As `dataset_steps`, in a second Blender process; the result is a `DatasetRun`.

    An item fails if it crashes that process, or if it makes no progress for `ITEM_TIMEOUT`. The
    process's messages go to logs/worker.log in the folder. Raises XRayError `no_blender`, those
    that stop a run, and those for unusable files named in the settings.
    """
    run = DatasetRun(Path(folder))
    # Whatever may be wrong with the settings or with the worker is found before items are removed.
    if settings.is_used("hdri"):
        check_environment(settings.hdri)
    if replace:
        conflict = partial(store.conflict, run.folder, settings)
        if (yield from jobs.in_thread(conflict, CLAIMING)) is not None:
            yield from _try_worker(settings, len(items))
    claim = partial(store.claim, run.folder, settings, replace)
    digest: str = yield from jobs.in_thread(claim, CLAIMING)
    log = run.folder / "logs" / "worker.log"
    with store.writing(run.folder):
        log.parent.mkdir(parents=True, exist_ok=True)
    worker: ChildBlender | None = None
    try:
        known = yield from _known(items, run.folder, digest)
        for i, (item, result) in enumerate(zip(items, known, strict=True)):
            if result is None:
                if worker is not None and worker.exit_code is not None:
                    worker.stop()  # it died after its last answer, so not because of this item
                    worker = None
                if worker is None:
                    worker = ChildBlender(_arguments(run.folder, settings), log)
                worker.send(item.to_dict())
                result = yield from _result(worker, item, i, len(items))
                if result is not None and not result.uid:  # the worker cannot start
                    raise XRayError(result.code, result.reason)
                if result is not None:
                    stop_on(result)
                else:
                    error = _lost(item, worker.is_alive)
                    worker.stop()
                    worker = None
                    result = give_up(run.folder, item, digest, error, log)
            run.results.append(result)
    finally:
        if worker is not None:
            worker.stop()
        with suppress(XRayError), store.work_folder(run.folder):
            pass  # the context removes the leftovers of a killed worker
    finish = partial(store.finish, run.folder)
    writing = Progress("dataset", len(items), len(items), "report")
    run.report = yield from jobs.in_thread(finish, writing)
    return run


def _known(items: Sequence[Item], folder: Path, digest: str) -> jobs.Steps:
    """`store.find` for each item, which takes long if many are finished; the result is a list."""
    found: list[ItemResult | None] = []
    for first in range(0, len(items), LOOKED_UP):
        some = items[first : first + LOOKED_UP]
        look = partial(_find, some, folder, digest)
        looking = Progress("find", first, len(items), "Looking for finished items")
        found += yield from jobs.in_thread(look, looking)
    return found


def _find(items: Sequence[Item], folder: Path, digest: str) -> list[ItemResult | None]:
    return [store.find(folder, item, digest) for item in items]


def _arguments(folder: Path, settings: DatasetSettings) -> list[str]:
    return ["dataset-worker", str(folder), *settings.to_arguments(), "--progress"]


def _try_worker(settings: DatasetSettings, items: int) -> jobs.Steps:
    """Raise XRayError if no worker starts with `settings`."""
    trying = Progress("dataset", 0, items, "Starting a second Blender")
    with tempfile.TemporaryDirectory(prefix="xray-", ignore_cleanup_errors=True) as name:
        log = Path(name) / "worker.log"
        with ChildBlender(_arguments(Path(name) / "dataset", settings), log) as worker:
            worker.end_input()
            while worker.is_alive:
                answer = worker.answer()
                if answer is not None and answer.get("status") == FAILED:
                    raise XRayError(str(answer.get("code")), str(answer.get("reason")))
                yield trying
        if worker.exit_code:
            raise XRayError(
                "worker_not_started",
                f"A second Blender does not start: it ended with the code {worker.exit_code}.",
                details=worker.output,
            )


def _result(
    worker: ChildBlender, item: Item, number: int, of: int
) -> Generator[Progress, None, ItemResult | None]:
    """Wait for the result of `item`, the `number`th of `of`; None if the worker died or hangs."""
    message = item.uid
    while worker.silent_for <= ITEM_TIMEOUT:
        answer = worker.answer()
        if answer is None:
            if not worker.is_alive:
                return None
            yield Progress("dataset", number, of, message)
        elif "message" in answer:
            message = str(answer["message"])
        else:
            with suppress(ValueError):  # of another add-on
                result = ItemResult.from_dict(answer)
                worker.mark_idle()
                return result
    return None


def _lost(item: Item, hangs: bool) -> XRayError:
    if hangs:
        return XRayError(
            "worker_hung",
            f"{item.uid} made no progress for {ITEM_TIMEOUT:g} s.",
            "Check the file. `python -m farm --timeout` sets another limit.",
        )
    return XRayError("worker_died", f"Blender quit unexpectedly while capturing {item.uid}.")
