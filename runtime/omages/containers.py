"""Lightning's checkpoints, read without running or building anything that they ask for.

`torch.load` with `weights_only` refuses the settings objects that Lightning keeps beside the
weights. They are replaced by objects that do nothing, if they come from the libraries that hold
settings; whatever else a file asks for is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from xray_addon.errors import XRayError, is_out_of_memory

# Where the objects come from that the published trainers keep as hyper-parameters.
_SETTINGS = ("omegaconf.", "typing.", "collections.", "pathlib.", "src.", "enum.")
_SETTINGS_TYPES = frozenset(
    f"builtins.{name}"
    for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "object")
)


class Inert:
    """Stands for an object that is not wanted: it takes whatever it is given and does nothing."""

    def __new__(cls, *_arguments: Any) -> Inert:
        """Whatever the object would be made of is ignored."""
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _name: Any, _value: Any) -> None:
        pass


def read_container(path: Path) -> dict[str, Any]:
    """What the checkpoint at `path` holds, on the CPU; settings objects come as `Inert`.

    Raises XRayError `missing_weights`, `unsafe_weights`, `bad_weights`.
    """
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {path}.",
            "Download the weights, or choose the folder that holds them.",
        )
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        foreign = [
            name for name in asked if not (name.startswith(_SETTINGS) or name in _SETTINGS_TYPES)
        ]
        if foreign:
            raise XRayError(
                "unsafe_weights",
                f"{path} asks for {', '.join(foreign[:3])} while it is read, which weights never "
                "need. Nothing of it was run.",
                "Delete the file and get the weights again from where they were published.",
            )
        with torch.serialization.safe_globals([(Inert, name) for name in asked]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except XRayError:
        raise
    # A damaged pickle makes its reader fail in any way.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnpicklingError):
            reason = "it holds something else than tensors and settings"
        raise XRayError(
            "bad_weights",
            f"{path} is damaged, cut off or of another kind ({reason[:200]}).",
            "Get it again; a download that broke off can be resumed.",
        ) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise XRayError(
            "bad_weights",
            f"{path} is no Lightning checkpoint: it has no state_dict.",
            "Choose the published file, or one that X-Ray has trained.",
        )
    return dict(content)
