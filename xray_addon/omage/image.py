"""`OmageImage`: the pixels of an omage and their meaning.

Channels, 0 to 1: 0-2 position, (p + 1) / 2 with z up and the longest side from -1 to 1; 3
occupancy; 4-6 object-space normal, (n + 1) / 2; 7-9 albedo in linear light; 10 metallic; 11
roughness. Row 0 is v = 0, the bottom; unoccupied pixels are 0 in every channel.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import XRayError
from .meshing import OmageMesh
from .patches import label_patches
from .resampling import OCCUPANCY, OCCUPIED, downsample, resample

GEOMETRY_CHANNELS, CHANNELS = 4, 12
LARGEST = 8192  # px, side
UINT16_MAX = 65535
# Largest gap across a seam, in pixels of an image that the object fills: 0.05 at 64 px, as
# published.
STITCH_PIXELS = 1.6

Floats = NDArray[np.floating]


class OmageImage:
    """An omage of R x R pixels, without file formats and conversions; see `Omage`.

    Parameters
    ----------
    values : (R, R, 12), or (R, R, 4) for geometry only; floats 0 to 1, or uint16 in units of
        1 / 65535. The module describes the channels.
    notes : sentences about what was missing in the file and had to be estimated.

    Raises XRayError `bad_omage` for arrays of a wrong shape or type and for values out of range.
    """

    def __init__(self, values: ArrayLike, notes: tuple[str, ...] = ()) -> None:
        self.values = checked(np.asarray(values))
        self.notes = notes

    def __repr__(self) -> str:
        size = self.resolution
        return f"{type(self).__name__}({size}x{size}, {self.values.shape[2]} channels)"

    @property
    def resolution(self) -> int:
        """The side in pixels."""
        return int(self.values.shape[0])

    @property
    def has_material(self) -> bool:
        """Whether there are normals and materials, not only geometry."""
        return self.values.shape[2] == CHANNELS

    def channels(self, start: int, stop: int) -> NDArray[np.float64]:
        """Channels (R, R, stop - start) as floats 0 to 1; 0 for channels that are missing."""
        values = self.values[..., start:stop]
        if values.shape[2] < stop - start:
            return np.zeros((*values.shape[:2], stop - start))
        if values.dtype == np.uint16:
            return values.astype(np.float64) / UINT16_MAX
        return values.astype(np.float64)

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """(R, R) which pixels contain a point of the object."""
        return self.channels(OCCUPANCY, OCCUPANCY + 1)[..., 0] > OCCUPIED

    @property
    def position(self) -> NDArray[np.float64]:
        """(R, R, 3) positions, -1 to 1."""
        return self.channels(0, 3) * 2 - 1

    @property
    def normal(self) -> NDArray[np.float64]:
        """(R, R, 3) object-space normals; (-1, -1, -1) in unoccupied pixels, as published."""
        return self.channels(4, 7) * 2 - 1

    @property
    def albedo(self) -> NDArray[np.float64]:
        """(R, R, 3) base colour in linear light."""
        return self.channels(7, 10)

    @property
    def metallic(self) -> NDArray[np.float64]:
        """(R, R)."""
        return self.channels(10, 11)[..., 0]

    @property
    def roughness(self) -> NDArray[np.float64]:
        """(R, R)."""
        return self.channels(11, 12)[..., 0]

    @property
    def patches(self) -> NDArray[np.int64]:
        """(R, R) the number of each pixel's patch, from 1; 0 for none."""
        return label_patches(self.occupied)

    def resized(self, resolution: int) -> Self:
        """The omage at another resolution: borders snapped if it divides this one, else blended.

        Raises XRayError `bad_settings` for a resolution out of range.
        """
        if not 2 <= resolution <= LARGEST:
            raise XRayError(
                "bad_settings",
                f"An omage can be 2 to {LARGEST} pixels wide, not {resolution}.",
                "Choose a resolution in this range.",
            )
        if resolution == self.resolution:
            return self
        values = self.channels(0, self.values.shape[2])
        if self.resolution % resolution:
            return type(self)(resample(values, resolution))
        small, _ = downsample(values, self.resolution // resolution)
        small[small[..., OCCUPANCY] <= OCCUPIED] = 0.0
        return type(self)(small)

    def mesh(self) -> OmageMesh:
        """The mesh of the pixels, as in the published code.

        Raises XRayError `empty_omage` if it has no face.
        """
        mesh = OmageMesh.of(self.occupied, self.position, self.normal)
        if not len(mesh.faces):
            raise XRayError(
                "empty_omage",
                f"The omage has no face: {int(self.occupied.sum())} of its pixels are occupied.",
                "Its fourth channel must be above 0.5 where the object is. Choose another omage.",
            )
        return mesh

    def to_uint16(self) -> NDArray[np.uint16]:
        """The values as published: times 65535, rounded down."""
        if self.values.dtype == np.uint16:
            return self.values
        # Half floats cannot hold 65535.
        return (self.values.astype(np.float64) * UINT16_MAX).astype(np.uint16)


def checked(values: NDArray[Any]) -> NDArray[Any]:
    """`values`, if they are an omage's; else raises XRayError `bad_omage` with the reason."""
    shape = values.shape
    if (
        values.ndim != 3
        or shape[0] != shape[1]
        or shape[2] not in (GEOMETRY_CHANNELS, CHANNELS)
        or not 2 <= shape[0] <= LARGEST
    ):
        raise bad_omage(f"its shape is {shape}, not (R, R, 12) or (R, R, 4)")
    if values.dtype != np.uint16 and values.dtype.kind != "f":
        raise bad_omage(f"its values are {values.dtype}, neither uint16 nor floats")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise bad_omage(f"{count} of its values are NaN or infinite")
        if values.min() < 0 or values.max() > 1:
            raise bad_omage(f"its values go from {values.min():g} to {values.max():g}, not 0 to 1")
    return values


def bad_omage(reason: str, what: str = "This") -> XRayError:
    """The error if something is not an omage. what : its name."""
    return XRayError(
        "bad_omage",
        f"{what} is not an omage: {reason}.",
        "Choose an omage as X-Ray or the published code writes it: uint16, or floats 0 to 1.",
    )
