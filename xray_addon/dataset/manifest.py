"""The items of a dataset: mesh files, their uids, and shards."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import XRayError
from ..files.json_files import parse_json
from ..files.json_schema import plain, text
from ..files.names import is_clean_name
from ..files.opening import open_regular
from ..files.plain import Plain

# The formats of Blender's importers.
MESH_SUFFIXES = frozenset(
    {".glb", ".gltf", ".obj", ".ply", ".stl", ".fbx", ".blend"}
    | {".usd", ".usda", ".usdc", ".usdz"}
)
# Mesh formats without an importer. Such files in a folder are reported rather than ignored.
FOREIGN_SUFFIXES = frozenset(
    {".off", ".dae", ".abc", ".3ds", ".3mf", ".x3d", ".wrl", ".ctm", ".dxf", ".step", ".stp"}
)
MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl"})


LONGEST_LINE = 1 << 20  # characters of a .jsonl
MAX_UID = 96  # characters; below the usual 255 bytes with any suffix, in any script
_HASH = 8  # hexadecimal digits


@dataclass(frozen=True)
class Item(Plain):
    """One file to capture.

    uid : its name in the dataset. source : the file's path.
    license : from the manifest; "" if unknown.
    name : the file's name in the folder or manifest, the same on every machine.

    Raises ValueError if the uid is not a clean file name, because it becomes part of paths.
    """

    uid: str
    source: str
    license: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not is_clean_name(self.uid):
            raise ValueError(f"{self.uid!r:.80} cannot be the name of a file")


def read_source(path: str | PathLike[str]) -> list[Item]:
    """The items in a folder (with subfolders), one mesh file, or a manifest.

    A manifest is a .csv with a header, or a .jsonl. Its column `path` is relative to its folder;
    `uid` and `license` (or `licence`) are optional. By default a uid is made from the path, or from
    the name only if the file is outside the folder. It depends neither on order nor on machine.

    Raises XRayError `missing_file`, `unknown_format`, `no_meshes`, `bad_manifest`.
    """
    path = Path(path)
    if path.is_dir():
        suffixes = MESH_SUFFIXES | FOREIGN_SUFFIXES
        found = [
            Path(folder) / name
            for folder, _, names in os.walk(path)
            for name in names
            if Path(name).suffix.lower() in suffixes and not name.startswith(".")
        ]
        rows = [{"path": file.relative_to(path).as_posix()} for file in found]
        base = path
    elif not path.exists():
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.")
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        rows, base = _read_manifest(path), path.parent
    elif path.suffix.lower() in MESH_SUFFIXES:
        rows, base = [{"path": path.name}], path.parent
    else:
        raise XRayError(
            "unknown_format",
            f"{path.name} is no known mesh file.",
            f"Known are {', '.join(sorted(MESH_SUFFIXES | MANIFEST_SUFFIXES))}.",
        )
    if not rows:
        raise XRayError(
            "no_meshes",
            f"{path} holds no mesh files.",
            f"Known are {', '.join(sorted(MESH_SUFFIXES))}.",
        )
    return _items(rows, base)


def unique_uids(
    names: Sequence[str], uids: Sequence[str] = (), keys: Sequence[str] = ()
) -> list[str]:
    """A file name for each of `names`, safe on every system and independent of their order.

    names : paths without suffix, or names of objects. uids : the preferred uids; "" for none.
    keys : distinct strings that identify them; the names by default.
    A uid ends with a hash of its key if the name had to be changed, or differs from another only by
    case or suffix.
    """
    wishes = list(uids) or [""] * len(names)
    slugs = [
        _slug(wish) if wish else _slug(_without_suffix(name))
        for name, wish in zip(names, wishes, strict=True)
    ]
    taken = Counter(slug.casefold() for slug, _ in slugs)
    made = []
    for key, wish, (slug, changed) in zip(keys or names, wishes, slugs, strict=True):
        if changed or taken[slug.casefold()] > 1:
            text = f"{wish}\0{key}" if wish else key
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            slug = f"{slug[: MAX_UID - _HASH - 1]}-{digest[:_HASH]}"
        made.append(slug)
    return made


def shard(items: Sequence[Item], part: str) -> list[Item]:
    """The items of shard "i/N", i from 1 to N, by uid.

    Every item is in exactly one shard, regardless of the order of `items`; sizes differ by at most
    one. Raises XRayError `bad_settings`.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    index, count = (int(group) for group in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise XRayError(
            "bad_settings",
            f"{part!r} is no shard.",
            'Write "i/N" with i from 1 to N, e.g. 1/8 for the first of eight.',
        )
    mixed = sorted(items, key=lambda item: (hashlib.sha256(item.uid.encode()).digest(), item.uid))
    return sorted(mixed[index - 1 :: count], key=lambda item: item.uid)


def _read_manifest(path: Path) -> list[dict[str, str]]:
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as stream:
            lines = _lines(stream)
            if path.suffix.lower() == ".csv":
                numbered: Iterable[tuple[int, Any]] = enumerate(csv.DictReader(lines), 2)
            else:
                numbered = ((i, _parsed(line)) for i, line in enumerate(lines, 1) if line.strip())
            rows = [_row(number, row) for number, row in numbered]
    except (OSError, ValueError, csv.Error) as error:
        raise XRayError(
            "bad_manifest",
            f"{path} cannot be read as a manifest ({error}).",
            "A manifest is a .csv or .jsonl with the column path, and uid and license if known.",
        ) from error
    return [row for row in rows if row["path"]]


def _lines(stream: io.TextIOWrapper) -> Iterator[str]:
    while line := stream.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line is longer than {LONGEST_LINE} characters")
        yield line


def _parsed(line: str) -> Any:
    return parse_json(line, plain, largest=4 * LONGEST_LINE)


def _row(number: int, row: Any) -> dict[str, str]:
    path = row.get("path") if isinstance(row, dict) else None
    if not isinstance(path, str) or "\0" in path:
        raise ValueError(f"line {number} has no path")
    values = {name: row.get(name) or "" for name in ("uid", "license", "licence")}
    for name, value in values.items():
        text()(str(value), f"{name} in line {number}")
    return {
        "path": path.replace("\\", "/"),
        "uid": str(values["uid"]),
        "license": str(values["license"] or values["licence"]),
    }


def _items(rows: list[dict[str, str]], base: Path) -> list[Item]:
    unique: dict[str, dict[str, str]] = {}
    for row in rows:
        key = f"{row.get('uid', '')}\0{row['path']}"
        unique.setdefault(key, row)
    rows = list(unique.values())
    paths = [row["path"] for row in rows]
    names = [_name(path) for path in paths]
    wished = Counter(row["uid"] for row in rows if row.get("uid"))
    twice = sorted(uid for uid, count in wished.items() if count > 1)
    if twice:
        raise XRayError(
            "bad_manifest",
            f"The uid {twice[0]!r} stands for more than one file.",
            "Give every file a uid of its own, or none.",
        )
    uids = unique_uids(names, [row.get("uid", "") for row in rows], paths)
    items = [
        Item(uid, str(base / row["path"]), row.get("license", ""), _printed(name))
        for uid, name, row in zip(uids, names, rows, strict=True)
    ]
    return sorted(items, key=lambda item: item.uid)


def _name(path: str) -> str:
    """A file's name in the dataset: its path, or only the last part if it is outside the folder."""
    parts = path.split("/")
    elsewhere = path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:/", path)
    return parts[-1] if elsewhere else path


def _printed(name: str) -> str:
    """`name`, with bytes that are not UTF-8 as \\xNN, so that it can be written to any file."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in MESH_SUFFIXES | FOREIGN_SUFFIXES else name


def _slug(name: str) -> tuple[str, bool]:
    """`name` as a file name, and whether more was changed than the replacements below.

    Spaces become _, dots become -, folder separators become __.
    """
    name = unicodedata.normalize("NFC", name)
    slug = re.sub(r"/+", "__", name.strip("/"))
    slug = slug.replace(" ", "_").replace(".", "-")
    safe = re.sub(r"[^\w-]", "_", slug).lstrip("-")
    # A character takes up to four bytes. Windows's device names are not allowed.
    short = safe[:MAX_UID]
    if len(short.encode("utf-8", "replace")) > 2 * MAX_UID:
        short = short[: MAX_UID // 2]
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", short, re.IGNORECASE)
    short = f"_{short}" if device else short or "item"
    return short, short != slug or ".." in name
