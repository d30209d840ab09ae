"""Companions: the files that a mesh file references, such as materials, buffers, textures."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import XRayError
from ..files.json_files import parse_json
from ..files.json_schema import list_of, record, text
from ..files.opening import open_regular, read_at_most
from ..files.signatures import stand_in_at
from .recipe import file_hash

LARGEST_TEXT = 1 << 26  # bytes of an .mtl or of a glTF's JSON
_NAMED = list_of(record({}, {"uri": text(1 << 26)}), most=1 << 16)
_GLTF = record({}, {"buffers": _NAMED, "images": _NAMED})
_MAP = re.compile(rb"\s*(map_\w+|bump|disp|decal|norm|refl)\s+(.+?)\s*$", re.IGNORECASE)
_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+([^\r\n]{1,4096})", re.MULTILINE)


def named_files(path: Path) -> list[Path]:
    """The files that the OBJ or glTF file at `path` references, whether or not they exist.

    Empty for other formats, and if the file cannot be read: its importer reports why.
    """
    try:
        if path.suffix.lower() == ".obj":
            return [*_of_obj(path)]
        if path.suffix.lower() in (".gltf", ".glb"):
            return [*_of_gltf(path)]
    except (OSError, ValueError):
        return []
    return []


def check_files(path: Path) -> None:
    """Raise XRayError `unreadable_file` if `path` or a file that it references cannot be used.

    Files that exist must be regular, because a pipe would block Blender forever, and must not be
    stand-ins (see `stand_in`). Images may be stand-ins: materials report missing images.
    """
    for file in (path, *named_files(path)):
        if not os.path.exists(file):
            continue
        if not os.path.isfile(file):
            raise XRayError(
                "unreadable_file",
                f"{path.name} cannot be read: {file.name} is not a regular file.",
                "Check the file.",
            )
        if file == path or file.suffix.lower() in (".mtl", ".bin"):
            _check_stand_in(path, file)


def _check_stand_in(path: Path, file: Path) -> None:
    found = stand_in_at(file)
    if found is not None:
        subject = file.name if file == path else f"{path.name} cannot be read: {file.name}"
        raise XRayError("unreadable_file", f"{subject} {found.what}.", found.remedy)


def companion_hashes(path: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each of `files`, "" if missing, by its path relative to the folder of `path`.

    Raises XRayError `unreadable_file`.
    """
    folder = os.path.abspath(path.parent)
    names = {}
    for file in {Path(os.path.abspath(file)) for file in files} - {Path(os.path.abspath(path))}:
        try:
            name = os.path.relpath(file, folder)
        except ValueError:  # on another drive
            name = str(file)
        names[name.replace(os.sep, "/")] = file_hash(file) if file.is_file() else ""
    return {name: names[name] for name in sorted(names)}


def companion_paths(path: Path, names: Iterable[str]) -> list[Path]:
    """The paths of files by their names from `companion_hashes`."""
    return [path.parent / name for name in names if "\0" not in name]


def _of_obj(path: Path) -> Iterator[Path]:
    # Memory-mapped: reading a gigabyte by lines would take longer than importing it.
    with (
        open_regular(path) as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        names = [match[1].rstrip() for match in _LIBRARY.finditer(content)]
    for name in dict.fromkeys(names):
        yield from _of_mtl(_beside(path, name))


def _of_mtl(path: Path) -> Iterator[Path]:
    yield path
    try:
        lines = read_at_most(path, LARGEST_TEXT).splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        if match := _MAP.match(line):
            # Options such as `-bm 0.5` precede the name, which may contain spaces, so the name may
            # start at any word.
            words = match[2].split()
            ends = (_beside(path, b" ".join(words[i:])) for i in range(len(words)))
            yield next((end for end in ends if os.path.lexists(end)), _beside(path, words[-1]))


def _of_gltf(path: Path) -> Iterator[Path]:
    with open_regular(path) as stream:
        begin = stream.read(20)
        if begin[:4] == b"glTF":
            data = stream.read(min(int.from_bytes(begin[12:16], "little"), LARGEST_TEXT))
        else:
            data = begin + stream.read(LARGEST_TEXT)
    document: dict[str, Any] = parse_json(data, _GLTF, largest=LARGEST_TEXT)
    for entry in (*document.get("buffers", ()), *document.get("images", ())):
        uri = entry.get("uri", "data:")
        if not uri.startswith("data:") and "\0" not in uri:
            yield path.parent / unquote(uri)


def _beside(path: Path, name: bytes) -> Path:
    return path.parent / os.fsdecode(name.replace(b"\0", b"")).replace("\\", "/")
