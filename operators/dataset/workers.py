"""Makes datasets in a second Blender process: of files, which it opens one after the other, or of
the open file's objects, of which it gets a copy.

The user's Blender keeps its open file and stays responsive. A crash only costs one item.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from ...xray_addon.dataset import store
from ...xray_addon.dataset.attempt import give_up
from ...xray_addon.dataset.manifest import Item
from ...xray_addon.dataset.result import ItemResult, stop_on
from ...xray_addon.dataset.worker import ITEM_TIMEOUT, worker_command
from ...xray_addon.errors import XRayError
from ...xray_addon.files.json_files import parse_json
from ...xray_addon.files.json_schema import plain
from ...xray_addon.files.opening import append_regular
from ...xray_addon.process.installer import NO_WINDOW
from ...xray_addon.progress import Progress
from ..interface.registration import extension_package
from ..tasks import jobs
from .capture import DatasetRun
from .rendering import check_environment
from .snapshot import write_scene

if TYPE_CHECKING:
    from ...xray_addon.settings.dataset import DatasetSettings

STOP_SECONDS = 2.0  # to exit before it is killed


def object_steps(
    items: Sequence[Item], folder: str | Path, settings: DatasetSettings, replace: bool = False
) -> jobs.Steps:
    """As `worker_steps`, for objects of the open file, as they are when the work begins.

    Also raises as `write_scene`.
    """
    with tempfile.TemporaryDirectory(prefix="xray-") as copy:
        options = write_scene(Path(copy))
        run: DatasetRun = yield from worker_steps(items, folder, settings, replace, options)
    return run


def worker_steps(
    items: Sequence[Item],
    folder: str | Path,
    settings: DatasetSettings,
    replace: bool = False,
    options: Sequence[str] = (),
) -> jobs.Steps:
    """As `dataset_steps`, in a second Blender process; the result is a `DatasetRun`.

    An item fails if it crashes that process, or if it makes no progress for `ITEM_TIMEOUT`. The
    process's messages go to logs/worker.log in the folder. options : more of the worker's.

    Raises XRayError `no_blender`, those that stop a run, and those for unusable files named in the
    settings.
    """
    run = DatasetRun(Path(folder))
    if settings.is_used("hdri"):
        check_environment(settings.hdri)  # before anything is removed
    digest = store.claim(run.folder, settings, replace)
    log = run.folder / "logs" / "worker.log"
    with store.writing(run.folder):
        log.parent.mkdir(parents=True, exist_ok=True)
    worker: _Worker | None = None
    try:
        for i, item in enumerate(items):
            result = store.find(run.folder, item, digest)
            yield Progress("dataset", i, len(items), item.uid)
            if result is None:
                if worker is None:
                    worker = _Worker(_command(run.folder, settings, options), log)
                worker.send(item)
                while (result := worker.answer()) is None and worker.is_alive:
                    if worker.silent_for > ITEM_TIMEOUT:
                        break
                    yield Progress("dataset", i, len(items), worker.message or item.uid)
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
    run.report = store.finish(run.folder)
    return run


def _lost(item: Item, hangs: bool) -> XRayError:
    if hangs:
        return XRayError(
            "worker_hung",
            f"{item.uid} made no progress for {ITEM_TIMEOUT:g} s.",
            "Check the object or file. `python -m farm --timeout` sets another limit.",
        )
    return XRayError("worker_died", f"Blender quit unexpectedly while capturing {item.uid}.")


def _command(folder: Path, settings: DatasetSettings, options: Sequence[str]) -> list[str]:
    # Blender as a Python module has no executable.
    blender = bpy.app.binary_path or sys.executable
    return worker_command(blender, folder, settings, extension_package(), ["--progress", *options])


class _Worker:
    """A Blender process that answers each item with some lines, the last of which is its result.

    message : how far the item is; "" if not known yet.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        try:
            with append_regular(log) as stream:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    encoding="utf-8",
                    errors="replace",  # add-ons may print in any encoding
                    # Only this Blender receives Ctrl-C; it then ends the worker.
                    start_new_session=os.name != "nt",
                    creationflags=NO_WINDOW,
                )
        except OSError as error:
            raise XRayError(
                "no_blender", f"A second Blender cannot be started ({error}).", "", str(log)
            ) from error
        self.message = ""
        self._answers: queue.SimpleQueue[ItemResult | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether more results may come."""
        return not self._ended

    @property
    def silent_for(self) -> float:
        """Seconds since the process was last given an item, or last wrote a line."""
        return time.monotonic() - self._heard

    def send(self, item: Item) -> None:
        """Request an item. If the process has died, `answer` detects it."""
        assert self._process.stdin is not None
        self.message, self._heard = "", time.monotonic()
        with suppress(OSError):
            self._process.stdin.write(json.dumps(item.to_dict()) + "\n")
            self._process.stdin.flush()

    def answer(self) -> ItemResult | None:
        """The next result, or None if there is none yet."""
        with suppress(queue.Empty):
            result = self._answers.get_nowait()
            self._ended = result is None
            return result
        return None

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        if not self._ended:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with suppress(ValueError):  # not JSON: Blender's own output
                    answer = parse_json(line, plain)
                    self._heard = time.monotonic()
                    if isinstance(answer, dict) and "message" in answer:
                        self.message = str(answer["message"])
                    else:
                        self._answers.put(ItemResult.from_dict(answer))
        self._answers.put(None)
