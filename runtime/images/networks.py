"""Cuts out the object with a network: one of rembg's, or the small one that comes with X-Ray."""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from xray_addon.progress import Progress

from .masks import NotCutError, check_share, labelled_pieces, pixel_scale, with_alpha
from .plain_background import PLAIN_SIDE
from .reading import at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xray_addon.progress import ProgressCallback

# rembg's networks in order of preference. If none is installed, the first is downloaded. It is not
# rembg's default, whose licence requires payment for commercial use.
REMBG_MODELS = ("u2net", "isnet-general-use", "bria-rmbg")


def by_rembg(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The object, cut out by one of rembg's networks."""
    model, path = next(
        ((m, p) for m in REMBG_MODELS for p in weights_paths(m) if p.exists()),
        (REMBG_MODELS[0], None),
    )
    if path is None and not online:
        folder = weights_paths(model)[0].parent
        raise NotCutError(
            f"its model file {model}.onnx is not in {folder} and online access is off"
        )
    loading = "Loading rembg" if path else "Fetching rembg's model (170 MB) and loading it"
    progress(Progress("background", 0, 2, loading))
    failures = _rembg_failures()
    try:
        session = _rembg_session(model, str(path or ""))
    except failures as error:
        raise NotCutError(_rembg_reason(error, path)) from error
    progress(Progress("background", 1, 2, "Removing the background"))
    rgb = image.convert("RGB")
    try:
        mask = session.predict(rgb)[0]
    except failures as error:
        raise NotCutError(_rembg_reason(error, path)) from error
    alpha = np.asarray(mask.convert("L"), dtype=np.float32) / 255.0
    check_share(alpha)
    progress(Progress("background", 2, 2))
    return with_alpha(np.asarray(rgb), alpha)


def weights_paths(model: str) -> tuple[Path, Path]:
    """Where rembg keeps the weights of `model`: now, and in older versions."""
    # The same rule as rembg's BaseSession, whose import can take a minute; a test compares them.
    data, set_home = os.environ.get("XDG_DATA_HOME"), os.environ.get("U2NET_HOME")
    old = set_home or os.path.join(data if data is not None else "~", ".u2net")
    home = set_home or os.environ.get(
        "REMBG_HOME", os.path.join(data, "rembg") if data else os.path.join("~", ".rembg")
    )
    file = f"{model}.onnx"
    return Path(home).expanduser() / "models" / model / file, Path(old).expanduser() / file


@lru_cache(maxsize=1)
def _rembg_session(model: str, path: str) -> Any:
    """A loaded network of rembg. `path` is part of the cache key: another file, another session."""
    del path
    with _numba_off():
        rembg = importlib.import_module("rembg")
    return rembg.new_session(model)


@contextmanager
def _numba_off() -> Iterator[None]:
    """Let functions of modules that are imported meanwhile be plain Python.

    rembg imports PyMatting, which is not used here and would compile itself for a minute, the
    first time after it is installed.
    """
    config = importlib.import_module("numba").config
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        yield
    finally:
        config.DISABLE_JIT = before


def release_rembg() -> None:
    """Free the memory of rembg's networks; the next use loads them again."""
    _rembg_session.cache_clear()
    _built_in_session.cache_clear()


def _rembg_failures() -> tuple[type[BaseException], ...]:
    """The exceptions of rembg offline, with broken weights and after an incomplete install."""
    usual = (ImportError, OSError, ValueError, RuntimeError, MemoryError)
    try:
        state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    except ImportError:
        return (*usual, SystemExit)  # rembg exits the process if onnxruntime is not installed
    # onnxruntime's errors have no common base class.
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (*usual, *(kind for kind in kinds if issubclass(kind, Exception)))


def _rembg_reason(error: BaseException, path: Path | None) -> str:
    """Why rembg failed, as one line."""
    if isinstance(error, ImportError | SystemExit):
        return "it is not installed in the runtime"
    detail = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    if path is None:
        return f"its model file could not be fetched ({detail})"
    return f"it failed with {path}, which may be damaged ({detail})"


# ------------------------------------------------------------------------------- built-in network

BUILT_IN_WEIGHTS = Path(__file__).parents[1] / "weights" / "segmentation.onnx"
_SEEN_SIZE = (320, 320)  # px, as for U2-Net
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as for U2-Net
_DOUBT = 0.3  # maximum uncertainty per object pixel: above it, one cut-out in twenty is useful
_GUIDE_RADIUS = 10  # px, in an image of 512 px
_GUIDE_NOISE = 1e-4  # variance of grey 0..1; below it there is no edge to follow
_GAP = 0.02  # of the object: smaller gaps within it are filled
_STEEPNESS = 4.0  # pushes uncertain values to object or background, except at the very edge


def by_built_in(image: Image.Image, online: bool, progress: ProgressCallback) -> NDArray[np.uint8]:
    """The object, cut out by the small network that comes with X-Ray."""
    del online
    if not BUILT_IN_WEIGHTS.is_file():
        raise NotCutError(f"its model file {BUILT_IN_WEIGHTS} is not there")
    progress(Progress("background", 0, 2, "Loading the built-in network"))
    failures = _rembg_failures()
    rgb = at_most(image.convert("RGB"), PLAIN_SIDE)
    try:
        session = _built_in_session()
        progress(Progress("background", 1, 2, "Removing the background"))
        seen = (_seen(session, rgb) + _seen(session, ImageOps.mirror(rgb))[:, ::-1]) / 2
    except failures as error:
        raise NotCutError(_rembg_reason(error, BUILT_IN_WEIGHTS)) from error
    if float(np.minimum(seen, 1 - seen).sum()) > _DOUBT * float((seen > 0.5).sum()):
        raise NotCutError("it is unsure what in the image is the object")
    pixels = np.asarray(rgb)
    soft = np.asarray(Image.fromarray(seen).resize(rgb.size, Image.Resampling.BICUBIC))
    alpha = np.clip(0.5 + _STEEPNESS * (_guided(soft, pixels) - 0.5), 0.0, 1.0)
    gaps, sizes = labelled_pieces(alpha <= 0.5)
    alpha[np.concatenate([[False], sizes < _GAP * (alpha > 0.5).sum()])[gaps]] = 1.0
    check_share(alpha)
    progress(Progress("background", 2, 2))
    return with_alpha(pixels, alpha)


@lru_cache(maxsize=1)
def _built_in_session() -> Any:
    """The built-in network."""
    return importlib.import_module("onnxruntime").InferenceSession(
        BUILT_IN_WEIGHTS, providers=["CPUExecutionProvider"]
    )


def _seen(session: Any, rgb: Image.Image) -> NDArray[np.float32]:
    """The probability that each pixel belongs to the object, 0..1, at the network's size."""
    photo = np.asarray(rgb.resize(_SEEN_SIZE, Image.Resampling.LANCZOS), dtype=np.float32)
    photo = (photo / max(float(photo.max()), 1e-6) - _MEAN) / _DEVIATION
    (alpha,) = session.run(None, {"photo": photo.transpose(2, 0, 1)[None].astype(np.float32)})
    return np.asarray(alpha[0, 0], dtype=np.float32)


def _guided(alpha: NDArray[np.float32], rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Alpha (H, W) with its edges moved to those of the image (H, W, 3).

    He, Sun and Tang, "Guided image filtering" (TPAMI 2013), guided by grey.
    """
    side = 2 * round(_GUIDE_RADIUS * pixel_scale(*alpha.shape)) + 1

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(ndimage.uniform_filter(values, side, mode="nearest"))

    grey = rgb.astype(np.float32).mean(axis=2) / np.float32(255)
    grey_mean, alpha_mean = mean(grey), mean(alpha)
    variance = mean(grey * grey) - grey_mean**2
    slope = (mean(grey * alpha) - grey_mean * alpha_mean) / (variance + _GUIDE_NOISE)
    offset = alpha_mean - slope * grey_mean
    return mean(slope) * grey + mean(offset)
