"""How a mesh is generated: the settings that all systems share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Self

from ..errors import XRayError
from .base import Settings, setting

DEFAULT_GENERATOR = "xray"


@dataclass
class GenerateSettings(Settings):
    """How a mesh is generated: the settings that all systems share. Each system adds its own.

    `GenerateSettings(generator="triposr", grid_resolution=128)` and `from_dict` create the named
    system's settings class, as `pathlib.Path` creates the platform's path class.

    Raises XRayError `unknown_generator`, and `bad_settings` for values out of range and for a
    setting that only other systems have; the message names these.
    """

    # Label and settings class of each system, by name. `xray_addon.systems` fills it.
    kinds: ClassVar[dict[str, tuple[str, type[GenerateSettings]]]] = {}

    generator: str = setting(DEFAULT_GENERATOR, "What makes the mesh")
    checkpoint: str = setting(
        "",
        "Path of other weights, or the id of a hub repository; empty for the generator's own",
        path=True,
    )
    seed: int = setting(
        0, "Seed of the sampling; the same seed gives the same mesh", min=0, max=2**31 - 1
    )
    device: str = setting(
        "auto",
        "Where the model runs",
        choices={
            "auto": "The graphics card if it can be used, otherwise the CPU",
            "cpu": "The processor: works everywhere, slower",
            "cuda": "An NVIDIA graphics card, or an AMD one with the ROCm build",
            "mps": "The graphics of an Apple chip",
        },
        labels={"cpu": "CPU", "cuda": "CUDA", "mps": "Apple MPS"},
    )
    remove_background: str = setting(
        "auto",
        "How the object is cut out",
        choices={
            "auto": "The first of the ways below that works",
            "alpha": "The image's own transparency",
            "rembg": "A network of rembg, if its weights are there",
            "plain": "Everything that differs from a plain background",
            "built-in": "The small network that comes with X-Ray",
        },
        labels={"rembg": "rembg", "built-in": "Built-in Network"},
        label="Cut-Out",
    )
    margin: float = setting(
        0.0,
        "Moves the cut-out's edge, in percent of the image's longer side; positive values move it "
        "outwards, negative values inwards",
        min=-10.0,
        max=10.0,
        unit="percent",
    )

    def __new__(cls, *args: Any, **values: Any) -> GenerateSettings:
        """Create the settings class of the system `generator`."""
        kind = cls._kind(args[0] if args else values.get("generator", DEFAULT_GENERATOR))
        for name in values:
            if name not in kind.names():
                raise cls.foreign(name, kind)
        return super().__new__(kind)

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = GenerateSettings._kind(self.generator)
        if not isinstance(self, kind):
            raise self._bad("generator", f"cannot be {self.generator!r} in {type(self).__name__}")

    def seed_matters(self, _given: Collection[str] = ("image",), /) -> bool:
        """Whether another seed gives another mesh, if these fields of `Inputs` are given."""
        return True

    def varied(self) -> Self:
        """These settings, changed so that seeds give different meshes, if that is possible."""
        return self

    def seen_from(self, _distance: float, /) -> Self:
        """These settings with the camera's distance filled in, unless it was chosen; unchanged for
        systems without such a setting.

        distance : in lengths of the object across the image.
        """
        return self

    def to_arguments(self) -> list[str]:
        """The command line options for these settings, except defaults."""
        options = [o for o in super().to_arguments() if not o.startswith("--generator=")]
        named = self.generator != DEFAULT_GENERATOR
        return [f"--generator={self.generator}", *options] if named else options

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises XRayError `bad_settings` as the constructor does."""
        kind = cls._kind(data.get("generator", DEFAULT_GENERATOR))
        for name in data:
            if name not in kind.names():
                raise cls.foreign(name, kind)
        return cls(**data)

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings; in this base class, of those that all systems share."""
        return [item.name for item in fields(cls)]

    @classmethod
    def own_fields(cls) -> list[Field[Any]]:
        """The fields that only this system's settings have."""
        return [item for item in fields(cls) if item.name not in GenerateSettings.names()]

    @classmethod
    def foreign(cls, name: str, kind: type[GenerateSettings]) -> XRayError:
        """The error if the settings `kind` have no field `name`; names the systems that have it."""
        labels = {other: label for label, other in cls.kinds.values()}
        owners = [label for other, label in labels.items() if name in other.names()]
        if not owners or kind not in labels:
            return cls._bad(name, "is not a setting")
        return cls._bad(name, f"is a setting of {' and '.join(owners)}, not of {labels[kind]}")

    @classmethod
    def _kind(cls, name: Any) -> type[GenerateSettings]:
        if cls is not GenerateSettings:
            return cls
        if name not in cls.kinds:
            raise unknown_generator(name, cls.kinds)
        return cls.kinds[name][1]


def unknown_generator(name: object, known: Iterable[str]) -> XRayError:
    """The error for an unknown system."""
    return XRayError(
        "unknown_generator",
        f"There is no generator called {name!r}.",
        f"Choose one of: {', '.join(known)}.",
    )
