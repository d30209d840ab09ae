"""Quantised meshes, small enough to copy thousands of them.

Positions have steps of 1/65535 of the longest side, normals are bytes, texture coordinates have
half precision, textures are small WebP pictures. The file is an `.npz` compressed with xz.
"""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_addon.errors import XRayError
from xray_addon.files.arrays import read_arrays
from xray_addon.files.opening import read_at_most
from xray_addon.surface import Material, Surface

from ..images.reading import open_image

SUFFIX = ".npz.xz"
STEPS = 65535
# For packed and unpacked bytes: five million faces, which take 50 times as much as a `Surface`, or
# a hundred of the scans here.
LARGEST = 1 << 25  # bytes
FARTHEST = 1e12  # scene units
LARGEST_DICTIONARY = 1 << 25  # bytes; maximum dictionary size of xz
TEXTURE_QUALITY = 80


def to_quantised(surface: Surface) -> bytes:
    """The file contents for `surface`. Texture wrapping and interpolation are not stored."""
    low, high = surface.bounds
    size = float((high - low).max()) or 1.0
    corners = surface.faces.reshape(-1)
    positions = np.clip((surface.vertices - low) / size, 0, 1) * STEPS
    columns = [np.rint(positions).astype(np.uint16)[corners]]
    if surface.corner_normals is not None:
        columns.append(np.rint(surface.corner_normals.reshape(-1, 3) * 127).astype(np.int8))
    if surface.corner_colors is not None:
        columns.append(np.rint(surface.corner_colors.reshape(-1, 3) * 255).astype(np.uint8))
    if surface.corner_uvs is not None:
        columns.append(surface.corner_uvs.reshape(-1, 2).astype(np.float16))
    raw = np.concatenate([np.ascontiguousarray(c).view(np.uint8) for c in columns], axis=1)
    _, first, index = np.unique(raw, axis=0, return_index=True, return_inverse=True)
    # Sort vertices in the order of faces, so that neighbours are similar and compress well.
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.uint32)
    place[order] = np.arange(len(order))
    names = ("positions", "normals", "colors", "uvs")
    present = (
        True,
        surface.corner_normals is not None,
        surface.corner_colors is not None,
        surface.corner_uvs is not None,
    )
    kept = [name for name, there in zip(names, present, strict=True) if there]
    arrays = {name: c[first[order]] for name, c in zip(kept, columns, strict=True)}
    arrays["faces"] = place[index.reshape(-1)].reshape(-1, 3)
    if len(order) <= 1 << 16:
        arrays["faces"] = arrays["faces"].astype(np.uint16)
    arrays["frame"] = np.append(low, size)
    if surface.face_material is not None:
        arrays["face_material"] = surface.face_material.astype(np.uint16)
    arrays["base_colors"] = np.array([m.base_color for m in surface.materials]).reshape(-1, 3)
    for number, material in enumerate(surface.materials):
        if material.texture is not None:
            arrays[f"texture{number}"] = _encoded(material.texture)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return lzma.compress(stream.getvalue())


def read_quantised(path: Path) -> Surface:
    """Read a file made by `to_quantised`; raises XRayError `unreadable_mesh`."""
    try:
        arrays = read_arrays(io.BytesIO(_unpacked(path)), largest=LARGEST)
        faces, frame = arrays["faces"], arrays["frame"]
        if faces.dtype.kind not in "iu" or faces.ndim != 2 or faces.shape[1] != 3:
            raise ValueError(f"faces are {faces.shape} {faces.dtype}")
        if frame.shape != (4,) or not (np.abs(frame) < FARTHEST).all():
            raise ValueError("its frame is no place and size")
        faces = faces.astype(np.int64)
        corners = {
            name: arrays[name][faces].astype(np.float64) / scale
            for name, scale in (("normals", 127), ("colors", 255), ("uvs", 1))
            if name in arrays
        }
        return Surface(
            arrays["positions"].astype(np.float64) / STEPS * frame[3] + frame[:3],
            faces,
            corner_normals=corners.get("normals"),
            corner_uvs=corners.get("uvs"),
            corner_colors=corners.get("colors"),
            face_material=arrays.get("face_material"),
            materials=[
                Material((float(r), float(g), float(b)), _decoded(arrays.get(f"texture{number}")))
                for number, (r, g, b) in enumerate(arrays["base_colors"])
            ],
        )
    except (
        XRayError,  # from a texture
        OSError,
        lzma.LZMAError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        EOFError,
    ) as error:
        raise XRayError(
            "unreadable_mesh", f"{path} is not a packed mesh ({error}).", "Pack the meshes again."
        ) from error


def _unpacked(path: Path) -> bytes:
    """The bytes that xz unpacks. Raises OSError, lzma.LZMAError, and ValueError if too many."""
    packed = read_at_most(path, LARGEST)
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_DICTIONARY)
    data = unpacker.decompress(packed, LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it comes to more than {LARGEST} bytes")
    if not unpacker.eof:
        raise EOFError("it ends early")
    return data


def _encoded(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(texture).save(stream, "WEBP", quality=TEXTURE_QUALITY)
    return np.frombuffer(stream.getvalue(), dtype=np.uint8)


def _decoded(encoded: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    if encoded is None:
        return None
    with open_image(encoded.tobytes()) as image:
        return np.asarray(image if image.mode in ("RGB", "RGBA") else image.convert("RGB"))
