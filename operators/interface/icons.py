"""Makes icons for panels from arrays at run time."""

from __future__ import annotations

from typing import Any

import bpy.utils.previews
import numpy as np
from numpy.typing import NDArray

_collections: dict[str, tuple[Any, Any]] = {}  # by name: preview collection, and the array it shows


def icon_of(name: str, picture: NDArray[np.uint8]) -> int:
    """Blender's icon number for `picture` (H, W, 4), straight alpha.

    name : the place where the icon is shown. Its previous picture is freed.
    """
    known = _collections.get(name)
    if known is None or known[1] is not picture:
        collection = bpy.utils.previews.new() if known is None else known[0]
        collection.clear()
        shown = collection.new(name)
        shown.image_size = (picture.shape[1], picture.shape[0])
        values = picture[::-1].astype(np.float32).reshape(-1) / 255
        shown.image_pixels_float.foreach_set(values)
        _collections[name] = (collection, picture)
    return int(_collections[name][0][name].icon_id)


def unregister() -> None:
    """Free all icons."""
    for collection, _ in _collections.values():
        bpy.utils.previews.remove(collection)
    _collections.clear()
