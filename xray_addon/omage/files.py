"""Omages on disk: the published `.npz`, and `.npy` of integers or floats."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import XRayError
from ..files.arrays import read_array, read_arrays
from ..files.atomic import replacing
from .image import bad_omage, checked

KEY = "arr_0"  # the published name of the array
LARGEST = 1 << 28  # bytes; 1024 x 1024 pixels take 50 MB as floats


def read_values(path: str | PathLike[str]) -> NDArray[Any]:
    """The checked values of an omage in an `.npz` (key `arr_0`) or `.npy` file.

    Raises XRayError `missing_file`, `bad_omage`.
    """
    path = Path(path)
    try:
        return checked(_read_array(path))
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise bad_omage(f"it cannot be read ({error})", str(path)) from error
    except XRayError as error:
        raise XRayError(error.code, f"{path}: {error.message}", error.remedy) from error


def write_values(path: str | PathLike[str], values: NDArray[np.uint16]) -> None:
    """Write the published `.npz`, atomically."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{KEY: values})


def _read_array(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return read_array(path, largest=LARGEST)
    arrays = read_arrays(path, largest=LARGEST)
    if KEY not in arrays:
        raise ValueError(f"it has no array {KEY}, only {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays[KEY]
