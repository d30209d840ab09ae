"""What a generator gives back, and the file it travels in between processes."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .errors import XRayError
from .files.arrays import read_arrays
from .files.atomic import replacing
from .surface import Material, Surface
from .xray import XRay

LARGEST_RESULT = 1 << 31  # bytes


@dataclass(frozen=True, eq=False)
class CutOut:
    """The object of an image as a generator sees it.

    picture : (S, S, 4) uint8, straight alpha; the object centred.
    how : what told it from its background, such as "alpha" or "plain".
    """

    picture: NDArray[np.uint8]
    how: str


@dataclass(frozen=True, eq=False)
class Generated:
    """A mesh from one image.

    surface : in world space, z up, centred near the origin, the viewer on the -y side.
    xray : the predicted layers, where the generator has them.
    camera : the view that the image was taken as.
    """

    surface: Surface
    xray: XRay | None
    camera: Camera

    def save(self, path: str | PathLike[str]) -> None:
        """Write one uncompressed `.npz`, atomically."""
        arrays: dict[str, NDArray[Any]] = {
            f"surface.{name}": value
            for name in (
                "vertices",
                "faces",
                "corner_normals",
                "corner_uvs",
                "corner_colors",
                "face_material",
            )
            if (value := getattr(self.surface, name)) is not None
        }
        arrays["surface.base_colors"] = np.array(
            [material.base_color for material in self.surface.materials]
        ).reshape(-1, 3)
        arrays |= {
            f"texture.{number}": material.texture
            for number, material in enumerate(self.surface.materials)
            if material.texture is not None
        }
        camera = self.camera
        arrays["camera.matrix"] = camera.camera_to_world
        arrays["camera.lens"] = np.array(
            [camera.width, camera.height, camera.fov_x, camera.cx, camera.cy, camera.pixel_offset]
        )
        if self.xray is not None:
            arrays |= {
                "xray.shape": np.array(self.xray.shape),
                "xray.index": self.xray.index,
                "xray.depth": self.xray.hit_depth,
                "xray.normal": self.xray.hit_normal,
                "xray.color": self.xray.hit_color,
                "xray.dropped": np.array(self.xray.dropped),
            }
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Generated:
        """Read what `save` wrote; raises XRayError `bad_result` for anything else."""
        try:
            arrays = read_arrays(path, largest=LARGEST_RESULT)
            surface = Surface(
                **{
                    name.removeprefix("surface."): value
                    for name, value in arrays.items()
                    if name.startswith("surface.") and name != "surface.base_colors"
                },
                materials=[
                    Material(tuple(color), arrays.get(f"texture.{number}"))
                    for number, color in enumerate(arrays["surface.base_colors"].tolist())
                ],
            )
            width, height, fov_x, cx, cy, offset = arrays["camera.lens"].tolist()
            camera = Camera(int(width), int(height), fov_x, arrays["camera.matrix"], cx, cy, offset)
            xray = None
            if "xray.index" in arrays:
                shape = arrays["xray.shape"].tolist()
                xray = XRay.from_hits(
                    (shape[0], shape[1], shape[2]),
                    arrays["xray.index"],
                    arrays["xray.depth"],
                    arrays["xray.normal"],
                    arrays["xray.color"],
                    int(arrays["xray.dropped"]),
                )
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise XRayError(
                "bad_result", f"The result file {path} cannot be read ({error}).", "Generate again."
            ) from error
        return cls(surface, xray, camera)
