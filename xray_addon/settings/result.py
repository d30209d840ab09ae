"""How a generated mesh is finished."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Settings, setting


@dataclass
class ResultSettings(Settings):
    """How a generated mesh is finished. The defaults do not change it."""

    topology: str = setting(
        "triangles",
        "Kind of faces",
        choices={
            "triangles": "The triangles that the mesh has",
            "quads": "Quads that follow the form, without the finest details. A mesh with "
            "borders is closed by voxels",
        },
    )
    target_faces: int = setting(
        0,
        "Approximate number of faces; off or 0 keeps it",
        min=0,
        max=10_000_000,
        on=10_000,
    )
    symmetry: str = setting(
        "none",
        "Mirror across the middle of this axis",
        choices={
            "none": "Do not mirror",
            "x": "The right half, mirrored",
            "y": "The half that the image shows, mirrored",
            "z": "The upper half, mirrored",
        },
    )
    height: float = setting(
        0.0,
        "Height in metres; off or 0 keeps the size",
        min=0.0,
        max=1e6,
        unit="metres",
        on=1.0,
    )
    color: str = setting(
        "keep",
        "Where the colours are stored",
        choices={
            "keep": "As they are: at the vertices, or in a texture. Quads lose their UV map, so "
            "they get a colour at each vertex",
            "texture": "A texture on a UV map",
            "attribute": "A colour at each vertex, and no texture",
        },
    )
    bake_size: int = setting(
        1024,
        "Width and height of the texture in pixels",
        min=16,
        max=8192,
        unit="pixels",
        only=("color", ("texture",)),
    )
    smooth_angle: float = setting(
        0.0,
        "Edges sharper than this many degrees look sharp; off or 0 keeps the generator's shading",
        min=0.0,
        max=180.0,
        unit="degrees",
        on=30.0,
    )
    asset: bool = setting(False, "Mark as an asset, with a preview")
