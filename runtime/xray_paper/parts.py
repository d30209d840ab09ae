"""Finds and loads the parts of X-Ray at paper scale.

The layout is that of the published code: the trained networks are in
`<experiment>/checkpoint-<step>/{unet,vae}/{config.json, diffusion_pytorch_model.safetensors}`,
and image encoder, VAE, scheduler and feature extractor in a Stable Video Diffusion folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xray_addon.errors import XRayError
from xray_addon.files import json_schema as schema
from xray_addon.files.json_files import read_json
from xray_addon.systems import PUBLISHED
from xray_addon.systems.weights import beside, local_path

from ..checkpoints import locate
from ..torch_helpers.network_configs import NETWORK
from ..torch_helpers.tensors import filled, read_tensors

if TYPE_CHECKING:
    # Each function imports what it needs, because importing diffusers takes seconds.
    from diffusers import (
        AutoencoderKL,
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        UNetSpatioTemporalConditionModel,
    )
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder

UNET, UPSAMPLER = "unet", "vae"  # names of the folders within a checkpoint
WEIGHTS = "diffusion_pytorch_model"
LARGEST = 1 << 18  # bytes of a configuration
# The published configurations: 46,110,624 and 169,247,195 parameters.
FULL_UNET: dict[str, Any] = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "addition_time_embed_dim": 256,
    "block_out_channels": [64, 128, 256, 256],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "in_channels": 12,
    "latent_channels": 8,
    "layers_per_block": 1,
    "num_attention_heads": [4, 8, 16, 16],
    "num_frames": 8,
    "out_channels": 8,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 64,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
}
FULL_UPSAMPLER: dict[str, Any] = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [256, 512, 1024],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "force_upcast": False,
    "in_channels": 4,
    "latent_channels": 12,
    "layers_per_block": 2,
    "out_channels": 8,
    "sample_size": 768,
    "scaling_factor": 1.0,
}

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Parts:
    """Folders of the parts. Without an upsampler the layers remain 64 x 64."""

    unet: Path
    svd: Path
    upsampler: Path | None = None
    sdxl_vae: Path | None = None

    @classmethod
    def find(cls, checkpoint: str | None) -> Parts:
        """The parts of `checkpoint`.

        checkpoint : a folder with an experiment (or `Output` with one of each kind), where the
            pretrained folders are in it, above it or downloaded (`python -m runtime download
            svd`, `sdxl-vae`); or a .json file that maps this class's field names to paths; or a
            hub id.

        Raises XRayError `missing_weights`, `bad_weights`.
        """
        if not checkpoint:
            raise XRayError(
                "missing_weights",
                "X-Ray's authors have published no trained weights.",
                "Give a checkpoint: a folder with <experiment>/checkpoint-<step>/unet, as written "
                "by `python -m runtime train`.",
            )
        path = locate(checkpoint)
        if path.suffix == ".json" and path.name != "config.json":
            return cls._read(path)
        if path.is_file():
            raise XRayError(
                "bad_weights",
                f"{path} is a file; X-Ray's checkpoints are folders.",
                "Give the folder that contains checkpoint-<step>/unet.",
            )
        unet = find_part(path, UNET)
        if unet is None:
            raise XRayError(
                "missing_weights",
                f"There is no checkpoint-<step>/{UNET} in {path}.",
                "Give the folder of an experiment, or the Output folder that contains it.",
            )
        upsampler = find_part(path, UPSAMPLER)
        sdxl = None
        if upsampler:
            sdxl = beside(path, PUBLISHED["sdxl-vae"].folders) or locate("sdxl-vae")
        svd = beside(path, PUBLISHED["svd"].folders) or locate("svd")
        return cls(unet, svd, upsampler, sdxl)

    @classmethod
    def _read(cls, path: Path) -> Parts:
        names = {field.name for field in fields(cls)}
        try:
            values = read_json(path, schema.table_of(schema.text()), largest=LARGEST)
            if not {"unet"} <= values.keys() <= names:
                raise ValueError(f"it must map some of {sorted(names)} to paths, unet among them")
        except (OSError, ValueError) as error:
            raise XRayError(
                "bad_weights", f"{path} is not a valid parts file ({error}).", "Correct the file."
            ) from error

        def at(name: str) -> Path:
            value = str(values[name])
            # Joined to a folder, a published name would become a path.
            inside = None if value in PUBLISHED else local_path(path.parent / value)
            return inside or locate(value)

        def trained(name: str, part: str) -> Path:
            found = find_part(at(name), part)
            if found is None:
                raise XRayError(
                    "missing_weights", f"There is no {part} in {at(name)}.", f"Correct {path}."
                )
            return found

        upsampler = trained("upsampler", UPSAMPLER) if "upsampler" in values else None
        svd = at("svd") if "svd" in values else locate("svd")
        sdxl = at("sdxl_vae") if "sdxl_vae" in values else None
        if upsampler and sdxl is None:
            sdxl = locate("sdxl-vae")
        return cls(trained("unet", UNET), svd, upsampler, sdxl)


def find_part(folder: Path, part: str) -> Path | None:
    """The folder called `part` of the highest step in `folder`, or None.

    `folder` may be that folder itself, a checkpoint, an experiment, or a folder of experiments.

    Raises XRayError `bad_weights` if several experiments have such a folder.
    """
    if folder.name == part and (folder / "config.json").is_file():
        return folder
    if (folder / part / "config.json").is_file():
        return folder / part
    latest = _highest(folder, part)
    if latest is not None:
        return latest
    found = [
        newest
        for place in (folder, folder / "Output")
        if place.is_dir()
        for experiment in sorted(place.iterdir())
        if experiment.is_dir() and (newest := _highest(experiment, part))
    ]
    if len(found) > 1:
        names = ", ".join(path.parents[1].name for path in found)
        raise XRayError(
            "bad_weights",
            f"{folder} contains several experiments with a {part}: {names}.",
            "Give the folder of one of them.",
        )
    return found[0] if found else None


def _highest(experiment: Path, part: str) -> Path | None:
    steps = [
        (int(match[1]), path)
        for path in experiment.glob(f"checkpoint-*/{part}")
        if (match := _CHECKPOINT.fullmatch(path.parent.name))
    ]
    return max(steps)[1] if steps else None


# ---------------------------------------------------------------------------------------- loading


def load_unet(folder: Path) -> UNetSpatioTemporalConditionModel:
    """Load the denoiser in `folder`, float32; keys must match exactly. Raises XRayError."""
    config = read_config(folder, "UNetSpatioTemporalConditionModel")
    with torch.device("meta"):
        model = build(folder, new_unet, config)
    return _filled(model, *read_state(folder, WEIGHTS))


def new_unet(config: dict[str, Any]) -> UNetSpatioTemporalConditionModel:
    """A denoiser from the published kind of configuration."""
    from diffusers import UNetSpatioTemporalConditionModel

    # Only the published pipeline uses `latent_channels`.
    options = {name: value for name, value in config.items() if name != "latent_channels"}
    return UNetSpatioTemporalConditionModel.from_config(options)


def load_upsampler(folder: Path) -> TemporalDecoder:
    """Load the upsampler in `folder` (the decoder half of a temporal VAE), float32; keys must
    match exactly."""
    config = read_config(folder, "AutoencoderKLTemporalDecoder")
    with torch.device("meta"):
        model = build(folder, make_upsampler, config)
    state, path = read_state(folder, WEIGHTS)
    prefix = "decoder."
    named = {
        k.removeprefix(prefix) if k.startswith(prefix) else f"({k})": v for k, v in state.items()
    }
    return _filled(model, named, path)


def make_upsampler(config: dict[str, Any]) -> TemporalDecoder:
    """An upsampler from the published kind of configuration."""
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder

    return TemporalDecoder(
        in_channels=config["latent_channels"],
        out_channels=config["out_channels"],
        block_out_channels=tuple(config["block_out_channels"]),
        layers_per_block=config["layers_per_block"],
    )


def load_svd_vae(svd: Path) -> AutoencoderKLTemporalDecoder:
    """Load the VAE of a Stable Video Diffusion folder; only its encoder is kept."""
    from diffusers import AutoencoderKLTemporalDecoder

    return _load_vae(svd / "vae", AutoencoderKLTemporalDecoder)


def load_sdxl_vae(folder: Path) -> AutoencoderKL:
    """Load SDXL's VAE; only its encoder is kept."""
    from diffusers import AutoencoderKL

    return _load_vae(folder, AutoencoderKL)


def _load_vae(folder: Path, kind: Any) -> Any:
    config = read_config(folder, kind.__name__)
    with torch.device("meta"):
        model = build(folder, kind.from_config, config)
    model = _filled(model, *read_state(folder, WEIGHTS))
    model.decoder = nn.Identity()
    return model


def load_image_encoder(svd: Path) -> nn.Module:
    """Load CLIP's vision tower (ViT-H/14 with projection) of a Stable Video Diffusion folder."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = svd / "image_encoder"
    config = read_config(folder)
    if "projection_dim" not in config or "patch_size" not in config:
        raise _other_model(folder, "CLIPVisionModelWithProjection", config)
    with torch.device("meta"):
        model = build(
            folder, lambda c: CLIPVisionModelWithProjection(CLIPVisionConfig(**c)), config
        )
    state, path = read_state(folder, "model")
    # Written by older versions of transformers; it is not a weight.
    state = {k: v for k, v in state.items() if not k.endswith("position_ids")}
    model = _filled(model, state, path)
    embeddings = model.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return model


@dataclass(frozen=True)
class Normalization:
    """The mean and standard deviation that normalise CLIP's input; (3,) each."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_normalization(svd: Path) -> Normalization:
    """Read the normalisation from the feature extractor's configuration."""
    folder = svd / "feature_extractor"
    config = read_config(folder, name="preprocessor_config.json")
    try:
        mean, std = config["image_mean"], config["image_std"]
        return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    except (KeyError, IndexError, TypeError) as error:
        raise _other_model(folder, "CLIPImageProcessor", config) from error


def load_scheduler(svd: Path) -> EulerDiscreteScheduler:
    """Load the Euler sampler of the Stable Video Diffusion folder."""
    from diffusers import EulerDiscreteScheduler

    folder = svd / "scheduler"
    config = read_config(folder, "EulerDiscreteScheduler", name="scheduler_config.json")
    return build(folder, EulerDiscreteScheduler.from_config, config)


def read_config(folder: Path, kind: str = "", *, name: str = "config.json") -> dict[str, Any]:
    """Read a part's configuration. Raises XRayError, with `kind` also for another class."""
    path = folder / name
    try:
        config: dict[str, Any] = read_json(path, NETWORK, largest=LARGEST)
    except FileNotFoundError as error:
        raise XRayError(
            "missing_weights", f"There is no {path}.", "Give a complete folder of this part."
        ) from error
    except (OSError, ValueError) as error:
        raise XRayError(
            "bad_weights", f"{path} is not a configuration ({error}).", "Download the file again."
        ) from error
    if kind and config.get("_class_name") != kind:
        raise _other_model(folder, kind, config)
    return config


def build(folder: Path, make: Any, config: dict[str, Any]) -> Any:
    """`make(config)`; raises XRayError if the configuration is unusable."""
    try:
        return make(config)
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        AttributeError,
        AssertionError,
        RuntimeError,  # torch's, and NotImplementedError
    ) as error:
        raise XRayError(
            "bad_weights",
            f"The configuration in {folder} does not describe such a model ({error}).",
            "Use the config.json that came with these weights.",
        ) from error


def read_state(folder: Path, stem: str) -> tuple[dict[str, Tensor], Path]:
    """All tensors of the weights called `stem` in `folder`, on the CPU, and the file's path.

    Reads safetensors, their half-precision variant, or a pickle that contains only tensors.
    """
    names = (f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{stem}.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        partial = [p for kind in ("partial", "incomplete") for p in folder.glob(f"**/*.{kind}")]
        if partial:
            raise XRayError(
                "incomplete_download",
                f"The download of {folder} was interrupted: {partial[0].name} is incomplete.",
                "Download it again; `python -m runtime download` continues where it stopped.",
            )
        raise XRayError(
            "missing_weights",
            f"There are no weights in {folder}: none of {', '.join(names)}.",
            "Give a complete folder of this part.",
        )
    return read_tensors(path), path


def _filled(model: Any, state: dict[str, Tensor], path: Path) -> Any:
    remedy = "Use weights and config.json of the same model."
    return filled(model, state, path, "its configuration", remedy)


def _other_model(folder: Path, kind: str, config: dict[str, Any]) -> XRayError:
    found = config.get("_class_name") or config.get("model_type") or "something else"
    return XRayError(
        "bad_weights",
        f"{folder} contains the configuration of a {found}, not of a {kind}.",
        "Give the folder of the right part.",
    )
