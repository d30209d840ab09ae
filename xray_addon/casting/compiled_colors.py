"""Textures, light and pictures in the compiled kernel; see `compiled_kernel`."""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import numpy as np

from ..color import STEPS
from ..compiling import Compiled, inline
from ..surface import WRAPS
from .array_kernel import PICTURE_STEPS

REPEAT, EXTEND, MIRROR, CLIP = (WRAPS.index(n) for n in ("repeat", "extend", "mirror", "clip"))


@Compiled
def interpolate(values, face, weights):
    """See `array_kernel.interpolate`."""
    channels = values.shape[2]
    mixed = np.empty((len(face), channels))
    for i in range(len(face)):
        f = face[i]
        for channel in range(channels):
            mixed[i, channel] = (
                weights[i, 0] * values[f, 0, channel]
                + weights[i, 1] * values[f, 1, channel]
                + weights[i, 2] * values[f, 2, channel]
            )
    return mixed


@inline
def _texel(coordinate, size, wrap, down):
    if not np.isfinite(coordinate):
        coordinate = 0.0
    if wrap == REPEAT:
        coordinate = coordinate - np.floor(coordinate)
    elif wrap == MIRROR:
        coordinate = coordinate - 2.0 * np.floor(coordinate * 0.5)
    else:
        coordinate = min(max(coordinate, -1.0), 2.0)
    if down:
        coordinate = 1.0 - coordinate
    return coordinate * size - 0.5


@inline
def _place(i, size, wrap):
    """Stored index of the texel `i` of a row or column, or -1 for none."""
    if 0 <= i < size:
        return i
    if wrap == REPEAT:
        return i % size
    if wrap == MIRROR:
        i = i % (2 * size)
        return min(i, 2 * size - 1 - i)
    if wrap == EXTEND:
        return min(max(i, 0), size - 1)
    return -1


@inline
def _value(texture, row, column, channel):
    if row < 0 or column < 0:
        return 0.0
    if channel >= texture.shape[2]:
        return 255.0
    return np.float64(texture[row, column, channel])


@inline
def _four(texture, top, bottom, left, right, channel):
    return (
        _value(texture, top, left, channel),
        _value(texture, top, right, channel),
        _value(texture, bottom, left, channel),
        _value(texture, bottom, right, channel),
    )


@inline
def _mixed(a, b, c, d, x, y):
    upper = a + (b - a) * x
    lower = c + (d - c) * x
    return (upper + (lower - upper) * y) / 255.0


@Compiled
def sample(texture, uv, wrap, linear, samples):
    """Fill samples (K, 3 or 4) with the texture's channels at uv (K, 2)."""
    height, width = texture.shape[0], texture.shape[1]
    for i in range(len(uv)):
        x = _texel(uv[i, 0], width, wrap, False)
        y = _texel(uv[i, 1], height, wrap, True)
        if not linear:
            x, y = np.floor(x + 0.5), np.floor(y + 0.5)
        column, row = np.floor(x), np.floor(y)
        x -= column
        y -= row
        left, top = _place(np.int64(column), width, wrap), _place(np.int64(row), height, wrap)
        right = _place(np.int64(column) + 1, width, wrap)
        bottom = _place(np.int64(row) + 1, height, wrap)
        inside = left >= 0 and right >= 0 and top >= 0 and bottom >= 0
        for channel in range(3):
            if inside:
                a = np.float64(texture[top, left, channel])
                b = np.float64(texture[top, right, channel])
                c = np.float64(texture[bottom, left, channel])
                d = np.float64(texture[bottom, right, channel])
                samples[i, channel] = _mixed(a, b, c, d, x, y)
            else:
                samples[i, channel] = _mixed(
                    *_four(texture, top, bottom, left, right, channel), x, y
                )
        if samples.shape[1] > 3:
            samples[i, 3] = _mixed(*_four(texture, top, bottom, left, right, 3), x, y)


@inline
def _on_curve(table, value):
    place = value * STEPS
    if not place > 0:  # NaN too
        return table[0]
    if place >= STEPS:
        return table[STEPS]
    step = np.int64(place)
    low = table[step]
    return low + (table[step + 1] - low) * (place - step)


@Compiled
def lit(
    normal,
    ray,
    color,
    sky,
    ground,
    up,
    directions,
    strengths,
    to_linear,
    to_srgb,
    shown,
):
    """See `array_kernel.lit`."""
    same = len(color) == 1
    own = np.empty(3)
    for i in range(len(normal)):
        x, y, z = np.float64(normal[i, 0]), np.float64(normal[i, 1]), np.float64(normal[i, 2])
        if x * ray[i, 0] + y * ray[i, 1] + z * ray[i, 2] > 0:
            x, y, z = -x, -y, -z
        share = 0.5 + 0.5 * (x * up[0] + y * up[1] + z * up[2])
        light = ground + (sky - ground) * share
        for sun in range(len(strengths)):
            towards = x * directions[sun, 0] + y * directions[sun, 1] + z * directions[sun, 2]
            light += strengths[sun] * max(towards, 0.0)
        for channel in range(3):
            # Neighbouring samples often have the same colour.
            if i == 0 or (not same and color[i, channel] != color[i - 1, channel]):
                own[channel] = _on_curve(to_linear, np.float64(color[i, channel]))
            shown[i, channel] = _on_curve(to_srgb, own[channel] * light)


@Compiled
def picture(pixel, count, color, pixels, rays):
    """See `array_kernel.picture`."""
    total = np.zeros(pixels, np.int32)
    sums = np.zeros((pixels, 3), np.int32)
    for i in range(len(pixel)):
        p = pixel[i]
        total[p] += count[i]
        for channel in range(3):
            step = np.int64(color[i, channel] * np.float32(PICTURE_STEPS) + np.float32(0.5))
            sums[p, channel] += step * count[i]
    image = np.zeros((pixels, 4), np.uint8)
    for p in range(pixels):
        if total[p] == 0:
            continue
        share = np.int64(total[p]) * PICTURE_STEPS
        for channel in range(3):
            image[p, channel] = (2 * 255 * np.int64(sums[p, channel]) + share) // (2 * share)
        image[p, 3] = (2 * 255 * np.int64(total[p]) + rays) // (2 * rays)
    return image
