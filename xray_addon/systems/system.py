"""`System`: the description of a published system."""

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
    """What a system returns besides a mesh."""

    XRAY = "X-Ray"
    PICTURES = "pictures"
    MATERIAL = "PBR material"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a generation; each system defines which of these it takes.

    image, mask : a path; in the runtime also a PIL image or an (H, W, 3 or 4) uint8 array, in
        Blender also an image datablock. None if not given.
    category : one of the system's categories; "" if not given.
    """

    image: Any = None
    mask: Any = None
    category: str = ""

    @classmethod
    def of(cls, value: Any) -> Inputs:
        """`value` if it is `Inputs`; otherwise `Inputs` with the image `value`."""
        return value if isinstance(value, Inputs) else cls(image=value)


@dataclass(frozen=True)
class Published:
    """Weights that their authors published on a hub.

    name : in X-Ray. repo : on the hub, "owner/name". files : the needed paths in the repository.
    size : approximate total bytes; 0 if unknown. folders : usual names of their local folder beside
    a checkpoint. repo_type : the hub's type of the repository, "model" or "dataset". terms :
    conditions on its page besides the licence.
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
    """A weights file that is on no hub, so the user must download it in a browser.

    path : on the authors' page. key : X-Ray's name of its network. what : description for users.
    size : minimum bytes. used_by : name of a setting, and its values that need the file.
    """

    path: str
    key: str
    what: str
    size: int
    used_by: tuple[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class ByHand:
    """Weights to download by hand. page : URL. licence : of the files, for display."""

    page: str
    licence: str
    files: tuple[HandFile, ...]

    def needed(self, settings: Any) -> list[HandFile]:
        """The files that a generation with `settings` needs."""
        return [f for f in self.files if getattr(settings, f.used_by[0]) in f.used_by[1]]


@dataclass(frozen=True)
class System:
    """The description of a published system for panels, command lines, runtime and docs.

    name : in settings and commands. label, about : one line each, for display.
    paper : URL. licence : of its weights. module : its runtime package, whose module `generator`
        has `load(checkpoint, device)` and whose module `training` trains it.
    settings : its subclass of `GenerateSettings`.
    image, mask, category : which inputs it takes. categories : the supported ones.
    outputs : what it returns besides the mesh. seeded : whether seeds give different meshes.
    weights : downloadable weights. checkpoint : the default one; "" if the system's weights ship
        with X-Ray.
    frame : the position of its mesh relative to the image's camera; None if unknown.
    by_hand : weights that are only on their authors' page.
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
    frame: Frame | None = None
    by_hand: ByHand | None = None

    @property
    def key(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")

    @property
    def needs_own_checkpoint(self) -> bool:
        """Whether the user must have trained its network: only the other parts are published."""
        return bool(self.weights) and not self.checkpoint

    def check(self, inputs: Inputs) -> None:
        """Raise XRayError for missing and unsupported inputs and for an unknown category.

        Codes: `missing_image` (also for a mask without an image), `missing_mask`,
        `missing_category`, `unused_input` and `unknown_category`.
        """
        for name, need in (("image", self.image), ("mask", self.mask), ("category", self.category)):
            value = getattr(inputs, name)
            given = value is not None and not (isinstance(value, str) and not value)
            if given and need is Need.NONE:
                raise XRayError(
                    "unused_input",
                    f"{self.label} takes no {name}.",
                    f"Remove the {name}, or choose another generator.",
                )
            if not given and need is Need.REQUIRED:
                article = "an" if name == "image" else "a"
                raise XRayError(
                    f"missing_{name}",
                    f"{self.label} needs {article} {name}.",
                    f"Choose {article} {name}.",
                )
        if inputs.mask is not None and inputs.image is None:
            raise XRayError(
                "missing_image",
                "A mask says which part of an image is redrawn, and there is no image.",
                "Choose the image, or remove the mask.",
            )
        if inputs.category and inputs.category not in self.categories:
            near = difflib.get_close_matches(inputs.category, self.categories, 3, 0.4)
            raise XRayError(
                "unknown_category",
                f"{self.label} has no category {inputs.category!r}.",
                f"Choose one of its {len(self.categories)} categories"
                + (f", such as {', '.join(near)}." if near else "."),
            )

    def own(self, settings: GenerateSettings | None) -> Any:
        """`settings` converted to this system's settings class; shared values are copied.

        Raises XRayError `bad_settings` if another system's settings set something that this system
        does not have.
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
