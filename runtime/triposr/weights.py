"""TripoSR's files: `config.yaml` beside `model.ckpt` or `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from ..torch_helpers.tensors import filled, read_tensors
from .config import TripoSRConfig
from .model import TripoSR

CONFIG = "config.yaml"
WEIGHTS = ("model.safetensors", "model.ckpt")  # the first that exists


def load_weights(path: Path, device: str = "cpu") -> TripoSR:
    """Load the network from a folder, or from a weights file with its configuration beside it.

    Pickled files are read with `weights_only`, so they cannot run code. Keys must match exactly.

    Raises XRayError `missing_weights`, `bad_weights`, `unsafe_weights`.
    """
    weights = _find(path)
    config = TripoSRConfig.read(weights.parent / CONFIG)
    with torch.device("meta"):
        model = TripoSR(config)
    state = read_tensors(weights)
    remedy = f"Use TripoSR's model.ckpt, with the {CONFIG} of the same source and version."
    return filled(model, state, weights, f"its {CONFIG}", remedy).to(torch.device(device))


def save_weights(folder: Path, model: TripoSR, record: dict[str, str]) -> None:
    """Write the files that `load_weights` and the published code read, each atomically.

    record : stored in the safetensors metadata. Raises OSError.
    """
    config, vit = model.config.published()
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for name, content in (
        (WEIGHTS[0], save(tensors, metadata={"format": "pt"} | record)),
        (CONFIG, config.encode()),
        ("dino/config.json", vit.encode()),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


def _find(path: Path) -> Path:
    """The weights file in the folder `path`, or `path` itself."""
    if path.is_dir():
        found = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    else:
        found = path if path.is_file() else None
    folder = path if path.is_dir() or not path.suffix else path.parent
    missing = [] if found else [" or ".join(reversed(WEIGHTS))]
    if not (folder / CONFIG).is_file():
        missing.append(CONFIG)
    if found is None or missing:
        raise XRayError(
            "missing_weights",
            f"{folder} lacks {' and '.join(missing)}.",
            f"Put TripoSR's {CONFIG} and model.ckpt (1.7 GB) into one folder and choose it.",
        )
    return found
