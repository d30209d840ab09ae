"""Training settings: a dataclass that is read from a JSON file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from xray_addon.errors import XRayError
from xray_addon.files.json_files import read_json
from xray_addon.files.json_schema import plain, table_of

LARGEST = 1 << 20  # bytes


@dataclass
class RunConfig:
    """The settings of every training. A model's `TrainingConfig` adds its own; all have defaults.

    generator : the model's name.
    batch : samples per step and process.
    learning_rate : the maximum. It rises over the first `warmup` of the run (a share, 0 to 1) and
        then falls by a cosine to `final_rate` times the maximum; with 1 it stays constant.
    gradient_norm : maximum norm; larger gradients are scaled down to it. 0 for no limit.
    workers : processes that make samples; 0 uses the training process.
    """

    example: ClassVar[str]  # an example file that errors mention
    # Besides seed and batch, the settings that a resumed run must not change: the network's.
    network_settings: ClassVar[tuple[str, ...]] = ()

    generator: str = ""
    seed: int = 0
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.04
    final_rate: float = 0.01
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    workers: int = 1

    def length(self) -> int:
        """Samples of the whole run."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON file.

        Raises XRayError `bad_config` for unreadable files, another generator, unknown names, values
        of another type than the defaults, and `ValueError`s and `TypeError`s of the class itself.
        """
        try:
            values = read_json(path, table_of(plain), largest=LARGEST)
            defaults = cls()
            if (name := values.get("generator", defaults.generator)) != defaults.generator:
                raise ValueError(f"it is for the generator {name!r}, not {defaults.generator!r}")
            unknown = sorted(set(values) - {item.name for item in fields(cls)})
            if unknown:
                raise ValueError(f"unknown names {unknown}")
            return cls(**{k: _typed(k, v, getattr(defaults, k)) for k, v in values.items()})
        except (OSError, ValueError, TypeError) as error:
            raise XRayError(
                "bad_config",
                f"{path} is not a training configuration ({error}).",
                f"See {cls.example} for an example.",
            ) from error


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`: JSON has no tuples, and does not distinguish 1 and 1.0."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} must be {type(default).__name__}, got {value!r}")
    return value
