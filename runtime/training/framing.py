"""Turns and zooms the view of any camera into the canonical frame (`xray_addon.canonical`).

The camera is turned to the object's middle, as when the image intake crops a photo, and depths are
scaled like the image. The original perspective remains; `CanonicalFrame.fov_x` tells it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.canonical import CANONICAL, DISTANCE, FAR, FILL, FOV_X, NEAR, canonical_camera
from xray_addon.xray import XRay

Floats = NDArray[np.float64]


class CanonicalFrame:
    """The transform of a view into the canonical frame; made by `canonical_frame`.

    rotation : (3, 3) from directions in the turned camera to the view's. zoom : of the image.
    middle : depth of the object's middle in the view. elevation, fov_x : radians; fov_x is the part
    of the view that the image shows.
    """

    def __init__(self, camera: Camera, rotation: Floats, zoom: float, middle: float) -> None:
        self.camera = camera
        self.rotation = rotation
        self.zoom = zoom
        self.middle = middle
        backward = camera.camera_to_world[:3, :3] @ rotation[:, 2]
        self.fov_x = CANONICAL.from_afar(zoom).fov_x
        self.elevation = math.asin(float(np.clip(backward[2], -1, 1)))

    def depth(self, ahead: Floats) -> Floats:
        """Depth in the canonical camera of points at the depth `ahead` in the view."""
        return DISTANCE + (ahead - self.middle) * self.zoom * DISTANCE / self.middle

    def resample(self, xray: XRay, layers: int, size: int) -> XRay:
        """The X-Ray (layers, size, size) of the canonical camera, from the hits of nearest rays."""
        row, column = np.divmod(np.arange(size * size), size)
        ray = canonical_camera(size).ray_directions(row, column)
        x, y = (np.rint(place).astype(np.intp) for place in self._pixels(ray))
        there, height, width = xray.shape
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = np.where(inside, x, 0), np.where(inside, y, 0)
        count = min(layers, there)
        along = xray.depth[:count, y, x] * inside  # (L, size * size)
        towards = self.camera.ray_directions(y, x) @ self.rotation
        depth = np.zeros((layers, size * size), np.float32)
        depth[:count] = np.where(along > 0, self.depth(along * -towards[:, 2]) / -ray[:, 2], 0)
        normal = np.zeros((layers, size * size, 3), np.float32)
        normal[:count] = xray.normal[:count, y, x] @ self.rotation
        color = np.zeros_like(normal)
        color[:count] = xray.color[:count, y, x]
        return XRay(
            depth.reshape(layers, size, size),
            normal.reshape(layers, size, size, 3),
            color.reshape(layers, size, size, 3),
        )

    def picture(self, image: Tensor, size: int) -> NDArray[np.float32]:
        """The view's image (4, I, I) resampled for the canonical camera: (size, size, 4)."""
        fine = 2 * size
        row, column = np.divmod(np.arange(fine * fine), fine)
        x, y = self._pixels(canonical_camera(fine).ray_directions(row, column))
        scale = 2 / np.array([self.camera.width, self.camera.height])
        grid = (np.stack([x, y], axis=-1) + self.camera.pixel_offset) * scale - 1
        premultiplied = torch.cat([image[:3] * image[3:], image[3:]])[None]
        seen = functional.grid_sample(
            premultiplied,
            torch.from_numpy(grid.astype(np.float32)).view(1, fine, fine, 2),
            mode="bilinear",
            align_corners=False,
        )
        seen = functional.avg_pool2d(seen, 2)[0]
        seen[:3] /= seen[3:].clamp(min=1e-4)
        return np.ascontiguousarray(seen.clamp(0, 1).permute(1, 2, 0).numpy())

    def _pixels(self, ray: Floats) -> tuple[Floats, Floats]:
        """Columns and rows (N,) of the view hit by the canonical camera's rays (N, 3)."""
        turned = np.concatenate([ray[:, :2] / self.zoom, ray[:, 2:]], axis=1) @ self.rotation.T
        ahead = np.maximum(-turned[:, 2], 1e-6)
        camera = self.camera
        assert camera.cx is not None
        assert camera.cy is not None
        x = camera.cx + camera.focal * turned[:, 0] / ahead - camera.pixel_offset
        y = camera.cy - camera.focal * turned[:, 1] / ahead - camera.pixel_offset
        return x, y


def canonical_frame(xray: XRay, camera: Camera) -> CanonicalFrame | None:
    """The frame for the object that `camera` sees, or None if it does not fit."""
    _, height, width = xray.shape
    pixel = xray.index[xray.index < height * width]
    if not len(pixel):
        return None
    ray = camera.ray_directions(pixel // width, pixel % width)
    backward = np.array([0.0, 0.0, 1.0])
    up = camera.camera_to_world[2, :3]
    for _ in range(3):  # the box turns with the camera
        rotation = _turned(backward, up)
        low, high = _box(ray @ rotation)
        middle = np.append((low + high) / 2, -1.0)
        backward = -(rotation @ middle) / np.linalg.norm(middle)
    rotation = _turned(backward, up)
    low, high = _box(ray @ rotation)
    zoom = FILL * math.tan(FOV_X / 2) / max(float((high - low).max()) / 2, 1e-9)
    hits = xray.index % (height * width)
    rays = camera.ray_directions(hits // width, hits % width) @ rotation
    ahead = xray.hit_depth * -rays[:, 2]
    frame = CanonicalFrame(camera, rotation, zoom, float(ahead.min() + ahead.max()) / 2)
    depth = frame.depth(ahead)
    return frame if depth.min() > NEAR and depth.max() < FAR else None


def _turned(backward: Floats, up: Floats) -> Floats:
    """Axes, as columns, of a camera that looks along -`backward` with `up` upwards."""
    right = np.cross(up if abs(up @ backward) < 0.999 else np.array([0.0, 1.0, 0.0]), backward)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(backward, right), backward], axis=1)


def _box(ray: Floats) -> Sequence[Floats]:
    """Least and greatest x and y of directions (N, 3) at depth 1."""
    seen = ray[:, :2] / -ray[:, 2:]
    return seen.min(axis=0), seen.max(axis=0)
