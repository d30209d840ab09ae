"""The configuration of a TripoSR network; reads and writes the published `config.yaml`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from xray_addon.errors import XRayError
from xray_addon.files import json_schema as schema
from xray_addon.files.json_files import read_json
from xray_addon.files.opening import read_at_most

# The class of each part in the published code. Another class means another model.
_CLASSES = {
    "image_tokenizer_cls": "tsr.models.tokenizers.image.DINOSingleImageTokenizer",
    "tokenizer_cls": "tsr.models.tokenizers.triplane.Triplane1DTokenizer",
    "backbone_cls": "tsr.models.transformer.transformer_1d.Transformer1D",
    "post_processor_cls": "tsr.models.network_utils.TriplaneUpsampleNetwork",
    "decoder_cls": "tsr.models.network_utils.NeRFMLP",
    "renderer_cls": "tsr.models.nerf_renderer.TriplaneNeRFRenderer",
}
_PUBLISHED_VIT = "facebook/dino-vitb16"
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
# Keys of the published file that do not affect the network here.
_FIXED: dict[str, dict[str, Any]] = {
    "backbone": {"norm_num_groups": 32},
    "decoder": {},
    "renderer": {"feature_reduction": "concat", "density_activation": "exp"},
}


LARGEST = 1 << 16  # bytes; the published file has 1,500

# Values may be references at first; after resolving them they must match this. A wider or deeper
# network is not a TripoSR, and would take minutes to build.
_PART = schema.table_of(schema.plain, schema.text(80))
_PUBLISHED = schema.record(
    {"cond_image_size": schema.plain},
    dict.fromkeys(
        ("image_tokenizer", "tokenizer", "backbone", "post_processor", "decoder", "renderer"), _PART
    ),
    others=schema.plain,
)
_WIDTH, _DEPTH = schema.integer(1, 1 << 14), schema.integer(1, 128)
_NUMBERS = schema.record(
    {
        "cond_image_size": _WIDTH,
        "image_tokenizer": schema.record({"pretrained_model_name_or_path": schema.text(200)}),
        "tokenizer": schema.record({"plane_size": schema.integer(1, 512), "num_channels": _WIDTH}),
        "backbone": schema.record(
            {
                "in_channels": _WIDTH,
                "num_attention_heads": schema.integer(1, 256),
                "attention_head_dim": schema.integer(1, 1024),
                "num_layers": _DEPTH,
                "cross_attention_dim": _WIDTH,
            },
            others=schema.plain,
        ),
        "post_processor": schema.record({"in_channels": _WIDTH, "out_channels": _WIDTH}),
        "decoder": schema.record(
            {
                "in_channels": schema.integer(1, 3 << 14),
                "n_neurons": _WIDTH,
                "n_hidden_layers": _DEPTH,
                "activation": schema.text(40),
            }
        ),
        "renderer": schema.record(
            {
                "radius": schema.number(1e-3, 1e3),
                "density_bias": schema.number(-1e3, 1e3),
                "num_samples_per_ray": schema.integer(1, 1 << 12),
            },
            others=schema.plain,
        ),
    }
)
_VIT = schema.record(
    {
        "hidden_size": _WIDTH,
        "num_hidden_layers": _DEPTH,
        "num_attention_heads": schema.integer(1, 256),
        "intermediate_size": schema.integer(1, 1 << 16),
        "patch_size": schema.integer(1, 512),
        "image_size": _WIDTH,
        "layer_norm_eps": schema.number(0, 1),
    },
    others=schema.plain,
)


@dataclass(frozen=True)
class VitConfig:
    """The configuration of the image encoder. The defaults are those of facebook/dino-vitb16."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    image_size: int = 224
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True)
class TripoSRConfig:
    """The configuration of the whole network. The defaults are the published ones.

    image_size : px of the square image that the encoder sees, a multiple of the patch size.
    plane_size, channels : of the three token planes. plane_channels : of a plane of the scene
        code, which is twice `plane_size` wide. neurons, hidden_layers, activation : of the field's
        perceptron. radius : half the side of the field's box. density_bias : added before the
        exponential. ray_samples : samples per rendered ray.
    """

    image_size: int = 512
    plane_size: int = 32
    channels: int = 1024
    heads: int = 16
    head_size: int = 64
    layers: int = 16
    plane_channels: int = 40
    neurons: int = 64
    hidden_layers: int = 9
    activation: str = "silu"
    radius: float = 0.87
    density_bias: float = -1.0
    ray_samples: int = 128
    vit: VitConfig = field(default_factory=VitConfig)

    @classmethod
    def read(cls, path: Path) -> TripoSRConfig:
        """Read a published `config.yaml`, and `dino/config.json` beside it if it exists.

        Raises XRayError `bad_weights` if the file is unreadable or describes another model.
        """
        try:
            data = _PUBLISHED(_read_yaml(path), "")
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        for key, value in _CLASSES.items():
            if data.get(key) != value:
                got = data.get(key, "missing")
                raise _other_model(path, f"{key} is {got!s:.80}, not {value}")
        try:
            data = _NUMBERS(_resolved(data, data), "")
            return cls._from_published(data, _read_vit(path, data))
        except (KeyError, TypeError, ValueError) as error:
            raise _other_model(path, f"{type(error).__name__}: {error}") from error

    @classmethod
    def _from_published(cls, data: dict[str, Any], vit: VitConfig) -> TripoSRConfig:
        for part, known in _FIXED.items():
            for key, value in known.items():
                if data[part].get(key, value) != value:
                    raise ValueError(f"{part}.{key} is {data[part][key]!r}, not {value!r}")
        tokenizer, backbone, post = data["tokenizer"], data["backbone"], data["post_processor"]
        decoder, renderer = data["decoder"], data["renderer"]
        agreed = {
            "backbone.in_channels": (backbone["in_channels"], tokenizer["num_channels"]),
            "backbone.cross_attention_dim": (backbone["cross_attention_dim"], vit.hidden_size),
            "post_processor.in_channels": (post["in_channels"], tokenizer["num_channels"]),
            "decoder.in_channels": (decoder["in_channels"], 3 * post["out_channels"]),
        }
        for name, (got, wanted) in agreed.items():
            if got != wanted:
                raise ValueError(f"{name} is {got}, which does not fit the {wanted} before it")
        if data["cond_image_size"] % vit.patch_size:
            raise ValueError(f"cond_image_size is not a multiple of {vit.patch_size}")
        return cls(
            image_size=int(data["cond_image_size"]),
            plane_size=int(tokenizer["plane_size"]),
            channels=int(tokenizer["num_channels"]),
            heads=int(backbone["num_attention_heads"]),
            head_size=int(backbone["attention_head_dim"]),
            layers=int(backbone["num_layers"]),
            plane_channels=int(post["out_channels"]),
            neurons=int(decoder["n_neurons"]),
            hidden_layers=int(decoder["n_hidden_layers"]),
            activation=_one_of(decoder["activation"], "silu", "relu"),
            radius=float(renderer["radius"]),
            density_bias=float(renderer["density_bias"]),
            ray_samples=int(renderer["num_samples_per_ray"]),
            vit=vit,
        )

    def published(self) -> tuple[str, str]:
        """The texts of `config.yaml` and `dino/config.json`, as `read` and the published code
        read them."""
        data = {
            "cond_image_size": self.image_size,
            "image_tokenizer": {"pretrained_model_name_or_path": _PUBLISHED_VIT},
            "tokenizer": {"plane_size": self.plane_size, "num_channels": self.channels},
            "backbone": {
                "in_channels": self.channels,
                "num_attention_heads": self.heads,
                "attention_head_dim": self.head_size,
                "num_layers": self.layers,
                "cross_attention_dim": self.vit.hidden_size,
            },
            "post_processor": {
                "in_channels": self.channels,
                "out_channels": self.plane_channels,
            },
            "decoder": {
                "in_channels": 3 * self.plane_channels,
                "n_neurons": self.neurons,
                "n_hidden_layers": self.hidden_layers,
                "activation": self.activation,
            },
            "renderer": {
                "radius": self.radius,
                "feature_reduction": "concat",
                "density_activation": "exp",
                "density_bias": self.density_bias,
                "num_samples_per_ray": self.ray_samples,
            },
        }
        vit = asdict(self.vit) | {"model_type": "vit", "hidden_act": "gelu", "qkv_bias": True}
        return yaml.safe_dump(_CLASSES | data, sort_keys=False), json.dumps(vit, indent=1)


class _Loader(yaml.SafeLoader):
    """Plain data without aliases: a kilobyte of them can stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node. Raises ValueError for an alias."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases, which the published file has not")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> Any:
    """The value in a YAML file. Raises OSError, ValueError."""
    text = read_at_most(path, LARGEST).decode("utf-8")
    try:
        return yaml.load(text, _Loader)
    # Its parser calls itself for each level, and makes dates and numbers of what looks like one.
    except (yaml.YAMLError, RecursionError, ArithmeticError, LookupError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _read_vit(path: Path, data: dict[str, Any]) -> VitConfig:
    """Read `dino/config.json` beside `path`; without it, the config of the encoder in `data`."""
    beside = path.parent / "dino" / "config.json"
    if beside.is_file():
        values = read_json(beside, _VIT, largest=LARGEST)
        for key, wanted in (("hidden_act", "gelu"), ("qkv_bias", True), ("num_channels", 3)):
            if values.get(key, wanted) != wanted:
                raise ValueError(f"dino/config.json: {key} is {values[key]!r}, not {wanted!r}")
        return VitConfig(**{item.name: values[item.name] for item in fields(VitConfig)})
    name = data["image_tokenizer"]["pretrained_model_name_or_path"]
    if name != _PUBLISHED_VIT:
        raise ValueError(
            f"image_tokenizer is {name!r}, whose config.json is needed as dino/config.json"
        )
    return VitConfig()


def _resolved(value: Any, root: dict[str, Any]) -> Any:
    """`value` with references such as ${tokenizer.num_channels} resolved."""
    if isinstance(value, dict):
        return {key: _resolved(item, root) for key, item in value.items()}
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    named: Any = root
    for name in match[1].split("."):
        named = named[name]
    if isinstance(named, dict | str):
        raise ValueError(f"{value} does not refer to a number")
    return named


def _one_of(value: str, *choices: str) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {choices}")
    return value


def _unreadable(path: Path, reason: object) -> XRayError:
    return XRayError(
        "bad_weights",
        f"{path} cannot be read as a model's configuration ({reason}).",
        "Download TripoSR's config.yaml again.",
    )


def _other_model(path: Path, reason: str) -> XRayError:
    return XRayError(
        "bad_weights",
        f"{path} is the configuration of another model, not of TripoSR ({reason}).",
        "Put TripoSR's own config.yaml beside its weights, or choose the generator that these "
        "weights belong to.",
    )
