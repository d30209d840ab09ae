"""The named evaluation protocols, their metrics and confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_addon.xray import Points, XRay

from ..meshes.trees import tree

RESAMPLES = 1000
_ROUNDS = 50  # most rounds of the alignment
_MOVED = 1e-5  # it ends when a round moves the points by less, relative to the truth's size

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Protocol:
    """One way of comparing point sets in the literature.

    thresholds : of the F-scores. distance_factor : CD is the sum of the two mean unsquared nearest
    distances times this. aligned : the prediction is first aligned with the truth.
    """

    name: str
    thresholds: tuple[float, ...]
    distance_factor: float
    aligned: bool
    about: str


CAMERA = Protocol(
    "camera",
    (0.1, 0.05, 0.02, 0.01),
    0.5,
    False,
    "camera frame, no alignment; CD is half the sum of the two mean distances",
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        CAMERA,
        Protocol(
            "xray",
            (0.1,),
            1.0,
            True,
            "as in X-Ray (arXiv 2404.14329): aligned means, scaled, ICP; CD is the sum of the two "
            "mean distances",
        ),
        Protocol(
            "lari",
            (0.1, 0.05, 0.02),
            0.5,
            False,
            "as in LaRI (arXiv 2504.18424): camera frame; CD is the average of the two mean "
            "distances",
        ),
    )
}


def compare(
    prediction: Positions, truth: Positions, scale: float, protocol: Protocol = CAMERA
) -> dict[str, float]:
    """CD and F-scores of points (N, 3) and (M, 3), in units of `scale`: "cd", "f@0.1", ...

    As `xray_addon.metrics`, but with a k-d tree.
    """
    prediction, truth = prediction / scale, truth / scale
    if protocol.aligned:
        prediction = align(prediction, truth)
    forth = tree(truth).query(prediction)[0]
    back = tree(prediction).query(truth)[0]
    result = {"cd": protocol.distance_factor * float(forth.mean() + back.mean())}
    for threshold in protocol.thresholds:
        precision, recall = float((forth < threshold).mean()), float((back < threshold).mean())
        total = precision + recall
        result[f"f@{threshold}"] = 2 * precision * recall / total if total else 0.0
    return result


def align(points: Positions, target: Positions) -> Positions:
    """`points` (N, 3) aligned with `target` (M, 3): same mean, same size, then rotated by ICP.

    Size is the root mean square distance from the mean. ICP as in Besl and McKay (1992).
    """
    centre = target.mean(axis=0)
    moved, fixed = points - points.mean(axis=0), target - centre
    size = np.sqrt((fixed**2).sum(axis=1).mean())
    moved = moved * (size / max(np.sqrt((moved**2).sum(axis=1).mean()), 1e-12))
    known = tree(fixed)
    for _ in range(_ROUNDS):
        nearest = fixed[known.query(moved)[1]]
        from_mean, to_mean = moved.mean(axis=0), nearest.mean(axis=0)
        u, _, v = np.linalg.svd((moved - from_mean).T @ (nearest - to_mean))
        mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
        turned = (moved - from_mean) @ u @ mirror @ v + to_mean
        step = np.abs(turned - moved).max()
        moved = turned
        if step < _MOVED * size:
            break
    return moved + centre


def hidden_distance(prediction: Positions, hidden: Positions, scale: float) -> float:
    """Mean distance from the hidden points (M, 3) of the truth to the prediction (N, 3)."""
    return float(tree(prediction).query(hidden)[0].mean() / scale)


def compare_looks(prediction: Points, truth: Points) -> dict[str, float]:
    """Compare the surfaces at nearest points, both ways: "normal" is the mean |cosine| between
    normals, 0..1, and "color" the mean absolute difference of the channels, 0..1."""
    result = {"normal": 0.0, "color": 0.0}
    for a, b in ((prediction, truth), (truth, prediction)):
        near = tree(b.positions).query(a.positions)[1]
        cosine = np.einsum("ij,ij->i", a.normals, b.normals[near])
        result["normal"] += 0.5 * float(np.abs(cosine).mean())
        result["color"] += 0.5 * float(np.abs(a.colors - b.colors[near]).mean())
    return result


def hit_overlap(prediction: XRay, truth: XRay, layers: int) -> list[float | None]:
    """Intersection over union of the hits of each of the first `layers`; None if neither X-Ray
    has hits there. Both are (L, H, W) with the same H and W."""
    result: list[float | None] = []
    for layer in range(layers):
        one, other = (
            xray.hit[layer] if layer < xray.shape[0] else np.zeros(xray.shape[1:], dtype=np.bool_)
            for xray in (prediction, truth)
        )
        either = int((one | other).sum())
        result.append(float((one & other).sum()) / either if either else None)
    return result


def interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of `values`, by a seeded bootstrap (Efron 1979)."""
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
