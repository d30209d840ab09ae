"""How an object is cut into slices and drawn."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting
from .visibility import visible_in_setting


@dataclass
class SliceSettings(Settings):
    """How an object is cut into slices and drawn."""

    view: str = setting(
        "published",
        "Where the object is seen from",
        choices={
            "published": "The camera of the published data, around the object",
            "camera": "The scene's camera",
        },
        labels={"camera": "Scene Camera"},
    )
    azimuth: float = setting(
        0.0,
        "Degrees around the object, from its front (-Y) to the right",
        min=-360.0,
        max=360.0,
        unit="degrees",
        only=("view", ("published",)),
    )
    elevation: float = setting(
        20.0,
        "Degrees above the horizon",
        min=-89.0,
        max=89.0,
        unit="degrees",
        only=("view", ("published",)),
    )
    visible_in: str = visible_in_setting()
    aligned: str = setting(
        "camera",
        "Axes that the object is cut along",
        choices={"camera": "The axes of the camera", "axis": "The axes of the world"},
        labels={"axis": "World"},
    )
    size: int = setting(256, "Width and height in pixels", min=16, max=4096, unit="pixels")
    shading: str = setting(
        "cast",
        "What draws the slices",
        choices={
            "cast": "The built-in shader, fast",
            "cycles": "Cycles with the published lights, far slower",
        },
        labels={"cast": "Built-In"},
    )
    samples: int = setting(16, "Rays a pixel", min=1, max=4096, only=("shading", ("cycles",)))
