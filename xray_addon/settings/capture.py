"""How meshes become X-Rays."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting
from .visibility import visible_in_setting


@dataclass
class CaptureSettings(Settings):
    """How meshes become X-Rays."""

    views: int = setting(4, "Number of camera views per object", min=1, max=10_000)
    layers: int = setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = setting(
        256, "Width and height of the X-Ray in pixels", min=8, max=8192, unit="pixels"
    )
    seed: int = setting(0, "Seed of the camera positions", min=0, max=2**31 - 1)
    camera: str = setting(
        "sampled",
        "Where the object is seen from",
        choices={
            "sampled": "Random cameras around the object, as in the published data",
            "scene": "The scene's camera",
        },
    )
    visible_in: str = visible_in_setting()
    combine: bool = setting(False, "Capture the selected objects together as one object")
