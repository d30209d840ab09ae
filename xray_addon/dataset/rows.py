"""Reading and schemas of a dataset's JSON files.

A dataset may have been downloaded. A row is ignored if it does not fit the schema or its uid is not
its file's name; this affects only its own item.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files.json_files import read_json
from ..files.json_schema import (
    Check,
    choice,
    flag,
    integer,
    list_of,
    matching,
    nullable,
    number,
    plain,
    record,
    table_of,
    text,
)
from ..files.names import is_clean_name, is_clean_path
from ..files.xray_file import MOST_LAYERS
from .result import FAILED, REJECTED

_COUNT = integer(0)
_NAMES = list_of(text())
UID = matching(is_clean_name, "the clean name of a file")
VIEW = record(
    {
        "hits": list_of(_COUNT, most=MOST_LAYERS),
        "dropped": _COUNT,
        "outside": _COUNT,
        "iou": nullable(number(0, 1)),
    },
    others=plain,
)
_BEGINNING = {
    "uid": UID,
    "source": text(),
    "source_bytes": _COUNT,
    "license": text(),
    "settings": text(),
}
_MADE: dict[str, Check] = {
    "source_sha256": text(),
    "triangles": _COUNT,
    "images": flag,
    "gates": _NAMES,
}
_NAMED = {
    "objects": _NAMES,
    "materials": _NAMES,
    "missing_textures": _NAMES,
    "incomplete": _NAMES,
    "transparent": _NAMES,
    "clipped": _NAMES,
    "companions": table_of(text()),
    "omage": record({"unwrapped": text()}, others=plain),
}

# metadata/<uid>.json and refused/<uid>.json, see `store.finish`; settings.json, see `Recipe`.
ROW = record(
    {**_BEGINNING, **_MADE, "views": list_of(VIEW, 1)},
    {**_NAMED, "files": table_of(_COUNT, matching(is_clean_path, "a clean path"))},
    others=plain,
)
REFUSED_ROW = record(
    {**_BEGINNING, "status": choice(REJECTED, FAILED), "code": text(), "reason": text()},
    {**_MADE, **_NAMED, "views": list_of(VIEW)},
    others=plain,
)
SETTINGS = record({"items": table_of(plain), "gates": table_of(plain)}, {"writer": text()})
LOG = record({}, {"read": list_of(plain)})


def read_row(path: Path, schema: Check = ROW, *, named: bool = True) -> dict[str, Any] | None:
    """The row in the file at `path`; None if there is none or it does not fit.

    named : whether the file's name must be its uid.
    """
    try:
        row: dict[str, Any] = read_json(path, schema)
    except (OSError, ValueError):
        return None
    return row if not named or row.get("uid", path.stem) == path.stem else None


def read_rows(folder: Path, schema: Check = ROW) -> Iterator[dict[str, Any]]:
    """Every row in `folder` that fits the schema, by uid."""
    for uid in uids(folder):
        row = read_row(folder / f"{uid}.json", schema)
        if row is not None:
            yield row


def uids(folder: Path) -> list[str]:
    """The uids of the rows in `folder`, in order; a million of them take 100 MB."""
    try:
        return sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return []
