"""From whatever image the user has to the framed cut-out that the models see.

Three steps, each usable alone::

    image = read_image("photo.jpg")                                   # any file, upright 8-bit sRGB
    cut = cut_out(image, "auto", online=online_allowed())             # the object, by its alpha
    rgba = frame(cut.rgba, 256, fill=0.85)                            # cropped, centred, scaled
"""

from __future__ import annotations

import importlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from scipy import ndimage

from xray_addon.color import srgb_to_linear
from xray_addon.errors import XRayError
from xray_addon.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xray_addon.progress import ProgressCallback
    from xray_addon.settings import GenerateSettings

ONLINE_VARIABLE = "XRAY_ONLINE"  # "1": whoever started the runtime allows the network
MAX_SIDE = 2048  # px; more than any model here sees, little enough to work on quickly

# rembg's networks in the order they are taken; the first is fetched where none is there. It is
# not rembg's own default, whose licence asks payment for commercial use.
REMBG_MODELS = ("u2net", "isnet-general-use", "bria-rmbg")

# What Pillow's decoders raise on damaged files. They parse bytes that nobody checked, so beside
# OSError come the errors of the parsing itself.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


# ---------------------------------------------------------------------------------------- reading


def read_image(image: str | PathLike[str] | Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Any image as upright 8-bit sRGB, mode "RGB" or, where it has transparency, "RGBA".

    image : a path, a PIL image (left as it is) or an (H, W, 3 or 4) uint8 array.

    EXIF rotation is applied; colours go to sRGB where the image brings an ICC profile; 16 bits
    become 8 by the format's full range; of an animation the first frame is taken; a side longer
    than `MAX_SIDE` is reduced to it.

    Raises XRayError: `missing_file`, `unreadable_image`.
    """
    with warnings.catch_warnings():
        # Pillow warns of images from half its limit on, which are legal and reduced right away,
        # and of metadata that is not used here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(image, Image.Image):
            return _decode(image, "The image")
        if isinstance(image, np.ndarray):
            return _from_array(image)
        return _from_file(Path(image))


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise XRayError(
            "unreadable_image",
            f"The image array has shape {array.shape} and type {array.dtype}.",
            "Give an (H, W, 3) or (H, W, 4) array of type uint8.",
        )
    if array.size == 0:
        raise _empty("The image array")
    return _decode(Image.fromarray(array), "The image array")


def _from_file(path: Path) -> Image.Image:
    name = f"The image {path.name!r}"
    if not os.path.exists(path):  # unlike Path.exists, false for names no file can have
        raise XRayError(
            "missing_file", f"There is no file {str(path)!r}.", "Check the image's path."
        )
    if path.is_dir():
        raise XRayError("unreadable_image", f"{str(path)!r} is a folder.", "Choose an image file.")
    try:
        with Image.open(path) as opened:
            # JPEG decodes straight to a half, quarter or eighth; other formats ignore it.
            opened.draft(None, (MAX_SIDE, MAX_SIDE))
            return _decode(opened, name)
    except UnidentifiedImageError as error:
        what = "is an empty file" if path.stat().st_size == 0 else "is in no known image format"
        raise XRayError(
            "unreadable_image", f"{name} {what}.", "Save it as PNG, JPEG or WebP and try again."
        ) from error
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    """Pixels of an opened image, by the rules of `read_image`. Leaves `image` as it is."""
    if min(image.size) < 1:
        raise _empty(name)
    profile = image.info.get("icc_profile")
    try:
        image.load()
        small = _at_most(_to_eight_bit(_upright(image)), MAX_SIDE)
        return _to_srgb(small, profile)
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says."""
    try:
        return ImageOps.exif_transpose(image)
    except _DECODING_ERRORS:
        return image  # damaged EXIF data says nothing of the pixels, which are sound


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """The image in mode L, LA, RGB, RGBA, CMYK or LAB, whichever is nearest to what it was."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.mode in ("CMYK", "LAB"):
        return image
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Mode L, or LA where one grey value is named transparent, from 16 or 32 bit or float grey."""
    values = np.asarray(image).astype(np.float64)
    known = np.isfinite(values)
    grey = np.where(known, values, 0.0)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        # 32-bit and float files state no range: the smallest usual one that holds the values.
        peak = float(grey.max())
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        top = next((limit for limit in ranges if peak <= limit), peak)
    result = Image.fromarray(np.clip(np.rint(grey * (255.0 / top)), 0, 255).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        result.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return result


def _at_most(image: Image.Image, side: int) -> Image.Image:
    """`image` reduced so that no side is longer than `side` px."""
    longest = max(image.size)
    if longest <= side:
        return image
    width, height = (max(1, round(n * side / longest)) for n in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB or RGBA in sRGB, by the ICC `profile` where there is a sound one."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    color = image.convert(image.mode[:-1]) if alpha is not None else image
    srgb = ImageCms.createProfile("sRGB")
    sources: list[Any] = [BytesIO(profile)] if profile else []
    if color.mode == "LAB":
        sources.append(ImageCms.createProfile("LAB"))  # Pillow has no other way out of LAB
    for source in sources:
        try:
            converted = ImageCms.profileToProfile(color, source, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            continue  # a broken profile, or one of another colour space, says nothing of value
        if converted is not None:
            color = converted
            break
    result = color.convert("RGB")
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _pixel_limit() -> float:
    """Pixels beyond which Pillow refuses an image as a decompression bomb."""
    return 2.0 * (Image.MAX_IMAGE_PIXELS or float("inf"))


def _empty(name: str) -> XRayError:
    return XRayError("unreadable_image", f"{name} has no pixels.", "Choose another image.")


def _undecodable(name: str, error: BaseException) -> XRayError:
    if isinstance(error, Image.DecompressionBombError):
        return XRayError(
            "unreadable_image",
            f"{name} is too large: more than {_pixel_limit() / 1e6:.0f} million pixels.",
            f"Reduce it; {MAX_SIDE} pixels on the longer side are enough.",
        )
    return XRayError(
        "unreadable_image",
        f"{name} can't be read: {error or type(error).__name__}.",
        "The file may be damaged or incomplete: export it again, as PNG or JPEG.",
    )


# ------------------------------------------------------------------------------------ cutting out


@dataclass(frozen=True)
class CutOut:
    """An object without its background.

    rgba : (H, W, 4) uint8, straight alpha, sRGB.
    how : the method that made it: "alpha", "rembg", "plain" or "built-in".
    skipped : why each method tried before it did not serve, for people.
    """

    rgba: NDArray[np.uint8]
    how: str
    skipped: tuple[str, ...] = ()


class _NotCutError(Exception):
    """A method of cutting out does not serve for this image; its text says why."""


_Way = Callable[[Image.Image, bool, "ProgressCallback"], "NDArray[np.uint8]"]


def online_allowed() -> bool:
    """Whether `ONLINE_VARIABLE` allows the network; without it the runtime stays offline."""
    return os.environ.get(ONLINE_VARIABLE) == "1"


def cut_out(
    image: Image.Image,
    method: str = "auto",
    *,
    online: bool,
    progress: ProgressCallback = ignore_progress,
) -> CutOut:
    """The object in `image`, cut out by its alpha channel, a network or off a plain background.

    image : 8-bit RGB or RGBA, as `read_image` gives it.
    method : "alpha"; "rembg", by a network of rembg's; "plain"; "built-in", by the small network
        that comes with X-Ray; or "auto", the first of these that serves, where "plain" comes
        before "built-in" if the background is even and after it if it is less so.
    online : whether rembg may fetch its weights (about 170 MB) where they are not there.

    Raises XRayError `no_cutout`, and `Cancelled` where `progress` does.
    """
    order: list[tuple[str, _Way]] = [
        ("alpha", _by_alpha),
        ("rembg", _by_rembg),
        ("plain", partial(_by_plain_background, least_share=_EVEN_SHARE)),
        ("built-in", _by_built_in),
        ("plain", _by_plain_background),
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
    for name, way in order:
        try:
            rgba = way(image, online, progress)
        except _NotCutError as error:
            skipped.append(f"{name}: {error}")
        else:
            return CutOut(rgba, name, tuple(skipped))
    model = REMBG_MODELS[0]
    raise XRayError(
        "no_cutout",
        "The object could not be told from its background. Tried " + "; ".join(skipped) + ".",
        "Save the image with a transparent background, or take it before a plain one; or allow "
        "online access in Blender's preferences, or put rembg's model file "
        f"at {_weights_paths(model)[0]}.",
    )


def cut_object(
    image: Any, settings: GenerateSettings, progress: ProgressCallback = ignore_progress
) -> CutOut:
    """The object in `image`, read and cut out as `settings` ask for.

    image : as `read_image` takes it. Raises as `read_image` and `cut_out`.
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
    """A cut-out (H, W, 4) with its edge moved outwards, below 0 inwards.

    image : what it was cut from, of any size. What it grows by has its colours, and those of the
        object's edge where the image has an alpha channel.
    margin : how far, in longer sides of the image.
    """
    height, width = rgba.shape[:2]
    solid = rgba[..., 3] > 127
    if solid.all() or not solid.any():
        return rgba
    # From the edge, outwards; nothing is known beyond the image, so no edge is there.
    distance = ndimage.distance_transform_edt(~solid) - ndimage.distance_transform_edt(solid)
    ramp = np.clip(margin * max(height, width) - distance + 0.5, 0.0, 1.0)
    band = np.rint(ramp * 255.0).astype(np.uint8)
    moved = rgba.copy()
    if margin > 0:
        gained = (rgba[..., 3] == 0) & (band > 0)
        if image.mode == "RGBA":  # what it hides was never seen
            moved[gained, :3] = _nearest(rgba[..., :3], solid, gained)[0]
        else:
            moved[gained, :3] = np.asarray(image.resize((width, height)))[gained]
        moved[..., 3] = np.maximum(rgba[..., 3], band)
    else:
        moved[..., 3] = np.minimum(rgba[..., 3], band)
    moved[moved[..., 3] == 0] = 0
    return moved


def _by_alpha(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The image as it is, where its alpha channel is a cut-out."""
    del online, progress
    if image.mode != "RGBA":
        raise _NotCutError("the image has no alpha channel")
    rgba = np.array(image)
    if rgba[..., 3].min() >= 128:
        raise _NotCutError("the image's alpha channel is opaque everywhere")
    return rgba


def _by_rembg(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The object that one of rembg's networks sees."""
    model, path = next(
        ((m, p) for m in REMBG_MODELS for p in _weights_paths(m) if p.exists()),
        (REMBG_MODELS[0], None),
    )
    if path is None and not online:
        folder = _weights_paths(model)[0].parent
        raise _NotCutError(
            f"its model file {model}.onnx is not in {folder} and online access is off"
        )
    loading = "Loading rembg" if path else "Fetching rembg's model (170 MB) and loading it"
    progress(Progress("background", 0, 2, loading))
    failures = _rembg_failures()
    try:
        session = _rembg_session(model, str(path or ""))
    except failures as error:
        raise _NotCutError(_rembg_reason(error, path)) from error
    progress(Progress("background", 1, 2, "Removing the background"))
    rgb = image.convert("RGB")
    try:
        mask = session.predict(rgb)[0]
    except failures as error:
        raise _NotCutError(_rembg_reason(error, path)) from error
    alpha = np.asarray(mask.convert("L"), dtype=np.float32) / 255.0
    _check_share(alpha)
    progress(Progress("background", 2, 2))
    return _with_alpha(np.asarray(rgb), alpha)


def _weights_paths(model: str) -> tuple[Path, Path]:
    """Where rembg keeps the weights of `model`: its present place, then that of older versions."""
    # The same rule as rembg's BaseSession, whose import may take a minute; a test holds them equal.
    data, set_home = os.environ.get("XDG_DATA_HOME"), os.environ.get("U2NET_HOME")
    old = set_home or os.path.join(data if data is not None else "~", ".u2net")
    home = set_home or os.environ.get(
        "REMBG_HOME", os.path.join(data, "rembg") if data else os.path.join("~", ".rembg")
    )
    file = f"{model}.onnx"
    return Path(home).expanduser() / "models" / model / file, Path(old).expanduser() / file


@lru_cache(maxsize=1)
def _rembg_session(model: str, path: str) -> Any:
    """A loaded network of rembg's. `path` is part of the key: another file is another session."""
    del path
    return importlib.import_module("rembg").new_session(model)


def release_rembg() -> None:
    """Gives back the memory of the networks that rembg runs; the next use loads them again."""
    _rembg_session.cache_clear()
    _built_in_session.cache_clear()


def _rembg_failures() -> tuple[type[BaseException], ...]:
    """What rembg raises offline, on broken weights and where it is installed by halves."""
    usual = (ImportError, OSError, ValueError, RuntimeError, MemoryError)
    try:
        state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    except ImportError:
        return (*usual, SystemExit)  # rembg exits the process where onnxruntime is not installed
    # onnxruntime's errors share no base of their own.
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (*usual, *(kind for kind in kinds if issubclass(kind, Exception)))


def _rembg_reason(error: BaseException, path: Path | None) -> str:
    """Why rembg failed, in one line."""
    if isinstance(error, ImportError | SystemExit):
        return "it is not installed in the runtime"
    detail = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    if path is None:
        return f"its model file could not be fetched ({detail})"
    return f"it failed with {path}, which may be damaged ({detail})"


# ------------------------------------------------------------------------------- built-in network

BUILT_IN_WEIGHTS = Path(__file__).parents[1] / "weights" / "segmentation.onnx"
_SEEN_SIZE = (320, 320)  # px: as U2-Net, which rembg's session is made for
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as U2-Net
_DOUBT = 0.3  # most doubt, in shares of what is seen: beyond it one cut in twenty is of use
_GUIDE_RADIUS = 10  # px, of an image of 512
_GUIDE_NOISE = 1e-4  # variance of grey 0..1 below which there is no edge to follow
_GAP = 0.02  # of the object: what it sees as background within, if smaller, is object
_STEEPNESS = 4.0  # what the network half sees is object or background, but for the very edge


def _by_built_in(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The object that the small network which comes with X-Ray sees."""
    del online
    if not BUILT_IN_WEIGHTS.is_file():
        raise _NotCutError(f"its model file {BUILT_IN_WEIGHTS} is not there")
    progress(Progress("background", 0, 2, "Loading the built-in network"))
    failures = _rembg_failures()
    rgb = _at_most(image.convert("RGB"), _PLAIN_SIDE)
    try:
        session = _built_in_session()
        progress(Progress("background", 1, 2, "Removing the background"))
        seen = (_seen(session, rgb) + _seen(session, ImageOps.mirror(rgb))[:, ::-1]) / 2
    except failures as error:
        raise _NotCutError(_rembg_reason(error, BUILT_IN_WEIGHTS)) from error
    if float(np.minimum(seen, 1 - seen).sum()) > _DOUBT * float((seen > 0.5).sum()):
        raise _NotCutError("it is unsure what in the image is the object")
    pixels = np.asarray(rgb)
    soft = np.asarray(Image.fromarray(seen).resize(rgb.size, Image.Resampling.BICUBIC))
    alpha = np.clip(0.5 + _STEEPNESS * (_guided(soft, pixels) - 0.5), 0.0, 1.0)
    gaps, sizes = _pieces(alpha <= 0.5)
    alpha[np.concatenate([[False], sizes < _GAP * (alpha > 0.5).sum()])[gaps]] = 1.0
    _check_share(alpha)
    progress(Progress("background", 2, 2))
    return _with_alpha(pixels, alpha)


@lru_cache(maxsize=1)
def _built_in_session() -> Any:
    """The built-in network in rembg's session for networks that are called as U2-Net is."""
    base: Any = importlib.import_module("rembg.sessions.u2net_custom").U2netCustomSession
    options = importlib.import_module("onnxruntime").SessionOptions()

    class Session(base):
        @classmethod
        def validate_model_path(cls, *, model_path: str) -> str:
            """rembg's own takes files in its folder alone."""
            return model_path

    return Session("u2net_custom", options, model_path=str(BUILT_IN_WEIGHTS))


def _seen(session: Any, rgb: Image.Image) -> NDArray[np.float32]:
    """How surely each pixel is of the object, 0..1, at the size that the network sees."""
    # Not by rembg's `predict`, which stretches the answer to 0..1 also where nothing is seen.
    found = session.inner_session.run(None, session.normalize(rgb, _MEAN, _DEVIATION, _SEEN_SIZE))
    return np.asarray(found[0][0, 0], dtype=np.float32)


def _guided(alpha: NDArray[np.float32], rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Alpha (H, W) with its edges moved to those of the image (H, W, 3).

    He, Sun and Tang, "Guided image filtering" (TPAMI 2013), guided by grey.
    """
    side = 2 * round(_GUIDE_RADIUS * _pixel(*alpha.shape)) + 1

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(ndimage.uniform_filter(values, side, mode="nearest"))

    grey = rgb.astype(np.float32).mean(axis=2) / np.float32(255)
    grey_mean, alpha_mean = mean(grey), mean(alpha)
    variance = mean(grey * grey) - grey_mean**2
    slope = (mean(grey * alpha) - grey_mean * alpha_mean) / (variance + _GUIDE_NOISE)
    offset = alpha_mean - slope * grey_mean
    return mean(slope) * grey + mean(offset)


# ------------------------------------------------------------------------------- plain background

_PLAIN_SIDE = 1024  # px: a larger image is reduced to it, which takes seconds off the work
_BORDER = 0.02  # of the shorter side: the strip along the image's border taken for background
_PLAIN_SHARE = 0.6  # of that strip must fit one smooth colour; the object may touch the rest
_EVEN_SHARE = 0.95  # of it where the built-in network's cut is no better (tests/benchmarks)
_PLAIN_SPREAD = 5.0  # CIELAB: the most that the strip's median pixel may stray from that colour
_EVEN_SPREAD = 1.0  # CIELAB: a fit this good needs no more terms, which would only follow noise
_TOLERANCE = (5.0, 14.0)  # CIELAB: least and most distance at which a pixel is still background
_SHADE = (0.55, 1.12)  # lightness beside the background's own, from deep shadow to bright spot
_SHADE_SLOPE = 2.0  # CIELAB a pixel at 512 px: shadows are softer than the edges of objects
_HOLE = 0.001  # of the pixels: an enclosed patch of background is at least as large
_CRUMB = 0.005  # of the largest piece: smaller ones are noise, dust and watermarks
_SHARE = (0.001, 0.95)  # of the pixels: less is no object, more is no background


def _by_plain_background(
    image: Image.Image,
    online: bool,
    progress: ProgressCallback,
    least_share: float = _PLAIN_SHARE,
) -> NDArray[np.uint8]:
    """The object before a background of one colour that may change softly over the image.

    least_share : of the image's border that must be of that colour.

    The background's colour is a smooth surface in CIELAB, fitted to the image's border and then
    to all that lies near it. What is near it and connected to the border is background; so are
    soft shadows on it and large enclosed patches of it. Pixels at the edge get the alpha that
    mixes them from the colours on either side.
    """
    del online
    progress(Progress("background", 0, 1, "Cutting the object off its plain background"))
    rgb = np.asarray(_at_most(image.convert("RGB"), _PLAIN_SIDE))
    if min(rgb.shape[:2]) < 8:
        raise _NotCutError("the image is too small to tell an object from its background")
    alpha = _edge_alpha(rgb, _background(rgb, least_share))
    _check_share(alpha)
    progress(Progress("background", 1, 1))
    return _with_alpha(rgb, alpha)


def _background(rgb: NDArray[np.uint8], least_share: float) -> NDArray[np.bool_]:
    """Where the plain background of (H, W, 3) sRGB is, (H, W) bool."""
    height, width = rgb.shape[:2]
    # A touch of blur keeps the noise of JPEG below the tolerance and hardly moves an edge.
    lab = ndimage.gaussian_filter(_lab(rgb), (0.7, 0.7, 0), mode="nearest")
    rim = max(1, round(_BORDER * min(height, width)))
    border = np.ones((height, width), dtype=np.bool_)
    border[rim:-rim, rim:-rim] = False

    plate, tolerance, even = _border_color(lab, border, least_share)
    distance = _distance(lab, plate)
    if not even:
        for degree in (3, 4, 5, 5):
            background = _reached(distance < tolerance, border)
            plate = _smooth_surface(lab, background, degree)
            distance = _distance(lab, plate)
            tolerance = _tolerance(distance[background])
    near = distance < tolerance

    slope = _slope(lab)
    alike = near | _shaded(lab, plate, 0.7 * tolerance)
    pixel = _pixel(height, width)
    # Opened, so that the flood does not seep into the object through soft spots of its edge.
    soft = _opened(near | (alike & (slope < _SHADE_SLOPE)), round(2 * pixel))
    background = _reached(_opened(near, round(pixel)) | soft, border)
    # The slope of the object's edge kept the flood a little off it; `_edge_alpha` sets right
    # what this takes of an object that looks like a shadow.
    background = ndimage.binary_dilation(
        background, iterations=round(2 * pixel), mask=background | alike
    )
    background |= _holes(near & ~background, distance, slope, tolerance)
    return _without_crumbs(background)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB (D65) of 8-bit sRGB, over the last axis."""
    linear = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)[rgb]
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    to_xyz /= to_xyz.sum(axis=1, keepdims=True)  # white is (1, 1, 1)
    xyz = linear @ to_xyz.T.astype(np.float32)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return np.asarray(lab, dtype=np.float32)


def _distance(lab: NDArray[np.float32], plate: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIELAB distance of each pixel, (H, W)."""
    difference = lab - plate
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", difference, difference)))


def _tolerance(distance: NDArray[np.float32]) -> float:
    """How far background may stray from its fitted colour, from how far it does."""
    return float(np.clip(4.0 * np.median(distance), *_TOLERANCE))


def _border_color(
    lab: NDArray[np.float32], border: NDArray[np.bool_], least_share: float
) -> tuple[NDArray[np.float32], float, bool]:
    """Colour of the background, judged by the border: (H, W, 3), its tolerance, and if it is even.

    The fit leaves out what stands off it, as an object does that touches the border.
    """
    middle = np.median(lab[border], axis=0)
    distance = np.sqrt(((lab - middle) ** 2).sum(axis=2))
    within = max(2.0 * _TOLERANCE[1], float(np.quantile(distance[border], _PLAIN_SHARE)))
    fitted = border & (distance <= within)
    for degree in (0, 1, 2, 2):
        plate = _smooth_surface(lab, fitted, degree)
        distance = _distance(lab, plate)
        spread = float(np.median(distance[border]))
        tolerance = _tolerance(distance[border])
        if spread < _EVEN_SPREAD:
            break
        fitted = border & (distance < 2.0 * tolerance)
        if not fitted.any():
            break
    share = float((distance[border] < tolerance).mean())
    if spread > _PLAIN_SPREAD or share < least_share:
        raise _NotCutError(
            f"the background is not plain: {share:.0%} of the image's border is of one colour, "
            f"and it takes {least_share:.0%}"
        )
    return plate, tolerance, degree == 0


def _smooth_surface(
    values: NDArray[np.float32], where: NDArray[np.bool_], degree: int
) -> NDArray[np.float32]:
    """Polynomial of total `degree` in x and y fitted to `values` (H, W, C) where `where` holds."""
    height, width = where.shape
    y = _chebyshev(height, degree)
    x = _chebyshev(width, degree)
    pixels = np.flatnonzero(where)
    pixels = pixels[:: max(1, pixels.size // 20_000)]
    rows, columns = np.divmod(pixels, width)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    basis = np.stack([y[rows, i] * x[columns, j] for i, j in terms], axis=1)
    # Ridge on what bends, which else runs wild in the object's middle where nothing is known.
    ridge = np.array([1e-9 if i + j < 2 else 1e-3 for i, j in terms]) * pixels.size
    target = basis.T @ values.reshape(-1, values.shape[2])[pixels]
    weights = np.linalg.solve(basis.T @ basis + np.diag(ridge), target)
    table = np.zeros((degree + 1, degree + 1, values.shape[2]))
    for (i, j), weight in zip(terms, weights, strict=True):
        table[i, j] = weight
    surface = np.einsum("hi,ijc,wj->hwc", y, table, x, optimize=True)
    return np.asarray(surface, dtype=np.float32)


def _chebyshev(count: int, degree: int) -> NDArray[np.float64]:
    """The Chebyshev polynomials up to `degree` at `count` even steps from -1 to 1."""
    angles = np.arccos(np.linspace(-1, 1, count))
    return np.asarray(np.cos(angles[:, None] * np.arange(degree + 1)))


def _slope(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """How fast the colour changes, (H, W): CIELAB a pixel, of an image of 512 px."""
    pixel = _pixel(*lab.shape[:2])
    slopes = [ndimage.gaussian_gradient_magnitude(lab[..., c], pixel) for c in range(3)]
    return np.asarray(pixel * np.sqrt(sum(slope**2 for slope in slopes)), dtype=np.float32)


def _pixel(height: int, width: int) -> float:
    """The side of a pixel of the same image at 512 px, in px; at least 1."""
    return max(1.0, max(height, width) / 512)


def _shaded(
    lab: NDArray[np.float32], plate: NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """Where a pixel is the background in shadow or in a bright spot, (H, W)."""
    # Less light scales linear RGB, and so X, Y and Z; their cube roots, of which L + 16, a and b
    # are made, scale along.
    offset = np.array([16, 0, 0], dtype=np.float32)
    seen, plain = lab + offset, plate + offset
    strength = np.maximum(np.einsum("hwc,hwc->hw", plain, plain), 1.0)
    scale = np.einsum("hwc,hwc->hw", seen, plain) / strength
    hue = _distance(seen, scale[..., None] * plain)
    alike = hue < max(tolerance, _TOLERANCE[0])
    return np.asarray(alike & (scale > _SHADE[0]) & (scale < _SHADE[1]))


def _opened(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """`mask` without what is thinner than twice `radius` px; beyond the image it goes on."""
    padded = np.pad(mask, 2 * radius, mode="edge")
    opened: NDArray[np.bool_] = ndimage.binary_opening(padded, iterations=radius)
    return opened[2 * radius : -2 * radius, 2 * radius : -2 * radius]


def _reached(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of `mask` that are connected to `seeds`."""
    labels, sizes = _pieces(mask)
    keep = np.zeros(sizes.size + 1, dtype=np.bool_)
    keep[labels[seeds]] = True
    keep[0] = False
    return keep[labels]


def _holes(
    candidates: NDArray[np.bool_],
    distance: NDArray[np.float32],
    slope: NDArray[np.float32],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Background seen through the object, as in a handle: large, even and truly of its colour."""
    labels, sizes = _pieces(candidates)
    numbers = np.arange(1, sizes.size + 1)
    keep = np.zeros(sizes.size + 1, dtype=np.bool_)
    if sizes.size:
        keep[1:] = (
            (sizes > _HOLE * labels.size)
            & (ndimage.median(distance, labels, numbers) < 0.5 * tolerance)
            & (ndimage.median(slope, labels, numbers) < _SHADE_SLOPE)
        )
    return keep[labels]


def _without_crumbs(background: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The background with all but the larger pieces of the object turned into background."""
    pieces, sizes = _pieces(~background, corners=True)
    if sizes.size == 0:
        return background
    crumbs = np.concatenate([[False], sizes < _CRUMB * sizes.max()])
    return np.asarray(background | crumbs[pieces])


def _edge_alpha(rgb: NDArray[np.uint8], background: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Alpha (H, W) in 0..1: 0 and 1 off the object's edge, and what mixes the colours along it."""
    reach = round(2 * _pixel(*background.shape))
    # Nothing is known beyond the image: an object that touches the border goes on there.
    inner = ndimage.binary_erosion(~background, iterations=reach, border_value=1)
    outer = ndimage.binary_erosion(background, iterations=reach, border_value=1)
    alpha = (~background).astype(np.float32)
    if not inner.any() or not outer.any():
        return alpha
    edge = ~inner & ~outer
    object_color, object_distance = _nearest(rgb, inner, edge)
    plain_color, plain_distance = _nearest(rgb, outer, edge)
    contrast = object_color - plain_color
    strength = (contrast**2).sum(axis=1)
    mixed = ((rgb[edge] - plain_color) * contrast).sum(axis=1) / np.maximum(strength, 1.0)
    # Not where both sides look alike, nor on a part too thin to have an inside.
    known = (strength > 24.0**2) & (np.maximum(object_distance, plain_distance) <= 2.5 * reach)
    alpha[edge] = np.where(known, np.clip(mixed, 0.0, 1.0), alpha[edge])
    return alpha


def _nearest(
    rgb: NDArray[np.uint8], source: NDArray[np.bool_], at: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour (N, 3) of the pixel in `source` nearest to each of the N `at`, and its distance."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~source, return_indices=True)
    return rgb[rows[at], columns[at]].astype(np.float32), distance[at].astype(np.float32)


def _check_share(alpha: NDArray[np.float32]) -> None:
    """Refuses a cut-out that keeps next to nothing or next to everything."""
    share = float((alpha > 0.5).mean())
    if share < _SHARE[0]:
        raise _NotCutError("it found no object in the image")
    if share > _SHARE[1]:
        raise _NotCutError("it found no background in the image")


def _with_alpha(rgb: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, 4) of both, with the background's tint taken off the soft edge.

    A pixel of the edge shows some background; it takes the colour of the nearest solid pixel.
    """
    rgba = np.dstack([rgb, np.rint(alpha * 255.0).astype(np.uint8)])
    solid, soft = alpha > 0.98, (alpha > 0.0) & (alpha <= 0.98)
    if solid.any() and soft.any():
        color, distance = _nearest(rgb, solid, soft)
        close = distance[:, None] <= 8 * _pixel(*alpha.shape)
        rgba[soft, :3] = np.where(close, color, rgba[soft, :3])
    rgba[rgba[..., 3] == 0] = 0
    return rgba


# ---------------------------------------------------------------------------------------- framing

_SPECK = 0.01  # of the largest piece: smaller ones do not count for the bounding box


def frame(
    rgba: NDArray[np.uint8] | Image.Image, size: int, *, fill: float, alpha_threshold: float = 0.5
) -> NDArray[np.uint8]:
    """The object cropped, centred and scaled by one rule: (size, size, 4) uint8, straight alpha.

    The bounding box of all pixels with alpha > `alpha_threshold` (0..1), without specks that are
    smaller than a hundredth of the largest connected piece, is centred in the frame, its longer
    side `fill` (0..1) of the frame's. Beyond the image all is transparent. An image that is framed
    so already, but for a pixel or so at the edge, is returned unchanged.

    rgba : (H, W, 4) uint8, straight alpha.

    Raises XRayError `no_object` where no pixel is opaque enough.
    """
    pixels = np.asarray(rgba)
    left, top, right, bottom = _bounding_box(pixels[..., 3] > 255.0 * alpha_threshold)
    longer = max(right - left, bottom - top)
    middle = ((left + right) / 2, (top + bottom) / 2)
    off_center = max(abs(middle[0] - size / 2), abs(middle[1] - size / 2))
    if pixels.shape[:2] == (size, size) and abs(longer - fill * size) < 1.5 and off_center <= 0.5:
        framed = pixels.copy()
    else:
        framed = _resampled(pixels, middle, longer / fill, size)
    framed[framed[..., 3] == 0] = 0
    return framed


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the larger pieces of `mask`, in px; the last two exclusive."""
    pieces, sizes = _pieces(mask, corners=True)
    if sizes.size == 0:
        raise XRayError(
            "no_object",
            "There is no object in the image: all of it is transparent.",
            "Choose an image that shows one object, or another way to remove the background.",
        )
    large = np.concatenate([[False], sizes >= _SPECK * sizes.max()])
    shown = large[pieces]
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _pieces(
    mask: NDArray[np.bool_], *, corners: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected pieces of `mask`: their numbers from 1, 0 outside (H, W), and their sizes in px.

    corners : whether pixels that touch only at a corner are connected.
    """
    labels: NDArray[np.int32]
    labels, count = ndimage.label(mask, np.ones((3, 3)) if corners else None)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]


def _resampled(
    pixels: NDArray[np.uint8], middle: tuple[float, float], side: float, size: int
) -> NDArray[np.uint8]:
    """The square of `side` px around `middle` (x, y) of an RGBA image, at size x size."""
    height, width = pixels.shape[:2]
    left, top = (int(np.floor(m - side / 2)) for m in middle)
    # Whole blocks of pixels are averaged first where four a pixel of the frame remain: much faster.
    block = max(1, int(side / (4 * size)))
    span = block * (int(side / block) + 2)
    canvas = np.zeros((span, span, 4), dtype=np.uint8)
    x0, x1 = max(left, 0), min(left + span, width)
    y0, y1 = max(top, 0), min(top + span, height)
    canvas[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    if block > 1:
        canvas = np.asarray(Image.fromarray(canvas).reduce(block))  # premultiplies by itself
    x, y = (middle[0] - side / 2 - left) / block, (middle[1] - side / 2 - top) / block
    box = (x, y, x + side / block, y + side / block)
    alpha = canvas[..., 3].astype(np.float32) / np.float32(255.0)
    opacity = _resized(alpha, box, size)
    # Colours weighted by their alpha, else transparent pixels would tint the edge. In floats, as
    # the filter overshoots: alpha cut to 1 beside colours that are not gives a bright outline.
    weight = np.where(opacity > 0.5 / 255.0, opacity, np.inf)
    planes = [_resized(canvas[..., c] * alpha, box, size) / weight for c in range(3)]
    framed = np.stack([*planes, 255.0 * opacity], axis=-1)
    return np.asarray(np.rint(np.clip(framed, 0.0, 255.0)), dtype=np.uint8)


def _resized(
    plane: NDArray[np.float32], box: tuple[float, float, float, float], size: int
) -> NDArray[np.float32]:
    """What `box` (left, top, right, bottom) holds of `plane` (H, W), at size x size."""
    # Pillow widens the filter when it reduces. Bicubic, since the second lobe of a Lanczos
    # filter draws a faint second outline around a cut-out.
    image = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.float32)
