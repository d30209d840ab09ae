"""The temporary folder that a client shares with its process, and the cleanup of old ones.

While its owner lives, it holds a lock file beside the folder. Any later client that finds the file
unlocked removes the folder.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from ..files.locks import lock

PREFIX, OWNER = "xray-runtime-", ".owner"


class PrivateFolder:
    """A folder that only this user can read. If it is not `remove`d, the next client removes it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._held = ExitStack()
        self._held.enter_context(lock(_owner(self.path), wait=False))

    def clear(self) -> None:
        """Remove the files that a dead process left in it."""
        for file in self.path.glob("*"):
            with suppress(OSError):  # it is not a file
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with its contents."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._held.close()


def sweep() -> None:
    """Remove the folders of dead clients."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*{OWNER}"):
        remove_ownerless(owner.with_suffix(""))


def remove_ownerless(folder: Path) -> None:
    """Remove `folder` if it belongs to a dead client."""
    if not _owner(folder).is_file():
        return
    # It may belong to another user.
    with suppress(OSError), lock(_owner(folder), wait=False) as dead:
        if dead:
            shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> Path:
    return folder.with_name(folder.name + OWNER)
