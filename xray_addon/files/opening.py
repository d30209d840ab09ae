"""Safe opening of untrusted files: regular files only, with a limit on their size."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, BufferedWriter
from os import PathLike


def open_regular(path: str | PathLike[str]) -> BufferedReader:
    """Open the file at `path` for reading. Never blocks, as opening a pipe would.

    Raises OSError, e.g. FileNotFoundError, also if `path` is not a regular file but a folder, pipe,
    socket or device.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | getattr(os, "O_NOCTTY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def append_regular(path: str | PathLike[str], *, private: bool = False) -> BufferedWriter:
    """Open the file at `path` for appending; make it if it is missing. Follows no symbolic link.

    private : other users may not read it. Raises OSError, also if `path` is not a regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o600 if private else 0o666)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if private and hasattr(os, "fchmod"):
            os.fchmod(handle, 0o600)  # an earlier version may have made it readable
        return os.fdopen(handle, "ab")
    except BaseException:
        os.close(handle)
        raise


def read_at_most(path: str | PathLike[str], limit: int) -> bytes:
    """All bytes of the regular file at `path`. Raises as `open_regular`, and ValueError if there
    are more than `limit` bytes."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(min(size, limit) + 1)  # read(limit) would allocate that much at once
        if len(data) > size:  # it is growing, or does not report its size
            data += stream.read(limit + 1 - len(data))
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data
