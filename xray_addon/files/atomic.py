"""Files that are written whole or not at all, and archives of arrays read with care."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix; it takes the place of `path` at the end.

    Folders on the way are made. If the body raises, the temporary file is removed and whatever
    was at `path` stays as it was.
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


def read_arrays(path: str | PathLike[str] | BinaryIO) -> dict[str, NDArray[Any]]:
    """All arrays of an `.npz` by name, never unpickling. path : or an open file.

    Raises FileNotFoundError, and ValueError for everything that is not such an archive.
    """
    # NumPy leaves the file open when it is given a path to a broken archive.
    with Path(path).open("rb") if isinstance(path, str | PathLike) else nullcontext(path) as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it is not an archive of arrays")
            with archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(str(error)) from error
