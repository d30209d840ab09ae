"""The files of the two networks: `N2G_dit_allcate.ckpt` and `G2M_imagen_allcate.ckpt`.

These are Lightning checkpoints with every tensor under two or three names, as published. The
network's configuration is derived from its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from ..torch_helpers.tensors import filled, first_names, read_pickle
from . import attention
from .transformer import HEAD_CHANNELS, GeometryTransformer, TransformerConfig
from .unet import MaterialNetwork, UNetConfig

GEOMETRY_FILE = "N2G_dit_allcate.ckpt"
MATERIAL_FILE = "G2M_imagen_allcate.ckpt"
# The prefixes under which each tensor is stored; the first one is read.
GEOMETRY_NAMES = ("model.", "baseDiT.")
MATERIAL_NAMES = ("unets.", "imagen.unets.0.", "model.unets.0.")
LABELS = "label_embedder.weight"
# For networks too narrow for heads of the published width.
NARROW_HEADS = 4
LIGHTNING_VERSION = "2.2.3"
# Depth below a folder of weights: experiments/omages64/null2geo/checkpoints, as published.
LEVELS = 4
# Modules of the classes in the hyper-parameters of the published trainers.
_SETTINGS = (
    *("omegaconf.", "typing.", "collections.", "pathlib.", "src.", "enum."),
    *(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "int", "float", "str", "bool")),
    "builtins.object",
)

_REMEDY = f"Choose the published {GEOMETRY_FILE} or {MATERIAL_FILE}, or one that X-Ray has trained."

Network = TypeVar("Network", bound=nn.Module)


def load_geometry(path: Path, device: str = "cpu") -> GeometryTransformer:
    """The geometry network in a file or folder.

    Names and shapes must match exactly, and all copies of a tensor must have the same values.

    Raises XRayError `missing_weights`, `bad_weights`, `unsafe_weights`.
    """
    path = find_weights(path, GEOMETRY_FILE)
    content = _read(path)
    state = content["state_dict"]
    if "unets.init_conv.convs.0.weight" in state:
        raise _other(path, "material", "geometry", GEOMETRY_FILE)
    tensors = _unaliased(state, GEOMETRY_NAMES, (), path)
    with torch.device("meta"):
        network = GeometryTransformer(_built(path, _transformer_config, tensors, content))
    return _filled(network, tensors, path, device)


def load_material(path: Path, device: str = "cpu", *, average: bool = False) -> MaterialNetwork:
    """The material network in a file or folder; as `load_geometry`.

    average : use the running average of the weights, which the published code stores but, by
        mistake, never uses for sampling.
    """
    path = find_weights(path, MATERIAL_FILE)
    content = _read(path)
    state = content["state_dict"]
    if "model.x_embedder.proj.weight" in state:
        raise _other(path, "geometry", "material", MATERIAL_FILE)
    tensors = _unaliased(state, MATERIAL_NAMES, (LABELS,), path)
    if average:
        tensors |= _averaged(content, tensors, path)
    with torch.device("meta"):
        network = MaterialNetwork(_built(path, _unet_config, tensors, content))
    return _filled(network, tensors, path, device)


def save_geometry(path: Path, network: GeometryTransformer, steps: int, record: Any) -> None:
    """Write the published format; record : plain data for its hyper-parameters."""
    heads = {"baseDiT_cfg": {"num_heads": network.config.heads}}
    more = {"hyper_parameters": heads | {"training": record}}
    _save(path, dict(network.state_dict()), GEOMETRY_NAMES, steps, more)


def save_material(
    path: Path,
    network: MaterialNetwork,
    steps: int,
    record: Any,
    *,
    average: Sequence[Tensor] = (),
) -> None:
    """Write the published format; as `save_geometry`.

    average : running averages of the U-Net's parameters, in their order.
    """
    state = {
        name.removeprefix("unets."): tensor
        for name, tensor in network.state_dict().items()
        if name != LABELS
    }
    labels = {LABELS: network.label_embedder.weight.detach()}
    more: dict[str, Any] = {"hyper_parameters": {"training": record}}
    if average:
        kept = [tensor.detach().cpu() for tensor in average]
        more["ema"] = {"num_updates": steps, "shadow_params": kept, "collected_params": None}
    _save(path, state, MATERIAL_NAMES, steps, more, labels)


def _read(path: Path) -> dict[str, Any]:
    """The contents of the checkpoint at `path`."""
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {path}.",
            "Download the weights, or choose the folder that holds them.",
        )
    content = read_pickle(path, inert=_SETTINGS)
    if not isinstance(content.get("state_dict"), Mapping):
        raise XRayError(
            "bad_weights",
            f"{path} is no Lightning checkpoint: it has no state_dict.",
            "Choose the published file, or one that X-Ray has trained.",
        )
    return content


def _save(
    path: Path,
    state: Mapping[str, Tensor],
    names: Sequence[str],
    steps: int,
    more: dict[str, Any],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    container = {
        "epoch": 0,
        "global_step": steps,
        "pytorch-lightning_version": LIGHTNING_VERSION,
        # Tensors that are the same object are stored once.
        "state_dict": {
            prefix + name: tensor for prefix in names for name, tensor in tensors.items()
        }
        | {name: tensor.cpu() for name, tensor in (extra or {}).items()},
        **more,
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(container, stream)


def find_weights(path: Path, name: str) -> Path:
    """The file `name` in the folder `path` or below it, or `path` itself if it is a file."""
    if not path.is_dir():
        return path
    found = [
        path / name,
        *(f for level in range(1, LEVELS + 1) for f in path.glob("*/" * level + name)),
    ]
    return next((file for file in found if file.is_file()), found[0])


def _unaliased(
    state: Mapping[str, Any], names: Sequence[str], extra: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """The tensors by the network's own names; raises `bad_weights` if copies differ."""
    first = {name for name in state if name.startswith(names[0])}
    if names[0] == "model.":
        first = {name for name in first if not name.startswith("model.unets.")}
    stems = sorted(name.removeprefix(names[0]) for name in first)
    expected = {prefix + stem for prefix in names for stem in stems} | set(extra)
    missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
    if not stems or missing or unknown:
        told = [f"{len(missing)} names are missing ({first_names(missing)})"] if missing else []
        told += [f"{len(unknown)} are unknown ({first_names(unknown)})"] if unknown else []
        raise _bad(path, " and ".join(told) or "it holds no tensors")
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise _bad(path, "not everything in its state_dict is a tensor")
    differing = [
        stem
        for stem in stems
        for prefix in names[1:]
        if not _same(state[names[0] + stem], state[prefix + stem])
    ]
    if differing:
        raise _bad(
            path, f"{len(differing)} tensors differ between their names ({first_names(differing)})"
        )
    inside = "unets." if extra else ""
    return {inside + stem: state[names[0] + stem] for stem in stems} | {
        name: state[name] for name in extra
    }


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share their data in the file, or have the same values."""
    if a.shape == b.shape and a.data_ptr() == b.data_ptr():
        return True
    return torch.equal(a, b)


def _averaged(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The stored running average, by name."""
    stored = content.get("ema")
    average = stored.get("shadow_params") if isinstance(stored, Mapping) else None
    # torch_ema stores a list in the order of the network's parameters.
    names = [
        name for name in content["state_dict"] if name.startswith("unets.") and name in tensors
    ]
    if not isinstance(average, list) or [
        tuple(t.shape) if isinstance(t, Tensor) else None for t in average
    ] != [tuple(tensors[name].shape) for name in names]:
        raise XRayError(
            "bad_weights",
            f"{path} stores no running average of its weights that fits them.",
            "Use the weights themselves, as the published code does.",
        )
    return dict(zip(names, average, strict=True))


def _built(path: Path, config: Any, tensors: Mapping[str, Tensor], content: Any) -> Any:
    """The configuration derived from the tensors; raises `bad_weights`."""
    try:
        return config(tensors, content.get("hyper_parameters"))
    except (KeyError, ValueError, IndexError) as error:
        raise _bad(path, f"what the network is made of cannot be told ({error})") from error


def _transformer_config(tensors: Mapping[str, Tensor], parameters: Any) -> TransformerConfig:
    hidden = tensors["x_embedder.proj.weight"].shape[0]
    heads = hidden // HEAD_CHANNELS if hidden % HEAD_CHANNELS == 0 else NARROW_HEADS
    if isinstance(parameters, dict) and isinstance(parameters.get("baseDiT_cfg"), dict):
        heads = int(parameters["baseDiT_cfg"].get("num_heads", heads))
    return TransformerConfig(
        size=round(tensors["pos_embed"].shape[1] ** 0.5),
        hidden=hidden,
        depth=_count(tensors, "blocks."),
        heads=heads,
        classes=tensors["y_embedder.embedding_table.weight"].shape[0] - 1,
    )


def _unet_config(tensors: Mapping[str, Tensor], _parameters: Any) -> UNetConfig:
    channels = tensors["unets.final_conv.weight"].shape[1]
    levels = _count(tensors, "unets.downs.")
    factors = []
    for level in range(levels):
        kind = "fns.0" if level == levels - 1 else "1"
        factors.append(tensors[f"unets.downs.{level}.4.{kind}.weight"].shape[0] // channels)
    return UNetConfig(
        channels=channels,
        factors=tuple(factors),
        blocks=_count(tensors, "unets.downs.0.2."),
        attention=tuple(
            f"unets.downs.{level}.3.layers.0.0.to_q.weight" in tensors for level in range(levels)
        ),
        heads=tensors["unets.mid_attn.layers.0.0.to_q.weight"].shape[0] // attention.HEAD_CHANNELS,
        classes=tensors[LABELS].shape[0],
    )


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """The number of numbered parts with this `prefix`."""
    return len(
        {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    )


def _filled(network: Network, tensors: Mapping[str, Tensor], path: Path, device: str) -> Network:
    """`network` with `tensors`, whose names and shapes must match."""
    # Copies, because the tensors are views of the file.
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    return filled(network, copies, path, "its configuration", _REMEDY).to(torch.device(device))


def _bad(path: Path, reason: str) -> XRayError:
    return XRayError(
        "bad_weights",
        f"{path} does not hold an omage network: {reason}.",
        _REMEDY,
    )


def _other(path: Path, found: str, wanted: str, name: str) -> XRayError:
    return XRayError(
        "bad_weights",
        f"{path} holds the {found} network; the {wanted} network is needed.",
        f"Choose {name}.",
    )
