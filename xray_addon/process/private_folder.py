"""The temporary folder that a client and its process share, and what the dead left of theirs.

A lock file beside it says that its owner lives. Who finds that unlocked removes the folder.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from ..files.locks import lock

PREFIX, OWNER = "xray-runtime-", ".owner"


class PrivateFolder:
    """A folder that only this user may look into; `remove` it, or the next one who comes will."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._held = ExitStack()
        self._held.enter_context(lock(_owner(self.path), wait=False))

    def clear(self) -> None:
        """Remove what a process that died has left in it."""
        for file in self.path.glob("*"):
            with suppress(OSError):  # it is no file
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._held.close()


def sweep() -> None:
    """Remove the folders of clients that are dead."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*{OWNER}"):
        remove_ownerless(owner.with_suffix(""))


def remove_ownerless(folder: Path) -> None:
    """Remove `folder` if it is a client's and that is dead."""
    if not _owner(folder).is_file():
        return
    # It may be another user's.
    with suppress(OSError), lock(_owner(folder), wait=False) as dead:
        if dead:
            shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> Path:
    return folder.with_name(folder.name + OWNER)
