"""How objects become omages."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting
from .visibility import visible_in_setting


@dataclass
class OmageSettings(Settings):
    """How objects become omages."""

    resolution: int = setting(
        1024, "Width and height of the omage in pixels", min=8, max=8192, unit="pixels"
    )
    downsample: int = setting(
        0,
        "Width and height to reduce it to, with the borders of patches snapped; off or 0 keeps it",
        min=0,
        max=8192,
        unit="pixels",
        on=64,
    )
    patches: int = setting(
        128, "How many parts of the UV map are kept, the largest first", min=1, max=100_000
    )
    visible_in: str = visible_in_setting()
    bake_size: int = setting(
        1024, "Width and height of baked textures in pixels", min=16, max=8192, unit="pixels"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.downsample and not 8 <= self.downsample <= self.resolution:
            raise self._bad(
                "downsample",
                f"must lie between 8 and the resolution, {self.resolution}, or be 0, "
                f"got {self.downsample}",
            )

    @property
    def smallest(self) -> int:
        """The lowest resolution at which patches must not touch: 64, or `downsample` if lower."""
        return min(64, self.downsample or 64)
