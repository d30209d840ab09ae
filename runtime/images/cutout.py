"""From the user's image to the framed cut-out that the models see.

Three steps, each usable alone::

    image = read_image("photo.jpg")                                   # any file, upright 8-bit sRGB
    cut = cut_out(image, "auto", online=online_allowed())             # the object, by its alpha
    rgba = frame(cut.rgba, 256, fill=0.85)                            # cropped, centred, scaled
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy import ndimage

from xray_addon.errors import XRayError
from xray_addon.process.protocol import ONLINE_VARIABLE
from xray_addon.progress import Progress, ignore_progress

from .masks import NotCutError, nearest_colors
from .networks import REMBG_MODELS, by_built_in, by_rembg, weights_paths
from .plain_background import EVEN_SHARE, by_plain_background
from .reading import read_image
from .refusals import check_border, check_chequered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xray_addon.progress import ProgressCallback
    from xray_addon.settings.generate import GenerateSettings


@dataclass(frozen=True)
class Foreground:
    """An object without its background.

    rgba : (H, W, 4) uint8, straight alpha, sRGB.
    how : the method that was used: "alpha", "rembg", "plain" or "built-in".
    skipped : why each method tried before it failed, for people.
    """

    rgba: NDArray[np.uint8]
    how: str
    skipped: tuple[str, ...] = ()


_Way = Callable[[Image.Image, bool, "ProgressCallback"], "NDArray[np.uint8]"]


def online_allowed() -> bool:
    """Whether `ONLINE_VARIABLE` allows the network. By default the runtime stays offline."""
    return os.environ.get(ONLINE_VARIABLE) == "1"


def cut_out(
    image: Image.Image,
    method: str = "auto",
    *,
    online: bool,
    progress: ProgressCallback = ignore_progress,
) -> Foreground:
    """Cut out the object in `image`, by its alpha channel, a network or its plain background.

    image : 8-bit RGB or RGBA, as returned by `read_image`.
    method : "alpha"; "rembg" (a network of rembg); "plain"; "built-in" (the small network that
        comes with X-Ray); or "auto", the first of these that succeeds. "auto" tries "plain" before
        "built-in" if the background is even, and otherwise after it.
    online : whether rembg may download missing weights (about 170 MB).

    Raises XRayError `no_cutout`; `fake_transparency` for a chequered background;
    `object_at_border` if that is why every method failed; and `Cancelled` if `progress` does.
    """
    order: list[tuple[str, _Way]] = [
        ("alpha", _by_alpha),
        ("rembg", by_rembg),
        ("plain", partial(by_plain_background, least_share=EVEN_SHARE)),
        ("built-in", by_built_in),
        ("plain", by_plain_background),
    ]
    ways = dict(order)
    if method != "auto" and method not in ways:
        raise XRayError(
            "bad_settings",
            f"There is no way to cut out called {method!r}.",
            f"Choose one of: auto, {', '.join(ways)}.",
        )
    if method != "auto":
        order = [(method, ways[method])]
    skipped: list[str] = []
    reason = ""
    for name, way in order:
        try:
            rgba = way(image, online, progress)
        except NotCutError as error:
            skipped.append(f"{name}: {error}")
            reason = f": {error}"
            if name == "alpha" and method == "auto":
                check_chequered(image)
        else:
            return Foreground(rgba, name, tuple(skipped))
    check_chequered(image)
    if method in ("auto", "plain"):
        check_border(image)
    model = REMBG_MODELS[0]
    raise XRayError(
        "no_cutout",
        # Reasons are details if four methods failed, but the answer if one was asked for.
        f"The object could not be told from its background{reason if method != 'auto' else ''}.",
        "Save the image with a transparent background, or photograph the object before a plain "
        "one.",
        details="\n".join(f"tried {reason}" for reason in skipped)
        + f"\nrembg's model file would be {weights_paths(model)[0]}; it is downloaded if Blender "
        "may go online",
    )


def cut_object(
    image: Any, settings: GenerateSettings, progress: ProgressCallback = ignore_progress
) -> Foreground:
    """The object in `image`, read and cut out according to `settings`.

    image : as for `read_image`. Raises as `read_image` and `cut_out`.
    """
    progress(Progress("image", 0, 1, "Reading the image"))
    picture = read_image(image)
    progress(Progress("image", 0, 1, "Cutting out the object"))
    method = settings.remove_background
    cut = cut_out(picture, method, online=online_allowed(), progress=progress)
    if not settings.margin:
        return cut
    return replace(cut, rgba=move_edge(cut.rgba, picture, settings.margin / 100))


def move_edge(rgba: NDArray[np.uint8], image: Image.Image, margin: float) -> NDArray[np.uint8]:
    """Move the edge of a cut-out (H, W, 4) outwards, or inwards if `margin` is negative.

    image : the image that was cut, of any size. The added pixels get its colours, or those of the
        object's edge if the image has an alpha channel.
    margin : distance, relative to the longer side of the image.
    """
    height, width = rgba.shape[:2]
    solid = rgba[..., 3] > 127
    if solid.all() or not solid.any():
        return rgba
    # Distance from the edge, positive outside. The image's border is not an edge.
    distance = ndimage.distance_transform_edt(~solid) - ndimage.distance_transform_edt(solid)
    ramp = np.clip(margin * max(height, width) - distance + 0.5, 0.0, 1.0)
    band = np.rint(ramp * 255.0).astype(np.uint8)
    moved = rgba.copy()
    if margin > 0:
        gained = (rgba[..., 3] == 0) & (band > 0)
        if image.mode == "RGBA":  # hidden pixels have no reliable colours
            moved[gained, :3] = nearest_colors(rgba[..., :3], solid, gained)[0]
        else:
            moved[gained, :3] = np.asarray(image.resize((width, height)))[gained]
        moved[..., 3] = np.maximum(rgba[..., 3], band)
    else:
        moved[..., 3] = np.minimum(rgba[..., 3], band)
    moved[moved[..., 3] == 0] = 0
    return moved


def _by_alpha(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The unchanged image, if its alpha channel is a cut-out."""
    del online, progress
    if image.mode != "RGBA":
        raise NotCutError("the image has no alpha channel")
    rgba = np.array(image)
    if rgba[..., 3].min() >= 128:
        raise NotCutError("the image's alpha channel is opaque everywhere")
    return rgba
