"""`Surface`: the triangle mesh type that `cast` takes and every generator returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

WRAPS = ("repeat", "extend", "mirror", "clip")
INTERPOLATIONS = ("linear", "closest")
# The textures of a material by name, with the allowed numbers of channels; 0 means (h, w).
TEXTURES = {
    "texture": (3, 4),
    "metallic_texture": (0,),
    "roughness_texture": (0,),
    "normal_texture": (3,),
}


# Defaults: not metallic and fairly rough, which looks right in glTF viewers and Blender.
ROUGHNESS = 0.8


@dataclass(frozen=True, eq=False)
class Material:
    """The appearance of a face: the metallic-roughness model of glTF 2.0.

    base_color : RGB factor, sRGB-encoded 0..1.
    texture : (h, w, 3 or 4) uint8, sRGB-encoded, row 0 at the top; multiplied by the factor.
    wrap : how textures continue outside 0..1: "repeat", "extend" (the border texels), "mirror", or
        "clip" (black and transparent).
    interpolation : between texels, "linear" or "closest".
    alpha_threshold : rays pass where the texture's alpha is less than this; 0 disables it.
    metallic, roughness : factors, 0..1.
    metallic_texture, roughness_texture : (h, w) uint8, linear; multiplied by the factors.
    normal_texture : (h, w, 3) uint8, in tangent space with +y up, as in glTF.

    Raises ValueError for textures of a wrong shape or type and for values out of range.
    """

    base_color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: NDArray[np.uint8] | None = None
    wrap: str = "repeat"
    interpolation: str = "linear"
    alpha_threshold: float = 0.0
    metallic: float = 0.0
    roughness: float = ROUGHNESS
    metallic_texture: NDArray[np.uint8] | None = None
    roughness_texture: NDArray[np.uint8] | None = None
    normal_texture: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("wrap", WRAPS), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("alpha_threshold", "metallic", "roughness"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        for name, channels in TEXTURES.items():
            image = getattr(self, name)
            if image is None:
                continue
            found = image.shape[2] if image.ndim == 3 else 0 if image.ndim == 2 else -1
            if image.dtype != np.uint8 or found not in channels:
                shapes = " or ".join(f"(h, w, {n})" if n else "(h, w)" for n in channels)
                raise ValueError(f"{name} must be {shapes} uint8, got {image.shape} {image.dtype}")


@dataclass(eq=False)
class Surface:
    """An indexed triangle mesh with optional per-corner attributes.

    vertices : (N, 3) float, scene units.
    faces : (M, 3) int, counter-clockwise seen from outside.
    corner_normals : (M, 3, 3) unit vectors for smooth shading; without them, shading is flat.
    corner_uvs : (M, 3, 2), origin at the texture's bottom left.
    corner_colors : (M, 3, 3) sRGB-encoded 0..1.
    face_material : (M,) index into `materials`; all 0 by default.
    materials : a face's colour is corner colour x base colour x texture, in linear light.

    Raises ValueError for shapes that do not match and for face or material indices out of range.
    """

    vertices: NDArray[np.floating]
    faces: NDArray[np.integer]
    corner_normals: NDArray[np.floating] | None = None
    corner_uvs: NDArray[np.floating] | None = None
    corner_colors: NDArray[np.floating] | None = None
    face_material: NDArray[np.integer] | None = None
    materials: Sequence[Material] = ()

    def __post_init__(self) -> None:
        self.vertices = _array("vertices", self.vertices, np.floating, (-1, 3))
        self.faces = _array("faces", self.faces, np.integer, (-1, 3))
        count = len(self.faces)
        if count and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise ValueError(
                f"faces index vertices 0..{len(self.vertices) - 1}, "
                f"got {self.faces.min()}..{self.faces.max()}"
            )
        for name, width in (("corner_normals", 3), ("corner_uvs", 2), ("corner_colors", 3)):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, _array(name, value, np.floating, (count, 3, width)))
        if self.face_material is not None:
            index = _array("face_material", self.face_material, np.integer, (count,))
            if count and (index.min() < 0 or index.max() >= max(len(self.materials), 1)):
                raise ValueError(
                    f"face_material indexes {len(self.materials)} materials, "
                    f"got {index.min()}..{index.max()}"
                )
            self.face_material = index

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(2, 3) minimum and maximum of the finite vertices that faces use.

        Raises ValueError if there are none.
        """
        used = np.zeros(len(self.vertices), dtype=bool)
        used[self.faces] = True
        used &= np.isfinite(self.vertices).all(axis=1)
        if not used.any():
            raise ValueError("the surface has no faces with finite vertices")
        found = self.vertices if used.all() else self.vertices[used]
        return np.stack([found.min(axis=0), found.max(axis=0)]).astype(np.float64)

    @property
    def longest_side(self) -> float:
        """The longest side of the bounding box, see `bounds`."""
        low, high = self.bounds
        return float((high - low).max())

    def transformed(self, matrix: NDArray[np.floating]) -> Surface:
        """The surface transformed by a (4, 4) affine matrix; normals by its inverse transpose.

        A mirroring matrix also reverses the faces' winding, so that they still face outwards.
        """
        linear = np.asarray(matrix, dtype=np.float64)[:3, :3]
        vertices = self.vertices @ linear.T + np.asarray(matrix)[:3, 3]
        determinant = np.linalg.det(linear)
        normals = self.corner_normals
        if normals is not None:
            # The inverse transpose up to a factor; it exists for singular matrices too.
            x, y, z = linear
            cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)])
            normals = normals @ (cofactors.T if determinant >= 0 else -cofactors.T)
            length = np.linalg.norm(normals, axis=-1, keepdims=True)
            normals = normals / np.where(length > 0, length, 1)
        moved = replace(self, vertices=vertices, corner_normals=normals)
        return moved.flipped() if determinant < 0 else moved

    def flipped(self) -> Surface:
        """The same faces with reversed winding (normals are not changed)."""

        def turn(corners: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if corners is None else corners[:, ::-1]

        return replace(
            self,
            faces=self.faces[:, ::-1],
            corner_normals=turn(self.corner_normals),
            corner_uvs=turn(self.corner_uvs),
            corner_colors=turn(self.corner_colors),
        )

    def subset(self, chosen: NDArray[np.bool_]) -> Surface:
        """The faces where `chosen` (M,) is true, with all vertices and materials."""

        def kept(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[chosen]

        return replace(
            self,
            faces=self.faces[chosen],
            corner_normals=kept(self.corner_normals),
            corner_uvs=kept(self.corner_uvs),
            corner_colors=kept(self.corner_colors),
            face_material=kept(self.face_material),
        )

    @property
    def normalizing(self) -> NDArray[np.float64]:
        """(4, 4) matrix that centres the bounding box and scales its longest side to 1.

        As in the published data. Raises ValueError if the surface has no extent.
        """
        low, high = self.bounds
        size = self.longest_side
        if not size > 0:
            raise ValueError("the surface is a single point and has no size to normalise")
        matrix = np.eye(4) / size
        matrix[:3, 3] = -(low + high) / 2 / size
        matrix[3, 3] = 1.0
        return matrix

    def normalized(self) -> Surface:
        """The surface transformed by `normalizing`. Raises ValueError if it has no extent."""
        return self.transformed(self.normalizing)

    @staticmethod
    def joined(parts: Sequence[Surface]) -> Surface:
        """All faces of `parts` (at least one). Attributes that some parts lack are filled in.

        Missing normals become face normals, missing UVs 0, missing colours white. A material that
        several parts share appears once.
        """
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        materials: dict[Material, int] = {}  # each one, by identity, and its index
        face_material, plain = [], Material()
        for part in parts:
            own = list(part.materials) or [plain]
            place = np.array([materials.setdefault(one, len(materials)) for one in own])
            known = part.face_material
            face_material.append(place[np.zeros(len(part.faces), int) if known is None else known])

        def together(name: str, width: int, otherwise: float | None = None) -> Any:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            for i, part in enumerate(parts):
                if values[i] is None and otherwise is None:
                    values[i] = part._face_normals
                elif values[i] is None:
                    values[i] = np.full((len(part.faces), 3, width), otherwise, np.float32)
            return np.concatenate(values)

        return Surface(
            np.concatenate([part.vertices for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
            corner_normals=together("corner_normals", 3),
            corner_uvs=together("corner_uvs", 2, 0.0),
            corner_colors=together("corner_colors", 3, 1.0),
            face_material=np.concatenate(face_material),
            materials=list(materials),
        )

    @property
    def _face_normals(self) -> NDArray[np.floating]:
        """(M, 3, 3) corner normals for flat shading."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        normal = np.cross(b - a, c - a)
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
        return np.repeat(normal[:, None], 3, axis=1)

    @property
    def edge_face_counts(self) -> NDArray[np.intp]:
        """(E,) number of faces at each undirected edge."""
        edges = np.sort(self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
        key = edges[:, 0] * max(len(self.vertices), 1) + edges[:, 1]
        return np.unique(key, return_counts=True)[1]

    @property
    def is_watertight(self) -> bool:
        """Whether there are faces and every edge belongs to exactly two of them."""
        return len(self.faces) > 0 and bool((self.edge_face_counts == 2).all())

    def sample(self, count: int, seed: int = 0) -> NDArray[np.float64]:
        """(count, 3) random points, uniform over the area; reproducible with `seed`."""
        if not len(self.faces):
            raise ValueError("the surface has no faces to sample")
        random = np.random.default_rng(seed)
        corners = self.vertices[self.faces].astype(np.float64)
        edges = corners[:, 1:] - corners[:, :1]
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
        area = np.where(np.isfinite(area), area, 0.0)
        if not area.sum() > 0:
            raise ValueError("the surface has no area to sample")
        face = random.choice(len(area), size=count, p=area / area.sum())
        u, v = random.random((2, count, 1))
        outside = u + v > 1
        u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
        return corners[face, 0] + u * edges[face, 0] + v * edges[face, 1]


def _array(name: str, value: Any, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """`value` as an array of `kind` and `shape` (-1: any length). Raises ValueError with `name`."""
    array = np.asarray(value)
    if array.size == 0 and array.ndim <= 1 and len(shape) > 1:
        array = array.reshape(0, *shape[1:])
    if not np.issubdtype(array.dtype, kind):
        converted = array.astype(np.int64 if kind is np.integer else np.float64)
        if array.dtype.kind not in "iufb" or (
            kind is np.integer and array.size and not np.array_equal(converted, array)
        ):
            raise ValueError(f"{name} must be {kind.__name__}, got {array.dtype}")
        array = converted
    fits = array.ndim == len(shape) and all(
        want in (-1, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {shape} (-1: any), got {array.shape}")
    return array
