"""`Generator`: what every loaded system can do."""

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
    """A system with its weights in memory; `runtime.load` makes one.

    system : its description. device : as torch names it: "cpu", "cuda:0", "mps".
    """

    system: System
    device: str

    @property
    def name(self) -> str:
        """Of the system."""
        return self.system.name

    def generate(
        self,
        inputs: Any,
        settings: GenerateSettings | None = None,
        progress: ProgressCallback | None = None,
    ) -> Generated:
        """A mesh from `inputs`.

        inputs : `Inputs`, whose image and mask are paths, PIL images or (H, W, 3 or 4) uint8
            arrays; or an image alone.
        settings : the system's own; what all systems share is taken from another's.
        progress : hears every stage and may raise `Cancelled`.

        Raises XRayError: what `System.check` and `System.own` raise, and what the system does.
        """
        given = Inputs.of(inputs)
        self.system.check(given)
        return self.run(given, self.system.own(settings), progress or ignore_progress)

    @abstractmethod
    def run(self, inputs: Inputs, settings: Any, progress: ProgressCallback) -> Generated:
        """`generate` with inputs that the system takes and settings of its own."""
