"""Weights on disk: safetensors, configuration and training record inside.

The kernels, nearly all of a network, take a byte a number: each output channel's are whole numbers
from -127 to 127 times a scale of its own. All else is in half precision.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from .networks import make_network
from .networks.base import Network, NetworkConfig

DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "xray.safetensors"
FORMAT = "xray-predictor"
SCALE = ".scale"  # behind a kernel's name


def save_weights(path: Path, model: Network, record: dict[str, Any]) -> None:
    """Write `model`, rounded, atomically; `record` (plain data) says how it was made."""
    tensors: dict[str, Tensor] = {}
    kernels = {id(kernel) for kernel in model.kernels()}
    for name, parameter in model.state_dict(keep_vars=True).items():
        tensor = parameter.detach().cpu().contiguous()
        if id(parameter) in kernels:
            tensors[name], tensors[name + SCALE] = in_bytes(tensor)
        else:
            tensors[name] = tensor.half()
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "training": json.dumps(record),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def in_bytes(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel (out, ...) as int8 of the same shape, and what they are to be multiplied by
    (out,)."""
    rows = kernel.flatten(1)
    scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-30)  # for rows of zeros
    return (rows / scale[:, None]).round().to(torch.int8).view(kernel.shape), scale


def load_weights(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    """The model in `path`, in single precision and ready to predict, and its training record.

    Raises XRayError: `missing_weights`, `bad_weights`.
    """
    if path.is_dir():
        raise XRayError(
            "bad_weights",
            f"{path} is a folder; the weights of X-Ray's own generator are one file.",
            "Choose a model.safetensors that `python -m runtime train` wrote, or the generator "
            "that this folder belongs to.",
        )
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"The weights {path} are not there.",
            "Install X-Ray again, or choose a checkpoint that exists.",
        )
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError("it was not written by X-Ray's training")
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        for name in [name for name in state if name.endswith(SCALE)]:
            state[name.removesuffix(SCALE)].flatten(1).mul_(state.pop(name)[:, None])
        config = json.loads(metadata["config"])
        record: dict[str, Any] = json.loads(metadata["training"])
        known = {item.name for item in fields(NetworkConfig)}
        # A file may name a switch that is gone: where it is off, it changes nothing.
        config = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known or v
        }
        model = make_network(NetworkConfig(**config))
        model.load_state_dict(state, strict=True)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise XRayError(
            "bad_weights",
            f"{path} does not hold weights of this generator ({error}).",
            "Choose a model.safetensors that `python -m runtime train` wrote.",
        ) from error
    return model.to(torch.device(device)).eval(), record
