"""`System`: all that is known of a published system without running it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..canonical import Frame
from ..errors import XRayError
from ..settings.generate import GenerateSettings


class Need(Enum):
    """Whether a system takes an input."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Output(Enum):
    """What a system gives beside a mesh."""

    XRAY = "X-Ray"
    PICTURES = "pictures"
    MATERIAL = "PBR material"


@dataclass(frozen=True)
class Inputs:
    """What a mesh is made from; each system says which of these it takes.

    image, mask : a path, or what else the reader knows: in the runtime a PIL image or an
        (H, W, 3 or 4) uint8 array, in Blender an image datablock. None without.
    category : one of the system's categories; "" without.
    """

    image: Any = None
    mask: Any = None
    category: str = ""

    @classmethod
    def of(cls, value: Any) -> Inputs:
        """`value` itself, or an image alone."""
        return value if isinstance(value, Inputs) else cls(image=value)


@dataclass(frozen=True)
class Published:
    """Weights that their authors published on a hub.

    name : what X-Ray calls them. repo : on the hub, "owner/name". files : paths in the repository
    that are needed, and no others. size : bytes of all, about; 0 where nobody has said. folders :
    names under which people keep them beside a checkpoint. repo_type : what the hub calls the
    repository, "model" or "dataset". terms : what its page asks beyond the licence.
    """

    name: str
    repo: str
    files: tuple[str, ...]
    size: int
    licence: str
    licence_url: str
    folders: tuple[str, ...] = ()
    repo_type: str = "model"
    terms: str = ""


@dataclass(frozen=True)
class HandFile:
    """A file of weights that no hub has, so that somebody must fetch it in a browser.

    path : on the authors' page. key : what X-Ray calls the network in it. what : for people.
    size : bytes, at least. used_by : name of a setting and its values that need the file.
    """

    path: str
    key: str
    what: str
    size: int
    used_by: tuple[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Without its folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class ByHand:
    """Weights to fetch by hand. page : its address. licence : of the files, for people."""

    page: str
    licence: str
    files: tuple[HandFile, ...]

    def needed(self, settings: Any) -> list[HandFile]:
        """The files that a generation with `settings` needs."""
        return [f for f in self.files if getattr(settings, f.used_by[0]) in f.used_by[1]]


@dataclass(frozen=True)
class System:
    """A published system as panels, command lines, the runtime and the docs know it.

    name : what it is called in settings and commands. label, about : for people; one line.
    paper : address. licence : of its weights. module : the runtime's package, whose module
        `generator` has `load(checkpoint, device)`, and whose module `training` trains it.
    settings : its own, a subclass of `GenerateSettings`.
    image, mask, category : which inputs it takes. categories : those it knows.
    outputs : what it gives beside the mesh. seeded : whether seeds give different meshes.
    weights : those that can be downloaded. checkpoint : which of them is taken where none is
        chosen; "" where its own weights ship. needs_checkpoint : whether one must be chosen.
    frame : where its mesh stands against the camera of the image; None where that is not known.
    by_hand : weights that only their authors' page has.
    """

    name: str
    label: str
    about: str
    paper: str
    licence: str
    module: str
    settings: type[GenerateSettings]
    image: Need = Need.REQUIRED
    mask: Need = Need.NONE
    category: Need = Need.NONE
    categories: tuple[str, ...] = ()
    outputs: frozenset[Output] = frozenset()
    seeded: bool = True
    weights: tuple[Published, ...] = ()
    checkpoint: str = ""
    needs_checkpoint: bool = False
    frame: Frame | None = None
    by_hand: ByHand | None = None

    @property
    def key(self) -> str:
        """The name as an identifier."""
        return self.name.replace("-", "_")

    def check(self, inputs: Inputs) -> None:
        """Raise XRayError for inputs that are missing, not taken, or an unknown category.

        Codes: `missing_image`, `missing_mask`, `missing_category`, `unused_input` and
        `unknown_category`.
        """
        for name, need in (("image", self.image), ("mask", self.mask), ("category", self.category)):
            value = getattr(inputs, name)
            given = value is not None and not (isinstance(value, str) and not value)
            if given and need is Need.NONE:
                raise XRayError(
                    "unused_input",
                    f"{self.label} takes no {name}.",
                    f"Leave the {name} out, or choose another system.",
                )
            if not given and need is Need.REQUIRED:
                article = "an" if name == "image" else "a"
                raise XRayError(
                    f"missing_{name}",
                    f"{self.label} needs {article} {name}.",
                    f"Choose {article} {name}.",
                )
        if inputs.category and inputs.category not in self.categories:
            near = difflib.get_close_matches(inputs.category, self.categories, 3, 0.4)
            raise XRayError(
                "unknown_category",
                f"{self.label} knows no category {inputs.category!r}.",
                f"Choose one of its {len(self.categories)} categories"
                + (f", such as {', '.join(near)}." if near else "."),
            )

    def own(self, settings: GenerateSettings | None) -> Any:
        """`settings` as this system's own: what both have is taken from another's.

        Raises XRayError `bad_settings` where another system's settings have a value for what this
        one does not have.
        """
        if settings is None:
            return self.settings()
        if isinstance(settings, self.settings):
            return settings
        own = set(self.settings.names())
        for item in type(settings).own_fields():
            if item.name not in own and getattr(settings, item.name) != item.default:
                raise GenerateSettings.foreign(item.name, self.settings)
        both = own & set(settings.names()) - {"generator"}
        return self.settings(**{name: getattr(settings, name) for name in both})
