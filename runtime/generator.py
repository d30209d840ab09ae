"""`Generator`: the interface of a loaded system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from xray_addon.progress import ignore_progress
from xray_addon.systems.system import Inputs, System

if TYPE_CHECKING:
    from xray_addon.generated import Generated
    from xray_addon.progress import ProgressCallback
    from xray_addon.settings.generate import GenerateSettings


class Generator(ABC):
    """A system with its weights in memory; created by `runtime.load`.

    system : its description. device : torch's name: "cpu", "cuda:0", "mps".
    """

    system: System
    device: str

    @property
    def name(self) -> str:
        """The system's name."""
        return self.system.name

    def generate(
        self,
        inputs: Any,
        settings: GenerateSettings | None = None,
        progress: ProgressCallback | None = None,
    ) -> Generated:
        """Generate a mesh from `inputs`.

        inputs : `Inputs`, whose image and mask are paths, PIL images or (H, W, 3 or 4) uint8
            arrays; or only an image.
        settings : the system's own. From another system's settings the shared ones are used.
        progress : called at every stage; may raise `Cancelled`.

        Raises XRayError: those of `System.check`, `System.own` and the system itself.
        """
        given = Inputs.of(inputs)
        self.system.check(given)
        return self.run(given, self.system.own(settings), progress or ignore_progress)

    @abstractmethod
    def run(self, inputs: Inputs, settings: Any, progress: ProgressCallback) -> Generated:
        """`generate` with checked inputs and the system's own settings."""
