"""How an object is cut into slices and drawn."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class SliceSettings(Settings):
    """How an object is cut into slices and drawn."""

    view: str = setting(
        "published",
        "Who looks: the camera of the published data, around the object, or the scene's camera",
        choices=("published", "camera"),
        labels={"camera": "Scene Camera"},
    )
    azimuth: float = setting(
        0.0,
        "Published view: degrees around the object, from its front (-Y) to the right",
        min=-360.0,
        max=360.0,
    )
    elevation: float = setting(
        20.0, "Published view: degrees above the horizon", min=-89.0, max=89.0
    )
    visible_in: str = setting(
        "render",
        "Which objects count: those that a render's camera sees, or those that the viewport shows",
        choices=("render", "viewport"),
    )
    aligned: str = setting(
        "camera",
        "Along which axes the object is cut: the camera's, or the world's",
        choices=("camera", "axis"),
        labels={"axis": "World"},
    )
    size: int = setting(256, "Width and height in pixels", min=16, max=4096)
    shading: str = setting(
        "cast",
        "Drawn by the built-in shader, or by Cycles with the published lights",
        choices=("cast", "cycles"),
        labels={"cast": "Built-In"},
    )
    samples: int = setting(16, "Cycles: rays a pixel", min=1, max=4096)
