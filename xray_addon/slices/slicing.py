"""Slices: an object cut into slabs, each drawn as the camera sees it, to reveal hidden parts.

The representation of "Slice3D: Multi-Slice, Occlusion-Revealing, Single View 3D Reconstruction"
(Wang et al., CVPR 2024, arXiv 2312.02221). The box around the object is cut into four equal slabs
along each of three axes, and the part in each slab is drawn separately. Cuts are open.

A slice shows, of all hits along a ray, the nearest one in its slab. So one X-Ray with every hit
gives all twelve slices, without cutting the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera import PUBLISHED_FOV_X, Camera
from ..casting import cast
from ..pictures.shading import Lights, lit
from ..surface import Surface
from ..xray import XRay

SLABS = 4
# The file names, in the order of the published networks' input. X counts from the left, Y from the
# top, Z from the viewer: Y_1 is the top slab, Z_1 the nearest.
NAMES = (
    *("X_1", "X_2", "X_3", "X_4"),
    *("Z_4", "Z_3", "Z_2", "Z_1"),
    *("Y_1", "Y_2", "Y_3", "Y_4"),
)
COUNT = len(NAMES)
ALIGNMENTS = ("camera", "axis")
# Distance of the published camera from the centre of the object, whose diagonal is 1.
DISTANCE = 1.2
EVERY_HIT = (1 << 16) - 1
# Indices into NAMES of the slabs along x, y and z, in ascending order.
_PLACES = np.array([[0, 1, 2, 3], [11, 10, 9, 8], [4, 5, 6, 7]], dtype=np.int32)
# The published pictures have Blender's default grey (0.8 in linear light), a sky of 0.5, and the
# lamp of Blender's default scene (1000 W), with the camera at the origin.
GREY = 0.906332
SKY = 0.5
LAMP = (4.076, 1.005, 5.904)
LAMP_WATTS = 1000.0


@dataclass(frozen=True, eq=False)
class Slices:
    """Twelve slices, as the hits of an X-Ray and their positions in the slices.

    xray : all hits. directions (3, N) : unit rays to them in camera space. places (3, N) : flat
    indices of each hit into (12, H, W), in the order of `NAMES`. A hit is in three slices, one per
    axis. A slice shows the nearest hit at each place.
    """

    xray: XRay
    directions: NDArray[np.float32]
    places: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(12, H, W)."""
        return (COUNT, *self.xray.shape[1:])

    @property
    def depth(self) -> NDArray[np.float32]:
        """(12, H, W) distance along the ray; 0 where a slice is empty."""
        return self._drawn(self.xray.hit_depth)

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(12, H, W) whether a slice shows anything."""
        return self.depth > 0

    def pictures(
        self, lights: Lights | None = None, grey: float | None = GREY
    ) -> NDArray[np.uint8]:
        """(12, H, W, 4) RGBA with straight alpha, in the order of `NAMES`.

        lights : `published_lights` by default. grey : the colour of all surfaces, sRGB-encoded;
        None keeps the hits' own.
        """
        xray = self.xray
        color = xray.hit_color if grey is None else np.full((1, 3), grey, dtype=np.float32)
        rgba = np.empty((len(xray.index), 4), dtype=np.uint8)
        shaded = lit(xray.hit_normal, self.directions.T, color, lights or published_lights())
        rgba[:, :3] = shaded * np.float32(255) + np.float32(0.5)
        rgba[:, 3] = 255
        return self._drawn(rgba.view(np.uint32)[:, 0]).view(np.uint8).reshape(*self.shape, 4)

    def _drawn(self, values: NDArray[Any]) -> NDArray[Any]:
        """Pictures (12, H, W) of values (N,), one per hit."""
        pictures = np.zeros(int(np.prod(self.shape)), dtype=values.dtype)
        # Hits are sorted by layer; backwards, the nearest hit of a pixel is written last.
        backwards = values[::-1]
        for places in self.places:
            pictures[places[::-1]] = backwards
        return pictures.reshape(self.shape)


def slice_surface(
    surface: Surface, camera: Camera, *, aligned: str = "camera", backend: str = "auto"
) -> Slices:
    """The twelve slices of `surface` seen by `camera`.

    aligned : "camera" cuts along the camera's axes (x right, y up, z to the viewer), "axis" along
    the world's. The slabs are equal parts of the box around the vertices that faces use. Materials
    are ignored, as in the published data: transparent parts are cut like solid ones.

    Raises ValueError as `cast`, for a surface without faces, and for an unknown `aligned`.
    """
    _check(aligned)
    bare = replace(surface, corner_uvs=None, corner_colors=None, face_material=None, materials=())
    seen = bare.transformed(camera.world_to_camera) if aligned == "camera" else bare
    xray = cast(bare, camera, EVERY_HIT, backend=backend)
    return _sliced(xray, camera, aligned, seen.bounds)


def slice_xray(
    xray: XRay,
    camera: Camera,
    *,
    aligned: str = "camera",
    bounds: NDArray[np.floating] | None = None,
) -> Slices:
    """The twelve slices of a captured X-Ray, without the hits that it `dropped`.

    bounds : (2, 3) of the object along the cut axes; by default those of the hits, which are only
    as exact as the pixels.

    Raises ValueError for an X-Ray without hits, an X-Ray that does not have the camera's image
    size, and an unknown `aligned`.
    """
    _check(aligned)
    if xray.shape[1:] != (camera.height, camera.width):
        raise ValueError(
            f"the X-Ray is {xray.shape[2]}x{xray.shape[1]} pixels, "
            f"the camera {camera.width}x{camera.height}"
        )
    if not len(xray.index):
        raise ValueError("the X-Ray has no hits to slice")
    return _sliced(xray, camera, aligned, bounds)


def published_lights() -> Lights:
    """The lights of the published slices, in camera space.

    A uniform sky and the lamp of Blender's default scene. The camera of the published renders is at
    the origin, so the lamp is always behind the viewer's right shoulder.
    """
    towards = np.array(LAMP) + np.array([0.0, 0.0, DISTANCE])
    far = np.linalg.norm(towards)
    # A lamp of P watts lights a surface that faces it with P / (4 pi^2 r^2), in units of the sky.
    strength = LAMP_WATTS / (4 * np.pi**2 * far**2)
    return Lights(SKY, SKY, np.array([0.0, 1.0, 0.0]), towards[None] / far, np.array([strength]))


def published_camera(
    azimuth: float = 0.0, elevation: float = 0.0, size: int = 256, distance: float = DISTANCE
) -> Camera:
    """The camera of the published views, around an object that is centred on the origin, z up.

    azimuth, elevation : of the camera, in radians; azimuth 0 is the +x side, 90 degrees +y.
    """
    eye = distance * np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    return Camera.look_at(eye, fov_x=PUBLISHED_FOV_X, width=size, height=size)


def placement(surface: Surface, scale: float = 1.0, offset: Sequence[float] = (0, 0, 0)) -> Any:
    """(4, 4) matrix that scales the diagonal of `surface`'s box to `scale` and centres the box.

    offset : the new centre. This is the rule of the published data. Raises ValueError if the
    surface has no extent.
    """
    low, high = surface.bounds
    diagonal = float(np.linalg.norm(high - low))
    if not diagonal > 0:
        raise ValueError("the surface is a single point and has no size to normalise")
    matrix = np.eye(4)
    matrix[:3, :3] *= scale / diagonal
    matrix[:3, 3] = np.asarray(offset) - (low + high) / 2 * (scale / diagonal)
    return matrix


def tiled(pictures: NDArray[np.uint8], background: int | None = None) -> NDArray[np.uint8]:
    """Twelve pictures (12, H, W, C) as one (3 H, 4 W, C): rows X, Z and Y, in `NAMES`' order.

    background : grey behind transparent pixels; None leaves them transparent.
    """
    count, height, width, channels = pictures.shape
    rows = count // SLABS
    sheet = pictures.reshape(rows, SLABS, height, width, channels).swapaxes(1, 2)
    sheet = np.ascontiguousarray(sheet).reshape(rows * height, SLABS * width, channels)
    if background is None or channels < 4:
        return sheet
    alpha = sheet[..., 3:] / 255.0
    return np.rint(sheet[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


def _check(aligned: str) -> None:
    if aligned not in ALIGNMENTS:
        raise ValueError(f"aligned must be one of {ALIGNMENTS}, got {aligned!r}")


def _directions(camera: Camera, pixel: NDArray[np.integer]) -> NDArray[np.float32]:
    """(3, N) unit directions of the rays through flat pixels (N,), camera space."""
    assert camera.cx is not None
    assert camera.cy is not None
    row, column = np.divmod(pixel, np.int32(camera.width))
    across = (np.arange(camera.width) + (camera.pixel_offset - camera.cx)) / camera.focal
    up = (np.arange(camera.height) + (camera.pixel_offset - camera.cy)) / -camera.focal
    x, y = across.astype(np.float32)[column], up.astype(np.float32)[row]
    towards = -1 / np.sqrt(x * x + y * y + 1)
    return np.stack([-x * towards, -y * towards, towards])


def _sliced(
    xray: XRay, camera: Camera, aligned: str, bounds: NDArray[np.floating] | None
) -> Slices:
    """Slice `xray`. bounds : (2, 3) of the object along the cut axes; None for the hits' bounds."""
    pixels = xray.shape[1] * xray.shape[2]
    pixel = (xray.index % pixels).astype(np.int32)
    directions = _directions(camera, pixel)
    along = directions * xray.hit_depth
    if aligned == "axis":
        along = camera.camera_to_world[:3, :3] @ along + camera.position[:, None]
    if bounds is None:
        bounds = np.stack([along.min(axis=1), along.max(axis=1)])
    places = np.empty((3, len(pixel)), dtype=np.int32)
    for axis, (low, high) in enumerate(np.transpose(bounds)):
        slab = ((along[axis] - low) * (SLABS / max(high - low, 1e-30))).astype(np.int32)
        # Rounding can put hits at the border of the box just outside.
        np.clip(slab, 0, SLABS - 1, out=slab)
        np.add(_PLACES[axis][slab] * np.int32(pixels), pixel, out=places[axis])
    return Slices(xray, directions, places)
