"""How a generated mesh is finished."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class ResultSettings(Settings):
    """How a generated mesh is finished. The defaults do not change it."""

    topology: str = setting(
        "triangles",
        "'quads' remeshes into a closed mesh of even quads, without the finest details",
        choices=("triangles", "quads"),
    )
    target_faces: int = setting(
        0, "Approximate number of faces; 0 does not change it", min=0, max=10_000_000
    )
    symmetry: str = setting(
        "none",
        "Mirror across the middle of this axis: 'x' keeps the right half, 'y' the half that the "
        "image shows, 'z' the upper half",
        choices=("none", "x", "y", "z"),
    )
    height: float = setting(0.0, "Height in metres; 0 does not change the size", min=0.0, max=1e6)
    color: str = setting(
        "attribute",
        "Colours as an 'attribute' of the mesh, or as a 'texture' on a UV map",
        choices=("attribute", "texture"),
    )
    bake_size: int = setting(1024, "Width and height of the texture in pixels", min=16, max=8192)
    smooth_angle: float = setting(
        0.0,
        "Edges sharper than this many degrees look sharp; 0 keeps the generator's own shading",
        min=0.0,
        max=180.0,
    )
    asset: bool = setting(False, "Mark as an asset, with a preview")
