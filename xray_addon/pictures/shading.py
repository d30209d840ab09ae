"""The built-in shader: makes reference images from the first layer of an X-Ray, without Blender."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..casting import _kernel, cast_samples
from ..surface import Surface
from ..xray import XRay

PRESETS = ("even", "studio", "random")


@dataclass(frozen=True, eq=False)
class Lights:
    """A sky, a ground and any number of suns, in camera space and linear light.

    sky, ground : radiance from above and below; `up` (3,) the unit direction of the sky.
    directions (S, 3) : unit vectors towards the suns; strengths (S,).
    """

    sky: float
    ground: float
    up: NDArray[np.float64]
    directions: NDArray[np.float64]
    strengths: NDArray[np.float64]

    @classmethod
    def even(cls, camera: Camera) -> Lights:
        """Soft light from all sides, brighter from above, as in the published images."""
        return cls(1.0, 0.6, camera.camera_to_world[2, :3], np.zeros((0, 3)), np.zeros(0))

    @classmethod
    def studio(cls, camera: Camera) -> Lights:
        """A soft sky and one sun over the viewer's left shoulder, for previews."""
        sun = np.array([[-0.4, 0.6, 0.7]])
        return cls(
            0.55, 0.3, camera.camera_to_world[2, :3], sun / np.linalg.norm(sun), np.array([0.6])
        )

    @classmethod
    def random(cls, camera: Camera, random: np.random.Generator) -> Lights:
        """Light as in most photos: a bright sky, a darker ground and a sun above and in front.

        The sun is at most 70 degrees from the direction halfway between the viewer and straight up.
        """
        sky = random.uniform(0.45, 0.7)
        towards = np.array([0.0, 1.0, 1.0]) / math.sqrt(2)
        sun = towards + random.normal(0, 0.5, size=3)
        while (sun @ towards) < math.cos(math.radians(70)) * np.linalg.norm(sun):
            sun = towards + random.normal(0, 0.5, size=3)
        return cls(
            sky,
            sky * random.uniform(0.3, 0.7),
            camera.camera_to_world[2, :3],
            sun[None] / np.linalg.norm(sun),
            random.uniform(0.2, 0.5, size=1),
        )

    @classmethod
    def preset(cls, name: str, camera: Camera, seed: int) -> Lights:
        """The lights called `name`, one of `PRESETS`; only "random" uses `seed`."""
        match name:
            case "even":
                return cls.even(camera)
            case "studio":
                return cls.studio(camera)
            case "random":
                return cls.random(camera, np.random.default_rng(seed))
        raise ValueError(f"lights must be one of {PRESETS}, got {name!r}")


def shade(xray: XRay, camera: Camera, lights: Lights) -> NDArray[np.float32]:
    """The first layer lit by `lights`: (H, W, 4) RGBA, sRGB-encoded 0..1, straight alpha.

    Surfaces are matte and lit on the visible side. Pixels without a hit are all 0.
    """
    _, height, width = xray.shape
    first = xray.index < height * width
    pixel = xray.index[first]
    ray = camera.ray_directions(pixel // width, pixel % width)
    color = lit(xray.hit_normal[first], ray, xray.hit_color[first], lights)
    image = np.zeros((height * width, 4), dtype=np.float32)
    image[pixel, :3] = color
    image[pixel, 3] = 1.0
    return image.reshape(height, width, 4)


def lit(
    normal: NDArray[np.floating],
    ray: NDArray[np.floating],
    color: NDArray[np.floating],
    lights: Lights,
    *,
    backend: str = "auto",
) -> NDArray[np.float32]:
    """Colours (K, 3), sRGB-encoded 0..1, of matte hits, lit on the visible side.

    normal : (K, 3) unit, camera space. ray : (K, 3), of any length, away from the viewer. color :
    (K, 3), or (1, 3) for all hits, sRGB-encoded. backend : as for `cast`; it does not change the
    colours.
    """
    shown: NDArray[np.float32] = _kernel(backend).lit(
        normal,
        ray,
        color
        if np.ndim(color) == 2 and np.shape(color)[1] == 3
        else np.broadcast_to(color, (1, 3)),
        lights.sky,
        lights.ground,
        lights.up,
        lights.directions,
        lights.strengths,
    )
    return shown


def shade_surface(
    surface: Surface,
    camera: Camera,
    lights: Lights | None = None,
    *,
    samples: int = 2,
    backend: str = "auto",
) -> NDArray[np.uint8]:
    """An antialiased picture (H, W, 4) of `surface`, RGBA with straight alpha.

    samples : rays per pixel along each axis. All of them are cast, but faces are shaded only once
    per pixel where that is enough, see `cast_samples`. backend : as for `cast`; it does not change
    the picture.
    """
    seen = cast_samples(surface, camera, samples, backend=backend)
    color = lit(seen.normal, seen.ray, seen.color, lights or Lights.studio(camera), backend=backend)
    image = np.zeros((camera.height, camera.width, 4), dtype=np.uint8)
    part = image[seen.rows, seen.columns]
    part[...] = (
        _kernel(backend)
        .picture(seen.pixel, seen.count, color, part[..., 0].size, samples**2)
        .reshape(part.shape)
    )
    return image


def reduce_image(image: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """RGBA (H, W, 4) averaged over `factor` x `factor` blocks, colours weighted by alpha."""
    # By position in the blocks, because NumPy is slow at sums over short axes.
    height, width = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    color = np.zeros((height // factor, width // factor, 3), image.dtype)
    total = np.zeros_like(color[..., :1])
    for row in range(factor):
        for column in range(factor):
            part = image[row:height:factor, column:width:factor]
            color += part[..., :3] * part[..., 3:]
            total += part[..., 3:]
    return np.concatenate(
        [color / np.maximum(total, 1e-8), total / factor**2], axis=-1, dtype=image.dtype
    )


def to_bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """0..1 to 0..255, rounded."""
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
