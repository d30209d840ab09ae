"""Omages on disk: the published `.npz`, `.npy` of integers or floats, and folders of pictures."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import XRayError
from ..files.atomic import read_arrays, replacing
from .omage import Omage, bad_omage
from .pictures import read_pictures

KEY = "arr_0"  # the published name of the array


def read_omage(path: str | PathLike[str]) -> Omage:
    """The omage in an `.npz` (key `arr_0`) or `.npy` file, or in a folder of pictures.

    Raises XRayError `missing_file`, `bad_omage`.
    """
    path = Path(path)
    if path.is_dir():
        return read_pictures(path)
    try:
        return Omage(_read_array(path))
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise bad_omage(f"it cannot be read ({error})", str(path)) from error
    except XRayError as error:
        raise XRayError(error.code, f"{path}: {error.message}", error.remedy) from error


def write_omage(path: str | PathLike[str], omage: Omage) -> None:
    """Write the published `.npz`, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{KEY: omage.to_uint16()})


def _read_array(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    arrays = read_arrays(path)
    if KEY not in arrays:
        raise ValueError(f"it has no array {KEY}, only {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays[KEY]
