"""Atomic writing: a file is written completely or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix; it replaces `path` at the end.

    Missing parent folders are made. If the body raises, the temporary file is removed and `path`
    is unchanged.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_together(path: str | PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for a file that is written with others, such as textures.

    Yields a path of the same name in a temporary folder beside `path`. At the end, all files in
    that folder are moved into the folder of `path`, the main file last. If the body raises, nothing
    is moved.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
        yield Path(folder) / target.name
        written = sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name)
        for file in written:
            file.replace(target.parent / file.name)
