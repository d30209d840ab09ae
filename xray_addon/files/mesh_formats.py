"""The mesh files that both command lines write, and what each cannot hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import XRayError

# For people; "" for a format that holds all of a generated mesh.
CANNOT_HOLD = {
    ".glb": "GLB holds triangles only, so quads are split",
    ".obj": "OBJ holds material and textures in files beside it, and vertex colours only as an "
    "extension that some programs skip",
    ".stl": "STL holds the shape alone: no colours, textures or smooth shading; lengths are in "
    "millimetres",
    ".blend": "",
}


def check_format(path: Path, formats: Sequence[str]) -> None:
    """Raise XRayError `unknown_format` if the suffix of `path` is none of `formats`."""
    if path.suffix.lower() not in formats:
        raise XRayError(
            "unknown_format",
            f"{path.name} cannot be written.",
            f"Use a name that ends in {', '.join(formats[:-1])} or {formats[-1]}.",
        )


def lost_in(suffix: str, *, quads: bool = False) -> str:
    """What a file with `suffix` does not hold of a generated mesh, for people; "" if nothing.

    quads : whether the mesh has them.
    """
    suffix = suffix.lower()
    return "" if suffix == ".glb" and not quads else CANNOT_HOLD[suffix]
