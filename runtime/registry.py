"""The generators by name. Importing this module loads no model and no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from xray_addon.errors import XRayError

if TYPE_CHECKING:
    from xray_addon.generated import Generated
    from xray_addon.progress import ProgressCallback
    from xray_addon.settings.generate import GenerateSettings

DEFAULT_GENERATOR = "xray"


class Generator(Protocol):
    """A loaded model that turns one image into a mesh."""

    name: str
    device: str  # as torch names it: "cpu", "cuda:0", "mps"

    def generate(
        self,
        image: Any,
        settings: GenerateSettings,
        progress: ProgressCallback | None = None,
    ) -> Generated:
        """A mesh from `image` (a path, a PIL image or an (H, W, 3 or 4) uint8 array).

        `progress` hears every stage and may raise `Cancelled`. Raises XRayError.
        """
        ...


def _load_xray(checkpoint: str | None, device: str) -> Generator:
    from .xray.generator import XRayGenerator

    return XRayGenerator.load(checkpoint, device)


def _load_triposr(checkpoint: str | None, device: str) -> Generator:
    from .triposr.generator import TripoSRGenerator

    return TripoSRGenerator.load(checkpoint, device)


def _load_xray_paper(checkpoint: str | None, device: str) -> Generator:
    from .xray_paper.generator import XRayPaperGenerator

    return XRayPaperGenerator.load(checkpoint, device)


GENERATORS: dict[str, Callable[[str | None, str], Generator]] = {
    "xray": _load_xray,
    "triposr": _load_triposr,
    "xray-paper": _load_xray_paper,
}


def load(
    name: str = DEFAULT_GENERATOR, checkpoint: str | None = None, device: str = "auto"
) -> Generator:
    """The generator called `name`, with its weights in memory.

    checkpoint : a path or a hub id (see `runtime.checkpoints`); None takes the generator's own.
    device : "auto" takes CUDA, then Apple MPS, then the CPU.

    Raises XRayError: `unknown_generator`, `missing_weights`, `bad_weights`, `no_device`.
    """
    if name not in GENERATORS:
        raise XRayError(
            "unknown_generator",
            f"There is no generator called {name!r}.",
            f"Choose one of: {', '.join(sorted(GENERATORS))}.",
        )
    return GENERATORS[name](checkpoint or None, device)
