"""Contact sheets of a dataset, for the command line and Blender's Image Editor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...xray_addon.dataset.store import read_row
from ...xray_addon.errors import DONE, SOME_FAILED, XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.pictures.contact_sheet import SheetView, contact_sheet
from ...xray_addon.xray import XRay

if TYPE_CHECKING:
    pass
from ..convert.images import read_image

# The most views of one item on a sheet; a longer sheet is hard to read.
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

    Raises XRayError `no_folder`, `no_items`, and those of reading an X-Ray.
    """
    folder = Path(folder)
    if not (folder / "xrays").is_dir():
        raise XRayError(
            "no_folder",
            f"{folder} is not a dataset: it has no folder xrays.",
            "Choose the folder that capture or dataset wrote to.",
        )
    if uid:
        found = sorted((folder / "xrays" / uid).glob("*.npz"))
        if Path(uid).is_absolute() or ".." in Path(uid).parts or not found:
            raise XRayError("no_items", f"There is no item {uid} in {folder}.", "Check the uid.")
        return [_view(folder, path) for path in found[:MOST_VIEWS]]
    random = np.random.default_rng(seed)
    items = sorted(
        item for item in (folder / "xrays").iterdir() if item.is_dir() and item.name[0] != "."
    )
    views: list[SheetView] = []
    for i in random.permutation(len(items)):
        if len(views) == max(sample, 1):
            break
        if paths := sorted(items[i].glob("*.npz")):  # a folder may be empty
            views.append(_view(folder, paths[int(random.integers(len(paths)))]))
    if not views:
        raise XRayError("no_items", f"{folder} has no items yet.", "Make some first.")
    return sorted(views, key=lambda view: view.title)


def _view(folder: Path, path: Path) -> SheetView:
    uid = path.parent.relative_to(folder / "xrays")
    image = folder / "images" / uid / f"{path.stem}.png"
    pixels = read_image(image) if image.is_file() else None
    row = read_row(folder, uid.as_posix())
    dropped = row["views"][int(path.stem)]["dropped"] if row else None
    return SheetView(f"{uid.as_posix()}  view {path.stem}", XRay.load(path), pixels, dropped)


# Command line


def add_parser(commands: Any) -> None:
    """Add `preview` to the subcommands of ``blender -c xray``."""
    parser = commands.add_parser("preview", help="a contact sheet of a dataset as a PNG file")
    parser.set_defaults(run=_run, failure=SOME_FAILED)
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="the dataset's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--uid", default="", metavar="U", help=f"the first {MOST_VIEWS} views of this item"
    )
    which.add_argument(
        "--sample", type=_positive, default=4, metavar="N", help="N random items (default: 4)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the choice (default: 0)"
    )
    parser.add_argument(
        "--layers", type=_positive, default=8, metavar="L", help="layers to show (default: 8)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="the PNG to write")
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _run(arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    views = dataset_views(
        arguments.dataset,
        uid=arguments.uid,
        sample=arguments.sample,
        seed=abs(arguments.seed),
    )
    try:
        write_png(arguments.out, contact_sheet(views, layers=arguments.layers))
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{arguments.out} cannot be written ({error.strerror or error}).",
            "Choose another file.",
        ) from error
    return DONE, {"out": str(arguments.out), "views": [view.title for view in views]}
