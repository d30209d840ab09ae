"""Reads and writes weights: safetensors files with the configuration and the training record.

Kernels, which are nearly all of a network, are stored as bytes: integers from -127 to 127 with one
scale per output channel. All other parameters have half precision.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from xray_addon.errors import XRayError
from xray_addon.files.json_files import parse_json
from xray_addon.files.json_schema import integer, list_of, matching, plain, record, table_of, text

from ..torch_helpers.rounding import check_shapes, from_bytes, save_rounded
from .networks import make_network
from .networks.base import Network, NetworkConfig

DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "xray.safetensors"
FORMAT = "xray-predictor"
# Limits of a configuration: building modules takes time even without memory for their weights.
_CONFIG = record(
    {"network": text(40)},
    {
        **dict.fromkeys(("layers", "resolution", "image_resolution", "fold"), integer(1, 1 << 13)),
        "channels": list_of(integer(1, 1 << 13), 1, 16),
        "blocks": list_of(integer(0, 64), 1, 16),
    },
    others=matching(lambda value: type(value) in (bool, int) and 0 <= value <= 1 << 14, "small"),
)


def save_weights(path: Path, model: Network, record: dict[str, Any]) -> None:
    """Round `model` and write it atomically. record : how it was trained, plain data."""
    save_rounded(path, model, model.kernels(), format=FORMAT, record=record)


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
            f"There is no file {path} with weights.",
            "Choose a file of weights on this machine (X-Ray's own are on no hub), or none for "
            "those that ship; if these are missing, install X-Ray again.",
        )
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError("it was not written by X-Ray's training")
            config = parse_json(metadata["config"], _CONFIG)
            training: dict[str, Any] = parse_json(metadata["training"], table_of(plain))
            known = {item.name for item in fields(NetworkConfig)}
            # Ignore unknown settings that are off: they do not change the network.
            config = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in config.items()
                if k in known or v
            }
            # Check the tensors' shapes before memory is allocated for the configuration.
            with torch.device("meta"):
                model = make_network(NetworkConfig(**config))
            check_shapes(archive, model)
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        from_bytes(state)
        model.load_state_dict(state, strict=True, assign=True)
    except (
        OSError,
        SafetensorError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise XRayError(
            "bad_weights",
            f"{path} does not hold weights of this generator ({error}).",
            "Choose a model.safetensors that `python -m runtime train` wrote.",
        ) from error
    return model.to(torch.device(device)).eval(), training
