"""The sRGB transfer curve. Colours everywhere in X-Ray are sRGB-encoded, 0 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def srgb_to_linear(color: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear light from sRGB-encoded values, elementwise (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(color: NDArray[np.floating]) -> NDArray[np.floating]:
    """sRGB-encoded values from linear light, elementwise (IEC 61966-2-1)."""
    color = np.maximum(color, 0.0)
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055)
