"""Weights files that store kernels in one byte per number and all else in half precision."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xray_addon.files.atomic import replacing

SCALE = ".scale"  # suffix of a kernel's name: the factors of its numbers


def save_rounded(
    path: Path, model: nn.Module, kernels: Iterable[Tensor], *, format: str, record: dict[str, Any]
) -> None:
    """Write `model`, with its `config` (a dataclass), to a safetensors file, atomically.

    kernels : the parameters stored in one byte per number. format, record : stored in the file's
    metadata; the record, plain data, says how the model was made.
    """
    tensors: dict[str, Tensor] = {}
    rounded = {id(kernel) for kernel in kernels}
    for name, parameter in model.state_dict(keep_vars=True).items():
        tensor = parameter.detach().cpu().contiguous()
        if id(parameter) in rounded:
            tensors[name], tensors[name + SCALE] = in_bytes(tensor)
        else:
            tensors[name] = tensor.half()
    config: Any = model.config
    metadata = {
        "format": format,
        "config": json.dumps(asdict(config)),
        "training": json.dumps(record),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def check_shapes(archive: Any, model: nn.Module) -> None:
    """Raise ValueError unless the tensors of an open safetensors file are those that `save_rounded`
    writes for `model`. Does not read them."""
    there = {name: tuple(archive.get_slice(name).get_shape()) for name in archive.keys()}  # noqa: SIM118
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    scales = {name for name in there if name.endswith(SCALE) and name not in wanted}
    wrong = sorted(
        {name for name in wanted if there.get(name) != wanted[name]}
        | {name for name in there if name not in wanted and name not in scales}
        | {name for name in scales if there[name] != wanted.get(name.removesuffix(SCALE), ())[:1]}
    )
    if wrong:
        raise ValueError(f"{len(wrong)} tensors do not fit its configuration, such as {wrong[0]}")


def in_bytes(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel (out, ...) as int8 of the same shape, and the factors (out,) to multiply it by."""
    rows = kernel.flatten(1)
    scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-30)  # for rows of zeros
    return (rows / scale[:, None]).round().to(torch.int8).view(kernel.shape), scale


def from_bytes(state: dict[str, Tensor]) -> None:
    """Multiply the kernels in `state` by their scales, and remove the scales."""
    for name in [name for name in state if name.endswith(SCALE)]:
        scale = state.pop(name)
        kernel = state[name.removesuffix(SCALE)]
        kernel.flatten(1).mul_(scale[:, None])
