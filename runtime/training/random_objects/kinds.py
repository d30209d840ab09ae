"""Kinds of random objects. Each stands on the floor or lies, z up, about one unit large."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from xray_addon.surface import Surface

from .fields import (
    Array,
    Values,
    box,
    capsule,
    cylinder,
    ellipsoid,
    overlap,
    rotation,
    torus,
)
from .painting import random_color
from .solids import Field, Parts, plain_box, printed_box

Random = np.random.Generator


def moved(part: Field, place: Values) -> Field:
    """A field at another place."""
    return lambda points: part(points - np.asarray(place))


def limb(start: Values, end: Values, radius: float, last: float) -> Field:
    """See `fields.capsule`."""
    return partial(capsule, start=start, end=end, radius=radius, last=last)


def ball(center: Values, radii: Values) -> Field:
    """See `fields.ellipsoid`."""
    return moved(partial(ellipsoid, radii=radii), center)


def figure(random: Random) -> Surface | None:
    """A person, a monster or an animal, mostly symmetric, that looks towards -y."""
    parts, colors = Parts(), [random_color(random) for _ in range(3)]
    soft = random.uniform(0.02, 0.12)
    build = _biped if random.random() < 0.55 else _quadruped
    place, radii = build(random, parts, colors, soft)
    _head(random, parts, colors, soft, place, radii)
    if random.random() < 0.25:
        stand = partial(cylinder, radius=random.uniform(0.25, 0.5), half=0.05)
        parts.add(moved(stand, [0, 0, -0.03]), colors[2])
    return parts.surface(random)


def _biped(random: Random, parts: Parts, colors: list[Array], soft: float) -> tuple[Array, Array]:
    """Body, legs and arms; returns the head's place and radii."""
    main, second, third = colors
    leg = random.uniform(0.1, 0.6)
    radii = random.uniform([0.14, 0.1, 0.2], [0.4, 0.35, 0.5])
    hips = leg + radii[2] * 0.8
    if radii[2] > 0.25:
        parts.add(ball([0, 0, hips], radii), main)
    else:
        parts.add(moved(partial(box, half=radii, rounding=0.08), [0, 0, hips]), main)
    if random.random() < 0.4:
        belly = [0, -radii[1] * 0.45, hips - 0.1 * radii[2]]
        parts.add(ball(belly, radii * [0.75, 0.65, 0.75]), second, soft)
    thick, apart = random.uniform(0.05, 0.14), radii[0] * random.uniform(0.4, 0.8)
    trousers = main if random.random() < 0.5 else second
    hip, ankle = [apart, 0, hips - radii[2] * 0.5], [apart * 1.1, 0, thick]
    parts.add_twice(limb(hip, ankle, thick * 1.2, thick), trousers, soft)
    if (foot := random.uniform(0, 0.15)) > 0.05:
        shoe = [thick * 1.2, thick + foot, thick * 0.8]
        parts.add_twice(ball([apart * 1.1, -foot * 0.6, thick * 0.7], shoe), third, soft)
    if random.random() < 0.8:
        long, forward = random.uniform(0.15, 0.5), random.uniform(-0.6, 0.2)
        angle, hand = random.uniform(-1.4, 1.3), random.random() < 0.5
        shoulder = np.array([radii[0] * 0.75, 0, hips + radii[2] * 0.4])
        for side in np.array([[-1.0, 1, 1], [1, 1, 1]]):
            raised = angle if random.random() < 0.75 else random.uniform(-1.4, 1.3)
            end = shoulder + long * np.array([np.cos(raised), forward, np.sin(raised)])
            parts.add(limb(shoulder * side, end * side, thick, thick * 0.8), main, soft)
            if hand:
                parts.add(ball(end * side, np.full(3, thick * 1.1)), second, soft)
    size = random.uniform(0.14, 0.42)
    place = np.array([0, random.uniform(-0.12, 0.03), hips + radii[2] * 0.85 + size * 0.7])
    return place, size * random.uniform(0.8, 1.2, 3)


def _quadruped(
    random: Random, parts: Parts, colors: list[Array], soft: float
) -> tuple[Array, Array]:
    """Body, four legs, neck and tail; returns the head's place and radii."""
    main, second, _ = colors
    radii = random.uniform([0.12, 0.25, 0.12], [0.3, 0.6, 0.32])
    back = random.uniform(0.1, 0.6) + radii[2] * 0.6
    parts.add(ball([0, 0, back], radii), main)
    thick = random.uniform(0.04, 0.1)
    color = main if random.random() < 0.6 else second
    for along in (-0.65 * radii[1], 0.65 * radii[1]):
        hip = [radii[0] * 0.6, along, back - radii[2] * 0.3]
        foot = [radii[0] * 0.7, along * 1.05, thick]
        parts.add_twice(limb(hip, foot, thick * 1.3, thick), color, soft)
    size = random.uniform(0.1, 0.3)
    reach, lift = random.uniform(-0.1, 0.25), random.uniform(-0.05, 0.45)
    place = np.array([0, -radii[1] - reach, back + lift])
    parts.add(limb([0, -radii[1] * 0.7, back], place, radii[2] * 0.6, size * 0.6), main, soft)
    if random.random() < 0.7:
        reach, lift = random.uniform(0, 0.4), random.uniform(-0.4, 0.4)
        start, end = [0, radii[1] * 0.8, back], [0, radii[1] + reach, back + lift]
        last = thick * random.uniform(0.4, 1)
        parts.add(limb(start, end, thick * 1.3, last), main, soft)
    return place, size * random.uniform(0.75, 1.3, 3)


def _head(
    random: Random, parts: Parts, colors: list[Array], soft: float, place: Array, radii: Array
) -> None:
    """The head, with a snout, ears or a hat, and eyes, or without them."""
    main, second, third = colors
    parts.add(ball(place, radii), main if random.random() < 0.6 else second, soft)
    if random.random() < 0.5:
        snout = place - [0, radii[1] * 0.9, radii[2] * 0.2]
        parts.add(ball(snout, radii * random.uniform(0.3, 0.6)), second, soft)
    if random.random() < 0.55:
        long, wide = random.uniform(0.1, 0.35), random.uniform(0.03, 0.09)
        start = place + radii * [0.6, 0, 0.6]
        end = np.add(start, [random.uniform(0, 0.2), 0, long])
        parts.add_twice(limb(start, end, wide * 1.3, wide * 0.5), second, soft)
    elif random.random() < 0.5:
        half = random.uniform(0.08, 0.3)
        crown = partial(
            cylinder, radius=radii[0] * 0.8, half=half, top=radii[0] * random.uniform(0.05, 0.9)
        )
        parts.add(moved(crown, np.add(place, [0, 0, radii[2] + half * 0.3])), third)
        if random.random() < 0.5:
            brim = partial(cylinder, radius=radii[0] * 1.4, half=0.035)
            parts.add(moved(brim, np.add(place, [0, 0, radii[2] * 0.75])), third)
    if random.random() < 0.85:
        size = radii.mean() * random.uniform(0.1, 0.3)
        dark = np.full(3, random.choice([0.03, 0.1, 0.95]))
        parts.add_twice(ball(place + radii * [0.45, -0.85, 0.25], np.full(3, size)), dark)


def vessel(random: Random) -> Surface | None:
    """A bottle, can, jar, cup, bowl, vase or lamp, solid or hollow."""
    parts, main = Parts(), random_color(random)
    radii, height = _profile(random), random.uniform(0.15, 1.0)
    heights = np.linspace(0, height, len(radii))
    hollow, wall = random.random() < 0.4, random.uniform(0.03, 0.06)
    edges = random.integers(3, 9) if random.random() < 0.15 else 0
    flat = random.uniform(0.4, 1.0) if random.random() < 0.25 else 1.0

    def side(points: Array) -> Array:
        x, y = points[..., 0], points[..., 1] / flat
        distance = np.hypot(x, y)
        if edges:
            corner = np.arctan2(y, x) % (2 * np.pi / edges) - np.pi / edges
            distance = distance * np.cos(corner) * 1.1
        return (distance - np.interp(points[..., 2], heights, radii)) * min(1.0, flat + 0.2)

    def body(points: Array) -> Array:
        up = points[..., 2]
        outer = np.maximum(side(points), np.abs(up - height / 2) - height / 2)
        if not hollow:
            return outer
        return np.maximum(outer, -np.maximum(side(points) + wall, wall - up))

    def color() -> Array:
        return random_color(random) if random.random() < 0.6 else main

    parts.add(body, main)
    if random.random() < 0.3:
        middle = float(np.interp(height / 2, heights, radii))
        size, thick = random.uniform(0.15, 0.4) * height, random.uniform(0.025, 0.06)
        tall = random.uniform(0.6, 1.3)

        def handle(points: Array) -> Array:
            ring = (points - [middle, 0, height / 2]) * [1, 1, tall]
            return np.maximum(torus(ring, size, thick, axis=1), -(side(points) + wall))

        parts.add(handle, color(), 0.02)
    if not hollow and random.random() < 0.5:
        lid, half = radii[-1] * random.uniform(0.5, 1.2), random.uniform(0.03, 0.2)
        cap = partial(
            cylinder, radius=lid, half=half, top=lid * random.uniform(0.5, 1.1), rounding=0.02
        )
        parts.add(moved(cap, [0, 0, height + half * 0.6]), color())
        if random.random() < 0.4:
            knob = random.uniform(0.03, 0.1)
            top = height + half * 1.6 + knob / 2
            parts.add(ball([0, 0, top], np.full(3, knob)), color())
    if random.random() < 0.15:
        long, foot = random.uniform(0.1, 0.6), random.uniform(0.12, 0.4)
        stem = partial(cylinder, radius=random.uniform(0.03, 0.08), half=long / 2 + 0.03)
        parts.add(moved(stem, [0, 0, -long / 2]), color())
        parts.add(
            moved(partial(cylinder, radius=foot, half=0.03, top=foot * 0.8), [0, 0, -long]), color()
        )
    return parts.surface(random)


def _profile(random: Random) -> Array:
    """The radii (24,) of a vessel from its base to its top."""
    knots = random.integers(2, 6)
    radii = np.exp(random.normal(0, random.uniform(0.05, 0.5), knots))
    if random.random() < 0.3:
        radii[-1] *= random.uniform(0.2, 0.6)
    places = np.linspace(0, knots - 1, 24)
    if random.random() < 0.6:
        radii = np.interp(places, np.arange(knots), radii)
        radii = ndimage.gaussian_filter1d(radii, random.uniform(0.3, 3), mode="nearest")
    else:
        radii = radii[np.round(places).astype(int)]
    return np.asarray(radii * random.uniform(0.15, 0.6) / radii.max())


def boxes(random: Random) -> Surface:
    """A printed box, or a few on each other."""
    count = 1 if random.random() < 0.65 else random.integers(2, 5)
    found: list[Surface] = []
    floor = 0.0
    for _ in range(count):
        half = np.exp(random.normal(0, 0.55, 3)) * 0.3
        spin = random.normal(0, 0.4) if found else 0.0
        shift = random.normal(0, 0.15, 2) if found else np.zeros(2)
        place = [*shift, floor + half[2]]
        found.append(printed_box(random, half, place, spin=spin, steps=20 if count == 1 else 10))
        floor += half[2] * (2 if random.random() < 0.8 else 1.2)
    return Surface.joined(found)


def furniture(random: Random) -> Surface:
    """Boards at right angles: a table, a chair, a shelf, a cupboard or a sofa."""
    wide, deep, high = np.exp(random.normal(0, 0.4, 3)) * 0.5
    thick, main, second = random.uniform(0.02, 0.08), random_color(random), random_color(random)
    found: list[Surface] = []

    def board(low: Values, up: Values, color: Array) -> None:
        first, last = np.asarray(low, float), np.asarray(up, float)
        found.append(plain_box(np.maximum(last - first, 0.01) / 2, (first + last) / 2, color))

    kind = random.integers(4)
    if kind < 2:
        board([-wide, -deep, high - thick], [wide, deep, high], second)
        leg, inset = random.uniform(0.02, 0.07), random.uniform(0, 0.1)
        for x in (leg + inset - wide, wide - leg - inset):
            for y in (leg + inset - deep, deep - leg - inset):
                board([x - leg, y - leg, 0], [x + leg, y + leg, high - thick], main)
        back = high * random.uniform(1.3, 2.2)
        if kind == 1:
            board([-wide, deep - thick, high], [wide, deep, back], second)
            if random.random() < 0.4:
                for x in (-wide, wide):
                    board([x - thick, -deep, high], [x + thick, deep, high * 1.4], main)
        elif random.random() < 0.4:
            low = high * 0.3
            board([-wide * 0.9, -deep * 0.9, low], [wide * 0.9, deep * 0.9, low + thick], main)
    elif kind == 2:
        deep /= 2
        for x in (-wide, wide):
            board([x - thick, -deep, 0], [x + thick, deep, high * 2], main)
        for z in np.linspace(0, high * 2 - thick, random.integers(2, 6)):
            board([-wide, -deep, z], [wide, deep, z + thick], second)
        if random.random() < 0.6:
            board([-wide, deep - thick / 2, 0], [wide, deep, high * 2], main)
    else:
        board([-wide, -deep, 0], [wide, deep, high], main)
        if random.random() < 0.5:
            board([-wide, deep * 0.6, high], [wide, deep, high * 1.8], main)
            for x in (-wide, wide):
                board([x - 0.08, -deep, 0], [x + 0.08, deep, high * 1.4], second)
        else:
            for z in high * (0.1 + 0.25 * np.arange(random.integers(1, 4))):
                low, up = [-wide * 0.9, -deep - 0.02, z], [wide * 0.9, -deep, z + high * 0.18]
                board(low, up, second)
    return Surface.joined(found)


def plate(random: Random) -> Surface | None:
    """An outline with a thickness, such as a shoe, a car or a tool, with wheels or a handle."""
    parts = Parts()
    turn, reach = _outline(random)
    high, width = random.uniform(0.35, 1.0), random.uniform(0.08, 0.4)
    rounding, narrow = random.uniform(0.0, 0.9) * width, random.uniform(-0.5, 0.1)
    floor = -0.35 * high if random.random() < 0.6 else -1.0

    def body(points: Array) -> Array:
        x, z = points[..., 0], points[..., 2] / high
        there = np.interp(np.arctan2(z, x) % (2 * np.pi), turn, reach)
        flat = (np.hypot(x, z) - there) * 0.7 * high**0.5
        flat = np.maximum(flat, floor - points[..., 2])
        wide = np.abs(points[..., 1]) - width * (1 + narrow * (z + 0.6) / 1.2)
        return overlap((flat, wide), rounding)

    parts.add(body, random_color(random))
    if random.random() < 0.35:
        size, dark = random.uniform(0.08, 0.18), np.full(3, random.uniform(0.02, 0.3))
        wheel = partial(cylinder, radius=size, half=0.05, axis=1)
        for x in (-0.32, 0.32):
            below = float(np.interp(np.arctan2(-0.5, x) % (2 * np.pi), turn, reach)) * high
            for y in (-width, width):
                parts.add(moved(wheel, [x, y, max(floor, -0.7 * below)]), dark)
    if random.random() < 0.4:
        place, half = [random.uniform(-0.2, 0.2), 0, 0.3 * high], random.uniform(0.08, 0.2, 3)
        parts.add(moved(partial(box, half=half, rounding=0.04), place), random_color(random), 0.03)
    if random.random() < 0.3:
        far, thick = random.choice([-1, 1]) * random.uniform(0.6, 1.1), random.uniform(0.04, 0.1)
        end = [far, 0, random.uniform(-0.2, 0.4)]
        parts.add(limb([0, 0, 0], end, thick, thick), random_color(random), 0.02)
    return parts.surface(random)


def _outline(random: Random) -> tuple[Array, Array]:
    """A closed outline: angles from 0 to 2 pi, and the radius at each."""
    knots = random.integers(5, 12)
    radii = np.exp(random.normal(0, random.uniform(0.1, 0.5), knots))
    turn = np.linspace(0, 2 * np.pi, 97)
    place = turn[:-1] / (2 * np.pi) * knots
    if random.random() < 0.5:
        reach = np.interp(place, np.arange(knots + 1), np.append(radii, radii[0]))
    else:
        reach = radii[np.round(place).astype(int) % knots]
    reach = ndimage.gaussian_filter1d(reach, random.uniform(1, 6), mode="wrap")
    return turn, np.append(reach, reach[0]) * 0.6 / reach.max()


def pile(random: Random) -> Surface | None:
    """Some solids, hard or smooth, on one floor, and sometimes with a hole."""
    parts = Parts()
    soft = float(random.choice([0.0, 0.0, 0.05, 0.15]))
    mirrored, hole = random.random() < 0.5, random.random() < 0.2
    for _ in range(random.integers(1, 6)):
        center = random.uniform(-0.35, 0.35, 3)
        middle = mirrored and random.random() < 0.5
        if middle:
            center[0] = 0.0
        shape, color = _standing(_solid(random, center)), random_color(random)
        if mirrored and not middle:
            parts.add_twice(shape, color, soft)
        else:
            parts.add(shape, color, soft)
    if hole:
        first, cut = parts.fields[0], _solid(random, random.uniform(-0.35, 0.35, 3))
        parts.fields[0] = lambda points: np.maximum(first(points), -cut(points))
    return parts.surface(random)


def _solid(random: Random, center: Array) -> Field:
    """A box, ellipsoid, cylinder, cone or ring, upright or turned."""
    turn = rotation(random, 1.0) if random.random() < 0.35 else np.eye(3)
    size = np.exp(random.normal(0, 0.45, 3)) * random.uniform(0.12, 0.35)
    upright = partial(cylinder, radius=size[0], half=size[2])
    shapes: tuple[Field, ...] = (
        partial(box, half=size, rounding=min(random.uniform(0, 0.06), size.min())),
        partial(ellipsoid, radii=size),
        upright,
        partial(upright, top=size[0] * random.uniform(0, 1.2)),
        partial(torus, radius=size[0] + 0.08, thickness=min(size[1] * 0.4 + 0.03, size[0])),
    )
    shape = shapes[random.integers(len(shapes))]
    return lambda points: shape((points - center) @ turn)


def _standing(shape: Field) -> Field:
    """The part of a solid above the floor."""
    return lambda points: np.maximum(shape(points), -0.4 - points[..., 2])
