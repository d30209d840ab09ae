"""Toy: a system that takes a category and no image. Tests put this file where systems are."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Need, Output, System


@dataclass
class ToySettings(GenerateSettings):
    """How Toy generates."""

    generator: str = setting("toy", "The system that makes the mesh")
    corners: int = setting(4, "Corners of the polygon", min=3, max=64)


SYSTEM = System(
    name="toy",
    label="Toy",
    about="A polygon with a shiny material",
    paper="https://example.org/toy",
    licence="none needed",
    module="runtime.toy",
    settings=ToySettings,
    image=Need.NONE,
    category=Need.REQUIRED,
    categories=("ball", "bat", "boat"),
    outputs=frozenset({Output.MATERIAL, Output.PICTURES}),
)
