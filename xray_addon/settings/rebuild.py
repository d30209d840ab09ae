"""How a mesh is rebuilt from layers."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class RebuildSettings(Settings):
    """How a mesh is rebuilt from the layers of an X-Ray."""

    target_faces: int = setting(
        0,
        "Approximate number of faces; off or 0 makes them about as large as those of the mesh that "
        "is replaced",
        min=0,
        max=10_000_000,
        on=20_000,
    )
