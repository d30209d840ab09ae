"""The sparse matrix of an X-Ray's file, compiled by numba; see `xray_file.encode`."""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import numpy as np

from ..compiling import Compiled


@Compiled
def matrix(index, depth, normal, color, layers, pixels, indices):
    """data, indices and indptr; `indices` is a buffer of the greatest possible length."""
    channels = 1 + normal.shape[1] + color.shape[1]
    data = np.empty(len(indices), np.float32)
    ends = np.zeros(layers + 1, indices.dtype)
    count, start = 0, 0
    for layer in range(layers):
        stop = start
        while stop < len(index) and index[stop] < (layer + 1) * pixels:
            stop += 1
        for channel in range(channels):
            shift = (channel - layer) * pixels
            for i in range(start, stop):
                if channel == 0:
                    value = depth[i]
                elif channel < 4:
                    value = normal[i, channel - 1]
                else:
                    value = color[i, channel - 4]
                data[count], indices[count] = value, index[i] + shift
                count += value != 0
        start = stop
        ends[layer + 1] = count
    return data[:count], indices[:count], ends
