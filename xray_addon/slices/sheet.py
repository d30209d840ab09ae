"""Twelve slices as one picture for viewing: a row per axis, each tile below its name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..pictures.lettering import LINE, draw_text
from .slicing import NAMES, SLABS

GAP = 8
TEXT_SCALE = 2
LABEL = TEXT_SCALE * LINE + 4
BACKGROUND, TILE, TEXT = (22, 24, 28), (46, 50, 58), (214, 221, 230)
# From left to right, from the top down, from the viewer backwards.
ROWS = {"X": "left to right", "Y": "top to bottom", "Z": "near to far"}


def slice_sheet(pictures: NDArray[np.uint8], size: int = 256) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of slices (12, h, w, 3 or 4) in the order of `slices.NAMES`.

    size : px of a tile. The rows are X, Y and Z, with ascending numbers.
    """
    step_x, step_y = size + GAP, size + LABEL + GAP
    sheet = np.empty((GAP + len(ROWS) * step_y, GAP + SLABS * step_x, 3), dtype=np.uint8)
    sheet[:] = BACKGROUND
    rows = np.arange(size) * pictures.shape[1] // size
    columns = np.arange(size) * pictures.shape[2] // size
    for row, (axis, order) in enumerate(ROWS.items()):
        for column in range(SLABS):
            name = f"{axis}_{column + 1}"
            x, y = GAP + column * step_x, GAP + row * step_y
            label = f"{name}  {order}" if column == 0 else name
            draw_text(sheet, label, x, y, TEXT, TEXT_SCALE)
            tile = pictures[NAMES.index(name)][rows][:, columns]
            if tile.shape[2] == 4:
                alpha = tile[..., 3:] / 255.0
                tile = np.rint(tile[..., :3] * alpha + np.array(TILE) * (1 - alpha))
            sheet[y + LABEL : y + LABEL + size, x : x + size] = tile
    return sheet
