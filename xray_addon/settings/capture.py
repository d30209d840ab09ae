"""How meshes become X-Rays."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class CaptureSettings(Settings):
    """How meshes become X-Rays."""

    views: int = setting(4, "Number of camera views per object", min=1, max=10_000)
    layers: int = setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = setting(256, "Width and height of the X-Ray in pixels", min=8, max=8192)
    seed: int = setting(0, "Seed of the camera positions", min=0, max=2**31 - 1)
    camera: str = setting(
        "sampled",
        "Where the object is seen from",
        choices=("sampled", "scene"),
    )
    visible_in: str = setting(
        "render",
        "Which objects count: those that a render's camera sees, or those that the viewport shows",
        choices=("render", "viewport"),
    )
    combine: bool = setting(False, "Capture the selected objects together as one object")
