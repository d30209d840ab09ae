"""WebDataset shards: the complete items of a shard in one tar, local or at any fsspec URL.

Sample keys are ``<uid>-NNN``, one a view, with the members ``.npz`` (the X-Ray), ``.png`` (its
reference image, if there is one), ``.ids.npz`` (if there are any) and ``.json`` (the camera and
the item's row). The same items give the same bytes. Beside ``OUT-000i.tar`` lies ``OUT-000i.json``,
written after it, which says what is in it.

Every file system of fsspec has errors of its own, such as those of credentials: whatever one
raises is XRayError `cannot_write`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from webdataset.writer import TarWriter

from xray_addon.dataset import REJECTED, Item, Result, find
from xray_addon.errors import XRayError
from xray_addon.files import replacing
from xray_addon.recipe import Recipe, file_hash, other_settings


def is_url(out: str) -> bool:
    """Whether `out` names a place for fsspec rather than a folder."""
    return "://" in out


def shard_name(out: str, index: int, suffix: str) -> str:
    """Path or URL of a file of shard `index`, from 1."""
    return f"{out.rstrip('/')}-{index:04d}{suffix}"


def pack(
    folder: Path,
    items: Sequence[Item],
    results: Sequence[Result],
    out: str,
    part: str,
    recipe: Recipe,
) -> str:
    """Write the complete ones of `items` in the dataset in `folder` as shard `part` of `out`.

    results : how the items ended. recipe : what they were made with. Nothing is written where the
    shard is there with the same content. Where as many shards are there as `part` says, all with
    the same settings, those beyond them are removed. Returns the tar's path or URL.

    Raises XRayError `cannot_write`.
    """
    index, count = map(int, part.split("/"))
    uids = sorted(item.uid for item in items if find(folder, item, recipe.digest, refused=False))
    tar = shard_name(out, index, ".tar")
    content = hashlib.sha256()
    for uid in uids:
        content.update((folder / "metadata" / f"{uid}.json").read_bytes())
    record: dict[str, Any] = {
        "settings": recipe.to_dict(),
        "shards": count,
        "content": content.hexdigest(),
        "items": {uid: _source_hash(folder / "metadata", uid) for uid in uids},
        "rejected": {
            result.uid: _source_hash(folder / "refused", result.uid)
            for result in sorted(results, key=lambda result: result.uid)
            if result.status == REJECTED
        },
    }
    if read_record(out, index) == record and _exists(tar):
        _remove_surplus(out, count, record["settings"])
        return tar
    # Without its record a tar that is being replaced is not taken for the new one.
    _remove(shard_name(out, index, ".json"))
    with tempfile.TemporaryDirectory(prefix=".shard-", dir=folder) as temporary:
        made = Path(temporary) / "shard.tar"
        with made.open("wb") as stream:
            # Fixed times, owners and modes: the same items give the same bytes.
            writer = TarWriter(stream, user="", group="", mode=0o644, encoder=False, mtime=0)
            for uid in uids:
                for sample in _samples(folder, uid):
                    writer.write(sample)
            writer.close()
        _put(made, tar)
        made.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
        _put(made, shard_name(out, index, ".json"))
    _remove_surplus(out, count, record["settings"])
    return tar


def read_record(out: str, index: int) -> dict[str, Any] | None:
    """What shard `index` of `out` says it holds; None where it is not there or not readable.

    Raises XRayError `cannot_write` for an address that fsspec does not know or may not use.
    """
    system, path = _place(shard_name(out, index, ".json"))
    try:
        with system.open(path, "rb") as stream:
            record = json.load(stream)
    except (OSError, ValueError):
        return None
    except Exception as error:  # each of fsspec's systems raises its own kinds
        raise _cannot_write(shard_name(out, index, ".json"), error) from error
    return record if isinstance(record, dict) else None


def held(out: str, part: str, recipe: Recipe, replace: bool = False) -> dict[str, str] | None:
    """Of each item of shard `part` of `out` the SHA-256 of its source; None where it is not there.

    Items that a gate rejected are held too. Raises XRayError `other_settings`, without `replace`,
    where the shard was made with other settings or as one of another number: at a URL there are no
    rows that gates could judge again.
    """
    index, count = map(int, part.split("/"))
    record = read_record(out, index)
    if record is None or not _exists(shard_name(out, index, ".tar")):
        return None
    differences = recipe.differences(Recipe.from_dict(record["settings"]), gates=True)
    if record["shards"] != count:
        differences = f"there are {record['shards']} shards there and {count} here"
    if differences and not replace:
        raise other_settings(shard_name(out, index, ".tar"), differences)
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
        and all(
            found[item.uid] == file_hash(item.source)
            for item in items
            if Path(item.source).is_file()
        )
    )


def _source_hash(rows: Path, uid: str) -> str:
    row = json.loads((rows / f"{uid}.json").read_text(encoding="utf-8"))
    return str(row.get("source_sha256", ""))


def _remove_surplus(out: str, count: int, settings: dict[str, Any]) -> None:
    """Remove the shards beyond `count`, once all up to it are there as ones of so many."""
    surplus = count + 1
    if not _exists(shard_name(out, surplus, ".tar")):
        return
    for index in range(1, count + 1):
        record = read_record(out, index)
        if record is None or (record.get("shards"), record["settings"]) != (count, settings):
            return
    while _exists(shard_name(out, surplus, ".tar")):
        _remove(shard_name(out, surplus, ".json"))
        _remove(shard_name(out, surplus, ".tar"))
        surplus += 1


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
