"""File locks that end with their process, so that a killed run never blocks the next one."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

PATIENCE = 2.0  # s

# Errors of file systems without locks.
_UNSUPPORTED = frozenset(
    {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
)

if sys.platform == "win32":
    import msvcrt

    def _acquire(handle: int, wait: bool) -> None:
        while True:
            try:
                # LK_LOCK gives up after ten seconds.
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if not wait or error.errno != errno.EDEADLK:
                    raise
            else:
                return
else:
    import fcntl

    def _acquire(handle: int, wait: bool) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _acquire_or_say(handle: int, on_wait: Callable[[], None]) -> None:
    with suppress(OSError):
        _acquire(handle, wait=False)
        return
    timer = threading.Timer(PATIENCE, on_wait)
    timer.daemon = True
    timer.start()
    try:
        _acquire(handle, wait=True)
    finally:
        timer.cancel()


@contextmanager
def lock(
    path: str | PathLike[str], wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold the lock file at `path` during the body; the file is removed afterwards.

    Yields whether this process holds the lock. If another process holds it, waits, or without
    `wait` yields False at once. The operating system releases the lock of a killed process. On
    file systems without locks, yields `wait`, unlocked. Symbolic links are not followed. `on_wait`
    is called on another thread after `PATIENCE` s of waiting.

    Raises OSError if the file cannot be made.
    """
    path = Path(path)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if on_wait is not None:
                _acquire_or_say(handle, on_wait)
            else:
                _acquire(handle, wait)
        except OSError as error:
            os.close(handle)
            if error.errno in _UNSUPPORTED:
                yield wait
            elif not wait:
                yield False
            else:
                raise
            return
        except BaseException:
            os.close(handle)
            raise
        if _is_file(path, handle):
            break
        os.close(handle)  # the previous holder has removed this file: lock the current one
    try:
        yield True
    finally:
        if sys.platform == "win32":
            os.close(handle)
            with suppress(OSError):  # another process has it open
                path.unlink()
        else:
            with suppress(OSError):  # the folder may be read-only by now
                path.unlink(missing_ok=True)
            os.close(handle)


def _is_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
