"""Quality gates: checks of captured items, some of which reject the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import XRayError
from ..files.plain import Plain
from ..settings.dataset import DatasetSettings

# The meaning of each gate in the report.
GATES = {
    "low_iou": "low silhouette IoU between image and first layer",
    "few_hits": "a view with too few hits",
    "dropped_hits": "hits behind the last layer were lost",
    "out_of_range": "hits nearer than near or farther than far",
    "empty": "no faces",
    "unreadable": "the file cannot be read",
    "missing_texture": "an image file of a material is missing: its faces are magenta",
    "incomplete": "a library or another file that the source names is missing",
    "far_from_origin": "so far from the origin that single precision shows",
}
# The gates that `judge` can decide again from metadata rows.
JUDGED = frozenset({"low_iou", "few_hits", "dropped_hits", "out_of_range"})


@dataclass(frozen=True)
class ViewStatistics(Plain):
    """Statistics of one view of an item.

    hits : per layer. dropped : hits behind the last layer. outside : hits outside near and far.
    iou : silhouette IoU of the image's alpha and the first layer; None without an image.
    """

    hits: list[int]
    dropped: int = 0
    outside: int = 0
    iou: float | None = None


def judge(
    views: Sequence[ViewStatistics],
    settings: DatasetSettings,
    transparent: Sequence[str] = (),
    clipped: Sequence[str] = (),
) -> tuple[list[str], XRayError | None]:
    """The gates that one item's views trigger, and the error if one of them rejects the item.

    transparent, clipped : names of materials that the image lacks, or shows only partly.
    """
    touched: list[str] = []
    reason: XRayError | None = None

    def gate(
        name: str,
        is_touched: bool,
        rejects: bool,
        message: str,
        remedy: str = "Change the gate to keep such objects.",
    ) -> None:
        nonlocal reason
        if is_touched or rejects:
            touched.append(name)
        if rejects and reason is None:
            reason = XRayError(name, message, remedy)

    hits = [sum(view.hits) for view in views]
    total, lost = sum(hits), sum(view.dropped for view in views)
    outside = sum(view.outside for view in views)
    gate(
        "few_hits",
        min(hits) < settings.min_hits,
        min(hits) < settings.min_hits,
        f"View {hits.index(min(hits)):03d} has {min(hits)} hits, fewer than {settings.min_hits}.",
    )
    ious = [view.iou for view in views if view.iou is not None]
    if ious:
        worst = min(ious)
        because, remedy = _why_not_in_image(transparent, clipped, settings)
        gate(
            "low_iou",
            worst < settings.min_iou,
            worst < settings.min_iou,
            f"Silhouette IoU is {worst:.3f} in one view, less than {settings.min_iou:g}{because}",
            remedy,
        )
    gate(
        "dropped_hits",
        lost > 0,
        lost > settings.max_dropped * (total + lost),
        f"{lost} of {total + lost} hits lie behind layer {settings.layers}.",
    )
    gate(
        "out_of_range",
        outside > 0,
        outside > settings.max_outside * total,
        f"{outside} of {total} hits lie nearer than {settings.near:g} or farther than "
        f"{settings.far:g}.",
        "Raise the gate (--max-outside) to keep such objects. With another --near or --far all "
        "items are made again.",
    )
    return touched, reason


def see_through(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The materials in an item's row that are transparent, and those that are alpha-clipped."""
    return row.get("transparent", []), row.get("clipped", [])


def _why_not_in_image(
    transparent: Sequence[str], clipped: Sequence[str], settings: DatasetSettings
) -> tuple[str, str]:
    """Why an image lacks a part of the object, as the end of a sentence, and the remedy."""
    if transparent:
        return f": the material {', '.join(transparent)} is transparent.", (
            "Make it opaque, or leave the object out; or change the gate (--min-iou)."
        )
    if clipped and not settings.alpha_clip:
        return f": the alpha of the material {', '.join(clipped)} hides parts of the object.", (
            "Let rays through where it does (--alpha-clip), or change the gate (--min-iou)."
        )
    return ".", "Change the gate to keep such objects."
