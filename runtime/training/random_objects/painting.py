"""Random colours and prints for random objects, sRGB-encoded 0..1."""

from __future__ import annotations

import colorsys

import numpy as np
from scipy import ndimage

from .fields import Array

SIZE = 96  # px, of a print


def random_color(random: np.random.Generator) -> Array:
    """A grey, a colour of wood or skin, or any colour (3,)."""
    kind = random.random()
    if kind < 0.25:
        grey = random.choice([0.05, 0.2, 0.5, 0.8, 0.95])
        return np.clip(grey + random.normal(0, 0.02, 3), 0, 1)
    if kind < 0.5:
        hsv = random.uniform(0.03, 0.14), random.uniform(0.2, 0.8), random.uniform(0.25, 1)
    else:
        hsv = random.random(), random.uniform(0.3, 1), random.uniform(0.3, 1)
    return np.array(colorsys.hsv_to_rgb(*hsv))


def random_print(random: np.random.Generator) -> Array:
    """A print (SIZE, SIZE, 3) like those on boxes: areas, stripes and lines of letters."""
    image = np.tile(random_color(random), (SIZE, SIZE, 1))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    palette = [random_color(random) for _ in range(4)]
    if random.random() < 0.3:
        ramp = rows if random.random() < 0.5 else columns
        image += ramp[..., None] * (random_color(random) - image)
    for _ in range(random.integers(1, 9)):
        place, half = random.random(2), random.uniform(0.03, 0.4, 2)
        across, down = (columns - place[0]) / half[0], (rows - place[1]) / half[1]
        area = (np.abs(across) < 1) & (np.abs(down) < 1)
        kind = random.random()
        if kind < 0.4:
            shape = area
        elif kind < 0.7:
            shape = across**2 + down**2 < 1
        elif kind < 0.85:
            angle, count = random.uniform(0, np.pi), random.uniform(2, 12)
            phase = (columns * np.cos(angle) + rows * np.sin(angle)) * count * 2 * np.pi
            shape = np.sin(phase) > random.uniform(-0.5, 0.9)
        else:
            lines = (rows * random.uniform(10, 25)) % 1 < 0.5
            shape = area & lines & (_enlarged(random.random((24, 48)), order=0) > 0.4)
        image[shape] = palette[random.integers(4)]
    if random.random() < 0.4:
        noise = sum(_enlarged(random.normal(size=(n, n)), order=1) / n**0.5 for n in (4, 12, 32))
        image *= 1 + random.uniform(0.05, 0.3) * np.asarray(noise)[..., None]
    return np.clip(image, 0, 1)


def _enlarged(values: Array, order: int) -> Array:
    height, width = values.shape
    return np.asarray(ndimage.zoom(values, (SIZE / height, SIZE / width), order=order))


def pixels(image: Array, across: Array, up: Array) -> Array:
    """The colours (N, 3) of a print at places from 0 to 1."""
    last = SIZE - 1
    rows = np.clip(((1 - up) * last).round().astype(int), 0, last)
    return image[rows, np.clip((across * last).round().astype(int), 0, last)]


def painted(random: np.random.Generator, points: Array, normals: Array, colors: Array) -> Array:
    """`colors` (N, 3) as they are, or with blotches, bands or prints from the six sides."""
    low = points.min(axis=0)
    sides = np.ptp(points, axis=0)
    kind = random.random()
    if kind < 0.3:
        return colors
    if kind < 0.5:
        waves = random.normal(size=(12, 3)) * random.uniform(3, 12)
        phases = (points - low) / sides.max() @ waves.T + random.uniform(0, 2 * np.pi, 12)
        field = np.cos(phases).mean(axis=1)[:, None]
        if random.random() < 0.5:
            return np.where(field > random.uniform(0.05, 0.3), random_color(random), colors)
        return np.clip(colors * (1 + random.uniform(0.3, 1.0) * field), 0, 1)
    if kind < 0.6:
        axis, edges = random.integers(3), np.sort(random.random(random.integers(1, 6)))
        band = np.searchsorted(edges, (points[:, axis] - low[axis]) / sides.max())
        palette = np.stack([random_color(random) for _ in range(len(edges) + 1)])
        chosen = random.random(len(palette)) < 0.6
        return np.where(chosen[band][:, None], palette[band], colors)
    result = colors.copy()
    unit = (points - low) / np.maximum(sides, 1e-9)
    seen = np.abs(normals).argmax(axis=1)
    for axis in range(3):
        front = (seen == axis) & (normals[:, axis] < 0)
        back = (seen == axis) & ~front
        across, up = np.delete(unit, axis, axis=1).T
        for side in (front | back,) if random.random() < 0.3 else (front, back):
            if random.random() < 0.75:
                result[side] = pixels(random_print(random), across[side], up[side])
    return result
