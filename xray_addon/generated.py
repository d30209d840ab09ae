"""The result of a generator, and the file that passes it between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .errors import XRayError
from .files.arrays import read_arrays
from .files.atomic import replacing
from .surface import INTERPOLATIONS, TEXTURES, WRAPS, Material, Surface
from .xray import XRay

LARGEST_RESULT = 1 << 31  # bytes

AT_BORDER = 0.03  # share of an image's side

_FACTORS = ("alpha_threshold", "metallic", "roughness")


@dataclass(frozen=True, eq=False)
class CutOut:
    """The object of an image as a generator sees it.

    picture : (S, S, 4) uint8, straight alpha; the object is centred.
    how : the method that separated it from the background, e.g. "alpha" or "plain".
    at_border : whether it reaches the image's border, so a part of it may be missing.
    """

    picture: NDArray[np.uint8]
    how: str
    at_border: bool = False


def reached_sides(rgba: NDArray[np.uint8]) -> list[str]:
    """The sides of a cut-out image (H, W, 4) of which its object covers more than `AT_BORDER`."""
    solid = rgba[..., 3] > 127
    sides = {"left": solid[:, 0], "right": solid[:, -1], "top": solid[0], "bottom": solid[-1]}
    return [name for name, line in sides.items() if float(line.mean()) > AT_BORDER]


@dataclass(frozen=True, eq=False)
class Generated:
    """The result of a system.

    surface : in world space, z up, centred near the origin, the viewer on the -y side.
    xray : the predicted layers, if the system has them.
    camera : the assumed view of the image, or the view that shows the mesh best.
    pictures : other pictures to show, by name: (H, W, 3 or 4) uint8, row 0 at the top.
    notes : sentences with what the user should know about how it was made.
    chosen : values that the system chose for some settings that were left to it, by name. Given
    these, it makes the same mesh.
    """

    surface: Surface
    xray: XRay | None
    camera: Camera
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    chosen: Mapping[str, str | float] = field(default_factory=dict)

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
        arrays |= _material_arrays(self.surface.materials)
        arrays["pictures"] = np.array(list(self.pictures), dtype=np.str_)
        arrays |= {f"picture.{i}": picture for i, picture in enumerate(self.pictures.values())}
        arrays["notes"] = np.array(list(self.notes), dtype=np.str_)
        arrays["chosen"] = np.array(json.dumps(dict(self.chosen)))
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
        """Read a file written by `save`. Raises XRayError `bad_result` for any other file."""
        try:
            arrays = read_arrays(path, largest=LARGEST_RESULT)
            surface = Surface(
                **{
                    name.removeprefix("surface."): value
                    for name, value in arrays.items()
                    if name.startswith("surface.")
                },
                materials=_materials(arrays),
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
            names = arrays["pictures"].tolist()
            pictures = {name: arrays[f"picture.{i}"] for i, name in enumerate(names)}
            notes = arrays["notes"].tolist()
            chosen = dict(json.loads(str(arrays["chosen"])))
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise XRayError(
                "bad_result", f"The result file {path} cannot be read ({error}).", "Generate again."
            ) from error
        return cls(surface, xray, camera, pictures, notes, chosen)


def _material_arrays(materials: Sequence[Material]) -> dict[str, NDArray[Any]]:
    """The parameters of all materials, one row per material, and their textures."""
    arrays: dict[str, NDArray[Any]] = {
        "materials.base_color": np.array([m.base_color for m in materials]).reshape(-1, 3),
        "materials.factors": np.array(
            [[getattr(m, name) for name in _FACTORS] for m in materials]
        ).reshape(-1, len(_FACTORS)),
        "materials.sampling": np.array(
            [[WRAPS.index(m.wrap), INTERPOLATIONS.index(m.interpolation)] for m in materials],
            dtype=np.int64,
        ).reshape(-1, 2),
    }
    for number, material in enumerate(materials):
        for name in TEXTURES:
            image = getattr(material, name)
            if image is not None:
                arrays[f"material.{number}.{name}"] = image
    return arrays


def _materials(arrays: Mapping[str, NDArray[Any]]) -> list[Material]:
    """The inverse of `_material_arrays`. Raises KeyError and ValueError."""
    base, factors, sampling = (
        arrays[f"materials.{name}"].tolist() for name in ("base_color", "factors", "sampling")
    )
    materials = []
    for number, color in enumerate(base):
        values: dict[str, Any] = dict(zip(_FACTORS, factors[number], strict=True))
        values |= {name: arrays.get(f"material.{number}.{name}") for name in TEXTURES}
        wrap, interpolation = sampling[number]
        values |= {"wrap": WRAPS[wrap], "interpolation": INTERPOLATIONS[interpolation]}
        materials.append(Material(tuple(color), **values))
    return materials
