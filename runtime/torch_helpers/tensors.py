"""Files of weights that others made, read without trusting them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xray_addon.errors import XRayError, is_out_of_memory

# Its checkpoints name classes of its own: those of the callbacks whose state they keep.
_LIGHTNING = ("pytorch_lightning.", "lightning.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, on the CPU: safetensors, or a pickle of nothing but tensors.

    Pickles are read with `weights_only`: nothing in them can run.

    Raises XRayError `unsafe_weights` for a pickle that asks for more, `bad_weights` for files
    that are damaged, cut off or of another kind.
    """
    if path.suffix == ".safetensors":
        with _reading(path):
            return load_file(path)
    state = read_pickle(path)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise XRayError(
            "bad_weights",
            f"{path} is no plain table of tensors, as weights are.",
            "Choose the weights themselves, not a training's checkpoint.",
        )
    return state


def read_pickle(path: Path) -> dict[str, Any]:
    """The table that torch pickled into a file: tensors, numbers, texts and tables of these.

    Read with `weights_only`: nothing in it can run. Tensors stay on the disk until they are used
    where the file's format allows it. Raises as `read_tensors`.
    """
    with _reading(path), torch.serialization.safe_globals(_inert_classes(path)):
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    if not isinstance(content, Mapping):
        raise XRayError(
            "bad_weights",
            f"{path} is no table of tensors, as weights are.",
            "Choose a file of weights.",
        )
    return dict(content)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a reader of weights raises, as XRayErrors."""
    try:
        yield
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


class _Inert:
    """Stands for a class of Lightning's; it keeps nothing and does nothing."""

    def __init__(self, *_values: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _inert_classes(path: Path) -> list[Any]:
    """Harmless stand-ins for the classes that Lightning names beside the tensors it saves."""
    if not _is_zip(path):
        return []
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [
        (type(name.rpartition(".")[2], (_Inert,), {}), name)
        for name in named
        if name.startswith(_LIGHTNING)
    ]


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
