"""Mesh files in and out of the runtime, through trimesh. Files are y up, a `Surface` is z up."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from xray_addon.color import linear_to_srgb, srgb_to_linear
from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.surface import Material, Surface

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])


def read_mesh(path: str | PathLike[str], *, texture_size: int | None = None) -> Surface:
    """The triangles of a mesh file (GLB, OBJ, PLY, ...) as one `Surface`, z up.

    texture_size : reduce textures to at most this many pixels a side.

    Raises XRayError `unreadable_mesh` for files that cannot be read or hold no triangles.
    """
    try:
        scene = trimesh.load_scene(Path(path))
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise XRayError(
            "unreadable_mesh", f"{path} cannot be read as a mesh ({error}).", "Check the file."
        ) from error
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise XRayError(
            "unreadable_mesh", f"{path} holds no triangles.", "Choose a file with a mesh in it."
        )
    materials = [_material(part, texture_size) for part in parts]
    counts = [len(part.faces) for part in parts]
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    normals = np.concatenate([part.vertex_normals[part.faces] for part in parts])
    return Surface(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        corner_normals=normals,
        corner_uvs=np.concatenate([_corner_uvs(part) for part in parts]),
        corner_colors=np.concatenate([_corner_colors(part) for part in parts]),
        face_material=np.repeat(np.arange(len(parts)), counts),
        materials=materials,
    ).transformed(Y_UP_TO_Z_UP)


def write_glb(path: str | PathLike[str], surface: Surface) -> None:
    """Write a GLB with normals and colours, atomically; y up as glTF asks.

    Colours are the texture where the surface has one material with a texture, else those of the
    vertices, in linear light as glTF asks. A vertex whose corners differ becomes several.
    """
    turned = surface.transformed(np.linalg.inv(Y_UP_TO_Z_UP))
    columns: dict[str, NDArray[Any]] = {}
    if turned.corner_normals is not None:
        columns["normals"] = turned.corner_normals.reshape(-1, 3).astype(np.float32)
    texture = turned.materials[0].texture if len(turned.materials) == 1 else None
    if texture is not None and turned.corner_uvs is not None:
        columns["uvs"] = turned.corner_uvs.reshape(-1, 2).astype(np.float32)
    else:
        columns["colors"] = _linear_bytes(turned.corner_colors, 3 * len(turned.faces))
    first, faces = _merged_corners(turned.faces, columns)
    normals = columns.get("normals")
    mesh = trimesh.Trimesh(
        turned.vertices[turned.faces.reshape(-1)[first]],
        faces,
        vertex_normals=normals[first] if normals is not None else None,
        process=False,
    )
    if texture is not None and "uvs" in columns:
        visual: Any = trimesh.visual
        material = visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(texture), metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh.visual = visual.TextureVisuals(columns["uvs"][first], material=material)
    else:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=columns["colors"][first])
    payload: Any = mesh.export(file_type="glb", include_normals=normals is not None)
    with replacing(path) as temporary:
        temporary.write_bytes(payload)


def _linear_bytes(colors: NDArray[np.floating] | None, count: int) -> NDArray[np.uint8]:
    """(count, 4) of sRGB-encoded colours (..., 3): vertex colours travel as bytes."""
    linear = np.full((count, 4), 255, np.uint8)
    if colors is not None:
        light = srgb_to_linear(np.clip(colors.reshape(-1, 3), 0, 1))
        linear[:, :3] = np.rint(light * 255)
    return linear


def _merged_corners(
    faces: NDArray[np.integer], columns: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Corners that are alike made one: a corner (N,) for each that is left, and faces (M, 3).

    columns : (3 M, ...) of whole 32 bits; alike are corners with the same vertex and bits here.
    """
    number = faces.reshape(-1).astype(np.int64)
    used = np.zeros(int(number.max(initial=-1)) + 1, bool)
    used[number] = True
    number = (np.cumsum(used) - 1)[number]
    first = np.zeros(int(used.sum()), np.int64)
    first[number] = np.arange(len(number))
    for values in columns.values():
        for bits in np.ascontiguousarray(values).view(np.uint32).T:
            # Mostly the corners of a vertex agree, and nothing has to be sorted.
            if not np.array_equal(bits[first][number], bits):
                key = number.astype(np.uint64) << np.uint64(32) | bits
                _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return first, number.reshape(-1, 3)


def _material(part: Any, texture_size: int | None) -> Material:
    """The part's base colour factor (glTF: linear) and texture."""
    material = getattr(part.visual, "material", None)
    if material is None:
        return Material()
    if isinstance(material, trimesh.visual.material.SimpleMaterial):
        # Wavefront colours are used as they are written.
        base = _factor(material.diffuse) if material.image is None else np.ones(3)
        image = material.image
    else:
        factor = getattr(material, "baseColorFactor", None)
        base = np.ones(3) if factor is None else linear_to_srgb(_factor(factor))
        image = getattr(material, "baseColorTexture", None)
    color = tuple(float(c) for c in np.clip(base, 0, 1))
    return Material((color[0], color[1], color[2]), _texture(image, texture_size))


def _factor(value: Any) -> NDArray[np.float64]:
    array = np.asarray(value)
    scale = 255.0 if array.dtype == np.uint8 else 1.0
    return array.astype(np.float64).reshape(-1)[:3] / scale


def _texture(image: Image.Image | None, size: int | None) -> NDArray[np.uint8] | None:
    if image is None:
        return None
    image = image.convert("RGB")
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.BOX)
    return np.asarray(image)


def _corner_uvs(part: Any) -> NDArray[np.floating]:
    uv = getattr(part.visual, "uv", None)
    if uv is None or len(uv) != len(part.vertices):
        return np.zeros((len(part.faces), 3, 2))
    return np.asarray(uv)[part.faces]


def _corner_colors(part: Any) -> NDArray[np.floating]:
    """Vertex colours where the part has them, else white."""
    visual = part.visual
    colors = None
    if visual.kind == "vertex":
        colors = visual.vertex_colors
    elif visual.kind == "texture":
        colors = visual.vertex_attributes.get("color")
    elif visual.kind == "face":
        return np.repeat(visual.face_colors[:, None, :3] / 255.0, 3, axis=1)
    if colors is None or len(colors) != len(part.vertices):
        return np.ones((len(part.faces), 3, 3))
    return linear_to_srgb(np.asarray(colors)[:, :3] / 255.0)[part.faces]
