"""An omage as pictures, for viewing, and for editing in any image tool and reading back.

A folder of pictures contains `geometry.png`, 16-bit RGBA of position and occupancy; `albedo.png`,
sRGB-encoded; `metallic_roughness.png`, with roughness in green and metallic in blue as in glTF;
and `normal.png`, which is optional. The first row of a picture is the top of the UV map.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..color import linear_to_srgb, srgb_to_linear
from ..errors import XRayError
from ..files.png import read_png, write_png
from .image import CHANNELS, UINT16_MAX, OmageImage, bad_omage
from .normals import estimated_normals
from .resampling import OCCUPANCY, OCCUPIED

GEOMETRY, ALBEDO, METALLIC_ROUGHNESS, NORMAL = (
    "geometry.png",
    "albedo.png",
    "metallic_roughness.png",
    "normal.png",
)
# The views of an omage, in this order, and what each shows.
MEANINGS = {
    "position": "Where each pixel lies in space, as colours",
    "patches": "The patches of the UV map, a colour each",
    "normal": "The normals, as colours",
    "albedo": "The base colour, to paint on",
    "metallic": "How metallic the surface is",
    "roughness": "How rough the surface is",
}
VIEWS = tuple(MEANINGS)
_GOLDEN_ANGLE = 0.381966  # of the hue circle, so that neighbouring patches differ

Floats = NDArray[np.float64]


def views(omage: OmageImage) -> dict[str, NDArray[np.float32]]:
    """Pictures (R, R, 4), 0 to 1, by name (see `VIEWS`); row 0 is at the top.

    Unoccupied pixels are transparent. The albedo is sRGB-encoded. An omage with only geometry has
    only the first two.
    """
    occupied = omage.occupied
    found: dict[str, Floats] = {
        "position": omage.channels(0, 3),
        "patches": _hues(omage.patches),
    }
    if omage.has_material:
        found |= {
            "normal": omage.channels(4, 7),
            "albedo": linear_to_srgb(omage.albedo),
            "metallic": np.repeat(omage.metallic[..., None], 3, axis=2),
            "roughness": np.repeat(omage.roughness[..., None], 3, axis=2),
        }
    return {
        name: np.concatenate([values, occupied[..., None]], axis=2)[::-1].astype(np.float32)
        for name, values in found.items()
    }


def from_channels(
    geometry: NDArray[np.floating],
    albedo: NDArray[np.floating],
    metallic: NDArray[np.floating],
    roughness: NDArray[np.floating],
    normal: NDArray[np.floating] | None = None,
) -> Floats:
    """The values (R, R, 12) of an omage from pictures, 0 to 1, with row 0 at the top.

    geometry : (R, R, 4). albedo : (R, R, 3), sRGB-encoded. metallic, roughness : (R, R). normal :
    (R, R, 3), (n + 1) / 2; estimated by default.

    Raises XRayError `bad_omage`.
    """
    sizes = {picture.shape[:2] for picture in (geometry, albedo, metallic, roughness)}
    if normal is not None:
        sizes.add(normal.shape[:2])
    if len(sizes) != 1:
        raise bad_omage(f"its pictures have different sizes: {sorted(sizes)}")
    height, width = sizes.pop()
    values = np.zeros((height, width, CHANNELS))
    values[..., :4] = geometry
    values[..., 7:10] = srgb_to_linear(np.asarray(albedo, np.float64))
    values[..., 10], values[..., 11] = metallic, roughness
    values = values[::-1]
    occupied = values[..., OCCUPANCY] > OCCUPIED
    if normal is not None:
        values[..., 4:7] = normal[::-1]
    else:
        values[..., 4:7] = (estimated_normals(occupied, values[..., :3] * 2 - 1) + 1) / 2
    values[~occupied] = 0
    return values


def write_pictures(folder: str | PathLike[str], omage: OmageImage) -> None:
    """Write `omage` as a folder of 16-bit PNG files, each atomically.

    Raises XRayError `bad_omage` if it has only geometry.
    """
    if not omage.has_material:
        raise bad_omage("it has geometry alone, and pictures show the material too")
    empty = np.zeros_like(omage.metallic)
    for name, picture in (
        (GEOMETRY, omage.channels(0, 4)),
        (ALBEDO, linear_to_srgb(omage.albedo)),
        (METALLIC_ROUGHNESS, np.stack([empty, omage.roughness, omage.metallic], axis=2)),
        (NORMAL, omage.channels(4, 7)),
    ):
        scaled = np.rint(np.clip(picture[::-1], 0, 1) * UINT16_MAX)
        write_png(Path(folder) / name, scaled.astype(np.uint16))


def read_pictures(folder: str | PathLike[str]) -> tuple[Floats, tuple[str, ...]]:
    """The values (R, R, 12) of an omage in a folder of PNG files, and sentences on what is missing.

    Raises XRayError `missing_file`, `bad_omage`.
    """
    folder, notes = Path(folder), []
    geometry, bits = _read(folder / GEOMETRY, 4)
    if bits == 8:
        notes.append(
            f"{GEOMETRY} has 8 bits a channel: places are rounded to 1/255 of the object's size, "
            "and the mesh has steps. Save it with 16 bits."
        )
    albedo, _ = _read(folder / ALBEDO, 3)
    material, _ = _read(folder / METALLIC_ROUGHNESS, 3)
    normal = None
    if (folder / NORMAL).is_file():
        normal, _ = _read(folder / NORMAL, 3)
    else:
        notes.append(f"There is no {NORMAL}: the normals are estimated from the positions.")
    values = from_channels(geometry, albedo[..., :3], material[..., 2], material[..., 1], normal)
    return values, tuple(notes)


def _read(path: Path, channels: int) -> tuple[Floats, int]:
    """The first `channels` of a picture as floats 0 to 1, and its bits per channel."""
    try:
        image: NDArray[Any] = read_png(path)
    except FileNotFoundError as error:
        raise XRayError(
            "missing_file",
            f"There is no file {path}.",
            f"A folder of pictures holds {GEOMETRY}, {ALBEDO} and {METALLIC_ROUGHNESS}.",
        ) from error
    except (OSError, ValueError) as error:
        raise bad_omage(f"it cannot be read ({error})", str(path)) from error
    if image.shape[2] < channels:
        # Some tools save colourless pictures as greyscale.
        if channels == 4 or image.shape[2] == 0:
            raise bad_omage(f"it has {image.shape[2]} channels, not 4", str(path))
        image = np.repeat(image[..., :1], 3, axis=2)
    scale = np.iinfo(image.dtype).max
    return image[..., :channels] / scale, 8 * image.dtype.itemsize


def _hues(patches: NDArray[np.int64]) -> Floats:
    """A colour (R, R, 3) for each patch."""
    hue = patches * _GOLDEN_ANGLE % 1
    offset = np.abs((hue[..., None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return np.clip(offset, 0, 1) * 0.65 + 0.3
