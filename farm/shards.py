"""WebDataset shards: the complete items of a shard in one tar, local or at any fsspec URL.

Sample keys are ``<uid>-NNN``, one a view, with the members ``.npz`` (the X-Ray), ``.png`` (its
reference image, if there is one), ``.ids.npz`` (if there are any) and ``.json`` (the camera and
the item's row). The same items give the same bytes. Beside ``OUT-000i.tar`` lies ``OUT-000i.json``,
written after it, which says what is in it.

No item goes before what takes its place is there: a shard that replaces one waits beside it as
``OUT-000i.tar.next`` and ``OUT-000i.json.next`` where it lacks items that the old one holds, until
all shards are there.

Every file system of fsspec has errors of its own, such as those of credentials: whatever one
raises is XRayError `cannot_write`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from webdataset.writer import TarWriter

from xray_addon.dataset.manifest import Item, shard
from xray_addon.dataset.recipe import Recipe, file_hash, other_settings
from xray_addon.dataset.result import FAILED, REJECTED, ItemResult
from xray_addon.dataset.store import find
from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

TAR, RECORD = ".tar", ".json"
NEXT = ".next"  # behind both of a shard that waits


def is_url(out: str) -> bool:
    """Whether `out` names a place for fsspec rather than a folder."""
    return "://" in out


def shard_name(out: str, index: int, suffix: str) -> str:
    """Path or URL of a file of shard `index`, from 1."""
    return f"{out.rstrip('/')}-{index:04d}{suffix}"


def pack(
    folder: Path,
    source: Sequence[Item],
    results: Sequence[ItemResult],
    out: str,
    part: str,
    recipe: Recipe,
    kept: Set[str] = frozenset(),
) -> str:
    """Write what is complete of shard `part` of `source` in the dataset in `folder` to `out`.

    source : the items of all shards. results : how those of this one ended. recipe : what they
    were made with. kept : those that are taken over from the shard that is there, see `keepable`.
    Nothing is written where that has the same content. Then shards that wait are put in place, see
    `settle`. Returns the tar's path or URL.

    Raises XRayError `cannot_write`.
    """
    index, count = map(int, part.split("/"))
    made = {
        item.uid for item in shard(source, part) if find(folder, item, recipe.digest, refused=False)
    }
    taken = kept - made
    tar = shard_name(out, index, TAR)
    there = _read(shard_name(out, index, RECORD))
    held = there or {"items": {}, "rows": {}}
    rows = {uid: (folder / "metadata" / f"{uid}.json").read_bytes() for uid in made}
    record: dict[str, Any] = {
        "settings": recipe.to_dict(),
        "shards": count,
        "items": {
            uid: held["items"][uid] if uid in taken else _source_hash(rows[uid])
            for uid in sorted(made | taken)
        },
        "rows": {
            uid: held["rows"][uid] if uid in taken else hashlib.sha256(rows[uid]).hexdigest()
            for uid in sorted(made | taken)
        },
        "rejected": {
            result.uid: _source_hash((folder / "refused" / f"{result.uid}.json").read_bytes())
            for result in sorted(results, key=lambda result: result.uid)
            if result.status == REJECTED
        },
        "failed": sorted(result.uid for result in results if result.status == FAILED),
    }
    if read_record(out, index) != record or not _exists(tar):
        waits = NEXT if there is not None and _exists(tar) else ""
        # Without its record a tar that is being replaced is not taken for the new one.
        _remove(shard_name(out, index, RECORD + NEXT))
        if not waits:
            _remove(shard_name(out, index, RECORD))
        with tempfile.TemporaryDirectory(prefix=".shard-", dir=folder) as temporary:
            file = Path(temporary) / "shard"
            with file.open("wb") as stream:
                # Fixed times, owners and modes: the same items give the same bytes.
                writer = TarWriter(stream, user="", group="", mode=0o644, encoder=False, mtime=0)
                new = (sample for uid in sorted(made) for sample in _samples(folder, uid))
                for sample in merge(new, _samples_in(tar, taken), key=_place_in_tar):
                    writer.write(sample)
                writer.close()
            _put(file, tar + waits)
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
            _put(file, shard_name(out, index, RECORD + waits))
    settle(out, part, recipe, source)
    return tar


def settle(out: str, part: str, recipe: Recipe, source: Sequence[Item]) -> None:
    """Put shards that wait in place of the old ones, and remove old ones beyond their number.

    That of `part` where it holds all that the old one does; the others when all shards of `source`
    are there, made with `recipe`. Safe to be cut off anywhere and done again.

    Raises XRayError `cannot_write`.
    """
    index, count = map(int, part.split("/"))
    settings = recipe.to_dict()
    there, waiting = (_read(shard_name(out, index, RECORD + end)) for end in ("", NEXT))
    if there and waiting and {*there["items"]} <= {*waiting["items"], *waiting["rejected"]}:
        _put_in_place(out, index)
    for i in range(1, count + 1):
        record = read_record(out, i)
        if record is None or (record["shards"], record["settings"]) != (count, settings):
            return
        tried = {*record["items"], *record["rejected"], *record["failed"]}
        if tried != {item.uid for item in shard(source, f"{i}/{count}")}:
            return  # made of what was the source once
    for i in range(1, count + 1):
        _put_in_place(out, i)
    surplus = count + 1
    while _exists(shard_name(out, surplus, TAR)):
        for suffix in (RECORD + NEXT, TAR + NEXT, RECORD, TAR):
            _remove(shard_name(out, surplus, suffix))
        surplus += 1


def _put_in_place(out: str, index: int) -> None:
    """Replace shard `index` by the one that waits, if there is one."""
    # The record last: as long as it waits, it counts, see `read_record`.
    if is_waiting(out, index):
        for suffix in (TAR, RECORD):
            _move(shard_name(out, index, suffix + NEXT), shard_name(out, index, suffix))


def is_waiting(out: str, index: int) -> bool:
    """Whether a shard is there that is not in place yet."""
    return _exists(shard_name(out, index, RECORD + NEXT))


def read_record(out: str, index: int) -> dict[str, Any] | None:
    """What shard `index` of `out` says it holds; None where it is not there or not readable.

    That of one that waits counts. Raises XRayError `cannot_write` for an address that fsspec does
    not know or may not use.
    """
    waiting = _read(shard_name(out, index, RECORD + NEXT))
    return waiting or _read(shard_name(out, index, RECORD))


def keepable(out: str, part: str, items: Sequence[Item], recipe: Recipe) -> set[str]:
    """The uids of `items` that shard `part` of `out` holds as they would be made again.

    It reads their sources whole. Raises XRayError `cannot_write`.
    """
    index = int(part.split("/")[0])
    record = _read(shard_name(out, index, RECORD))
    if record is None or record["settings"] != recipe.to_dict() or is_waiting(out, index):
        return set()
    if not _exists(shard_name(out, index, TAR)):
        return set()
    return {item.uid for item in items if _is_of(item, record["items"].get(item.uid))}


def held(out: str, part: str, recipe: Recipe, replace: bool = False) -> dict[str, str] | None:
    """Of each item of shard `part` of `out` the SHA-256 of its source; None where it is not there.

    Items that a gate rejected are held too. Raises XRayError `other_settings`, without `replace`,
    where the shard was made with other settings or as one of another number: at a URL there are no
    rows that gates could judge again.
    """
    index, count = map(int, part.split("/"))
    record = read_record(out, index)
    if record is None or not _exists(shard_name(out, index, TAR)):
        return None
    differences = recipe.differences(Recipe.from_dict(record["settings"]), gates=True)
    if record["shards"] != count:
        differences = f"there are {record['shards']} shards there and {count} here"
    if differences and not replace:
        raise other_settings(shard_name(out, index, TAR), differences)
    return None if differences else record["items"] | record["rejected"]


def is_packed(
    out: str, part: str, items: Sequence[Item], recipe: Recipe, replace: bool = False
) -> bool:
    """Whether shard `part` of `out` holds all `items` as their sources are now; raises as `held`.

    It reads the sources whole.
    """
    found = held(out, part, recipe, replace)
    return (
        found is not None
        and {item.uid for item in items} == {*found}
        and all(_is_of(item, found[item.uid]) for item in items)
    )


def _is_of(item: Item, known: str | None) -> bool:
    """Whether what was made of a source with the SHA-256 `known` is what would be made now."""
    if known is None:
        return False
    # The source may be gone; what was made from it stays.
    return not Path(item.source).is_file() or known == file_hash(item.source)


def _source_hash(row: bytes) -> str:
    return str(json.loads(row).get("source_sha256", ""))


def _place_in_tar(sample: dict[str, Any]) -> tuple[str, str]:
    uid, _, view = sample["__key__"].rpartition("-")
    return uid, view


def _samples_in(tar: str, uids: Set[str]) -> Iterator[dict[str, Any]]:
    """The samples of some items in the shard `tar`, as they are there."""
    if not uids:
        return
    system, path = _place(tar)
    try:
        with system.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for key, members in groupby(archive, lambda member: member.name.partition(".")[0]):
                if key.rpartition("-")[0] in uids:
                    sample: dict[str, Any] = {"__key__": key}
                    for member in members:
                        file = archive.extractfile(member)
                        assert file is not None  # shards hold nothing but files
                        sample[member.name.partition(".")[2]] = file.read()
                    yield sample
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(tar, error) from error


def _samples(folder: Path, uid: str) -> list[dict[str, Any]]:
    """The samples of an item, one a view."""
    row = json.loads((folder / "metadata" / f"{uid}.json").read_text(encoding="utf-8"))
    transforms = folder / "images" / uid / "transforms.json"
    cameras: dict[str, dict[str, Any]] = {}
    if transforms.is_file():
        document = json.loads(transforms.read_text(encoding="utf-8"))
        cameras = {
            Path(frame["file_path"]).stem: {
                "camera_angle_x": document["camera_angle_x"],
                **{key: value for key, value in frame.items() if key not in ("file_path", "c2w")},
            }
            for frame in document["frames"]
        }
    shared = {key: value for key, value in row.items() if key not in ("views", "files")}
    samples = []
    for view, seen in enumerate(row["views"]):
        name = f"{view:03d}"
        values = {**shared, "view": view, **seen, "camera": cameras.get(name)}
        sample = {
            "__key__": f"{uid}-{name}",
            "json": json.dumps(values, ensure_ascii=False, sort_keys=True).encode(),
        }
        for kind, suffix, member in (
            ("xrays", ".npz", "npz"),
            ("images", ".png", "png"),
            ("ids", ".npz", "ids.npz"),
        ):
            file = folder / kind / uid / f"{name}{suffix}"
            if file.is_file():
                sample[member] = file.read_bytes()
        samples.append(sample)
    return samples


def _put(source: Path, target: str) -> None:
    """Copy `source` to a path or URL: whole or not at all."""
    system, path = _place(target)
    try:
        if isinstance(system, LocalFileSystem):
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
            return
        # fsspec's own means: object stores complete the upload, others move it into place.
        with system.transaction, source.open("rb") as stream, system.open(path, "wb") as to:
            shutil.copyfileobj(stream, to)
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error


def _read(target: str) -> dict[str, Any] | None:
    """A record; None where it is not there or not readable."""
    system, path = _place(target)
    try:
        with system.open(path, "rb") as stream:
            record = json.load(stream)
    except (OSError, ValueError):
        return None
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error
    return record if isinstance(record, dict) else None


def _move(source: str, target: str) -> None:
    """Put `source` in the place of `target`; nothing where another shard's job was faster."""
    (system, old), (_, new) = _place(source), _place(target)
    try:
        with suppress(FileNotFoundError):
            if isinstance(system, LocalFileSystem):
                os.replace(old, new)
            else:
                system.mv(old, new)
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error


def _remove(target: str) -> None:
    system, path = _place(target)
    try:
        if system.exists(path):
            with suppress(FileNotFoundError):  # another shard's job was faster
                system.rm(path)
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error


def _exists(target: str) -> bool:
    system, path = _place(target)
    try:
        return bool(system.exists(path))
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error


def _place(target: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return fsspec.url_to_fs(target)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: str, error: Exception) -> XRayError:
    return XRayError(
        "cannot_write",
        f"{target} cannot be written ({error}).",
        "Check the address, its credentials and the space left; for some addresses fsspec needs "
        "a package more, such as s3fs or gcsfs.",
    )
