"""Names that others chose and that become parts of paths."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

LONGEST = 255  # bytes of a file name on the usual file systems
# What Windows keeps for devices, and what it or a shell reads as more than a name.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SPECIAL = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def is_clean_name(name: object) -> bool:
    """Whether `name` is the name of one file or folder, on every system, and nothing more.

    Not one: an empty name, one that begins with a dot (".", ".." and hidden files) or ends with a
    dot or blank, one with separators, colons, wildcards, control characters or bytes that are no
    UTF-8, a device of Windows, and more than 255 bytes.
    """
    return (
        isinstance(name, str)
        and name != ""
        and name[0] != "."
        and name[-1] not in ". "
        and not _SPECIAL.search(name)
        and not _DEVICE.fullmatch(name)
        and len(name.encode()) <= LONGEST
    )


def is_clean_path(path: object) -> bool:
    """Whether `path` is relative and made of clean names, with / between them."""
    return isinstance(path, str) and all(map(is_clean_name, path.split("/")))


def last_part(path: str) -> str:
    """The last name of a path written on any system, without its suffix; may be empty."""
    return PurePosixPath(path.replace("\\", "/")).stem
