"""`Omage`: an object as one square image over the charts of its UV map.

`OmageImage` describes the pixels; `Omage` adds files, and conversion from and to surfaces.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from . import files, pictures
from .decoding import decoded
from .encoding import EncodingReport, Unwrap, encode
from .image import OmageImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..progress import ProgressCallback
    from ..surface import Surface


class Omage(OmageImage):
    """An omage of R x R pixels.

    Raises XRayError `bad_omage` for arrays of a wrong shape or type and for values out of range.
    """

    def decode(self, stitch: bool = False) -> Surface:
        """The object as a surface with UVs and, if the omage has one, a material.

        stitch : close the seams between patches; see `OmageMesh.stitched`.

        Raises XRayError `empty_omage`.
        """
        return decoded(self, stitch)

    @classmethod
    def encode(
        cls,
        surface: Surface,
        resolution: int = 1024,
        *,
        patches: int = 128,
        unwrap: Unwrap | None = None,
    ) -> Self:
        """The omage of a surface (z up); see `encoding.encode`.

        Raises XRayError `no_faces`, `needs_unwrap`, `no_charts`, `bad_settings`.
        """
        return cls.encoded(surface, resolution, patches=patches, unwrap=unwrap)[0]

    @classmethod
    def encoded(
        cls,
        surface: Surface,
        resolution: int = 1024,
        *,
        patches: int = 128,
        smallest: int = 64,
        part: NDArray[np.integer] | None = None,
        unwrap: Unwrap | None = None,
        progress: ProgressCallback | None = None,
    ) -> tuple[Self, EncodingReport]:
        """The omage of a surface, and the report; see `encoding.encode`."""
        values, report = encode(
            surface,
            resolution,
            patches=patches,
            smallest=smallest,
            part=part,
            unwrap=unwrap,
            progress=progress,
        )
        return cls(values), report

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a published `.npz` or `.npy`, or a folder of pictures; `notes` say what is missing.

        Raises XRayError `missing_file`, `bad_omage`.
        """
        if Path(path).is_dir():
            return cls(*pictures.read_pictures(path))
        return cls(files.read_values(path))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the published `.npz`, atomically."""
        files.write_values(path, self.to_uint16())
