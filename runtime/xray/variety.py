"""What photos have and clean pictures of low-poly meshes have not, as switches for training.

Each of `VARIETIES` is on or off in the configuration, so that what it brings can be measured.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_addon.surface import Material, Surface

from ..images.reading import open_image
from ..meshes.smoothing import neighbour_mean, vertex_normals

# colors : objects of one flat colour are drawn a third as often. materials : half of the objects
# get a procedural pattern. shapes : half are subdivided and smoothed. scenes : a sixth have a
# second object beside or upon them. cameras : fields of view of 30 to 70 degrees, elevations of
# -20 to 60, a tilt. photos : antialiased pictures, errors of the matting, JPEG.
VARIETIES = ("colors", "materials", "shapes", "scenes", "cameras", "photos")

ONE_COLOR_SHARE = 1 / 3
MATERIAL_SHARE = 0.5
SHAPE_SHARE = 0.5
SCENE_SHARE = 1 / 6
MATTING_SHARE = 0.4
JPEG_SHARE = 0.5
FOV = (math.radians(30), math.radians(70))
ELEVATION = (math.radians(-20), math.radians(60))
TILT = math.radians(6)  # standard deviation
# Subdividing stops at so many faces.
MOST_FACES = 12_000

Floats = NDArray[np.floating]


def is_one_color(surface: Surface) -> bool:
    """Whether all of `surface` has one colour."""
    if any(material.texture is not None for material in surface.materials):
        return False
    colors = surface.corner_colors
    if colors is not None and np.ptp(colors.reshape(-1, 3), axis=0).max(initial=0) > 0.02:
        return False
    return len({material.base_color for material in surface.materials}) <= 1


def solid_texture(random: np.random.Generator) -> Callable[[Floats], Floats]:
    """A pattern in space (Perlin 1985): points (N, 3) of an object of size 1 to colours (N, 3).

    Sums of sines, as they are (clouds), with hard borders (spots) or as the phase of parallel
    planes (marble, stripes).
    """
    palette = random.uniform(0.02, 0.98, (2, 3))
    waves = random.normal(size=(6, 3)) * np.exp(random.uniform(1, 3, (6, 1)))
    phases = random.uniform(0, 2 * math.pi, 6)
    planes = random.normal(size=3) * random.uniform(3, 20)
    warp = random.uniform(0, 3)
    kind = random.integers(3)

    def color(points: Floats) -> Floats:
        share = np.sin(points @ waves.T + phases).mean(axis=1)
        if kind == 1:
            share = np.tanh(12 * share)
        elif kind == 2:
            share = np.sin(points @ planes + warp * math.pi * share)
        share = (0.5 + 0.5 * np.clip(share * (2 if kind == 0 else 1), -1, 1))[:, None]
        return palette[0] * share + palette[1] * (1 - share)

    return color


def rounded(surface: Surface, random: np.random.Generator) -> Surface:
    """`surface` subdivided and smoothed, which rounds edges and corners; normals made anew."""
    while len(surface.faces) * 4 <= MOST_FACES:
        surface = _subdivided(surface)
    low, high = surface.bounds
    step = max(float((high - low).max()), 1e-9) * 1e-5
    places = np.rint((surface.vertices - low) / step).astype(np.int64)
    _, first, weld = np.unique(places, axis=0, return_index=True, return_inverse=True)
    vertices, faces = surface.vertices[first].astype(np.float64), weld.reshape(-1)[surface.faces]
    mean = neighbour_mean(faces, len(vertices))
    for _ in range(int(random.integers(1, 6))):
        vertices = (vertices + mean @ vertices) / 2
    normal = vertex_normals(vertices, faces)[faces]
    return replace(surface, vertices=vertices, faces=faces, corner_normals=normal)


def _subdivided(surface: Surface) -> Surface:
    """Each triangle as four, the middles of its edges as new corners."""

    def corners(values: Floats | None) -> Floats | None:
        if values is None:
            return None
        a, b, c = (values[:, corner] for corner in range(3))
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        four = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        return np.concatenate([np.stack(three, axis=1) for three in four])

    positions = corners(surface.vertices[surface.faces])
    assert positions is not None
    material = surface.face_material
    return Surface(
        positions.reshape(-1, 3),
        np.arange(len(positions) * 3).reshape(-1, 3),
        corner_uvs=corners(surface.corner_uvs),
        corner_colors=corners(surface.corner_colors),
        face_material=None if material is None else np.tile(material, 4),
        materials=surface.materials,
    )


def composed(surface: Surface, other: Surface, random: np.random.Generator) -> Surface:
    """`surface` with `other` beside it on the same ground, or upon it."""
    first, second = surface.normalized(), other.normalized()
    angle, size = random.uniform(0, 2 * math.pi), random.uniform(0.4, 1.0)
    matrix = np.diag([size, size, size, 1.0])
    (low, high), (other_low, other_high) = first.bounds, second.bounds * size
    if random.random() < 0.3:
        matrix[2, 3] = high[2] - other_low[2]
    else:
        direction = np.array([math.cos(angle), math.sin(angle)])
        # As far as the boxes need along the axis in which they part first.
        reach = ((high - low) / 2 + (other_high - other_low) / 2)[:2]
        matrix[:2, 3] = direction * (reach / np.maximum(np.abs(direction), 1e-9)).min()
        matrix[2, 3] = low[2] - other_low[2]
    return _joined([first, second.transformed(matrix)])


def _joined(parts: Sequence[Surface]) -> Surface:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    materials = [list(part.materials) or [Material()] for part in parts]
    offsets = np.cumsum([0, *(len(some) for some in materials)])

    def kept(values: Floats | None, part: Surface, default: float, width: int) -> Floats:
        return np.full((len(part.faces), 3, width), default) if values is None else values

    def face_normals(part: Surface) -> Floats:
        a, b, c = (part.vertices[part.faces[:, corner]] for corner in range(3))
        normal = np.cross(b - a, c - a)
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
        return np.repeat(normal[:, None], 3, axis=1)

    return Surface(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
        corner_normals=np.concatenate(
            [
                face_normals(part) if part.corner_normals is None else part.corner_normals
                for part in parts
            ]
        ),
        corner_uvs=np.concatenate([kept(part.corner_uvs, part, 0.0, 2) for part in parts]),
        corner_colors=np.concatenate([kept(part.corner_colors, part, 1.0, 3) for part in parts]),
        face_material=np.concatenate(
            [
                (0 if part.face_material is None else part.face_material)
                + np.full(len(part.faces), offset)
                for part, offset in zip(parts, offsets, strict=False)
            ]
        ),
        materials=[material for some in materials for material in some],
    )


def matted(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """RGBA (I, I, 4) as cut out by hand or by a network: a rim of background, bits missing."""
    if random.random() >= MATTING_SHARE:
        return image
    size = len(image)
    background = random.uniform(0, 1, 3)
    color = image[..., :3] * image[..., 3:] + background * (1 - image[..., 3:])
    soft: Floats = image[..., 3]
    for _ in range(int(random.integers(1, 3))):
        padded = np.pad(soft, 1, mode="edge")
        around = [padded[y : y + size, x : x + size] for y in range(3) for x in range(3)]
        soft = np.mean(around, axis=0)
    coarse = Image.fromarray(random.normal(0, 1, (8, 8)).astype(np.float32))
    blobs = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    level = soft + random.normal(0, 0.12) + random.uniform(0, 0.15) * blobs * (soft > 0.02)
    alpha = np.clip((level - 0.5) * random.uniform(1.5, 4) + 0.5, 0, 1)
    if not (alpha > 0.5).any():
        return image
    return np.concatenate([color, alpha[..., None]], axis=-1, dtype=np.float32)


def compressed(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """RGBA (I, I, 4) with the colours of a JPEG, half of the time."""
    if random.random() >= JPEG_SHARE:
        return image
    stream = io.BytesIO()
    rgb = np.rint(np.clip(image[..., :3], 0, 1) * 255).astype(np.uint8)
    Image.fromarray(rgb).save(stream, "JPEG", quality=int(random.integers(30, 96)))
    with open_image(stream.getvalue()) as read:
        color = np.asarray(read, dtype=np.float32) / 255
    return np.concatenate([color, image[..., 3:]], axis=-1, dtype=np.float32)
