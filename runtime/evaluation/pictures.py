"""Pictures for people: layers of an X-Ray, meshes from several sides, result sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from xray_addon.camera import Camera
from xray_addon.generated import Generated
from xray_addon.pictures.shading import shade_surface
from xray_addon.surface import Surface
from xray_addon.xray import XRay

TILE = 160
BACKGROUND = (245, 245, 245)
LAYERS = 2  # shown of a prediction
SIDES = (0.0, 100.0, 180.0, 260.0)  # degrees around the object from the viewer's side


def on_background(rgba: NDArray[np.uint8], size: int = TILE) -> Image.Image:
    """An RGBA image on the sheet's background, `size` x `size`."""
    image = Image.fromarray(rgba).convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)
    flat = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(flat, image).convert("RGB")


def depth_tile(xray: XRay, layer: int, size: int = TILE) -> Image.Image:
    """One layer's depth, near light and far dark, over the range of all layers."""
    if not len(xray.hit_depth):
        return Image.new("RGB", (size, size), BACKGROUND)
    low, high = xray.hit_depth.min(), xray.hit_depth.max()
    share = (xray.depth[layer] - low) / max(float(high - low), 1e-9)
    grey = np.where(xray.hit[layer], 235 - 190 * share, BACKGROUND[0])
    tile = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return tile.resize((size, size), Image.Resampling.LANCZOS)


def mesh_tile(
    surface: Surface, camera: Camera, degrees: float = 0.0, size: int = TILE
) -> Image.Image:
    """The mesh seen by `camera` after moving it `degrees` around the mesh."""
    if not len(surface.faces):
        return Image.new("RGB", (size, size), BACKGROUND)
    middle = surface.bounds.mean(axis=0)
    angle = math.radians(degrees)
    turn = np.array(
        [
            [math.cos(angle), -math.sin(angle), 0],
            [math.sin(angle), math.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    eye = turn @ (camera.position - middle) + middle
    view = Camera.look_at(eye, middle, fov_x=camera.fov_x, width=size, height=size)
    return on_background(shade_surface(surface, view), size)


def row(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles of one height side by side."""
    sheet = Image.new("RGB", (sum(tile.width for tile in tiles), tiles[0].height), BACKGROUND)
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width
    return sheet


def column(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), BACKGROUND)
    top = 0
    for r in rows:
        sheet.paste(r, (0, top))
        top += r.height
    return sheet


def label(text: str, width: int, height: int) -> Image.Image:
    """Text in a tile."""
    tile = Image.new("RGB", (width, height), BACKGROUND)
    ImageDraw.Draw(tile).multiline_text(
        (6, 4), text, fill=(40, 40, 40), font=ImageFont.load_default(13), spacing=3
    )
    return tile


def result_row(
    caption: str,
    image: NDArray[np.uint8],
    generated: Generated,
    truth: Surface,
    camera: Camera,
) -> Image.Image:
    """One result: caption, image, depth of the two first layers, mesh from four sides, truth.

    image : (H, W, 4) RGBA. camera : that of the truth.
    """
    tiles = [label(caption, TILE, TILE), on_background(image)]
    for layer in range(LAYERS):
        if generated.xray is not None and layer < generated.xray.shape[0]:
            tiles.append(depth_tile(generated.xray, layer))
        else:
            tiles.append(label("", TILE, TILE))
    tiles += [mesh_tile(generated.surface, generated.camera, side) for side in SIDES]
    tiles += [mesh_tile(truth, camera, side) for side in (0.0, 180.0)]
    return row(tiles)


def result_sheet(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows of `result_row` below each other, with a heading."""
    heads = ["", "image", *(f"layer {n + 1}" for n in range(LAYERS))]
    heads += [*(f"mesh, {side:.0f}°" for side in SIDES), "truth, 0°", "truth, 180°"]
    return column([row([label(head, TILE, 24) for head in heads]), *rows])
