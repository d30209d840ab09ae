"""Where Slice3D's three checkpoints are. Nothing here is downloaded: no hub has them."""

from __future__ import annotations

from pathlib import Path

from xray_addon.errors import XRayError
from xray_addon.systems.slice3d import FILES, PAGE, WeightsFile, checkpoint_folder

from .weights import DIFFUSION, FIELD, REGRESSION


def find_network(checkpoint: str, network: str) -> Path:
    """The file that holds `network`: "regression", "gt_to_3d" or "diffusion".

    checkpoint : a folder with the files, which may lie in the folders that their authors put them
        into; the file itself; "" for the checkpoint folder of X-Ray.

    Raises XRayError `missing_weights` with what to fetch, from where, and where to put it.
    """
    place = Path(checkpoint).expanduser() if checkpoint else checkpoint_folder()
    if place.is_file():
        return place
    wanted = FILES[network]
    for name in (f"{network}.safetensors", wanted.name):
        found = sorted(place.rglob(name)) if place.is_dir() else []
        if found:
            return found[0]
    raise XRayError(
        "missing_weights",
        f"{place} does not hold {wanted.name}, the weights of {wanted.what}.",
        _by_hand(place, wanted),
    )


def _by_hand(place: Path, wanted: WeightsFile) -> str:
    needed = [FILES[REGRESSION]]
    if wanted is not FILES[REGRESSION]:
        needed = [FILES[DIFFUSION], FILES[FIELD]]
    lines = "".join(f"\n  {file.path} -> {place / file.name}" for file in needed)
    return (
        f"Slice3D's authors publish them on a drive only: open {PAGE} in a browser, fetch and put "
        f"there:{lines}\nTheir licence is not stated by the authors."
    )
