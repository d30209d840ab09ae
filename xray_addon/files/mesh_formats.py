"""The mesh formats that both command lines write, and what each cannot store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import XRayError

# For messages; "" for a format that stores everything in a generated mesh.
CANNOT_HOLD = {
    ".glb": "GLB holds triangles only, so quads are split",
    ".obj": "OBJ holds material and textures in files beside it, and vertex colours only as an "
    "extension that some programs skip",
    ".stl": "STL holds the shape alone: no colours, textures or smooth shading; lengths are in "
    "millimetres",
    ".blend": "",
}


def check_format(path: Path, formats: Sequence[str]) -> None:
    """Raise XRayError `unknown_format` if the suffix of `path` is not one of `formats`."""
    if path.suffix.lower() not in formats:
        raise XRayError(
            "unknown_format",
            f"{path.name} cannot be written.",
            f"Use a name that ends in {', '.join(formats[:-1])} or {formats[-1]}.",
        )


def lost_in(suffix: str, *, quads: bool = False) -> str:
    """What a file with `suffix` loses of a generated mesh, for messages; "" if nothing.

    quads : whether the mesh has quads.
    """
    suffix = suffix.lower()
    return "" if suffix == ".glb" and not quads else CANNOT_HOLD[suffix]
