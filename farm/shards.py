"""WebDataset shards: the complete items of a shard in one tar, local or at any fsspec URL.

Sample keys are ``<uid>-NNN``, one per view, with the members ``.npz`` (the X-Ray), ``.png`` (its
reference image, if any), ``.ids.npz`` (if any) and ``.json`` (the camera and the item's row). The
first view also has ``.omage<R>.npz`` (if there are omages). The same items give the same bytes.
``OUT-000i.json`` beside ``OUT-000i.tar`` is written after it and lists its contents.

No item is removed before its replacement exists: if a new shard lacks items of the old one, it
waits beside it as ``OUT-000i.tar.next`` and ``OUT-000i.json.next`` until all shards are complete.

Each fsspec file system raises its own errors, e.g. for credentials. All of them become XRayError
`cannot_write`.
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

from xray_addon.dataset.companions import companion_hashes, companion_paths
from xray_addon.dataset.manifest import Item, shard
from xray_addon.dataset.recipe import Recipe, file_hash, other_settings
from xray_addon.dataset.result import FAILED, REJECTED, ItemResult
from xray_addon.dataset.rows import SETTINGS, UID
from xray_addon.dataset.store import find, item_row, writing
from xray_addon.errors import XRayError
from xray_addon.files import json_schema as schema
from xray_addon.files.atomic import replacing
from xray_addon.files.json_files import parse_json, read_json
from xray_addon.files.names import last_part

TAR, RECORD = ".tar", ".json"
NEXT = ".next"  # suffix of the two files of a waiting shard
LARGEST = 1 << 28  # bytes of a record, which has 200 per item

_HASHES = schema.table_of(schema.text(), UID)
_COMPANIONS = schema.table_of(schema.text())
_HASHED = schema.record({}, {"source_sha256": schema.text(), "companions": _COMPANIONS})
# Frames are passed on unchecked: they are checked when a camera is read.
_FRAMES = schema.record(
    {
        "camera_angle_x": schema.number(),
        "frames": schema.list_of(schema.record({"file_path": schema.text()}, others=schema.plain)),
    },
    {"applied_transform": schema.plain},
)
_RECORD = schema.record(
    {
        "settings": SETTINGS,
        "shards": schema.integer(1),
        "items": _HASHES,
        "rows": _HASHES,
        "rejected": _HASHES,
        "failed": schema.list_of(UID),
    }
)


def is_url(out: str) -> bool:
    """Whether `out` is an fsspec URL rather than a folder."""
    return "://" in out


def shard_name(out: str, index: int, suffix: str) -> str:
    """Path or URL of a file of shard `index` (from 1)."""
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
    """Write the complete items of shard `part` of the dataset in `folder` to `out`.

    source : the items of all shards. results : those of this shard. recipe : the settings they
    were made with. kept : items to copy from the existing shard, see `keepable`.
    An existing shard with the same content is not written again. At the end, waiting shards are put
    in place, see `settle`. Returns the tar's path or URL.

    Raises XRayError `cannot_write`, `bad_shard` if the existing shard lacks items of `kept`.
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
        # The old record is removed first, so that it is never read beside the new tar.
        _remove(shard_name(out, index, RECORD + NEXT))
        if not waits:
            _remove(shard_name(out, index, RECORD))
        with (
            writing(folder),
            tempfile.TemporaryDirectory(prefix=".shard-", dir=folder) as temporary,
        ):
            file = Path(temporary) / "shard"
            # Fixed times, owners and modes: the same items give the same bytes.
            fixed = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
            with file.open("wb") as stream, TarWriter(stream, encoder=False, **fixed) as writer:
                new = (sample for uid in sorted(made) for sample in _samples(folder, uid))
                for sample in merge(new, _samples_in(tar, taken), key=_place_in_tar):
                    writer.write(sample)
            _put(file, tar + waits)
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
            _put(file, shard_name(out, index, RECORD + waits))
    settle(out, part, recipe, source)
    return tar


def settle(out: str, part: str, recipe: Recipe, source: Sequence[Item]) -> None:
    """Replace old shards with the waiting ones, and remove surplus old shards.

    The shard of `part` is replaced if the new one has all items of the old one. The others are
    replaced when all shards of `source` exist with `recipe`. This can be interrupted at any point
    and repeated.

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
            return  # made from an earlier state of the source
    for i in range(1, count + 1):
        _put_in_place(out, i)
    surplus = count + 1
    while _exists(shard_name(out, surplus, TAR)):
        for suffix in (RECORD + NEXT, TAR + NEXT, RECORD, TAR):
            _remove(shard_name(out, surplus, suffix))
        surplus += 1


def _put_in_place(out: str, index: int) -> None:
    """Replace shard `index` with the waiting one, if any."""
    # The record is moved last, because `read_record` prefers a waiting record.
    if is_waiting(out, index):
        for suffix in (TAR, RECORD):
            _move(shard_name(out, index, suffix + NEXT), shard_name(out, index, suffix))


def is_waiting(out: str, index: int) -> bool:
    """Whether a new shard is waiting to be put in place."""
    return _exists(shard_name(out, index, RECORD + NEXT))


def read_record(out: str, index: int) -> dict[str, Any] | None:
    """The record of shard `index` of `out`, or None if it is missing or invalid.

    A waiting shard's record takes precedence. Raises XRayError `cannot_write` if fsspec does not
    know the address or cannot access it.
    """
    waiting = _read(shard_name(out, index, RECORD + NEXT))
    return waiting or _read(shard_name(out, index, RECORD))


def keepable(out: str, part: str, items: Sequence[Item], recipe: Recipe) -> set[str]:
    """The uids of `items` that are up to date in shard `part` of `out`.

    Reads all of their source files. Raises XRayError `cannot_write`.
    """
    index = int(part.split("/")[0])
    record = _read(shard_name(out, index, RECORD))
    if record is None or record["settings"] != recipe.to_dict() or is_waiting(out, index):
        return set()
    if not _exists(shard_name(out, index, TAR)):
        return set()
    return {item.uid for item in items if _is_of(item, record["items"].get(item.uid))}


def held(out: str, part: str, recipe: Recipe, replace: bool = False) -> dict[str, str] | None:
    """The SHA-256 of each item's source in shard `part` of `out`; None if there is no shard.

    Items that a gate rejected are included. Without `replace`, raises XRayError `other_settings`
    if the shard was made with different settings, gates included, or a different number of shards:
    at a URL there is no metadata to re-check the gates with.
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
    """Whether shard `part` of `out` is up to date for all `items`. Raises as `held`.

    Reads all of the source files.
    """
    found = held(out, part, recipe, replace)
    return (
        found is not None
        and {item.uid for item in items} == {*found}
        and all(_is_of(item, found[item.uid]) for item in items)
    )


def _is_of(item: Item, known: str | None) -> bool:
    """Whether an item made from a source with the `_source_hash` `known` is up to date."""
    if known is None:
        return False
    source = Path(item.source)
    # If the source is gone, the item made from it is kept.
    if not source.is_file():
        return True
    digest, _, companions = known.partition(" ")
    if digest != file_hash(source):
        return False
    try:
        named = parse_json(companions or "{}", _COMPANIONS)
        return companion_hashes(source, companion_paths(source, named)) == named
    except (ValueError, XRayError):  # a companion can no longer be read
        return False


def _source_hash(row: bytes) -> str:
    """SHA-256 of an item's source, followed by a space and its companions' hashes as JSON."""
    try:
        found = parse_json(row, _HASHED)
    except ValueError:
        return ""
    digest, companions = str(found.get("source_sha256", "")), found.get("companions", {})
    return f"{digest} {json.dumps(companions, sort_keys=True)}" if companions else digest


def _place_in_tar(sample: dict[str, Any]) -> tuple[str, str]:
    uid, _, view = sample["__key__"].rpartition("-")
    return uid, view


def _samples_in(tar: str, uids: Set[str]) -> Iterator[dict[str, Any]]:
    """The existing samples of some items in the shard `tar`.

    Raises XRayError `cannot_write`, at the end `bad_shard` if it lacks one of the items.
    """
    if not uids:
        return
    lacking = set(uids)
    system, path = _place(tar)
    try:
        with system.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for key, members in groupby(archive, lambda member: member.name.partition(".")[0]):
                uid = key.rpartition("-")[0]
                if uid in uids:
                    lacking.discard(uid)
                    sample: dict[str, Any] = {"__key__": key}
                    for member in members:
                        file = archive.extractfile(member)
                        assert file is not None  # shards contain only files
                        sample[member.name.partition(".")[2]] = file.read()
                    yield sample
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(tar, error) from error
    if lacking:
        raise XRayError(
            "bad_shard",
            f"{tar} lacks items that its record names ({', '.join(sorted(lacking)[:3])}).",
            f"Remove {tar.removesuffix(TAR)}{RECORD}, and run it again: all its items are made.",
        )


def _samples(folder: Path, uid: str) -> list[dict[str, Any]]:
    """The samples of an item, one per view."""
    row = item_row(folder, uid)
    if row is None:
        raise XRayError("bad_shard", f"{uid} in {folder} is not complete.", "Run it again.")
    transforms = folder / "images" / uid / "transforms.json"
    shared = {key: value for key, value in row.items() if key not in ("views", "files")}
    cameras: dict[str, dict[str, Any]] = {}
    if transforms.is_file():
        document = _cameras(transforms)
        if "applied_transform" in document:
            shared["applied_transform"] = document["applied_transform"]
        cameras = {
            last_part(frame["file_path"]): {
                "camera_angle_x": document["camera_angle_x"],
                **{key: value for key, value in frame.items() if key not in ("file_path", "c2w")},
            }
            for frame in document["frames"]
        }
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
        # Omages belong to the object, not to a view, so the first view gets them.
        for file in sorted((folder / "omages" / uid).glob("*.npz")) if view == 0 else ():
            sample[f"omage{file.stem}.npz"] = file.read_bytes()
        samples.append(sample)
    return samples


def _cameras(transforms: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = read_json(transforms, _FRAMES)
    except (OSError, ValueError) as error:
        raise XRayError(
            "bad_transforms",
            f"{transforms} is not a transforms.json: {error}.",
            "Remove the item's row, and have it made again.",
        ) from error
    return document


def _put(source: Path, target: str) -> None:
    """Copy `source` to a path or URL atomically."""
    system, path = _place(target)
    try:
        if isinstance(system, LocalFileSystem):
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
            return
        # fsspec's transactions: object stores complete the upload, others move the file.
        with system.transaction, source.open("rb") as stream, system.open(path, "wb") as to:
            shutil.copyfileobj(stream, to)
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error


def _read(target: str) -> dict[str, Any] | None:
    """A record, or None if it is missing or invalid."""
    system, path = _place(target)
    try:
        with system.open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(target, error) from error
    try:
        held: dict[str, Any] = parse_json(data, _RECORD, largest=LARGEST)
    except ValueError:
        return None
    return held


def _move(source: str, target: str) -> None:
    """Move `source` to `target`; does nothing if another shard's job already did."""
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
            with suppress(FileNotFoundError):  # another shard's job removed it
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
        f"{target} cannot be read or written ({error}).",
        "Check the address, its credentials and the free space. For some addresses fsspec needs "
        "another package, such as s3fs or gcsfs.",
    )
