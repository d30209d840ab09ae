"""Measures how a mesh looks, which distances to the truth do not show.

Slivers are thin triangles, roughness is how lumpy a side is, and the base is how flat an object
stands; `meshes.topology` counts handles and loose parts. All of them are properties of one mesh.
They are measured for the truth, too, to see what belongs to the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xray_addon.camera import Camera
from xray_addon.surface import Surface
from xray_addon.xray import Points, XRay

from ..meshes.trees import tree
from .cases import in_camera

SLIVER = 8.0  # longest side over the height upon it, from which on a triangle is one
SAMPLES = 10_000
# A place belongs to the rim if the cosine of its normal to the camera is at most this.
RIM_COSINE = 0.35
# Radius of the neighbourhood that a normal is compared with, as a share of the longest side.
NEIGHBOURHOOD = 0.03
SIDES = ("seen", "rim", "hidden")
# Width of the columns that sample the underside, as a share of the longest side.
COLUMN = 0.02
# An object stands flat if FLAT_SHARE of its underside is at most FLAT_HEIGHT (as a share of the
# longest side) above its lowest point.
FLAT_SHARE = 0.2
FLAT_HEIGHT = 0.01

Floats = NDArray[np.float64]


def sliver_share(surface: Surface) -> float:
    """Share of the triangles whose longest side is more than `SLIVER` times the height upon it."""
    corners = surface.vertices[surface.faces].astype(np.float64)
    sides = np.roll(corners, -1, axis=1) - corners
    longest = (sides**2).sum(axis=2).max(axis=1)
    doubled_area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    return float((longest > SLIVER * doubled_area).mean()) if len(corners) else 0.0


def roughness(surface: Surface, camera: Camera, size: float, seed: int = 0) -> dict[str, float]:
    """Mean angle in degrees between normals and their neighbourhood's mean normal, for each of
    `SIDES` that the mesh has.

    Places are sampled uniformly over the area. The neighbourhood's normal decides the side of a
    place. size : length of the object's longest side.
    """
    places, normals = _oriented_samples(surface, seed)
    pairs = tree(places).query_pairs(NEIGHBOURHOOD * size, output_type="ndarray")
    # Skip neighbours that face away: they are on the other side of a thin part.
    pairs = pairs[(normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(axis=1) > 0]
    ends = np.concatenate([pairs, pairs[:, ::-1], np.arange(len(places))[:, None].repeat(2, 1)])
    near = sparse.csr_matrix(
        (np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(places), len(places))
    )
    mean = near @ normals
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    angle = np.degrees(np.arccos(np.clip((mean * normals).sum(axis=1), -1, 1)))
    towards = camera.position - places
    facing = (mean * towards).sum(axis=1) / np.linalg.norm(towards, axis=1)
    groups = (facing > RIM_COSINE, np.abs(facing) <= RIM_COSINE, facing < -RIM_COSINE)
    return {
        side: float(angle[group].mean())
        for side, group in zip(SIDES, groups, strict=True)
        if group.any()
    }


def _oriented_samples(surface: Surface, seed: int) -> tuple[Floats, Floats]:
    """Places (N, 3) sampled uniformly over the area, and the normals (N, 3) of their faces."""
    random = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    face = random.choice(len(area), size=SAMPLES, p=area / area.sum())
    share = random.dirichlet((1.0, 1.0, 1.0), SAMPLES)
    places = np.einsum("ni,nij->nj", share, corners[face])
    return places, normal[face] / area[face, None]


def base_height(surface: Surface, share: float, size: float) -> float:
    """Mean height of the lowest `share` of the underside above the lowest point, as a share of
    `size`; 0 if the object stands flat."""
    heights = np.sort(_underside(surface, size))
    return float(heights[: max(1, round(share * len(heights)))].mean())


def flat_share(surface: Surface, size: float) -> float:
    """The share of the underside that is less than `FLAT_HEIGHT` above the lowest point."""
    return float((_underside(surface, size) < FLAT_HEIGHT).mean())


def _underside(surface: Surface, size: float) -> Floats:
    """Heights of the lowest place in each column above the lowest point, as a share of `size`."""
    places = surface.sample(5 * SAMPLES, 0) / size
    column = np.floor((places[:, :2] - places[:, :2].min(axis=0)) / COLUMN).astype(np.int64)
    _, number = np.unique(column, axis=0, return_inverse=True)
    lowest = np.full(int(number.max()) + 1, np.inf)
    np.minimum.at(lowest, number.reshape(-1), places[:, 2])
    return lowest - lowest.min()


def hidden_colors(prediction: Points, truth: XRay, camera: Camera, seed: int) -> dict[str, float]:
    """Mean colour errors, 0..1, at the truth's hits behind its first layer; empty without any.

    "color" is the error of the prediction's nearest points. Two baselines are the true visible
    colour at the same pixel ("front") and the mean true visible colour ("mean").

    prediction : points behind its first layer, or all of them, in the camera's axes. camera : of
    the truth.
    """
    _, height, width = truth.shape
    behind = np.flatnonzero(truth.index >= height * width)
    if not len(behind) or not len(prediction):
        return {}
    behind = np.random.default_rng(seed).permutation(behind)[:SAMPLES]
    points = in_camera(truth.points(camera).positions[behind], camera)
    colors = truth.hit_color[behind]
    visible = truth.color[0].reshape(-1, 3)
    guesses = {
        "color": prediction.colors[tree(prediction.positions).query(points)[1]],
        "front": visible[truth.index[behind] % (height * width)],
        "mean": truth.hit_color[truth.index < height * width].mean(axis=0),
    }
    return {name: float(np.abs(guess - colors).mean()) for name, guess in guesses.items()}
