"""The views of a dataset on disk, for contact sheets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...xray_addon.dataset.store import item_row
from ...xray_addon.errors import XRayError
from ...xray_addon.files.names import is_clean_name
from ...xray_addon.pictures.contact_sheet import SheetView, contact_sheet
from ...xray_addon.xray import XRay
from ..convert.images import read_image

# Most views of one item on a sheet; more would be hard to read.
MOST_VIEWS = 12


def preview(
    folder: str | Path, *, uid: str = "", sample: int = 4, seed: int = 0, layers: int = 8
) -> NDArray[np.uint8]:
    """The contact sheet (H, W, 3) of the dataset at `folder`; see `dataset_views`."""
    return contact_sheet(dataset_views(folder, uid=uid, sample=sample, seed=seed), layers=layers)


def dataset_views(
    folder: str | Path, *, uid: str = "", sample: int = 4, seed: int = 0
) -> list[SheetView]:
    """The first `MOST_VIEWS` views of the item `uid`, or one view each of `sample` random items.

    Raises XRayError `no_folder`, `no_items`, and those of `XRay.load`.
    """
    folder = Path(folder)
    if not (folder / "xrays").is_dir():
        raise XRayError(
            "no_folder",
            f"{folder} is not a dataset: it has no folder xrays.",
            "Choose the folder that capture or dataset wrote to.",
        )
    if uid:
        found = sorted((folder / "xrays" / uid).glob("*.npz")) if is_clean_name(uid) else []
        if not found:
            raise XRayError("no_items", f"There is no item {uid} in {folder}.", "Check the uid.")
        return [_view(folder, path) for path in found[:MOST_VIEWS]]
    random = np.random.default_rng(seed)
    with os.scandir(folder / "xrays") as entries:  # there may be a million
        items = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    views: list[SheetView] = []
    for i in random.permutation(len(items)):
        if len(views) == max(sample, 1):
            break
        if paths := sorted((folder / "xrays" / items[i]).glob("*.npz")):  # a folder may be empty
            views.append(_view(folder, paths[int(random.integers(len(paths)))]))
    if not views:
        raise XRayError("no_items", f"{folder} has no items yet.", "Make some first.")
    return sorted(views, key=lambda view: view.title)


def _view(folder: Path, path: Path) -> SheetView:
    uid = path.parent.relative_to(folder / "xrays")
    image = folder / "images" / uid / f"{path.stem}.png"
    pixels = read_image(image) if image.is_file() else None
    row = item_row(folder, uid.as_posix())
    views = dict(enumerate(row["views"])) if row else {}
    dropped = views.get(int(path.stem), {}).get("dropped") if path.stem.isdecimal() else None
    return SheetView(f"{uid.as_posix()}  view {path.stem}", XRay.load(path), pixels, dropped)
