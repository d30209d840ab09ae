"""Pinhole cameras in Blender's and OpenGL's axes: +x right, +y up, looking along -z."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# 35 mm lens on a 32 mm sensor: the camera of the published X-Ray data.
PUBLISHED_FOV_X = 0.8575560450553894


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Parameters
    ----------
    width, height : image size in pixels.
    fov_x : horizontal field of view in radians, between 0 and pi.
    camera_to_world : (4, 4) rigid transform; columns are the camera's right, up, backward
        axes and its position.
    cx, cy : principal point in pixels from the left and the top edge; the centre by default.
    pixel_offset : where rays pass through pixels: 0.5 is the pixel's centre, 0 its top left corner,
        as in the published data.
    """

    width: int
    height: int
    fov_x: float
    camera_to_world: NDArray[np.float64]
    cx: float | None = None
    cy: float | None = None
    pixel_offset: float = 0.5

    def __post_init__(self) -> None:
        matrix = np.array(self.camera_to_world, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"camera_to_world must be a finite (4, 4) matrix, got {matrix.shape}")
        rotation = matrix[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4):
            raise ValueError("camera_to_world must be rigid (a rotation and a position, no scale)")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width and height must be positive, got {self.width}x{self.height}")
        if not 0.0 < self.fov_x < math.pi:
            raise ValueError(f"fov_x must lie between 0 and pi radians, got {self.fov_x}")
        object.__setattr__(self, "camera_to_world", matrix)
        object.__setattr__(self, "cx", self.width / 2 if self.cx is None else float(self.cx))
        object.__setattr__(self, "cy", self.height / 2 if self.cy is None else float(self.cy))

    @classmethod
    def look_at(
        cls,
        eye: ArrayLike,
        target: ArrayLike = (0.0, 0.0, 0.0),
        fov_x: float = PUBLISHED_FOV_X,
        width: int = 256,
        height: int = 256,
        up: ArrayLike = (0.0, 0.0, 1.0),
    ) -> Camera:
        """A camera at `eye` that looks at `target`; `up` points upwards in the image.

        If the view direction is parallel to `up`, the world's +y (or +x) is used instead.
        """
        position = np.asarray(eye, dtype=np.float64)
        backward: NDArray[np.float64] = position - np.asarray(target, dtype=np.float64)
        length = np.linalg.norm(backward)
        if not length > 0:
            raise ValueError("eye and target are the same point")
        backward = backward / length
        for candidate in (up, (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
            right: NDArray[np.float64] = np.cross(np.asarray(candidate, dtype=np.float64), backward)
            if np.linalg.norm(right) > 1e-9:
                break
        right = right / np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(backward, right), backward, position], axis=1)
        return cls(width, height, fov_x, matrix)

    @property
    def focal(self) -> float:
        """Focal length in pixels (pixels are square)."""
        return 0.5 * self.width / math.tan(0.5 * self.fov_x)

    @property
    def world_to_camera(self) -> NDArray[np.float64]:
        """(4, 4) inverse of `camera_to_world`."""
        rotation = self.camera_to_world[:3, :3]
        matrix = np.eye(4)
        matrix[:3, :3] = rotation.T
        matrix[:3, 3] = -rotation.T @ self.camera_to_world[:3, 3]
        return matrix

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,) camera centre in world space."""
        return self.camera_to_world[:3, 3].copy()

    @property
    def distance(self) -> float:
        """The distance of the camera's centre from the origin of world space."""
        return float(np.linalg.norm(self.camera_to_world[:3, 3]))

    def resized(self, width: int, height: int) -> Camera:
        """The same view at another resolution; width and height must keep the aspect ratio."""
        assert self.cx is not None
        assert self.cy is not None
        scale = width / self.width
        return Camera(
            width,
            height,
            self.fov_x,
            self.camera_to_world,
            self.cx * scale,
            self.cy * scale,
            self.pixel_offset,
        )

    def ray_directions(
        self,
        rows: NDArray[np.floating] | NDArray[np.integer],
        cols: NDArray[np.floating] | NDArray[np.integer],
    ) -> NDArray[np.float64]:
        """Unit ray directions (N, 3) in camera space; pixel coordinates may be fractional."""
        assert self.cx is not None
        assert self.cy is not None
        direction = np.empty((*np.shape(rows), 3))
        direction[..., 0] = (cols + (self.pixel_offset - self.cx)) / self.focal
        direction[..., 1] = (rows + (self.pixel_offset - self.cy)) / -self.focal
        direction[..., 2] = -1.0
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        return direction
