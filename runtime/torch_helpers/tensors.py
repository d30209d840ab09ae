"""Files of weights that others made, read without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xray_addon.errors import XRayError, is_out_of_memory


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, on the CPU: safetensors, or a pickle of nothing but tensors.

    Pickles are read with `weights_only`: nothing in them can run.

    Raises XRayError `unsafe_weights` for a pickle that asks for more, `bad_weights` for files
    that are damaged, cut off or of another kind.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    # A damaged pickle makes its reader fail in any way.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, UnpicklingError) and _asks_for_code(error):
            raise XRayError(
                "unsafe_weights",
                f"{path} asks to run code while it is read, which weights never need. "
                "It was not run.",
                "Delete the file and get the weights again from where they were published.",
            ) from error
        raise XRayError(
            "bad_weights",
            f"{path} is damaged or only a part of a file ({_size(path)}: {_reason(error)}).",
            "Get it again; a download that broke off can be resumed.",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise XRayError(
            "bad_weights",
            f"{path} is no plain table of tensors, as weights are.",
            "Choose the weights themselves, not a training's checkpoint.",
        )
    return dict(state)


def _is_zip(path: Path) -> bool:
    """Whether torch wrote the file in its present format, which can be mapped into memory."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _asks_for_code(error: UnpicklingError) -> bool:
    text = str(error)
    return "Unsupported global" in text or "GLOBAL" in text or "Trying to" in text


def _reason(error: Exception) -> str:
    """The first sentence of what a reader said."""
    if isinstance(error, UnpicklingError):
        return "it holds no tensors"  # torch's advice is to trust the file
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:200]


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.exists() else "it is gone"
