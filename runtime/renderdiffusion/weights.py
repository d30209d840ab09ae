"""The weights file: safetensors with the configuration and the training record.

The U-Net's kernels, nearly all of a model, take one byte per number; all else is in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from xray_addon.errors import XRayError
from xray_addon.files.json_files import parse_json
from xray_addon.files.json_schema import plain, table_of

from ..torch_helpers.network_configs import NETWORK
from ..torch_helpers.rounding import check_shapes, from_bytes, save_rounded
from ..training.trainer import WEIGHTS
from .networks import RenderDiffusion, RenderDiffusionConfig

DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "renderdiffusion.safetensors"
FORMAT = "xray-renderdiffusion"


def save_model(path: Path, model: RenderDiffusion, record: dict[str, Any]) -> None:
    """Write `model`, rounded, atomically; `record` (plain data) says how it was made."""
    kernels = [p for name, p in model.named_parameters() if p.ndim == 4 and "places" not in name]
    save_rounded(path, model, kernels, format=FORMAT, record=record)


def load_model(path: Path = DEFAULT_WEIGHTS, device: str = "cpu") -> RenderDiffusion:
    """Load the model in a file, or in a training's folder, in single precision.

    Raises XRayError `missing_weights`, `bad_weights`.
    """
    path = _find(path)
    with _reading(path) as archive:
        config = parse_json(_metadata(archive)["config"], NETWORK)
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        # Check that the tensors fit the configuration before allocating anything by it.
        with torch.device("meta"):
            model = RenderDiffusion(RenderDiffusionConfig(**values))
        check_shapes(archive, model)
        state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        from_bytes(state)
        model.load_state_dict(state, strict=True, assign=True)
    return model.to(torch.device(device)).eval().requires_grad_(False)


def read_record(path: Path) -> dict[str, Any]:
    """How the weights in a file or folder were made. Raises as `load_model`."""
    path = _find(path)
    with _reading(path) as archive:
        record: dict[str, Any] = parse_json(_metadata(archive)["training"], table_of(plain))
    return record


def _find(path: Path) -> Path:
    found = path / WEIGHTS if path.is_dir() else path
    if not found.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {found} with weights.",
            "Choose a file of weights on this machine (RenderDiffusion's are on no hub), or none "
            "for those that ship; if these are missing, install X-Ray again.",
        )
    return found


def _metadata(archive: Any) -> dict[str, str]:
    metadata: dict[str, str] = archive.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ValueError("it was not written by this generator's training")
    return metadata


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The open file; raises XRayError `bad_weights` for errors while reading it."""
    try:
        with safe_open(path, framework="pt") as archive:
            yield archive
    except (
        *(OSError, SafetensorError, ValueError, LookupError),
        *(TypeError, RuntimeError, ArithmeticError),
    ) as error:
        raise XRayError(
            "bad_weights",
            f"{path} does not hold weights of RenderDiffusion ({error}).",
            "Choose a model.safetensors that `python -m runtime train` wrote.",
        ) from error
