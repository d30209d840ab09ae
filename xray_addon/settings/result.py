"""What a generated mesh is made into."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class ResultSettings(Settings):
    """What a generated mesh is made into. The default leaves it as the generator gives it."""

    topology: str = setting(
        "triangles",
        "'quads' remeshes into even quads, closed, without the finest details",
        choices=("triangles", "quads"),
    )
    target_faces: int = setting(
        0, "About how many faces; 0 for as many as there are", min=0, max=10_000_000
    )
    symmetry: str = setting(
        "none",
        "Mirror across the middle of this axis: 'x' keeps the right half, 'y' the half that the "
        "image shows, 'z' the upper one",
        choices=("none", "x", "y", "z"),
    )
    height: float = setting(0.0, "Height in metres; 0 leaves the size", min=0.0, max=1e6)
    color: str = setting(
        "attribute",
        "Colours as an 'attribute' of the mesh, or as a 'texture' on a UV map",
        choices=("attribute", "texture"),
    )
    bake_size: int = setting(1024, "Width and height of that texture in pixels", min=16, max=8192)
    smooth_angle: float = setting(
        0.0,
        "Edges sharper than this many degrees look sharp; 0 keeps the generator's own shading",
        min=0.0,
        max=180.0,
    )
    asset: bool = setting(False, "Mark as an asset, with a preview")
