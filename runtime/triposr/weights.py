"""TripoSR's files: `config.yaml` beside `model.ckpt` or `model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from ..torch_helpers.tensors import first_names, read_tensors
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
    _check(state, model.state_dict(), weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.float().to(torch.device(device)).eval().requires_grad_(False)


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


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise `bad_weights` with the details if keys or shapes do not match."""
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if len(missing) == len(wanted):
        raise XRayError(
            "bad_weights",
            f"{path} contains the weights of another model, not of TripoSR ({first_names(extra)}).",
            "Choose TripoSR's model.ckpt, or the generator that these weights belong to.",
        )
    if missing or extra:
        problems = [f"{len(missing)} missing ({first_names(missing)})"] if missing else []
        problems += [f"{len(extra)} unexpected ({first_names(extra)})"] if extra else []
        raise XRayError(
            "bad_weights",
            f"{path} does not match its {CONFIG}: of {len(wanted)} tensors {', '.join(problems)}.",
            f"Use {CONFIG} and weights of the same source and version.",
        )
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise XRayError(
            "bad_weights",
            f"{path} does not match its {CONFIG}: the sizes of {len(wrong)} tensors differ "
            f"({first_names(wrong)}).",
            f"Use {CONFIG} and weights of the same source and version.",
        )
