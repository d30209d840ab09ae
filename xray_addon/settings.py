"""One dataclass per job: the single source for panel, operator, command line and runtime.

Each field carries its help text and limits in its metadata, which the panel's properties and
the command line's arguments are made from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from .errors import XRayError

# What the runtime's registry holds; Blender's process never imports the runtime to ask it.
GENERATORS = ("xray",)


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": help, **limits})


class Settings:
    """What the settings dataclasses share: checked values and plain data in and out."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value, meta = getattr(self, item.name), item.metadata
            kind = type(item.default)
            if kind is float and type(value) is int:
                value = float(value)
                setattr(self, item.name, value)
            if type(value) is not kind:
                raise self._bad(item.name, f"must be {kind.__name__}, got {value!r}")
            if "choices" in meta and value not in meta["choices"]:
                raise self._bad(item.name, f"must be one of {meta['choices']}, got {value!r}")
            if "min" in meta and not meta["min"] <= value <= meta["max"]:
                raise self._bad(
                    item.name, f"must lie between {meta['min']} and {meta['max']}, got {value}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; raises XRayError `bad_settings` for names it does not know."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - known)
        if unknown:
            raise cls._bad(unknown[0], "is not a setting")
        return cls(**data)

    @classmethod
    def _bad(cls, name: str, reason: str) -> XRayError:
        return XRayError("bad_settings", f"{name} {reason}.", "Correct the setting and try again.")


@dataclass
class CaptureSettings(Settings):
    """How meshes become X-Rays."""

    views: int = _setting(4, "Number of camera views an object", min=1, max=10_000)
    layers: int = _setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = _setting(256, "Width and height of the X-Ray in pixels", min=8, max=8192)
    seed: int = _setting(0, "Seed of the camera positions", min=0, max=2**31 - 1)
    camera: str = _setting(
        "sampled",
        "Where the object is seen from",
        choices=("sampled", "scene"),
    )
    combine: bool = _setting(False, "Capture the selected objects as one instead of each by itself")


@dataclass
class GenerateSettings(Settings):
    """How one image becomes a mesh."""

    generator: str = _setting("xray", "Name of the generator")
    checkpoint: str = _setting("", "Path of other weights; empty for the built-in ones")
    steps: int = _setting(1, "1 predicts in one pass, more refine by sampling", min=1, max=1000)
    seed: int = _setting(
        0, "Seed of the sampling; the same seed gives the same mesh", min=0, max=2**31 - 1
    )
    device: str = _setting("auto", "Where the model runs", choices=("auto", "cpu", "cuda", "mps"))
    remove_background: str = _setting(
        "auto",
        "How the object is cut out: 'auto' uses the alpha channel, else rembg, else a plain "
        "background; or one of them alone",
        choices=("auto", "alpha", "rembg", "plain"),
    )
