"""An omage in Blender's Image Editor: shows it as images, which can be painted, and reads them.

The images store the omage in 16 bits, as its files do, and are packed as PNG files. The occupancy
is the alpha of the position, and the albedo is in linear light, as Blender shows and paints float
images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import bpy
import numpy as np
from bpy.app.handlers import persistent
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import encode_png
from ...xray_addon.omage import Omage
from ...xray_addon.omage.image import UINT16_MAX
from ...xray_addon.omage.pictures import VIEWS, views
from ...xray_addon.omage.resampling import OCCUPANCY, OCCUPIED
from ..convert.images import image_editors
from ..convert.meshes import image_from_png
from ..convert.staging import TEMPORARY, TemporaryData

# Custom properties of each image: the omage's name, the view, and the `Origin`, if it has one.
NAME_KEY, VIEW_KEY, ORIGIN_KEY = "xray_omage", "xray_omage_view", "xray_omage_origin"
# The omage's channels in each view.
CHANNELS = {
    "position": slice(0, 4),
    "normal": slice(4, 7),
    "albedo": slice(7, 10),
    "metallic": slice(10, 11),
    "roughness": slice(11, 12),
}


class Origin(NamedTuple):
    """Where in the scene an omage comes from: a point p became (p - centre) * scale."""

    centre: tuple[float, float, float]
    scale: float


def show_omage(
    omage: Omage, name: str, view: str = "albedo", *, origin: Origin | None = None
) -> dict[str, Any]:
    """Make the images of `omage`, by `VIEWS`, and show `view` in every open Image Editor.

    origin : of an omage that was made of objects.
    """
    found = {}
    for key in VIEWS if omage.has_material else VIEWS[:2]:
        image = _image(name, key, _encoded(_pixels(omage, key), key))
        image[NAME_KEY], image[VIEW_KEY] = name, key
        image.pop(ORIGIN_KEY, None)
        if origin is not None:
            image[ORIGIN_KEY] = [*origin.centre, origin.scale]
        found[key] = image
    show_view(name, view if view in found else "position")
    return found


def omage_images(name: str) -> dict[str, Any]:
    """The images of the omage called `name`, by view."""
    images: Any = bpy.data.images
    return {image[VIEW_KEY]: image for image in images if image.get(NAME_KEY) == name}


def shown_origin(name: str) -> Origin | None:
    """That of the omage called `name`, if it has one."""
    stored = omage_images(name)["position"].get(ORIGIN_KEY)
    if stored is None:
        return None
    x, y, z, scale = stored
    return Origin((x, y, z), scale)


def show_view(name: str, view: str) -> None:
    """Show another view of an omage in every open Image Editor. Raises XRayError `no_omage`."""
    image = omage_images(name).get(view)
    if image is None:
        raise _no_omage(f"{name} has no image of its {view}")
    for area in image_editors():
        area.spaces.active.image = image
        area.tag_redraw()


def shown_name(context: Any) -> str:
    """The name of the omage in the Image Editor, of the active object or the last one by name.

    It is "" if there is none.
    """
    for area in image_editors():
        image = area.spaces.active.image
        if image is not None and image.get(NAME_KEY):
            return str(image[NAME_KEY])
    obj = context.object
    if obj is not None and NAME_KEY in obj and omage_images(obj[NAME_KEY]):
        return str(obj[NAME_KEY])
    images: Any = bpy.data.images
    names = [image[NAME_KEY] for image in images if NAME_KEY in image]
    return str(names[-1]) if names else ""


def read_shown(name: str) -> Omage:
    """The omage called `name`, from its current images.

    Raises XRayError `no_omage` if an image is missing or has another size, and `bad_omage`.
    """
    images = omage_images(name)
    if "position" not in images:
        raise _no_omage(f"there is no image of the position of {name!r}")
    width, height = images["position"].size
    wanted = CHANNELS if len(images) > 2 else {"position": CHANNELS["position"]}
    parts = []
    for view in wanted:
        image = images.get(view)
        if image is None or tuple(image.size) != (width, height):
            raise _no_omage(f"the image of the {view} of {name!r} is missing or has another size")
        count = wanted[view].stop - wanted[view].start
        parts.append(_read(image)[..., :count])
    values = np.clip(np.concatenate(parts, axis=2), 0, 1)
    values[values[..., OCCUPANCY] <= OCCUPIED] = 0
    return Omage(values)


@persistent
def pack_painted(*_: object) -> None:
    """Pack what was painted on omages since; Blender saves a file without it."""
    images: Any = bpy.data.images
    for image in images:
        if VIEW_KEY in image and image.is_dirty and image.library is None:
            png = _encoded(_read(image), image[VIEW_KEY])
            image.pack(data=png, data_len=len(png))


def register() -> None:
    """Have painted omages saved with the file."""
    bpy.app.handlers.save_pre.append(pack_painted)


def unregister() -> None:
    """Undo `register`."""
    bpy.app.handlers.save_pre.remove(pack_painted)


def _read(image: Any) -> NDArray[np.float32]:
    """The pixels (H, W, 4) of an image, row 0 at the bottom."""
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    return pixels.reshape(height, width, 4)


def _image(name: str, view: str, png: bytes) -> Any:
    """The image of a view of the omage called `name`, with this content."""
    image = omage_images(name).get(view)
    if image is None:
        image = image_from_png(f"{name} {view}", png)
    else:
        image.pack(data=png, data_len=len(png))
        image.source = "FILE"
        image.buffers_free()
    space = {"albedo": _linear_light(), "patches": "sRGB"}.get(view, "Non-Color")
    image.colorspace_settings.name = space
    # The occupancy must not darken the colours.
    image.alpha_mode = "CHANNEL_PACKED"
    image.use_fake_user = True  # no object uses it, but it must be saved
    return image


def _linear_light() -> str:
    """The name of the colour space of new float images."""
    with TemporaryData() as owned:
        image = owned.own(bpy.data.images.new(TEMPORARY, 1, 1, float_buffer=True))
        return str(image.colorspace_settings.name)


def _pixels(omage: Omage, view: str) -> NDArray[np.float32]:
    """(R, R, 4), row 0 at the bottom."""
    pixels = np.ones((omage.resolution, omage.resolution, 4), dtype=np.float32)
    if view == "patches":
        pixels[...] = views(omage)["patches"][::-1]
        return pixels
    channels = CHANNELS[view]
    values = omage.channels(channels.start, channels.stop)
    pixels[..., : values.shape[2]] = values
    if values.shape[2] == 1:
        pixels[..., :3] = values
    return pixels


def _encoded(pixels: NDArray[np.float32], view: str) -> bytes:
    """Pixels (H, W, 4) of a view, row 0 at the bottom, as a PNG file."""
    pixels = np.clip(pixels[::-1], 0, 1)
    if view == "patches":
        return encode_png(np.rint(pixels * 255).astype(np.uint8))
    if view != "position":
        pixels = pixels[..., :3]
    return encode_png(np.rint(pixels * UINT16_MAX).astype(np.uint16))


def _no_omage(reason: str) -> XRayError:
    return XRayError(
        "no_omage",
        f"No omage can be read from the Image Editor: {reason}.",
        "Make one with Object to Omage, or choose a file.",
    )
