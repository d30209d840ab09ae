"""Meshes of random objects: the union of coloured parts, or boxes with exact edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from xray_addon.surface import Surface

from .fields import Array, Values, union
from .painting import painted, pixels, random_color, random_print

GRID = 46  # steps along an object's longest side: about 6,000 triangles
COARSE = 40  # steps along the whole room, to find the object in it
ROOM = np.array([[-1.6, -1.6, -1.2], [1.6, 1.6, 2.4]])  # where parts may be

Field = Callable[[Array], Array]


@dataclass
class Parts:
    """The parts of one object: their fields, colours (3,) and how softly each joins the others."""

    fields: list[Field] = field(default_factory=list)
    colors: list[Array] = field(default_factory=list)
    softness: list[float] = field(default_factory=list)

    def add(self, part: Field, color: Array, softness: float = 0.0) -> None:
        """Add a part."""
        self.fields.append(part)
        self.colors.append(color)
        self.softness.append(softness)

    def add_twice(self, part: Field, color: Array, softness: float = 0.0) -> None:
        """Add a part and its mirror image at x = 0."""
        self.add(part, color, softness)
        self.add(lambda points: part(points * [-1, 1, 1]), color, softness)

    def distance(self, points: Array) -> Array:
        """The signed distance from the union of all parts."""
        result = self.fields[0](points)
        for part, softness in zip(self.fields[1:], self.softness[1:], strict=True):
            result = union(result, part(points), softness)
        return result

    def surface(self, random: np.random.Generator) -> Surface | None:
        """The painted mesh of the largest piece, or None if there is nothing."""
        from skimage.measure import marching_cubes  # training without random objects goes without

        coarse = float(np.ptp(ROOM, axis=0).max()) / COARSE
        points = _grid(ROOM[0], ROOM[1], coarse)
        inside = points[self.distance(points) < coarse]
        if not len(inside):
            return None
        low, high = inside.min(axis=0), inside.max(axis=0)
        step = float((high - low).max()) / GRID
        points = _grid(low - 2 * step, high + 2 * step, step)
        values = self.distance(points)
        pieces, count = ndimage.label(values < 0)
        if not count:
            return None
        largest = np.bincount(pieces.ravel())[1:].argmax() + 1
        values = np.where((pieces > 0) & (pieces != largest), step, values)
        values = np.pad(values, 1, constant_values=step)
        vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="descent")
        slopes = np.gradient(values)
        normals = [ndimage.map_coordinates(slope, vertices.T, order=1) for slope in slopes]
        normals = np.stack(normals, axis=-1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        vertices = (vertices - 1) * step + points[0, 0, 0]
        nearest = np.abs([part(vertices) for part in self.fields]).argmin(axis=0)
        colors = painted(random, vertices, normals, np.stack(self.colors)[nearest])
        return Surface(vertices, faces, corner_normals=normals[faces], corner_colors=colors[faces])


def _grid(low: Array, high: Array, step: float) -> Array:
    axes = [np.arange(first, last + step, step) for first, last in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def printed_box(
    random: np.random.Generator, half: Values, center: Values, *, spin: float = 0.0, steps: int
) -> Surface:
    """A box with exact edges, most with prints on its sides.

    half : of its sides. spin : about the vertical, radians. steps : of the squares that are
    coloured, along each edge.
    """
    prints = random.random() < 0.8
    same = random_print(random) if random.random() < 0.4 else None
    plain = random_color(random)

    def colors(up: Array, across: Array) -> Array:
        if not prints or random.random() < 0.2:
            return np.tile(plain, (len(up), 1))
        return pixels(random_print(random) if same is None else same, across, up)

    return _box(half, center, spin, steps, colors)


def plain_box(half: Values, center: Values, color: Array) -> Surface:
    """A box of one colour."""
    return _box(half, center, 0.0, 1, lambda up, _: np.tile(color, (len(up), 1)))


def _box(
    half: Values, center: Values, spin: float, steps: int, colors: Callable[[Array, Array], Array]
) -> Surface:
    index = np.arange((steps + 1) ** 2).reshape(steps + 1, steps + 1)
    corners = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    a, b, c, d = (corner.ravel() for corner in corners)
    square = np.concatenate([np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)])
    up, across = (places.ravel() / steps for places in np.mgrid[0 : steps + 1, 0 : steps + 1])
    cos, sin = np.cos(spin), np.sin(spin)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    sides = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            places = np.empty((len(up), 3))
            places[:, axis] = sign
            places[:, (axis + 1) % 3], places[:, (axis + 2) % 3] = across * 2 - 1, up * 2 - 1
            faces = square if sign > 0 else square[:, ::-1]
            normal = np.zeros(3)
            normal[axis] = sign
            vertices = (places * np.asarray(half)) @ turn + np.asarray(center)
            side = Surface(vertices, faces, corner_colors=colors(up, across)[faces])
            side.corner_normals = np.broadcast_to(normal @ turn, (len(faces), 3, 3))
            sides.append(side)
    return Surface.joined(sides)
