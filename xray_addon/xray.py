"""`XRay`: every surface along every camera ray, as layers of depth, normal and colour.

The representation of "X-Ray: A Sequential 3D Representation For Generation" (Hu et al.,
NeurIPS 2024, arXiv 2404.14329). An X-Ray is mostly empty, so it stores only its hits and makes
dense frames on request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import XRayError
from .files.deflate import Deflater
from .files.xray_file import StoredHits, read_hits, write_hits

if TYPE_CHECKING:
    from .camera import Camera


# Limit for dense frames, which take 4 bytes per cell for depth and 12 each for normal and colour.
# Even a tiny file can claim any number of layers and pixels.
MOST_CELLS = 1 << 28


@dataclass(frozen=True, eq=False)
class Points:
    """Oriented coloured points in world space.

    positions (N, 3), normals (N, 3) unit, colors (N, 3) sRGB-encoded 0..1; float32.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.positions)


class XRay:
    """Layers of hits along the rays of one camera, front to back.

    Parameters
    ----------
    depth : (L, H, W) distance from the camera centre along the unit ray, scene units; 0 = no hit.
    normal : (L, H, W, 3) unit, camera space, by the face's winding (not flipped to the viewer).
    color : (L, H, W, 3) sRGB-encoded 0..1.
    dropped : number of hits behind the last layer, which are not stored.

    Attributes
    ----------
    shape : (L, H, W).
    index : (N,) flat index of each hit into `shape`, ascending: by layer, then row, then column.
    hit_depth (N,), hit_normal (N, 3), hit_color (N, 3) : float32, in the order of `index`.
    hit_face : (N,) int32 index of the surface's face that was hit, if requested from `cast`,
        else None. It is not saved in the file.

    Raises ValueError for shapes that do not match and for depths that are negative or not finite.
    `depth`, `normal`, `color` and `hit` raise XRayError `too_large` for more than `MOST_CELLS`
    cells.
    """

    def __init__(
        self, depth: ArrayLike, normal: ArrayLike, color: ArrayLike, dropped: int = 0
    ) -> None:
        depth = np.asarray(depth, dtype=np.float32)
        normal = np.asarray(normal, dtype=np.float32)
        color = np.asarray(color, dtype=np.float32)
        if depth.ndim != 3:
            raise ValueError(f"depth must be (L, H, W), got {depth.shape}")
        for name, frames in (("normal", normal), ("color", color)):
            if frames.shape != (*depth.shape, 3):
                raise ValueError(f"{name} must be {(*depth.shape, 3)}, got {frames.shape}")
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise ValueError("depth must be finite and not negative; 0 means no hit")
        index = np.flatnonzero(depth)
        self._set(
            depth.shape,
            index,
            depth.reshape(-1)[index],
            normal.reshape(-1, 3)[index],
            color.reshape(-1, 3)[index],
            dropped,
        )

    @classmethod
    def from_hits(
        cls,
        shape: tuple[int, int, int],
        index: NDArray[np.integer],
        depth: NDArray[np.floating],
        normal: NDArray[np.floating],
        color: NDArray[np.floating],
        dropped: int = 0,
        face: NDArray[np.integer] | None = None,
    ) -> XRay:
        """Make an X-Ray from hits: index (N,) ascending, depth (N,) > 0, normal, color (N, 3)."""
        xray = cls.__new__(cls)
        xray._set(shape, index, depth, normal, color, dropped)
        if face is not None:
            xray.hit_face = np.asarray(face, dtype=np.int32)
        return xray

    def _set(
        self, shape: Any, index: Any, depth: Any, normal: Any, color: Any, dropped: int
    ) -> None:
        self.shape: tuple[int, int, int] = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.index: NDArray[np.int64] = np.asarray(index, dtype=np.int64)
        self.hit_depth: NDArray[np.float32] = np.asarray(depth, dtype=np.float32)
        self.hit_normal: NDArray[np.float32] = np.asarray(normal, dtype=np.float32)
        self.hit_color: NDArray[np.float32] = np.asarray(color, dtype=np.float32)
        self.hit_face: NDArray[np.int32] | None = None
        self.dropped = int(dropped)

    def __repr__(self) -> str:
        return f"XRay(shape={self.shape}, hits={len(self.index)}, dropped={self.dropped})"

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """(L, H, W) distance along the ray; 0 = no hit."""
        return self._dense(self.hit_depth)

    @cached_property
    def normal(self) -> NDArray[np.float32]:
        """(L, H, W, 3) unit normals in camera space; zeros where there is no hit."""
        return self._dense(self.hit_normal)

    @cached_property
    def color(self) -> NDArray[np.float32]:
        """(L, H, W, 3) sRGB-encoded 0..1; zeros where there is no hit."""
        return self._dense(self.hit_color)

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(L, H, W) bool: whether the ray hits a surface in that layer."""
        return self.depth > 0

    @property
    def hits_per_layer(self) -> NDArray[np.intp]:
        """(L,) number of hits in each layer."""
        layers, height, width = self.shape
        return np.diff(np.searchsorted(self.index, np.arange(layers + 1) * (height * width)))

    def points(self, camera: Camera) -> Points:
        """The hits as points in world space, by layer, then row, then column.

        Raises ValueError if the camera's image size is not the X-Ray's.
        """
        _, height, width = self.shape
        if (camera.height, camera.width) != (height, width):
            raise ValueError(
                f"the X-Ray is {width}x{height} pixels, the camera {camera.width}x{camera.height}"
            )
        pixel = self.index % (height * width)
        direction = camera.ray_directions(pixel // width, pixel % width)
        rotation = camera.camera_to_world[:3, :3]
        positions = (direction * self.hit_depth[:, None]) @ rotation.T + camera.position
        normals = self.hit_normal @ rotation.T
        return Points(
            positions.astype(np.float32), normals.astype(np.float32), self.hit_color.copy()
        )

    def save(self, path: str | PathLike[str], deflater: Deflater | None = None) -> None:
        """Write the published `.npz` (see `files.xray_file`) atomically.

        deflater : the fastest by default. Raises XRayError `too_large`, OSError.
        """
        write_hits(
            path,
            StoredHits(self.shape, self.index, self.hit_depth, self.hit_normal, self.hit_color),
            deflater,
        )

    @classmethod
    def load(cls, path: str | PathLike[str] | BinaryIO) -> XRay:
        """Read a published `.npz` from a path or an open file.

        Raises XRayError `missing_file`, or `bad_xray_file` if it is not an X-Ray.
        """
        hits = read_hits(path)
        return cls.from_hits(hits.shape, hits.index, hits.depth, hits.normal, hits.color)

    def _dense(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        cells = math.prod(self.shape)
        if cells > MOST_CELLS:
            raise XRayError(
                "too_large",
                f"{self.shape[0]} layers of {self.shape[2]} x {self.shape[1]} pixels are too many "
                "for dense frames.",
                "Use the hits, or capture fewer layers or pixels.",
            )
        dense = np.zeros((cells, *values.shape[1:]), dtype=np.float32)
        dense[self.index] = values
        return dense.reshape(*self.shape, *values.shape[1:])
