"""Contact sheets of a dataset: for the command line, and in Blender's Image Editor."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.dataset.store import read_row
from ...xray_addon.errors import DONE, SOME_FAILED, XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.pictures.contact_sheet import View, contact_sheet
from ...xray_addon.xray import XRay
from ..convert.staging import Owned
from ..properties import absolute_path, preferences

if TYPE_CHECKING:
    from ..tasks.watching import Result

IMAGE_NAME = "X-Ray Preview"
# Views of one item that a sheet shows; a sheet of more would be too long to look at.
MOST_VIEWS = 12


def preview(
    folder: str | Path, *, uid: str = "", sample: int = 4, seed: int = 0, layers: int = 8
) -> NDArray[np.uint8]:
    """The contact sheet (H, W, 3) of the dataset at `folder`; see `dataset_views`."""
    return contact_sheet(dataset_views(folder, uid=uid, sample=sample, seed=seed), layers=layers)


def dataset_views(
    folder: str | Path, *, uid: str = "", sample: int = 4, seed: int = 0
) -> list[View]:
    """The first `MOST_VIEWS` views of the item `uid`, or one of each of `sample` random items.

    Raises XRayError `no_folder`, `no_items`, and what reading an X-Ray raises.
    """
    folder = Path(folder)
    if not (folder / "xrays").is_dir():
        raise XRayError(
            "no_folder",
            f"{folder} is no dataset: it has no folder xrays.",
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
    views: list[View] = []
    for i in random.permutation(len(items)):
        if len(views) == max(sample, 1):
            break
        if paths := sorted(items[i].glob("*.npz")):  # a folder may be empty
            views.append(_view(folder, paths[int(random.integers(len(paths)))]))
    if not views:
        raise XRayError("no_items", f"{folder} has no items yet.", "Make some first.")
    return sorted(views, key=lambda view: view.title)


def _view(folder: Path, path: Path) -> View:
    uid = path.parent.relative_to(folder / "xrays")
    image = folder / "images" / uid / f"{path.stem}.png"
    pixels = read_image(image) if image.is_file() else None
    row = read_row(folder, uid.as_posix())
    dropped = row["views"][int(path.stem)]["dropped"] if row else None
    return View(f"{uid.as_posix()}  view {path.stem}", XRay.load(path), pixels, dropped)


def read_image(path: Path) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 with straight alpha, row 0 at the top, of an image file.

    Raises XRayError `unreadable_image`.
    """
    with Owned() as read:
        try:
            image: Any = read.own(bpy.data.images.load(str(path)))
            width, height = image.size
        except RuntimeError:
            width = height = 0
        if not width or not height or image.channels != 4:
            raise XRayError(
                "unreadable_image", f"{path} cannot be read as an image.", "Make the item again."
            )
        pixels = np.empty(width * height * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
    rows = pixels.reshape(height, width, 4)[::-1]
    return np.rint(np.clip(rows, 0.0, 1.0) * 255.0).astype(np.uint8)


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


# In Blender


def show(picture: NDArray[np.uint8], name: str = IMAGE_NAME) -> bpy.types.Image:
    """`picture` (H, W, 3) as Blender's image `name`, in every open Image Editor."""
    height, width = picture.shape[:2]
    images: Any = bpy.data.images
    image: Any = images.get(name)
    if image is None or not image.has_data or image.is_float:
        image = images.new(name, width, height)
    if tuple(image.size) != (width, height):
        image.scale(width, height)
    rgba = np.ones((height, width, 4), dtype=np.float32)
    rgba[..., :3] = picture[::-1].astype(np.float32) / 255.0
    image.pixels.foreach_set(rgba.reshape(-1))
    image.update()
    image.pack()
    for area in image_editors():
        area.spaces.active.image = image
        area.tag_redraw()
    return image


def image_editors() -> Sequence[Any]:
    """The Image Editors on screen."""
    manager: Any = bpy.context.window_manager
    return [
        area
        for window in (manager.windows if manager else ())
        for area in window.screen.areas
        if area.type == "IMAGE_EDITOR"
    ]


class XRAY_OT_preview(bpy.types.Operator):
    """Show a contact sheet of a dataset in the Image Editor"""

    bl_idname = "xray.preview"
    bl_label = "Preview X-Ray Dataset"
    bl_options = {"REGISTER", "UNDO"}

    directory: bpy.props.StringProperty(
        name="Folder", description="The dataset's folder", subtype="DIR_PATH"
    )
    uid: bpy.props.StringProperty(
        name="Item", description="Name of the item; empty for a random sample"
    )
    sample: bpy.props.IntProperty(
        name="Sample", description="Number of random items", default=4, min=1, max=100
    )
    seed: bpy.props.IntProperty(name="Seed", description="Seed of the sample", min=0)
    layers: bpy.props.IntProperty(
        name="Layers", description="Layers to show", default=8, min=1, max=32
    )
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        """Ask for the folder; it starts at the one that datasets are written to."""
        if not self.directory:
            chosen = preferences()
            self.directory = str(chosen.dataset_folder) if chosen else ""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: bpy.types.Context) -> Result:
        """Show it."""
        try:
            if not self.directory:
                raise XRayError("no_folder", "There is no folder to look at.", "Choose one.")
            views = dataset_views(
                absolute_path(self.directory), uid=self.uid, sample=self.sample, seed=self.seed
            )
            image = show(contact_sheet(views, layers=self.layers))
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        where = "" if image_editors() else f": open an Image Editor and choose {image.name}"
        self.report({"INFO"}, f"Preview of {len(views)} views{where}")
        return {"FINISHED"}


CLASSES: tuple[type[Any], ...] = (XRAY_OT_preview,)
