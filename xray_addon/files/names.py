"""Checks of untrusted names that become parts of paths."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

LONGEST = 255  # bytes: the limit of common file systems
# Names that Windows reserves for devices, and characters with a meaning in Windows or a shell.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SPECIAL = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def is_clean_name(name: object) -> bool:
    """Whether `name` is a plain name of one file or folder on every system.

    Rejected: empty names; names that begin with a dot (".", ".." and hidden files) or end with a
    dot or space; separators, colons, wildcards, control characters and invalid UTF-8; Windows
    device names; more than 255 bytes.
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
    """Whether `path` is relative and consists of clean names separated by /."""
    return isinstance(path, str) and all(map(is_clean_name, path.split("/")))


def last_part(path: str) -> str:
    """The last component, without suffix, of a path from any system; may be empty."""
    return PurePosixPath(path.replace("\\", "/")).stem
