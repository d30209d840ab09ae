"""One shard of a dataset, from its source to its place, on a desk or in a cluster's job."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from xray_addon.dataset import (
    EXISTS,
    FAILED,
    Result,
    find,
    finish,
    read_source,
    settings_hash,
    shard,
)
from xray_addon.settings import DatasetSettings

from . import shards
from .pool import ResultCallback, capture, ignore_result
from .settings import FarmSettings


@dataclass(frozen=True)
class Work:
    """What is to be made of what, and where.

    source : folder, manifest or mesh file. out : a folder, or a URL for shards alone.
    """

    source: str
    out: str
    settings: DatasetSettings
    farm: FarmSettings

    def folder(self, part: str) -> Path:
        """Where the items of shard `part` lie, for good or until they are packed."""
        if not shards.is_url(self.out):
            return Path(self.out)
        return self.staging / part.replace("/", "-of-")

    @property
    def staging(self) -> Path:
        """Where the shards of a URL are made."""
        name = self.out.rstrip("/").rpartition("/")[2] or "shards"
        return Path(self.farm.staging or f"{name}-staging")


def run(work: Work, part: str = "1/1", on_result: ResultCallback = ignore_result) -> list[Result]:
    """Make shard `part` ("i/N") of a dataset, then its metadata.jsonl and report.

    Raises XRayError: what `read_source`, `shard` and `capture` raise.
    """
    results = run_shard(work, part, on_result)
    if not shards.is_url(work.out):
        finish(work.out)
    return results


def run_shard(
    work: Work, part: str = "1/1", on_result: ResultCallback = ignore_result
) -> list[Result]:
    """Make shard `part` ("i/N") of a dataset; whoever runs several calls `finish` at their end.

    A shard at a URL that is complete is not made again. Raises as `run`.
    """
    items = shard(read_source(work.source), part)
    index = int(part.split("/")[0])
    digest = settings_hash(work.settings)
    if shards.is_url(work.out) and shards.is_packed(work.out, index, items, digest):
        results = [Result(item.uid, EXISTS) for item in items]
        for result in results:
            on_result(result)
        return results
    folder = work.folder(part)
    results = capture(items, folder, work.settings, work.farm, on_result)
    if shards.is_url(work.out) or work.farm.tar:
        shards.pack(folder, items, results, work.out, part, digest)
    if shards.is_url(work.out) and not any(result.status == FAILED for result in results):
        shutil.rmtree(folder)  # all of it has arrived; with failures the next run goes on from it
    return results


def count_done(work: Work, parts: int) -> int:
    """How many items of all shards are complete; quick, for a progress bar."""
    if not shards.is_url(work.out):
        return _rows(Path(work.out))
    done = 0
    for index in range(1, parts + 1):
        record = shards.read_record(work.out, index)
        done += len(record["items"]) if record else _rows(work.folder(f"{index}/{parts}"))
    return done


def missing(work: Work, parts: int) -> list[str]:
    """The uids that no shard holds and no gate rejected, after all jobs have ended."""
    digest = settings_hash(work.settings)
    absent = []
    items = read_source(work.source)
    for index in range(1, parts + 1):
        part = f"{index}/{parts}"
        mine = shard(items, part)
        if shards.is_url(work.out) and shards.is_packed(work.out, index, mine, digest):
            continue
        folder = work.folder(part)
        absent += [item.uid for item in mine if find(folder, item, digest) is None]
    return absent


def _rows(folder: Path) -> int:
    return sum(1 for _ in (folder / "metadata").glob("*.json"))
