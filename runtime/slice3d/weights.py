"""Slice3D's files: the three published checkpoints, and those of our own training.

Published checkpoints are pickles of tensors and numbers. They are read with `weights_only`, so they
cannot run code. Names must match exactly, except for parts used only in training, which are not
read. Our own are safetensors with the network's configuration in their metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from xray_addon.errors import XRayError, is_out_of_memory
from xray_addon.files.atomic import replacing
from xray_addon.files.json_files import parse_json

from ..torch_helpers.network_configs import NETWORK
from ..torch_helpers.tensors import filled, first_names, read_pickle
from .diffusion import SliceDiffusion, first_stage_name
from .networks import GTSliceNet, NetworkConfig, SliceField, SliceNet
from .unet import DiffusionConfig

REGRESSION, FIELD, DIFFUSION = "regression", "gt_to_3d", "diffusion"
# Prefixes that identify a network's tensors, and what the network is for.
_MARKS = {
    REGRESSION: ("slices_generator.", "the regression branch (SliceNet)"),
    FIELD: ("img_encoder.", "slices to 3D (GTSliceNet)"),
    DIFFUSION: ("model.diffusion_model.", "the latent diffusion of slices"),
}
_OWN_MARKS = {DIFFUSION: "unet."}
# Parts of published checkpoints that are used only in training.
_UNUSED = {
    REGRESSION: ("att_layer.", "vggptlossfunc.", "slices_generator.down5_."),
    FIELD: ("att_layer.", "fc_global.", "img_encoder.classifier.", "img_encoder.conv_last."),
    DIFFUSION: (
        *("cond_stage_model.classifier.", "cond_stage_model.conv_last."),
        *("model.diffusion_model.", "model_ema.decay", "model_ema.num_updates"),
        *("first_stage_model.loss.", "betas", "alphas_", "sqrt_", "log_", "posterior_", "logvar"),
    ),
}
_AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_EMA = "model_ema.diffusion_model"
_CONFIG = "network"  # key in the metadata of our own files

Network = TypeVar("Network", bound=nn.Module)


def load_regression(path: Path, device: str = "cpu") -> SliceNet:
    """The network of the regression branch. Raises as `load_diffusion`."""
    return _load_field(path, REGRESSION, SliceNet, device)


def load_field(path: Path, device: str = "cpu") -> GTSliceNet:
    """The network from slices to a field. Raises as `load_diffusion`."""
    return _load_field(path, FIELD, GTSliceNet, device)


def load_diffusion(path: Path, device: str = "cpu") -> SliceDiffusion:
    """The latent diffusion with its averaged weights (EMA), as the published code uses it.

    Raises XRayError `missing_weights`, `bad_weights`, `unsafe_weights`, and `other_weights` for the
    checkpoint of another network of Slice3D.
    """
    state, config = _read(path, DIFFUSION)
    model = _on_meta(path, lambda: SliceDiffusion(DiffusionConfig(**config)))
    if not any(name.startswith(_OWN_MARKS[DIFFUSION]) for name in state):
        state = _from_published(state, model)
    return _filled(model, state, path, DIFFUSION).to(torch.device(device))


def load_first_stage(model: SliceDiffusion, path: Path) -> None:
    """Load the autoencoder of `model` from the published diffusion checkpoint, from latent
    diffusion's kl-f8, or from our own file.

    Raises XRayError `missing_weights`, `bad_weights`, `unsafe_weights`.
    """
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {path}, which should hold an autoencoder.",
            "Get kl-f8 (https://ommer-lab.com/files/latent-diffusion/kl-f8.zip), or name the "
            "published diffusion checkpoint.",
        )
    state = _read_own(path)[0] if path.suffix == ".safetensors" else _published(path)
    prefix = "first_stage_model." if any(n.startswith("first_stage_model.") for n in state) else ""
    if path.suffix == ".safetensors":
        found = {n: t for n, t in state.items() if n.startswith("first_stage.")}
    else:
        wanted = tuple(prefix + part for part in _AUTOENCODER)
        full = {
            f"first_stage_model.{n.removeprefix(prefix)}": t
            for n, t in state.items()
            if n.startswith(wanted)
        }
        found = _from_published(full, model)
    named = {n.removeprefix("first_stage."): t for n, t in found.items()}
    own = model.first_stage.state_dict()
    if {n: t.shape for n, t in named.items()} != {n: t.shape for n, t in own.items()}:
        raise XRayError(
            "bad_weights",
            f"{path} does not hold the autoencoder that the configuration describes.",
            "Name kl-f8's model.ckpt, or the autoencoder of the same first_stage.",
        )
    model.first_stage.load_state_dict(named)


def _load_field(
    path: Path, kind: str, network: Callable[[NetworkConfig], Network], device: str
) -> Network:
    state, config = _read(path, kind)
    model = _on_meta(path, lambda: network(NetworkConfig(**config)))
    return _filled(model, state, path, kind).to(torch.device(device))


def _on_meta(path: Path, make: Callable[[], Any]) -> Any:
    """Call `make` without memory for tensors; raises `bad_weights` for a bad configuration."""
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # an invalid configuration may fail in any way
        raise XRayError(
            "bad_weights",
            f"{path} describes no network of Slice3D ({error}).",
            "Choose a network that X-Ray trained for Slice3D, or a published checkpoint.",
        ) from error


def save_network(
    path: Path, network: SliceField | SliceDiffusion, record: Mapping[str, str]
) -> None:
    """Write the loaders' format, atomically. record : additional metadata. Raises OSError."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    metadata = {"format": "pt", _CONFIG: json.dumps(asdict(network.config)), **record}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def kind_of(names: Iterable[str]) -> str | None:
    """The network that has tensors of these names; None if it is not one of Slice3D."""
    names = list(names)
    for kind, (mark, _) in _MARKS.items():
        marks = (mark, _OWN_MARKS.get(kind, mark))
        if any(name.startswith(marks) for name in names):
            return kind
    return None


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The needed tensors and the configuration of a file of the network `kind`."""
    if not path.is_file():
        raise XRayError(
            "missing_weights",
            f"There is no file {path}, which should hold {_MARKS[kind][1]}.",
            "Choose a checkpoint of Slice3D.",
        )
    state, config = _read_own(path) if path.suffix == ".safetensors" else (_published(path), {})
    found = kind_of(state)
    if found != kind:
        what = _MARKS[found][1] if found else f"another model ({first_names(state)})"
        raise XRayError(
            "other_weights" if found else "bad_weights",
            f"{path} holds the weights of {what}; needed are those of {_MARKS[kind][1]}.",
            "Choose the checkpoint that belongs here; docs/slice3d.md tells which is which.",
        )
    return {n: t for n, t in state.items() if not _is_unused(n, kind)}, config


def _is_unused(name: str, kind: str) -> bool:
    return name.startswith(_UNUSED[kind])


def _read_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        config = parse_json(metadata[_CONFIG], NETWORK)
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
    except Exception as error:  # safetensors' own errors have no common base
        if is_out_of_memory(error):
            raise
        raise XRayError(
            "bad_weights",
            f"{path} cannot be read ({error}).",
            "Choose a network that X-Ray trained for Slice3D, or a published checkpoint.",
        ) from error
    return state, values


def _published(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint: under "model", or as Lightning writes them."""
    content = read_pickle(path)
    for key in ("model", "state_dict"):
        state = content.get(key)
        if isinstance(state, Mapping) and all(isinstance(t, Tensor) for t in state.values()):
            return dict(state)
    raise XRayError(
        "bad_weights",
        f"{path} is no checkpoint of Slice3D: it has neither 'model' nor 'state_dict'.",
        "Choose a checkpoint as its authors published it.",
    )


def _from_published(state: Mapping[str, Tensor], model: SliceDiffusion) -> dict[str, Tensor]:
    """Rename the tensors for `SliceDiffusion`; others keep their names."""
    averaged = {_EMA + name.replace(".", ""): f"unet.{name}" for name in model.unet.state_dict()}
    shapes = model.state_dict()
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in averaged:
            new = averaged[name]
        elif name.startswith("cond_stage_model."):
            new = "encoder." + name.removeprefix("cond_stage_model.")
        elif name.startswith("first_stage_model."):
            new = "first_stage." + first_stage_name(name.removeprefix("first_stage_model."))
        else:
            new = "scale" if name == "scale_factor" else name
        if new == "scale":
            tensor = tensor.reshape(())
        wanted = shapes.get(new)
        # Attention written as convolutions of one pixel; diffusers uses linear layers.
        if wanted is not None and tensor.shape == (*wanted.shape, 1, 1):
            tensor = tensor[..., 0, 0]
        renamed[new] = tensor
    return renamed


def _filled(model: Network, state: Mapping[str, Tensor], path: Path, kind: str) -> Network:
    remedy = "Get the file again from where it was published."
    return filled(model, state, path, _MARKS[kind][1], remedy)
