"""`cast`: every surface along every ray of a camera, exactly, without an acceleration structure.

An X-Ray is an A-buffer. The triangles are projected, the pixels whose ray passes through each
are listed, and the hits of a pixel are sorted. For the rays of a pinhole camera this is ray
casting: a pixel is covered exactly if its ray passes through the triangle.

Coverage is decided in integers. Projected vertices are snapped to a grid of `SNAP` steps per pixel.
Rays are treated as moved by an infinitesimal (+x, then +y), so a ray is never on an edge. Two
triangles that share an edge therefore split the pixels along it without gap or overlap. If they
fold back at a silhouette, both or neither are hit, so hits through a closed surface always come in
pairs.

There are two kernels, which find the same hits: `array_kernel`, and `compiled_kernel` if numba is
installed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..color import linear_to_srgb, srgb_to_linear
from ..errors import XRayError
from ..surface import Material, Surface
from ..xray import XRay
from . import array_kernel
from .scene import GUARD_PIXELS, Floats, Hits, Ints, Scene

BACKENDS = ("auto", "numpy", "numba")
# At this many hits, all but the nearest of each pixel are dropped before the search continues.
HITS_AT_ONCE = 1 << 22


def cast(
    surface: Surface,
    camera: Camera,
    layers: int = 16,
    *,
    backend: str = "auto",
    faces: bool = False,
) -> XRay:
    """The X-Ray (layers, H, W) of `surface` seen by `camera`.

    Both sides of a surface are hit. The `layers` nearest hits of each ray are kept, front to
    back; `XRay.dropped` counts the others. Normals are interpolated from corner normals, or are
    face normals if there are none; they are not flipped towards the viewer. Colours are sampled at
    the hit. Coincident faces give one hit each. Rays pass through a surface where its texture's
    alpha is below its material's `alpha_threshold`.

    Faces with NaN or infinite vertices and faces without area are ignored. Faces that cross the
    camera's plane are clipped there.

    backend : "numpy", "numba", or "auto" for numba if it is installed. The hits are the same.
    faces : whether to fill in `XRay.hit_face`, the face of each hit.

    Raises ValueError for `layers` < 1, an unknown `backend` and images wider or higher than
    8192 px, and XRayError `no_numba` if numba is requested and cannot be imported.
    """
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    kernel, scene = _begun(surface, camera, backend)
    index, face, distance, dropped = _nearest(surface, scene, layers, kernel)
    weights = None
    if _has_corners(surface):
        weights = kernel.weights(scene, face, index % (camera.width * camera.height))
    return XRay.from_hits(
        (layers, camera.height, camera.width),
        index,
        distance,
        _normals(surface, scene, camera, face, weights, kernel),
        _colors(surface, face, weights, kernel),
        dropped,
        face if faces else None,
    )


@dataclass(frozen=True, eq=False)
class Samples:
    """N points at which the nearest surfaces in a picture are shaded.

    rows, columns : the part of the picture with hits; nothing is seen outside.
    pixel (N,) : flat index into that part, unsorted. count (N,) : how many of the pixel's rays the
    point represents. normal (N, 3), color (N, 3) : as in an X-Ray. ray (N, 3) : camera space, with
    z = -1.
    """

    rows: slice
    columns: slice
    pixel: Ints
    count: Ints
    normal: Floats
    color: NDArray[np.float32]
    ray: Floats


def cast_samples(surface: Surface, camera: Camera, side: int, *, backend: str = "auto") -> Samples:
    """The shading points for an antialiased picture with `side` x `side` rays per pixel.

    All rays are cast. A face is sampled once per pixel, at the mean of the rays that hit it, or at
    each of these rays if its texture is too fine for that. So only pixels at outlines and fine
    textures need several samples. Raises as `cast`.
    """
    fine = replace(camera.resized(camera.width * side, camera.height * side), pixel_offset=0.5)
    kernel, scene = _begun(surface, fine, backend)
    rows, columns = (slice(part.start // side, -(-part.stop // side)) for part in scene.window())
    scene = scene.cropped(*(slice(part.start * side, part.stop * side) for part in (rows, columns)))
    first = np.full(scene.width * scene.height, -1, dtype=np.int32)
    nearest = np.full(len(first), np.inf)
    if _clipped(surface):
        for part in _opaque_hits(surface, scene, kernel):
            kernel.keep_first(part, first, nearest)
    else:
        kernel.first_hits(scene, first, nearest)
    del nearest
    uvs, slot = surface.corner_uvs, surface.face_material
    texels = np.zeros((max(len(surface.materials), 1), 2))
    for number, material in enumerate(surface.materials if uvs is not None else ()):
        if material.texture is not None:
            texels[number] = material.texture.shape[1], material.texture.shape[0]
    pixel, face, count, x, y = kernel.samples(
        scene,
        first,
        side,
        np.empty((0, 3, 2)) if uvs is None else uvs,
        np.empty(0, np.int32) if slot is None else slot,
        texels,
    )
    weights = kernel.weights_along(scene, face, x, y) if _has_corners(surface) else None
    return Samples(
        rows,
        columns,
        pixel,
        count,
        _normals(surface, scene, fine, face, weights, kernel),
        _colors(surface, face, weights, kernel),
        np.stack([x, y, np.full(len(x), -1.0)], axis=1),
    )


def _begun(surface: Surface, camera: Camera, backend: str) -> tuple[ModuleType, Scene]:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if max(camera.width, camera.height) > GUARD_PIXELS // 2:
        raise ValueError(
            f"an X-Ray can be at most {GUARD_PIXELS // 2} px wide and high, "
            f"got {camera.width}x{camera.height}"
        )
    kernel = _kernel(backend)
    return kernel, Scene.of(surface, camera, kernel.moved)


def _has_corners(surface: Surface) -> bool:
    """Whether anything is interpolated between the corners of the surface's faces."""
    return any(
        values is not None
        for values in (surface.corner_normals, surface.corner_colors, surface.corner_uvs)
    )


def _kernel(backend: str) -> ModuleType:
    if backend == "numpy":
        return array_kernel
    found = _numba_kernel()
    if isinstance(found, ModuleType):
        return found
    if backend == "auto":
        return array_kernel
    raise XRayError(
        "no_numba",
        f"The compiled caster needs numba, which cannot be imported: {found}.",
        "Install numba in this Python, or use the backend 'numpy'.",
    )


@functools.cache
def _numba_kernel() -> ModuleType | str:
    """The compiled kernel, or why it is missing. A failed import is slow, so it is tried once."""
    try:
        from . import compiled_kernel
    except (ImportError, OSError) as error:  # OSError: one of numba's libraries
        return str(error)
    return compiled_kernel


def _nearest(
    surface: Surface, scene: Scene, layers: int, kernel: ModuleType
) -> tuple[NDArray[np.int64], Ints, Floats, int]:
    """The nearest hits: flat index into (layers, H, W), ascending, face and distance, each (K,);
    and the number of hits dropped.
    """
    pixels = scene.width * scene.height
    pending: list[Hits] = []
    count, kept, found = 0, 0, 0
    for part in _opaque_hits(surface, scene, kernel):
        pending.append(part)
        count += len(part[0])
        found += len(part[0])
        if count > max(HITS_AT_ONCE, 2 * kept):
            index, face, distance = kernel.nearest(_joined(pending), pixels, layers)
            pending = [((index % pixels).astype(pending[0][0].dtype), face, distance)]
            count = kept = len(index)
    index, face, distance = kernel.nearest(_joined(pending), pixels, layers)
    return index, face, distance, found - len(index)


def _clipped(surface: Surface) -> list[int]:
    """The materials of `surface` with transparent texels."""
    if surface.corner_uvs is None:
        return []
    return [
        number
        for number, material in enumerate(surface.materials)
        if material.alpha_threshold > 0 and material.texture is not None
    ]


def _opaque_hits(surface: Surface, scene: Scene, kernel: ModuleType) -> Iterator[Hits]:
    """The kernel's opaque hits, in several parts."""
    clipped = _clipped(surface)
    for part in kernel.hits(scene):
        if clipped:
            opaque = _opaque(surface, scene, part, clipped, kernel)
            yield tuple(values[opaque] for values in part)
        else:
            yield part


def _joined(parts: list[Hits]) -> Hits:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    pixel, face, distance = (np.concatenate(values) for values in zip(*parts, strict=True))
    return pixel, face, distance


def _slots(surface: Surface, face: Ints) -> Ints:
    """Index into the materials (K,) of faces (K,)."""
    if surface.face_material is None:
        return np.zeros(len(face), dtype=np.int64)
    return surface.face_material[face]


def _opaque(
    surface: Surface, scene: Scene, hits: Hits, clipped: list[int], kernel: ModuleType
) -> NDArray[np.bool_]:
    """Which hits (K,) are opaque; `clipped` are the materials with transparent texels."""
    assert surface.corner_uvs is not None
    pixel, face, _ = hits
    slot = _slots(surface, face)
    opaque = np.ones(len(face), dtype=bool)
    for number in clipped:
        chosen = np.flatnonzero(slot == number)
        material = surface.materials[number]
        weights = kernel.weights(scene, face[chosen], pixel[chosen])
        uv = kernel.interpolate(surface.corner_uvs, face[chosen], weights)
        opaque[chosen] = _sampled(material, uv, kernel)[:, 3] >= material.alpha_threshold
    return opaque


def _normals(
    surface: Surface,
    scene: Scene,
    camera: Camera,
    face: Ints,
    weights: Floats | None,
    kernel: ModuleType,
) -> Floats:
    """Unit normal (K, 3) of each hit in camera space."""
    if surface.corner_normals is None or weights is None:
        flat: Floats = kernel.normals(scene, face)
        return flat
    rotation = camera.camera_to_world[:3, :3]
    smooth: Floats = kernel.smooth_normals(scene, surface.corner_normals, rotation, face, weights)
    return smooth


def surface_colors(surface: Surface, face: Ints, weights: Floats) -> NDArray[np.float32]:
    """Colours (K, 3), sRGB-encoded 0..1, at points in faces (K,) given by weights (K, 3)."""
    return _colors(surface, face, weights, _kernel("auto"))


def _colors(
    surface: Surface, face: Ints, weights: Floats | None, kernel: ModuleType
) -> NDArray[np.float32]:
    """Colour (K, 3), sRGB-encoded: corner colour x base colour x texture, in linear light."""
    materials = surface.materials or (Material(),)
    if surface.corner_colors is None and not any(m.texture is not None for m in materials):
        plain = np.clip([material.base_color for material in materials], 0.0, 1.0)
        return plain.astype(np.float32)[_slots(surface, face)]
    color = np.empty((len(face), 3), dtype=np.float32)
    slot = _slots(surface, face) if len(materials) > 1 else None
    for number, material in enumerate(materials):
        chosen = slice(None) if slot is None else np.flatnonzero(slot == number)
        there = face[chosen]
        share = None if weights is None else weights[chosen]
        colors, uvs = surface.corner_colors, surface.corner_uvs
        tinted = tuple(material.base_color) != (1.0, 1.0, 1.0)
        factors: list[Floats] = []
        if colors is not None and share is not None:
            factors.append(kernel.interpolate(colors, there, share))
        if material.texture is not None and uvs is not None and share is not None:
            if not factors and not tinted:
                color[chosen] = kernel.textured(material, uvs, there, share)
                continue
            factors.append(_sampled(material, kernel.interpolate(uvs, there, share), kernel)[:, :3])
        if tinted or not factors:
            factors.append(np.array([material.base_color], dtype=np.float64))
        product = factors[0]
        if len(factors) > 1:
            product = np.ones((len(there), 3))
            for factor in factors:
                product *= srgb_to_linear(factor)
            product = linear_to_srgb(product)
        color[chosen] = np.clip(np.nan_to_num(product), 0.0, 1.0)
    return color


def _sampled(material: Material, uv: Floats, kernel: ModuleType) -> Floats:
    return kernel.sample(material.texture, uv, material.wrap, material.interpolation)


def sample_texture(
    texture: NDArray[np.uint8], uv: Floats, wrap: str = "repeat", interpolation: str = "linear"
) -> Floats:
    """RGBA samples (K, 4) in 0..1 at `uv` (K, 2); alpha is 1 if the texture has none.

    texture : (h, w, 3 or 4), row 0 at the top. The origin of uv is the bottom left corner. A sample
    at a texel's centre is the texel's value. `wrap` and `interpolation` are as in `Material`.
    """
    return array_kernel.sample(texture, uv, wrap, interpolation)
