"""Makes one shard of a dataset, from reading the source to packing, locally or in a cluster job."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from xray_addon.dataset.manifest import read_source, shard
from xray_addon.dataset.recipe import Recipe
from xray_addon.dataset.result import EXISTS, FAILED, ItemResult
from xray_addon.dataset.rows import uids
from xray_addon.dataset.store import find, finish, writing
from xray_addon.errors import XRayError
from xray_addon.files.locks import lock
from xray_addon.settings.dataset import DatasetSettings

from . import shards
from .pool import ResultCallback, capture, ignore_result
from .settings import FarmSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """The source, the destination and the settings of a dataset.

    source : folder, manifest or mesh file. out : a folder, or a URL, which only gets shards.
    replace : whether to remove items that were made with different settings.

    Raises XRayError `bad_settings` for slices at a URL.
    """

    source: str
    out: str
    settings: DatasetSettings
    farm: FarmSettings
    replace: bool = False

    def __post_init__(self) -> None:
        if self.settings.slices and shards.is_url(self.out):
            raise XRayError(
                "bad_settings",
                "Shards do not contain slices, and a URL only gets shards.",
                "Name a folder as OUT, or leave out --slices.",
            )

    def absolute(self) -> Work:
        """The same work with absolute paths, for a process that starts in another folder."""
        settings, farm = self.settings, self.farm
        # A Blender name without a folder is looked up on the PATH where the process runs.
        in_path = os.path.dirname(farm.blender) == ""
        return replace(
            self,
            source=_absolute(self.source),
            out=self.out if shards.is_url(self.out) else _absolute(self.out),
            settings=replace(
                settings, poses=_absolute(settings.poses), hdri=_absolute(settings.hdri)
            ),
            farm=replace(
                farm,
                blender=farm.blender if in_path else _absolute(farm.blender),
                staging=str(self.staging.absolute()),
            ),
        )

    def folder(self, part: str) -> Path:
        """The folder for the items of shard `part`; for URLs only until they are packed."""
        if not shards.is_url(self.out):
            return Path(self.out)
        return self.staging / part.replace("/", "-of-")

    @property
    def staging(self) -> Path:
        """The folder where shards for a URL are made; two URLs have two of them."""
        url = self.out.rstrip("/")
        name = url.rpartition("/")[2] or "shards"
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        return Path(self.farm.staging or f"{name}-{digest}-staging")


def run(
    work: Work, part: str = "1/1", on_result: ResultCallback = ignore_result
) -> list[ItemResult]:
    """Make shard `part` ("i/N") of a dataset, then its metadata.jsonl and report.

    Raises the XRayErrors of `read_source`, `shard` and `capture`.
    """
    results = run_shard(work, part, on_result)
    if not shards.is_url(work.out):
        finish(work.out)
    return results


def run_shard(
    work: Work, part: str = "1/1", on_result: ResultCallback = ignore_result
) -> list[ItemResult]:
    """Make shard `part` ("i/N") of a dataset. After all shards, the caller must call `finish`.

    For a shard at a URL, only missing items are made, by one run in a staging folder at a time.
    Raises as `run`, and XRayError `other_settings` if the existing shard has different settings or
    a different number of shards.
    """
    source = read_source(work.source)
    items = shard(source, part)
    recipe = Recipe.of(work.settings)
    kept: set[str] = set()
    folder = work.folder(part)
    with ExitStack() as stack:
        if shards.is_url(work.out):
            if shards.is_waiting(work.out, int(part.split("/")[0])):
                shards.settle(work.out, part, recipe, source)  # an earlier run was interrupted
            is_complete = partial(shards.is_packed, work.out, part, items, recipe, work.replace)
            complete = is_complete()
            if not complete:
                with writing(folder.parent):
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    own = lock(f"{folder}.lock", on_wait=partial(_tell_waiting, folder))
                    stack.enter_context(own)
                complete = is_complete()  # by the run that had the lock
            everything = {item.uid for item in items}
            kept = everything if complete else shards.keepable(work.out, part, items, recipe)
            known = [ItemResult(item.uid, EXISTS) for item in items if item.uid in kept]
            for result in known:
                on_result(result)
            if complete:
                return known
        todo = [item for item in items if item.uid not in kept]
        results = capture(todo, folder, work.settings, work.farm, on_result, work.replace)
        if shards.is_url(work.out) or work.farm.tar:
            shards.pack(folder, source, results, work.out, part, recipe, kept)
        if shards.is_url(work.out) and not any(result.status == FAILED for result in results):
            with writing(folder):
                shutil.rmtree(folder)  # all uploaded; kept after failures for the next run
    return [ItemResult(uid, EXISTS) for uid in sorted(kept)] + results


def count_done(work: Work, parts: int) -> int:
    """The number of complete items in all shards; fast enough for a progress bar."""
    if not shards.is_url(work.out):
        return _rows(Path(work.out))
    done = 0
    for index in range(1, parts + 1):
        record = shards.read_record(work.out, index)
        done += len(record["items"]) if record else _rows(work.folder(f"{index}/{parts}"))
    return done


def missing(work: Work, parts: int) -> list[str]:
    """The uids that are in no shard and were not rejected by a gate, after all jobs have ended."""
    recipe = Recipe.of(work.settings)
    absent = []
    items = read_source(work.source)
    for index in range(1, parts + 1):
        part = f"{index}/{parts}"
        mine = shard(items, part)
        held: dict[str, str] = {}
        if shards.is_url(work.out):
            held = shards.held(work.out, part, recipe, work.replace) or {}
        folder = work.folder(part)
        absent += [
            item.uid
            for item in mine
            if item.uid not in held and find(folder, item, recipe.digest) is None
        ]
    return absent


def _tell_waiting(folder: Path) -> None:
    logger.warning("waiting for another run that makes this shard in %s", folder)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _rows(folder: Path) -> int:
    return len(uids(folder / "metadata"))
