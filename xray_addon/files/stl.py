"""STL, the format for 3D printers: triangles without colours, by convention in millimetres."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..surface import Surface
from .atomic import replacing

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEADER = b"X-Ray; unit: millimetre".ljust(80, b"\0")  # must not begin with "solid"


def write_stl(path: str | PathLike[str], surface: Surface, metres: float = 1.0) -> None:
    """Write `surface` as a binary STL in millimetres, atomically; z is up, as for printers.

    metres : length of one unit of the surface. Format: 3D Systems, 1989.
    """
    corners = surface.vertices[surface.faces].astype(np.float64) * (1000 * metres)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles = np.zeros(len(corners), dtype=_TRIANGLE)
    triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
    triangles["corners"] = corners
    with replacing(path) as temporary:
        count = np.array(len(triangles), dtype="<u4").tobytes()
        temporary.write_bytes(_HEADER + count + triangles.tobytes())
