"""The sRGB transfer curve. Colours everywhere in X-Ray are sRGB-encoded, 0 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Intervals of 0..1 in the lookup tables for shading.
STEPS = 1 << 12


def srgb_to_linear(color: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear light from sRGB-encoded values, elementwise (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(color: NDArray[np.floating]) -> NDArray[np.floating]:
    """sRGB-encoded values from linear light, elementwise (IEC 61966-2-1)."""
    color = np.maximum(color, 0.0)
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055)


# Both curves at the ends of `STEPS` equal intervals of 0..1, to avoid slow powers. The error of
# linear interpolation is below 2e-5.
TO_LINEAR: NDArray[np.float64] = srgb_to_linear(np.arange(STEPS + 1) / STEPS)
TO_SRGB: NDArray[np.float64] = linear_to_srgb(np.arange(STEPS + 1) / STEPS)


def on_curve(table: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Look up `values`, clipped to 0..1 (NaN is 0), in one of the tables, elementwise."""
    place = np.clip(np.nan_to_num(values), 0.0, 1.0) * np.float64(STEPS)
    step = np.minimum(place.astype(np.int32), STEPS - 1)
    low = table[step]
    return low + (table[step + 1] - low) * (place - step)
