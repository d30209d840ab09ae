"""A contact sheet shows what is there: images, layers, counts, and words one can read."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from xray_addon import Camera, Material, Surface, XRay, cast
from xray_addon.metrics import silhouette_iou
from xray_addon.pictures.contact_sheet import (
    BACKGROUND,
    EMPTY,
    HIT,
    ROWS,
    SheetView,
    contact_sheet,
    hits_histogram,
    layer_grid,
    layer_tiles,
    statistics,
)
from xray_addon.pictures.lettering import GLYPH_HEIGHT, draw_text, fitting, text_width
from xray_addon.pictures.shading import shade_surface


def ball(layers: int = 4, size: int = 32) -> SheetView:
    mesh = trimesh.creation.icosphere(2, 0.4)
    surface = Surface(mesh.vertices, mesh.faces, materials=[Material((1.0, 0.0, 0.0))])
    camera = Camera.look_at((0, -1.5, 0), width=size, height=size)
    image = shade_surface(surface, camera.resized(2 * size, 2 * size))
    return SheetView("ball, view 000", cast(surface, camera, layers), image)


def has(picture: np.ndarray, color) -> int:
    return int((picture == np.array(color)).all(axis=-1).sum())


def test_tiles_show_the_layer():
    view = ball()
    first, third = layer_tiles(view.xray, 0, 32), layer_tiles(view.xray, 2, 32)
    assert tuple(first) == ROWS
    hit = view.xray.hit[0]
    assert ((first["hit"] == HIT).all(axis=-1) == hit).all()
    assert (first["colour"][hit] == (255, 0, 0)).all()
    # In the middle a facet looks towards the viewer.
    np.testing.assert_allclose(first["normal"][16, 16], (128, 128, 255), atol=25)
    assert (first["depth"][~hit] == EMPTY).all()
    # The nearest point is lighter than the rim.
    row = np.flatnonzero(hit[16])
    assert first["depth"][16, 16].sum() > first["depth"][16, row[0]].sum()
    assert all((tile == EMPTY).all() for tile in third.values())


def test_the_sheet_holds_every_view_and_grows_with_them():
    one, two = contact_sheet([ball()]), contact_sheet([ball(), ball()])
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > one.shape[0]
    assert has(two, HIT) > 1.9 * has(one, HIT) - has(hits_histogram(np.array([1])), HIT)
    assert contact_sheet([ball(layers=8)]).shape[1] > one.shape[1]


def test_layers_beyond_what_is_asked_for_are_left_out():
    assert contact_sheet([ball(16)], layers=4).shape[1] < contact_sheet([ball(16)]).shape[1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 31), (3, 300, 200)])
def test_any_shape_and_no_hits(shape):
    empty = XRay(np.zeros(shape), np.zeros((*shape, 3)), np.zeros((*shape, 3)))
    assert contact_sheet([SheetView("", empty)]).shape[2] == 3
    image = np.zeros((5, 9, 4), np.uint8)
    assert contact_sheet([SheetView("é \t" * 200, empty, image)]).shape[2] == 3


def test_statistics_are_of_this_view():
    view = ball()
    found = dict(statistics(view))
    assert found["size"] == "32x32x4"
    assert found["hits"] == f"{len(view.xray.index):,}"
    assert found["deepest layer"] == "2"
    assert float(found["IoU"]) == pytest.approx(
        silhouette_iou(view.image[..., 3], view.xray), abs=1e-4
    )
    assert float(found["IoU"]) > 0.95
    assert "IoU" not in dict(statistics(SheetView("", view.xray)))


def test_silhouettes_that_differ_have_a_lower_iou():
    view = ball()
    alpha = view.image[..., 3]
    assert silhouette_iou(np.roll(alpha, 12, axis=1), view.xray) < 0.75
    assert silhouette_iou(np.zeros_like(alpha), view.xray) == 0.0


def test_bars_are_as_high_as_their_counts_say():
    def heights(hits, dropped=0):
        sheet = hits_histogram(np.array(hits), dropped, width=600)
        return [has(part, HIT) for part in np.array_split(sheet, len(hits) + 1, axis=1)], sheet

    (first, second, third, _), sheet = heights([10_000, 100, 0])
    assert first > 1.7 * second > 0
    assert third == 0
    assert has(sheet, (255, 176, 84)) == 0
    assert has(heights([10, 10], dropped=500)[1], (255, 176, 84)) > 1000


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="view"):
        contact_sheet([])
    with pytest.raises(ValueError, match="layer"):
        contact_sheet([ball()], layers=0)


# Words


def drawn(text: str, scale: int = 1) -> np.ndarray:
    image = np.zeros((GLYPH_HEIGHT * scale, max(text_width(text, scale), 1), 3), np.uint8)
    draw_text(image, text, 0, 0, (1, 1, 1), scale)
    return image[..., 0]


def test_every_character_looks_like_no_other():
    characters = [chr(i) for i in range(33, 127) if chr(i) not in "$^`{}"]
    pictures = {drawn(character).tobytes() for character in characters}
    assert len(pictures) == len(characters)


def test_text_is_where_it_is_put_and_is_cut_at_the_edges():
    image = np.full((30, 40, 3), BACKGROUND, np.uint8)
    draw_text(image, "H", 10, 5, (255, 0, 0), 2)
    rows, columns = np.nonzero(image[..., 0] == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 18, 10, 19)
    for left, top in ((-7, -3), (35, 28), (100, 0), (0, 100)):
        draw_text(image, "HHH", left, top, (255, 0, 0), 2)
    np.testing.assert_array_equal(drawn("H", 3), np.kron(drawn("H"), np.ones((3, 3))))


def test_long_words_keep_both_ends():
    text = fitting("a_very_long_name_of_an_object", 60)
    assert text_width(text) <= 60
    assert text.startswith("a_v")
    assert text.endswith("ect")
    assert fitting("short", 60) == "short"


@pytest.mark.parametrize("channel", ROWS)
def test_a_grid_of_one_channel_holds_every_layer_with_hits(channel):
    xray = ball(layers=6, size=32).xray
    assert list(xray.hits_per_layer > 0) == [True, True, False, False, False, False]
    grid = layer_grid(xray, channel, size=64)
    for layer in range(2):
        tile = layer_tiles(xray, layer, 64)[channel]
        top = next(
            (y, x)
            for y in range(grid.shape[0] - 63)
            for x in range(grid.shape[1] - 63)
            if (grid[y, x] == EMPTY).all() and np.array_equal(grid[y : y + 64, x : x + 64], tile)
        )
        assert top[0] > 2 * GLYPH_HEIGHT  # under its label
    assert has(grid, (236, 238, 242)) > 100


def test_a_grid_needs_a_channel_and_hits():
    xray = ball().xray
    with pytest.raises(ValueError, match="channel must be one of"):
        layer_grid(xray, "alpha")
    with pytest.raises(ValueError, match="no hits"):
        layer_grid(XRay(*(0 * frames for frames in (xray.depth, xray.normal, xray.color))), "depth")
