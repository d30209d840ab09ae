"""Contact sheets: an overview of X-Ray items in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics import silhouette_iou
from ..xray import XRay
from .lettering import ADVANCE, LINE, draw_text, fitting, text_width
from .shading import to_bytes

Picture = NDArray[np.uint8]

TILE = 112  # side of a layer's tile in px; the image is twice as large
GAP = 4
MARGIN = 16
HISTOGRAM = 220  # height of the bars in px
LABEL = 2 * LINE  # height of a line of text in px at the sheet's scale
TEXT_SCALE = 2

BACKGROUND, EMPTY = (22, 24, 28), (33, 36, 42)
BRIGHT, DIM, ACCENT = (236, 238, 242), (140, 147, 158), (255, 176, 84)
CHECKS = (58, 66)  # the two greys behind transparent pixels
HIT = (214, 221, 230)
# From near to far: light yellow, green, blue, deep violet.
DEPTH_COLORS = np.array(
    [[253, 231, 110], [122, 209, 108], [38, 166, 138], [50, 104, 142], [68, 44, 110]], dtype=float
)
# What each row of tiles shows.
MEANINGS = {
    "depth": "Distance from the camera; near is bright",
    "normal": "Direction of the surface, as colours",
    "colour": "Colour of the surface",
    "hit": "Where the layer has a surface",
}
ROWS = tuple(MEANINGS)


@dataclass(frozen=True, eq=False)
class SheetView:
    """One view of an item.

    image : (h, w, 3 or 4) uint8, or None. dropped : number of hits behind the last layer, which an
    X-Ray file does not contain; None if unknown.
    """

    title: str
    xray: XRay
    image: Picture | None = None
    dropped: int | None = None


def contact_sheet(views: Sequence[SheetView], *, layers: int = 8) -> Picture:
    """(H, W, 3) uint8: the image, the statistics and the first `layers` layers of each view.

    The layers' depth, normals (camera space), colours and hits are rows of tiles. Depth is coloured
    from the nearest to the farthest hit of the view. Below is `hits_histogram` of all views.

    Raises ValueError without views and for `layers` < 1.
    """
    if not views or layers < 1:
        raise ValueError("a contact sheet needs a view and a layer")
    columns = min(layers, max(view.xray.shape[0] for view in views))
    width = 2 * MARGIN + 2 * TILE + (GAP + TILE) * columns + 4 * GAP
    width = max(width, 2 * MARGIN + 4 * TILE)
    blocks = [_block(view, columns, width) for view in views]
    longest = max(view.xray.shape[0] for view in views)
    hits = np.zeros(longest, dtype=np.int64)
    for view in views:
        hits[: view.xray.shape[0]] += view.xray.hits_per_layer
    dropped = sum(view.dropped or 0 for view in views)
    return np.concatenate([*blocks, hits_histogram(hits, dropped, width=width)])


def hits_histogram(hits: NDArray[np.integer], dropped: int = 0, *, width: int = 960) -> Picture:
    """(220, width, 3) uint8: bars for the number of hits (L,) in each layer, logarithmic.

    The hits `dropped` behind the last layer have their own bar.
    """
    sheet = _canvas(HISTOGRAM, width)
    total = int(np.sum(hits))
    draw_text(sheet, "Hits by layer", MARGIN, MARGIN, BRIGHT, TEXT_SCALE)
    after = MARGIN + text_width("Hits by layer  ", TEXT_SCALE)
    note = f"{total:,} in all, {dropped:,} dropped, bars logarithmic"
    draw_text(sheet, fitting(note, width - after - MARGIN, TEXT_SCALE), after, MARGIN, DIM, 2)
    bars = [(str(i + 1), int(count), HIT) for i, count in enumerate(hits)]
    bars.append(("lost", int(dropped), ACCENT))
    top, bottom = MARGIN + 2 * LABEL + LINE, HISTOGRAM - MARGIN - LABEL
    step = (width - 2 * MARGIN) / len(bars)
    highest = np.log1p(max(count for _, count, _ in bars)) or 1.0
    for i, (name, count, color) in enumerate(bars):
        left = round(MARGIN + i * step)
        right = max(round(MARGIN + (i + 1) * step) - GAP, left + 1)
        middle = (left + right) // 2
        high = round((bottom - top) * np.log1p(count) / highest)
        sheet[bottom - max(high, 1) : bottom, left:right] = color if count else EMPTY
        _centre(sheet, name, middle, bottom + GAP, DIM, 2 if step >= 4 * ADVANCE else 1)
        label = _short(count)
        scale = 2 if text_width(label, 2) <= step - GAP else 1
        _centre(sheet, label, middle, bottom - high - 9 * scale, BRIGHT if count else DIM, scale)
    return sheet


def statistics(view: SheetView) -> list[tuple[str, str]]:
    """Names and values of one view's statistics, as shown on the sheet."""
    xray = view.xray
    layers, height, width = xray.shape
    hits = xray.hits_per_layer
    used = np.flatnonzero(hits)
    found = [
        ("size", f"{width}x{height}x{layers}"),
        ("hits", f"{int(hits.sum()):,}"),
        ("deepest layer", str(int(used[-1]) + 1) if len(used) else "none"),
    ]
    if view.dropped is not None:
        found.append(("dropped", f"{view.dropped:,}"))
    if len(xray.hit_depth):
        found.append(("depth", f"{xray.hit_depth.min():.3g}-{xray.hit_depth.max():.3g}"))
    if view.image is not None and view.image.shape[2] == 4:
        found.append(("IoU", f"{silhouette_iou(view.image[..., 3], xray):.4f}"))
    return found


def layer_tiles(xray: XRay, layer: int, size: int = TILE) -> dict[str, Picture]:
    """(size, size, 3) uint8 pictures of one layer by name, see `ROWS`."""
    _, height, width = xray.shape
    pixels = height * width
    start, stop = np.searchsorted(xray.index, [layer * pixels, (layer + 1) * pixels])
    pixel = xray.index[start:stop] - layer * pixels
    depth = xray.hit_depth[start:stop]
    low, high = (xray.hit_depth.min(), xray.hit_depth.max()) if len(xray.hit_depth) else (0.0, 1.0)
    share = (depth - low) / max(high - low, 1e-12)
    stops = np.linspace(0, 1, len(DEPTH_COLORS))
    ramp = np.stack([np.interp(share, stops, channel) for channel in DEPTH_COLORS.T], axis=-1)
    values = {
        "depth": ramp.astype(np.uint8),
        "normal": to_bytes(xray.hit_normal[start:stop] * 0.5 + 0.5),
        "colour": to_bytes(xray.hit_color[start:stop]),
        "hit": np.broadcast_to(np.array(HIT, dtype=np.uint8), (len(pixel), 3)),
    }
    tiles = {}
    for name in ROWS:
        frame = _canvas(height, width, EMPTY).reshape(-1, 3)
        frame[pixel] = values[name]
        tiles[name] = _fitted(frame.reshape(height, width, 3), size, EMPTY)
    return tiles


def layer_grid(xray: XRay, channel: str, *, size: int = 256) -> Picture:
    """(H, W, 3) uint8: a tile of `size` px with one channel (see `ROWS`) of every layer with hits.

    The tiles are in rows, from front to back. Above each are its layer's number and hits. Raises
    ValueError for an unknown channel and without hits.
    """
    if channel not in ROWS:
        raise ValueError(f"channel must be one of {ROWS}, got {channel!r}")
    hits = xray.hits_per_layer
    layers = np.flatnonzero(hits)
    if not len(layers):
        raise ValueError("the X-Ray has no hits")
    columns = int(np.ceil(np.sqrt(len(layers))))
    rows = -(-len(layers) // columns)
    top, step = MARGIN + 3 * LABEL, size + LABEL + MARGIN
    sheet = _canvas(top + rows * step - LABEL, MARGIN + columns * (size + MARGIN))
    title = f"{channel[0].upper()}{channel[1:]} by layer"
    draw_text(sheet, title, MARGIN, MARGIN, BRIGHT, TEXT_SCALE)
    for place, layer in enumerate(layers):
        x = MARGIN + place % columns * (size + MARGIN)
        y = top + place // columns * step
        name = f"layer {layer + 1}"
        draw_text(sheet, name, x, y - LABEL, BRIGHT, TEXT_SCALE)
        count = fitting(f"{hits[layer]:,} hits", size - text_width(f"{name}  ", 2), TEXT_SCALE)
        draw_text(sheet, count, x + size - text_width(count, 2), y - LABEL, DIM, TEXT_SCALE)
        _paste(sheet, layer_tiles(xray, int(layer), size)[channel], x, y)
    return sheet


def layer_sheet(xray: XRay, size: int = 128) -> Picture:
    """(2 size, 2 size, 4) uint8: the colours of the first four layers; transparent elsewhere."""
    sheet = np.zeros((2 * size, 2 * size, 4), dtype=np.uint8)
    layers, height, width = xray.shape
    rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
    color, hit = xray.color, xray.hit
    for layer in range(min(layers, 4)):
        top, left = layer // 2 * size, layer % 2 * size
        tile = sheet[top : top + size, left : left + size]
        tile[..., :3] = np.rint(color[layer][rows][:, columns].clip(0, 1) * 255)
        tile[..., 3] = hit[layer][rows][:, columns] * 255
    return sheet


def _block(view: SheetView, columns: int, width: int) -> Picture:
    """One view: title, image and statistics on the left, layers on the right."""
    rows_top = MARGIN + 2 * LABEL + GAP
    block = _canvas(rows_top + len(ROWS) * (TILE + GAP), width)
    title = fitting(view.title, width - 2 * MARGIN, TEXT_SCALE)
    draw_text(block, title, MARGIN, MARGIN, BRIGHT, TEXT_SCALE)
    side = 2 * TILE
    image = _canvas(side, side, EMPTY) if view.image is None else _on_checks(view.image, side)
    _paste(block, image, MARGIN, rows_top)
    line = rows_top + side + 3 * GAP
    for name, value in statistics(view):
        draw_text(block, name, MARGIN, line, DIM, TEXT_SCALE)
        scale = 2 if text_width(f"{name} {value}", 2) <= side else 1
        right = MARGIN + side - text_width(value, scale)
        draw_text(block, value, right, line + (2 - scale) * 4, BRIGHT, scale)
        line += LABEL + GAP
    left = MARGIN + side + 4 * GAP
    hits = view.xray.hits_per_layer
    for layer in range(columns):
        x = left + layer * (TILE + GAP)
        if layer >= view.xray.shape[0]:
            continue
        name, above = f"layer {layer + 1}", rows_top - LINE
        draw_text(block, name, x, above, BRIGHT)
        draw_text(block, _short(int(hits[layer])), x + text_width(f"{name}  "), above, DIM)
        for row, (channel, tile) in enumerate(layer_tiles(view.xray, layer).items()):
            top = rows_top + row * (TILE + GAP)
            _paste(block, tile, x, top)
            if layer == 0:
                label = _canvas(LINE + 2, text_width(channel) + 5)
                draw_text(label, channel, 3, 2, BRIGHT)
                _paste(block, label, x, top)
    return block


def _canvas(height: int, width: int, color: tuple[int, int, int] = BACKGROUND) -> Picture:
    return np.full((height, width, 3), color, dtype=np.uint8)


def _paste(sheet: Picture, tile: Picture, left: int, top: int) -> None:
    sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile


def _centre(
    sheet: Picture, text: str, middle: int, top: int, color: tuple[int, int, int], scale: int
) -> None:
    draw_text(sheet, text, middle - text_width(text, scale) // 2, top, color, scale)


def _short(count: int) -> str:
    """A count in about four characters: 950, 9.5k, 95k, 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            share = count / size
            return f"{share:.1f}{unit}" if share < 9.95 else f"{share:.0f}{unit}"
    return str(count)


def _on_checks(image: Picture, size: int) -> Picture:
    """`image` over a chequered background, fitted into a square of `size` px."""
    height, width = image.shape[:2]
    check = max(height, width) // 16 or 1
    odd = (np.arange(height)[:, None] // check + np.arange(width)[None, :] // check) % 2
    ground = np.where(odd == 1, *CHECKS)[..., None].repeat(3, axis=2).astype(np.float32)
    alpha = image[..., 3:] / np.float32(255) if image.shape[2] == 4 else np.float32(1)
    over = np.rint(image[..., :3] * alpha + ground * (1 - alpha)).astype(np.uint8)
    return _fitted(over, size, EMPTY)


def _fitted(image: Picture, size: int, around: tuple[int, int, int]) -> Picture:
    """`image` scaled to fit a square of `size` px, centred; reduced by averaging, enlarged in
    integer steps."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    result = image
    if scale < 1:
        result = _averaged(image, tall, wide)
    elif scale > 1:
        rows = np.arange(tall) * height // tall
        columns = np.arange(wide) * width // wide
        result = image[rows][:, columns]
    square = _canvas(size, size, around)
    _paste(square, result, (size - wide) // 2, (size - tall) // 2)
    return square


def _averaged(image: Picture, tall: int, wide: int) -> Picture:
    """`image` scaled down; each pixel is the mean of the area it covers."""
    result = image.astype(np.float32)
    for axis, size in ((0, tall), (1, wide)):
        length = image.shape[axis]
        # Means over ranges with fractional bounds, from the running sum.
        pad = [(1, 0) if i == axis else (0, 0) for i in range(3)]
        total = np.pad(np.cumsum(result, axis=axis, dtype=np.float64), pad)
        edge = np.arange(size + 1) * (length / size)
        below = np.minimum(edge.astype(np.int64), length - 1)
        share = (edge - below).reshape([-1 if i == axis else 1 for i in range(3)])
        low, high = np.take(total, below, axis=axis), np.take(total, below + 1, axis=axis)
        result = np.diff(low + (high - low) * share, axis=axis) * (size / length)
    return np.rint(result).astype(np.uint8)
