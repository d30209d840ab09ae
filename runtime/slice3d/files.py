"""Finds Slice3D's three checkpoints. They cannot be downloaded here: no hub has them."""

from __future__ import annotations

from pathlib import Path

from xray_addon.errors import XRayError
from xray_addon.systems.slice3d import SYSTEM, Slice3DSettings
from xray_addon.systems.weights import find_by_hand, hand_folder, megabytes


def find_network(network: str, settings: Slice3DSettings) -> Path:
    """The file of `network`: "regression", "gt_to_3d" or "diffusion".

    Raises XRayError `missing_weights` with what to download, from where, and where to put it.
    """
    by_hand = SYSTEM.by_hand
    assert by_hand is not None
    wanted = next(file for file in by_hand.files if file.key == network)
    found = find_by_hand(SYSTEM, wanted, settings.checkpoint)
    if found is not None:
        return found
    place = Path(settings.checkpoint).expanduser() if settings.checkpoint else hand_folder(SYSTEM)
    lines = "".join(
        f"\n  {file.path} (at least {megabytes(file.size)}) -> {place / file.name}"
        for file in by_hand.needed(settings)
    )
    raise XRayError(
        "missing_weights",
        f"{place} does not hold {wanted.name}, the weights of {wanted.what}.",
        f"Slice3D's authors publish them on a drive only. Open {by_hand.page} in a browser, fetch "
        f"these files and put them there:{lines}\nTheir licence is {by_hand.licence}.",
    )
