"""Reads weights files from untrusted sources safely, and fills networks with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xray_addon.errors import XRayError, is_out_of_memory

# Lightning's checkpoints name its own classes: the callbacks whose state they store.
LIGHTNING = ("pytorch_lightning.", "lightning.")

Network = TypeVar("Network", bound=nn.Module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, on the CPU: safetensors, or a pickle of only tensors.

    Pickles are read with `weights_only`, so they cannot run code.

    Raises XRayError `unsafe_weights` for a pickle that contains anything else, and `bad_weights`
    for files that are damaged, truncated or of another type.
    """
    if path.suffix == ".safetensors":
        with _reading(path):
            return load_file(path)
    state = read_pickle(path)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise XRayError(
            "bad_weights",
            f"{path} is not a plain table of tensors, as weights are.",
            "Choose the weights themselves, not a training checkpoint.",
        )
    return state


def read_pickle(path: Path, inert: tuple[str, ...] = LIGHTNING) -> dict[str, Any]:
    """The dict in a torch pickle: tensors, numbers, strings and dicts of these.

    It is read with `weights_only`, so it cannot run code. If the file's format allows it, tensors
    stay on disk until they are used. Raises as `read_tensors`.

    inert : prefixes of the names of classes that the file may mention, such as those of settings.
        They are not imported; placeholder objects that do nothing take their place.
    """
    with _reading(path), torch.serialization.safe_globals(_stand_ins(path, inert)):
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    if not isinstance(content, Mapping):
        raise XRayError(
            "bad_weights",
            f"{path} is not a table of tensors, as weights are.",
            "Choose a file of weights.",
        )
    return dict(content)


def filled(
    network: Network, tensors: Mapping[str, Tensor], path: Path, what: str, remedy: str
) -> Network:
    """`network` with `tensors` as its weights: in single precision, on the CPU, for inference.

    what, remedy : for the message; what the file `path` should fit, and what to do if it does not.

    Raises XRayError `bad_weights` unless names and shapes match exactly.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    if wanted and len(missing) == len(wanted):
        reason = f"it contains the weights of another model ({first_names(extra)})"
        raise XRayError("bad_weights", f"{path} does not fit {what}: {reason}.", remedy)
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {fault} ({first_names(names)})"
        for fault, names in (
            ("missing", missing),
            ("unexpected", extra),
            ("of another shape", other),
        )
        if names
    ]
    if faults:
        reason = f"of {len(wanted)} tensors {', '.join(faults)}"
        raise XRayError("bad_weights", f"{path} does not fit {what}: {reason}.", remedy)
    network.load_state_dict(tensors, assign=True)
    return network.float().eval().requires_grad_(False)


def first_names(names: Iterable[str]) -> str:
    """The first three of `names`, followed by dots if there are more, for a message."""
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert the exceptions of reading weights to XRayErrors."""
    try:
        yield
    # A damaged pickle can make its reader raise anything.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, UnpicklingError) and _asks_for_code(error):
            raise XRayError(
                "unsafe_weights",
                f"{path} tries to run code when it is read{_asked(error)}, which weights never "
                "need. The code was not run.",
                "Delete the file and download the weights again from where they were published.",
            ) from error
        raise XRayError(
            "bad_weights",
            f"{path} is damaged or incomplete ({_size(path)}: {_reason(error)}).",
            "Download it again; an interrupted download can be resumed.",
        ) from error


class _Inert:
    """Placeholder for an unwanted object: accepts anything and does nothing."""

    def __new__(cls, *_values: Any, **_named: Any) -> _Inert:
        """Ignore all arguments of the constructor."""
        return super().__new__(cls)

    def __init__(self, *_values: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _name: Any, _value: Any) -> None:
        pass


def _stand_ins(path: Path, inert: tuple[str, ...]) -> list[Any]:
    """An `_Inert` for each class in the file whose name starts with one of `inert`."""
    if not _is_zip(path):
        return []
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Inert, name) for name in named if name.startswith(inert)]


def _is_zip(path: Path) -> bool:
    """Whether the file has torch's current format, which can be memory-mapped."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _asks_for_code(error: UnpicklingError) -> bool:
    text = str(error)
    return "Unsupported global" in text or "GLOBAL" in text or "Trying to" in text


def _asked(error: UnpicklingError) -> str:
    """What the file asks for, if torch says so."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" ({found[1]})" if found else ""


def _reason(error: Exception) -> str:
    """The first sentence of a reader's error."""
    if isinstance(error, UnpicklingError):
        return "it contains no tensors"  # torch's advice is to trust the file
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:200]


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.exists() else "it is gone"
