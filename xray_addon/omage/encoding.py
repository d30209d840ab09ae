"""Converts a surface to an omage without a renderer: repacks and rasterises its UV charts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..casting import sample_texture, surface_colors
from ..casting.chart_texels import ChartTexels, chart_texels
from ..casting.texels import cast_uvs
from ..color import srgb_to_linear
from ..errors import XRayError
from ..progress import Progress, ProgressCallback, ignore_progress
from ..surface import Material, Surface
from .charts import Charts, areas, welded
from .image import CHANNELS, GEOMETRY_CHANNELS, LARGEST
from .packing import pack

Floats = NDArray[np.float64]

EXTENT = 1.9999  # the longest side of an encoded object, as published
WELD = 1e-6  # vertices nearer than this are merged
LEAST_AREA = 1e-4  # charts smaller than this, in the UV map or in space, are dropped
CELLS = 64  # side of the grid on which charts are packed: the pixels of a small omage
# Limits of a usable UV map: share of its texels that are covered twice, share of the faces' area
# that has no area in the map, and how far it extends outside 0 to 1.
OVERLAP, FLAT, BEYOND = 0.002, 0.002, 1e-3
OVERLAP_SIZE = 512  # px, side of the image in which overlap is measured

# Returns UVs (M, 3, 2), 0 to 1, of a surface's faces, without overlap.
Unwrap = Callable[[Surface], Floats]


@dataclass(frozen=True, eq=False)
class EncodingReport:
    """How a surface was encoded.

    charts : number in the omage. dropped_charts, dropped_area : number of charts left out, and
    their share of the area. used : share of occupied pixels. unwrapped : why it got a new UV map,
    or "". centre, scale : a point p becomes (p - centre) * scale in the omage. uvs : (M, 3, 2) of
    the faces' corners in the omage; NaN for faces that are not in it.
    """

    charts: int
    dropped_charts: int
    dropped_area: float
    used: float
    unwrapped: str
    centre: tuple[float, float, float]
    scale: float
    uvs: Floats = field(repr=False)

    def __str__(self) -> str:
        told = [f"{self.charts} patches on {self.used:.0%} of the pixels"]
        if self.dropped_charts:
            told.append(
                f"{self.dropped_charts} small ones left out ({self.dropped_area:.2%} of the area)"
            )
        if self.unwrapped:
            told.append(f"unwrapped anew, as its UVs cannot be used: {self.unwrapped}")
        return "; ".join(told)


def encode(
    surface: Surface,
    resolution: int = 1024,
    *,
    patches: int = 128,
    smallest: int = CELLS,
    part: NDArray[np.integer] | None = None,
    unwrap: Unwrap | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[NDArray[np.float32], EncodingReport]:
    """The values (R, R, 12) of the omage of `surface` (z up), and the report.

    The object is centred and scaled to an extent of 1.9999. Charts of the UV map smaller than
    1e-4, in the map or in space, are left out. Of the rest, the `patches` charts with the largest
    area are kept and repacked. smallest : the lowest resolution to which the omage can be reduced
    without patches touching. part : (M,) the object that each face belongs to; the UV maps of
    different objects may overlap. unwrap : makes UVs if the surface's own are `unusable`.

    Raises XRayError `no_faces` if the surface has no area, `needs_unwrap` if its UVs are unusable
    and `unwrap` is None, `no_charts` if every chart is too small, `bad_settings`.
    """
    if not 8 <= resolution <= LARGEST:
        raise XRayError(
            "bad_settings",
            f"An omage can be encoded at 8 to {LARGEST} pixels, not {resolution}.",
            "Choose a resolution in this range.",
        )
    progress = progress or ignore_progress
    progress(Progress("encode", 0, 4, "Normalising"))
    count = len(surface.faces)
    surface, solid, centre, scale = _normalised(surface)
    progress(Progress("encode", 1, 4, "Looking at the UV map"))
    part = np.zeros(len(surface.faces), np.int64) if part is None else part[solid]
    reasons = (unusable(surface.subset(part == number)) for number in np.unique(part))
    reason = next((found for found in reasons if found), "")
    if reason:
        if unwrap is None:
            raise XRayError(
                "needs_unwrap",
                f"The surface's UVs cannot be used: {reason}.",
                "Unwrap the mesh, or let X-Ray do it.",
            )
        uvs = np.asarray(unwrap(surface), np.float64)
    else:
        assert surface.corner_uvs is not None
        uvs = np.asarray(surface.corner_uvs, np.float64)
    progress(Progress("encode", 2, 4, "Packing the charts"))
    vertex = welded(surface.vertices.astype(np.float64), WELD)[surface.faces]
    charts = Charts.of(vertex, uvs)
    kept, dropped_area = _kept(surface, charts, uvs, patches)
    faces = kept[charts.chart]
    chosen = surface.subset(faces)
    border = charts.border[faces]
    chart = (np.cumsum(kept) - 1)[charts.chart[faces]]
    placed = _packed(uvs[faces], Charts(chart, int(kept.sum()), border), resolution, smallest)
    progress(Progress("encode", 3, 4, "Rasterising"))
    places = np.full((count, 3, 2), np.nan)
    places[np.flatnonzero(solid)[faces]] = placed
    found = chart_texels(placed, border, resolution)
    values = np.zeros((resolution * resolution, CHANNELS), np.float32)
    values[found.pixel] = _values(chosen, found)
    # The first row of an omage is the bottom of the UV map.
    image = np.ascontiguousarray(values.reshape(resolution, resolution, CHANNELS)[::-1])
    return image, EncodingReport(
        charts=int(kept.sum()),
        dropped_charts=int((~kept).sum()),
        dropped_area=dropped_area,
        used=len(found.pixel) / resolution**2,
        unwrapped=reason,
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        scale=scale,
        uvs=places,
    )


def unusable(surface: Surface) -> str:
    """Why the surface's UVs cannot be used for an omage, or ""."""
    if surface.corner_uvs is None:
        return "it has none"
    uvs = np.asarray(surface.corner_uvs, np.float64)
    if not np.isfinite(uvs).all():
        return "some are not finite"
    space = areas(surface.vertices[surface.faces].astype(np.float64))
    flat = space[areas(uvs) <= 1e-12].sum() / max(space.sum(), 1e-300)
    if flat > FLAT:
        return f"{flat:.1%} of the area has no place in them"
    if uvs.min() < -BEYOND or uvs.max() > 1 + BEYOND:
        return f"they go from {uvs.min():.3g} to {uvs.max():.3g}"
    once, twice = cast_uvs(np.clip(uvs, 0, 1), OVERLAP_SIZE, 2).hits_per_layer
    overlap = twice / max(once, 1)
    return f"{overlap:.1%} of them overlap" if overlap > OVERLAP else ""


def _normalised(surface: Surface) -> tuple[Surface, NDArray[np.bool_], Floats, float]:
    """The faces with area, centred and scaled to `EXTENT`; their mask (M,), centre and scale."""
    finite = np.isfinite(surface.vertices).all(axis=1)[surface.faces].all(axis=1)
    points = np.where(finite[:, None, None], surface.vertices[surface.faces], 0)
    solid = finite & (areas(points.astype(np.float64)) > 0)
    if not solid.any():
        raise XRayError(
            "no_faces", "The mesh has no faces with an area.", "Choose a mesh with a surface."
        )
    surface = surface.subset(solid)
    low, high = surface.bounds
    centre, scale = (low + high) / 2, EXTENT / float((high - low).max())
    used, faces = np.unique(surface.faces, return_inverse=True)
    vertices = (surface.vertices[used].astype(np.float64) - centre) * scale
    return replace(surface, vertices=vertices, faces=faces.reshape(-1, 3)), solid, centre, scale


def _kept(
    surface: Surface, charts: Charts, uvs: Floats, patches: int
) -> tuple[NDArray[np.bool_], float]:
    """Which charts (C,) are kept, and the dropped share of the area."""
    space = charts.sums(areas(surface.vertices[surface.faces]))
    kept = (space >= LEAST_AREA) & (charts.sums(areas(uvs)) >= LEAST_AREA)
    largest = np.argsort(-np.where(kept, space, -1), kind="stable")
    kept[largest[patches:]] = False
    if not kept.any():
        raise XRayError(
            "no_charts",
            f"None of the {charts.count} parts of the UV map is large enough for an omage.",
            "Join the parts of the UV map, or unwrap the mesh anew.",
        )
    return kept, float(1 - space[kept].sum() / space.sum())


def _packed(uvs: Floats, charts: Charts, resolution: int, smallest: int) -> Floats:
    """UVs (M, 3, 2) with the charts side by side."""
    low, high = charts.boxes(uvs)
    cells = min(smallest, resolution)
    try:
        scale, places = pack(high - low, cells, 1 / resolution)
    except ValueError as error:
        raise XRayError(
            "bad_settings",
            f"{charts.count} charts do not fit an omage of {resolution} pixels.",
            "Keep fewer patches or choose a higher resolution.",
        ) from error
    return (uvs - low[charts.chart][:, None]) * scale + places[charts.chart][:, None]


def _values(surface: Surface, found: ChartTexels) -> Floats:
    """Values (K, 12) of the texels."""
    corners = surface.vertices[surface.faces[found.face]]
    values = np.empty((len(found.pixel), CHANNELS))
    values[:, :3] = (np.einsum("kc,kcd->kd", found.weights, corners) + 1) / 2
    values[:, GEOMETRY_CHANNELS - 1] = 1
    values[:, 4:7] = (_normals(surface, found) + 1) / 2
    values[:, 7:10] = srgb_to_linear(surface_colors(surface, found.face, found.weights))
    values[:, 10], values[:, 11] = _factors(surface, found)
    return np.clip(values, 0, 1)


def _factors(surface: Surface, found: ChartTexels) -> tuple[Floats, Floats]:
    """Metallic and roughness (K,) of the texels."""
    materials = surface.materials or (Material(),)
    slot: NDArray[np.integer] = np.zeros(len(found.face), np.int64)
    if surface.face_material is not None:
        slot = surface.face_material[found.face]
    uv = np.zeros((len(found.face), 2))
    if surface.corner_uvs is not None:
        corners = surface.corner_uvs[found.face].astype(np.float64)
        uv = np.einsum("kc,kcd->kd", found.weights, corners)
    results = np.empty((2, len(found.face)))
    for number, material in enumerate(materials):
        chosen = slot == number
        for row, name in enumerate(("metallic", "roughness")):
            results[row, chosen] = getattr(material, name)
            texture = getattr(material, f"{name}_texture")
            if texture is not None and surface.corner_uvs is not None:
                results[row, chosen] *= sample_texture(
                    texture[..., None].repeat(3, axis=2),
                    uv[chosen],
                    material.wrap,
                    material.interpolation,
                )[:, 0]
    return results[0], results[1]


def _normals(surface: Surface, found: ChartTexels) -> Floats:
    """Unit normals (K, 3) from corner normals if the surface has them, else from the faces."""
    if surface.corner_normals is not None:
        corners = surface.corner_normals[found.face].astype(np.float64)
        normal = np.einsum("kc,kcd->kd", found.weights, corners)
    else:
        a, b, c = (surface.vertices[surface.faces[:, number]] for number in range(3))
        normal = np.cross(b - a, c - a)[found.face]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return normal / np.where(length > 0, length, 1)
