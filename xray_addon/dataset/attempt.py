"""One attempt at one item, which ends as done, rejected or failed, or stops the run.

::

    with Store(folder, settings) as store, store.attempt(item) as attempt:
        ...  # writes files into attempt.folder and describes them in attempt.row and .views
    attempt.result
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ..errors import XRayError, error_code, is_out_of_memory
from ..files.deflate import Deflater, fastest
from ..progress import Cancelled
from ..settings.dataset import DatasetSettings
from . import store
from .companions import companion_hashes
from .gates import ViewStatistics, judge, see_through
from .in_flight import InFlight
from .manifest import Item
from .recipe import file_hash
from .result import DONE, FAILED, REJECTED, ItemResult

logger = logging.getLogger(__name__)


@dataclass
class Attempt:
    """The state of one attempt at one item.

    folder : private folder for its files, laid out as in the dataset: xrays/, images/, ids/.
    row : the item's metadata, see `store.finish`. read : `store.read_state` of its source.
    messages : warnings, mostly from importers. views : statistics of each view.
    seconds : duration of each stage. result : set when the attempt has ended.
    """

    item: Item
    folder: Path
    row: dict[str, Any] = field(default_factory=dict)
    read: list[str | int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    views: list[ViewStatistics] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    in_flight: InFlight | None = None
    result: ItemResult = field(init=False)
    _began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of the body to `seconds[stage]`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 6)

    def flag(self, gate: str) -> None:
        """Count the item under a gate that does not reject it."""
        self.row["gates"] = [*self.row.get("gates", ()), gate]

    def ended(self, reason: XRayError | None) -> ItemResult:
        """The result: done if there is no `reason`, otherwise rejected or failed because of it."""
        seconds = round(time.perf_counter() - self._began, 3)
        if reason is not None:
            status = REJECTED if error_code(reason.code).rejects else FAILED
            return ItemResult.refused(self.item.uid, reason, status, seconds=seconds)
        return ItemResult(
            self.item.uid,
            DONE,
            views=len(self.views),
            hits=sum(sum(view.hits) for view in self.views),
            dropped=sum(view.dropped for view in self.views),
            seconds=seconds,
        )


class Store:
    """The dataset in `folder` during one run that makes items with `settings`; use it in a `with`.

    deflater : compresses X-Rays and images; known while it is open.

    `open` raises XRayError `cannot_write`, `other_settings` without `replace`, `no_deflater`, and
    those for unusable files named in the settings.
    """

    def __init__(
        self, folder: str | Path, settings: DatasetSettings, *, replace: bool = False
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self._replace = replace
        self._exit = ExitStack()

    def open(self) -> None:
        """Claim the dataset, which takes long if many items are checked again or removed."""
        self.deflater = self._claim()
        self._work = self._exit.enter_context(store.work_folder(self.folder))

    def close(self) -> None:
        """Remove what an unfinished item left."""
        self._exit.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def attempt(self, item: Item, **details: Any) -> Iterator[Attempt]:
        """One attempt at `item`. At its end, the body's files are moved into the dataset.

        An exception in the body makes the item fail; its reason and a log are recorded.
        `Cancelled`, and errors that affect every item (`ErrorCode.stops`), are raised instead.
        Incomplete files are removed. details : added to the log.
        """
        attempt = Attempt(item, self._work / item.uid)
        detail = ""
        with store.writing(self.folder):
            attempt.folder.mkdir()
        try:
            yield attempt
            reason = self._judge(attempt)
            if reason is None:
                self._publish(attempt)
        except Cancelled:
            raise
        except Exception as error:  # an importer or a renderer may raise anything
            reason = item_error(item, error)
            if error_code(reason.code).stops:
                raise
            detail = traceback.format_exc()
        finally:
            if attempt.in_flight is not None:
                attempt.in_flight.landed()
            shutil.rmtree(attempt.folder, ignore_errors=True)
        attempt.result = attempt.ended(reason)
        if reason is not None:
            self._refuse(attempt, reason)
        attempt.result = self._log(attempt, {**details, "detail": detail})

    def find(self, item: Item) -> ItemResult | None:
        """The result of `item` if it need not be made again, else None; see `store.find`."""
        return store.find(self.folder, item, self._digest)

    def note_source(self, attempt: Attempt) -> None:
        """Start the row with the state of the item's source. Call it before reading the source."""
        item = attempt.item
        attempt.read = store.read_state(item)
        with attempt.timed("hash"):
            attempt.row = {
                **store.described(item, self._digest),
                "source_sha256": file_hash(item.source) if item.source else "",
                "triangles": 0,
                "images": self.settings.image != "none",
                "gates": [],
                "views": [],
            }
        if item.source:
            with store.writing(self.folder):
                attempt.in_flight = InFlight(self._work, attempt.row)

    def note_companions(self, attempt: Attempt, files: Iterable[Path]) -> None:
        """Add the hashes of the files that were read with the source. Call it after reading.

        Raises XRayError `source_changed` if the source has changed since `note_source`.
        """
        item = attempt.item
        if not item.source:
            return
        with attempt.timed("hash"):
            companions = companion_hashes(Path(item.source), files)
        if store.read_state(item) != attempt.read:
            raise XRayError(
                "source_changed", f"{item.name} was changed while it was read.", "Run it again."
            )
        if companions:
            attempt.row["companions"] = companions
            attempt.read = store.read_state(item, companions)

    def _claim(self) -> Deflater:
        self._digest = store.claim(self.folder, self.settings, self._replace)
        return store.writer(self.folder)

    def _judge(self, attempt: Attempt) -> XRayError | None:
        gates, reason = judge(attempt.views, self.settings, *see_through(attempt.row))
        attempt.row["gates"] = gates + attempt.row["gates"]
        attempt.row["views"] = [view.to_dict() for view in attempt.views]
        return reason

    def _publish(self, attempt: Attempt) -> None:
        store.publish(self.folder, attempt.item, attempt.folder, attempt.row)

    def _refuse(self, attempt: Attempt, reason: XRayError) -> None:
        status = attempt.result.status
        store.refuse(self.folder, attempt.item, self._digest, status, reason, attempt.row)

    def _log(self, attempt: Attempt, details: dict[str, Any]) -> ItemResult:
        known = {"read": attempt.read, "stages": attempt.seconds, "messages": attempt.messages}
        log = store.write_log(self.folder, attempt.result, {**known, **details})
        return replace(attempt.result, log=str(log))


class PlainStore(Store):
    """As `Store`, without a dataset's records. Existing items are replaced.

    There are no claims, rows, gates, failure records or logs. on_warning : called with importers'
    warnings about files that were captured anyway.

    Raises XRayError `cannot_write`, `other_settings` if `folder` holds a dataset.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: DatasetSettings,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(folder, settings)
        self._on_warning = on_warning

    def find(self, _item: Item) -> None:
        """Always None, because every item is made."""

    def note_source(self, attempt: Attempt) -> None:
        """Do nothing, because there are no rows."""

    def note_companions(self, attempt: Attempt, files: Iterable[Path]) -> None:
        """Do nothing, because there are no rows."""

    def _claim(self) -> Deflater:
        store.check_plain(self.folder)
        return fastest()

    def _judge(self, _attempt: Attempt) -> None:
        pass

    def _publish(self, attempt: Attempt) -> None:
        store.put_files(self.folder, attempt.item.uid, attempt.folder)

    def _refuse(self, attempt: Attempt, reason: XRayError) -> None:
        pass

    def _log(self, attempt: Attempt, _details: dict[str, Any]) -> ItemResult:
        if attempt.result.status == DONE:  # otherwise the reason explains the problem
            for line in attempt.messages:
                self._on_warning(f"{attempt.item.uid}: {line}")
        return attempt.result


def give_up(
    folder: Path, item: Item, digest: str, error: XRayError, log: Path, seconds: float = 0.0
) -> ItemResult:
    """The result of `item` if its worker died before answering: failed with `error`.

    If the worker had already written the complete item, the result is "exists" instead.
    log : the worker's log file. Raises XRayError `cannot_write`.
    """
    store.sweep(folder)
    known = store.find(folder, item, digest)
    if known is not None:
        return known
    store.refuse(folder, item, digest, FAILED, error)
    result = ItemResult.refused(item.uid, error, seconds=round(seconds, 3), log=str(log))
    store.write_log(folder, result, {})
    return result


def item_error(item: Item, error: Exception) -> XRayError:
    """`error`, raised while making `item`, as an XRayError with a readable message."""
    if isinstance(error, XRayError):
        return error
    if is_out_of_memory(error):
        return XRayError(
            "out_of_memory",
            f"{item.uid} needs more memory than is available.",
            "Use a smaller size, or fewer jobs at once.",
        )
    if isinstance(error, OSError):
        return XRayError(
            "unreadable_file",
            f"{item.name or item.uid} cannot be read ({error.strerror or error}).",
            "Check the file.",
        )
    logger.error("%s stopped because of a bug", item.uid, exc_info=error)
    return XRayError(
        "internal", f"{item.uid} stopped because of a bug.", "Please report it with its log."
    )
