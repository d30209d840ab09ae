"""Reads and writes mesh files with trimesh. Files are y up, a `Surface` is z up."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from xray_addon.color import linear_to_srgb, srgb_to_linear
from xray_addon.errors import XRayError
from xray_addon.files import json_schema as schema
from xray_addon.files.atomic import replacing, replacing_together
from xray_addon.files.json_files import parse_json
from xray_addon.files.mesh_formats import check_format
from xray_addon.files.opening import read_at_most
from xray_addon.files.signatures import stand_in_at
from xray_addon.files.stl import write_stl
from xray_addon.surface import Material, Surface

from ..images.reading import check_pixels

MESH_TYPES = ("glb", "gltf", "obj", "off", "ply", "stl")
LARGEST_FILE, LARGEST_JSON = 1 << 30, 1 << 26  # bytes
MOST_FACES = 1 << 24
_COUNTED = schema.record({"count": schema.integer(0, 3 * MOST_FACES)})
_GLTF = schema.record({}, {"accessors": schema.list_of(_COUNTED, most=1 << 16)})

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])


def read_mesh(path: str | PathLike[str], *, texture_size: int | None = None) -> Surface:
    """The triangles of a mesh file (GLB, OBJ, PLY, ...) as one `Surface`, z up.

    texture_size : reduce textures to at most this many pixels per side.

    Raises XRayError `unreadable_mesh` for files that cannot be read or have no triangles.
    """
    try:
        parts = [part for part in _parts(_scene(Path(path))) if len(part.faces)]
        surface = _surface(parts, texture_size) if parts else None
    # trimesh parses unchecked bytes and may fail in any way.
    except Exception as error:
        kind = stand_in_at(path)
        if kind is not None:
            raise XRayError("unreadable_mesh", f"{path} {kind.what}.", kind.remedy) from error
        raise XRayError(
            "unreadable_mesh", f"{path} cannot be read as a mesh ({error}).", "Check the file."
        ) from error
    if surface is None:
        raise XRayError(
            "unreadable_mesh", f"{path} contains no triangles.", "Choose a file with a mesh in it."
        )
    return surface


def _surface(parts: list[trimesh.Trimesh], texture_size: int | None) -> Surface:
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
        materials=[_material(part, texture_size) for part in parts],
    ).transformed(Y_UP_TO_Z_UP)


def _scene(path: Path) -> trimesh.Scene:
    """The scene in a mesh file. Raises OSError, ValueError, and whatever trimesh does."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in MESH_TYPES:
        raise ValueError(f"it is none of {', '.join(MESH_TYPES)}")
    data = read_at_most(path, LARGEST_FILE)
    if kind in ("glb", "gltf"):
        _check_gltf(data)
    return trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=_Beside(str(path)))


class _Beside(trimesh.resolvers.FilePathResolver):
    """Finds materials, buffers and textures: only regular files in or below the mesh's folder."""

    def get(self, name: str) -> bytes:
        """The bytes of a file. Raises OSError, ValueError."""
        folder = Path(self.parent).resolve()
        path = (folder / unquote(name.strip()).replace("\\", "/")).resolve()
        if not path.is_relative_to(folder):
            raise ValueError(f"{name:.80} lies outside of the mesh's folder")
        return read_at_most(path, LARGEST_FILE)


def _check_gltf(data: bytes) -> None:
    """Raise ValueError for a glTF that declares more numbers than it could contain.

    Trimesh would allocate an array of zeros for the count alone.
    """
    text = data
    if data[:4] == b"glTF":
        length = int.from_bytes(data[12:16], "little")
        text = data[20 : 20 + length]
    parse_json(text, _GLTF, largest=LARGEST_JSON)


def _parts(scene: trimesh.Scene) -> list[trimesh.Trimesh]:
    """The triangle meshes of a scene, transformed. Raises ValueError for too many faces."""
    parts = []
    count = 0
    for node in scene.graph.nodes_geometry:
        place, name = scene.graph[node]
        found = scene.geometry[name]
        if isinstance(found, trimesh.Trimesh):
            count += len(found.faces)
            if count > MOST_FACES:  # a scene may use a mesh any number of times
                raise ValueError(f"it has more than {MOST_FACES} faces")
            part = found.copy()
            part.apply_transform(place)
            part.visual = found.visual  # a copy would lose vertex colours if there is a material
            parts.append(part)
    return parts


# glTF's constants for texture sampling.
_WRAPS = {"repeat": 10497, "extend": 33071, "mirror": 33648, "clip": 33071}
_FILTERS = {
    "linear": {"magFilter": 9729, "minFilter": 9987},
    "closest": {"magFilter": 9728, "minFilter": 9728},
}


def write_mesh(path: str | PathLike[str], surface: Surface) -> None:
    """Write a .glb, .obj or .stl, chosen by the suffix of `path`, atomically.

    Raises XRayError `unknown_format`, `cannot_write`.
    """
    path = Path(path)
    writers = {".glb": write_glb, ".obj": write_obj, ".stl": write_stl}
    check_format(path, tuple(writers))
    try:
        writers[path.suffix.lower()](path, surface)
    except OSError as error:
        raise XRayError(
            "cannot_write", f"{path} cannot be written ({error}).", "Choose another file."
        ) from error


def write_obj(path: str | PathLike[str], surface: Surface) -> None:
    """Write a Wavefront OBJ with its .mtl and textures beside it; y up, as is usual.

    A vertex's colour, the mean of its corners, is written after its position, an extension that
    some programs ignore. Such a file has no material, which would hide the colours, unless it has a
    texture. Metallic, roughness and normal textures use the PBR extension of MTL.
    """
    turned = surface.transformed(np.linalg.inv(Y_UP_TO_Z_UP))
    materials = tuple(turned.materials) or (Material(),)
    colors = _vertex_colors(turned)
    textured = any(material.texture is not None for material in materials)
    with_library = textured or colors is None
    rows = turned.vertices if colors is None else np.hstack([turned.vertices, colors])
    lines = [f"v {' '.join(f'{value:.6g}' for value in row)}" for row in rows.tolist()]
    indices = [turned.faces.reshape(-1) + 1]
    uvs, normals = turned.corner_uvs, turned.corner_normals
    for word, values in (("vt", uvs), ("vn", normals)):
        if values is not None:
            distinct, index = np.unique(
                values.reshape(-1, values.shape[-1]).astype(np.float32), axis=0, return_inverse=True
            )
            lines += [f"{word} {' '.join(f'{v:.6g}' for v in row)}" for row in distinct.tolist()]
            indices.append(index.reshape(-1) + 1)
    corner = {(False, False): "{0}", (True, False): "{0}/{1}", (False, True): "{0}//{1}"}.get(
        (uvs is not None, normals is not None), "{0}/{1}/{2}"
    )
    corners = [corner.format(*row) for row in np.stack(indices, axis=-1).tolist()]
    used = turned.face_material
    order = np.arange(len(turned.faces)) if used is None else np.argsort(used, kind="stable")
    last = -1
    for face in order.tolist():
        number = 0 if used is None else int(used[face])
        if number != last and with_library:
            lines.append(f"usemtl material_{number}")
            last = number
        lines.append(f"f {' '.join(corners[3 * face : 3 * face + 3])}")
    with replacing_together(path) as temporary:
        if with_library:
            library = temporary.with_suffix(".mtl")
            described = [_mtl(number, each, temporary) for number, each in enumerate(materials)]
            library.write_text("\n\n".join(described) + "\n", "utf-8")
            lines.insert(0, f"mtllib {library.name}")
        temporary.write_text("\n".join(lines) + "\n", "utf-8")


def _vertex_colors(surface: Surface) -> NDArray[np.float64] | None:
    """(N, 3) sRGB-encoded colours: the mean of each vertex's corners; None without colours."""
    if surface.corner_colors is None:
        return None
    index = surface.faces.reshape(-1)
    count = len(surface.vertices)
    number = np.maximum(np.bincount(index, minlength=count), 1)
    columns = surface.corner_colors.reshape(-1, 3).T
    return np.stack([np.bincount(index, c, count) / number for c in columns], axis=-1)


def _mtl(number: int, material: Material, path: Path) -> str:
    """A material's text in the .mtl of the OBJ `path`; writes its textures as well."""
    color = " ".join(f"{value:.6g}" for value in material.base_color)
    lines = [f"newmtl material_{number}", f"Kd {color}"]
    lines += [f"Pm {float(material.metallic):.6g}", f"Pr {float(material.roughness):.6g}"]
    for word, name, texture in (
        ("map_Kd", "color", material.texture),
        ("map_Pm", "metallic", material.metallic_texture),
        ("map_Pr", "roughness", material.roughness_texture),
        ("norm", "normal", material.normal_texture),
    ):
        if texture is not None:
            file = path.with_name(f"{path.stem}-{number}-{name}.png")
            Image.fromarray(texture).save(file)
            lines.append(f"{word} {file.name}")
    return "\n".join(lines)


def write_glb(path: str | PathLike[str], surface: Surface) -> None:
    """Write a GLB with normals, colours and materials, atomically; y up as glTF requires.

    The file has one mesh with a primitive for each used material. Vertex colours are in linear
    light, as glTF requires, and multiply the material's colour. A vertex whose corners differ is
    split. glTF has no "clip" wrapping; such a texture is written as "extend".
    """
    turned = surface.transformed(np.linalg.inv(Y_UP_TO_Z_UP))
    materials = tuple(turned.materials) or (Material(),)
    index = turned.face_material
    if index is None:
        index = np.zeros(len(turned.faces), dtype=np.int64)
    used = np.unique(index) if len(index) else np.zeros(1, dtype=np.int64)
    scene = trimesh.Scene()
    for number in used.tolist():
        part = _part(turned, index == number, materials[number], f"{number:04d}")
        scene.add_geometry(part, geom_name=f"{number:04d}")

    def finish(tree: dict[str, Any]) -> None:
        for written in tree.get("materials", ()):
            _complete(tree, written, materials[int(written.pop("name"))])
        if "meshes" in tree:  # absent if the surface has no faces
            _join_primitives(tree)

    export: Any = trimesh.exchange.gltf.export_glb
    payload = export(
        scene,
        include_normals=turned.corner_normals is not None,
        tree_postprocessor=finish,
    )
    with replacing(path) as temporary:
        temporary.write_bytes(payload)


def _part(
    surface: Surface, chosen: NDArray[np.bool_], material: Material, name: str
) -> trimesh.Trimesh:
    """The chosen faces of a surface with their material, named `name`."""
    columns: dict[str, NDArray[Any]] = {}
    if surface.corner_normals is not None:
        columns["normals"] = surface.corner_normals[chosen].reshape(-1, 3).astype(np.float32)
    if surface.corner_uvs is not None:
        columns["uvs"] = surface.corner_uvs[chosen].reshape(-1, 2).astype(np.float32)
    if surface.corner_colors is not None:
        columns["colors"] = _linear_bytes(surface.corner_colors[chosen])
    corners = surface.faces[chosen]
    first, faces = _merged_corners(corners, columns)
    normals = columns.get("normals")
    mesh = trimesh.Trimesh(
        surface.vertices[corners.reshape(-1)[first]],
        faces,
        vertex_normals=normals[first] if normals is not None else None,
        process=False,
    )
    uvs = columns.get("uvs")
    written: dict[str, Any] = {}
    if uvs is not None:
        written = {
            "baseColorTexture": _picture(material.texture),
            "metallicRoughnessTexture": _picture(_metallic_roughness(material)),
            "normalTexture": _picture(material.normal_texture),
        }
    visual: Any = trimesh.visual
    look: Any = visual.TextureVisuals(
        None if uvs is None else uvs[first],
        material=visual.material.PBRMaterial(
            name=name,
            metallicFactor=float(material.metallic),
            roughnessFactor=float(material.roughness),
            **written,
        ),
    )
    if "colors" in columns:
        look.vertex_attributes["color"] = columns["colors"][first]
    mesh.visual = look
    return mesh


def _complete(tree: dict[str, Any], written: dict[str, Any], material: Material) -> None:
    """Add the material properties that trimesh does not write to glTF's JSON."""
    shading = written.setdefault("pbrMetallicRoughness", {})
    # Trimesh keeps factors as bytes.
    base = srgb_to_linear(np.array(material.base_color, dtype=np.float64))
    shading["baseColorFactor"] = [*base.tolist(), 1.0]
    if material.alpha_threshold > 0 and "baseColorTexture" in shading:
        written |= {"alphaMode": "MASK", "alphaCutoff": float(material.alpha_threshold)}
    wrap = _WRAPS[material.wrap]
    sampler = {"wrapS": wrap, "wrapT": wrap, **_FILTERS[material.interpolation]}
    for texture in (*shading.values(), *written.values()):
        if isinstance(texture, dict) and "index" in texture:
            samplers = tree.setdefault("samplers", [])
            if sampler not in samplers:
                samplers.append(sampler)
            tree["textures"][texture["index"]]["sampler"] = samplers.index(sampler)


def _join_primitives(tree: dict[str, Any]) -> None:
    """Merge all meshes in glTF's JSON into one mesh with several primitives, at one node."""
    first, *others = tree["meshes"]
    for other in others:
        first["primitives"] += other["primitives"]
    first["name"] = "Mesh"
    tree["meshes"] = [first]
    tree["nodes"] = [{"name": "Mesh", "mesh": 0}]
    tree["scenes"] = [{"nodes": [0]}]


def _metallic_roughness(material: Material) -> NDArray[np.uint8] | None:
    """glTF's combined texture: roughness in green, metallic in blue."""
    metallic, roughness = material.metallic_texture, material.roughness_texture
    some = metallic if metallic is not None else roughness
    if some is None:
        return None
    if metallic is not None and roughness is not None and metallic.shape != roughness.shape:
        raise ValueError(
            f"metallic_texture and roughness_texture must have equal sizes, got {metallic.shape} "
            f"and {roughness.shape}"
        )
    picture = np.full((*some.shape, 3), 255, dtype=np.uint8)
    if roughness is not None:
        picture[..., 1] = roughness
    if metallic is not None:
        picture[..., 2] = metallic
    return picture


def _picture(texture: NDArray[np.uint8] | None) -> Image.Image | None:
    return None if texture is None else Image.fromarray(texture)


def _linear_bytes(colors: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(N, 4) linear RGBA bytes of sRGB-encoded colours (..., 3), for vertex colours."""
    light = srgb_to_linear(np.clip(colors.reshape(-1, 3), 0, 1))
    linear = np.full((len(light), 4), 255, np.uint8)
    linear[:, :3] = np.rint(light * 255)
    return linear


def _merged_corners(
    faces: NDArray[np.integer], columns: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merge identical corners: the index of each remaining corner (N,), and faces (M, 3).

    columns : (3 M, ...) of 32-bit values. Corners with the same vertex and values are identical.
    """
    number = faces.reshape(-1).astype(np.int64)
    used = np.zeros(int(number.max(initial=-1)) + 1, bool)
    used[number] = True
    number = (np.cumsum(used) - 1)[number]
    first = np.zeros(int(used.sum()), np.int64)
    first[number] = np.arange(len(number))
    for values in columns.values():
        for bits in np.ascontiguousarray(values).view(np.uint32).T:
            # Usually all corners of a vertex are identical, and no sorting is needed.
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
        # Wavefront colours are used unchanged.
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
    check_pixels(image)
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
    """The part's vertex colours, or white."""
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
