"""Training of `Segmenter` on composites that are made on the fly.

python -m runtime train --config runtime/segmentation/config.json --data DIR --out DIR

DIR holds meshes; --out gets `checkpoint.pt` (everything a resumed run needs), `metrics.jsonl` and
`segmentation.onnx`, which rembg runs. Writing that file takes the packages onnx and onnxscript,
which nothing else here needs.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing
from xray_addon.progress import ProgressCallback, ignore_progress

from ..meshes.collection import list_meshes
from ..training.configs import read_config
from ..training.run import CHECKPOINT, refuse_another, run
from .data import Composites
from .model import REDUCTION, SIZE, Segmenter, normalize

LOG_STEPS = 50
WEIGHTS = "segmentation.onnx"


@dataclass
class TrainingConfig:
    """One file a model: how it is built and trained.

    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    """

    generator: str = "segmentation"
    seed: int = 0
    channels: tuple[int, ...] = (24, 48, 72, 96)
    middle: int = 2
    batch: int = 32
    samples: int = 60_000
    warmup_samples: int = 3_000
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    workers: int = 1
    split: str = "train"
    exclude: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/segmentation/config.json")


def losses(logits: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each pixel, and one less the soft intersection over union of each photo.

    logits, alpha : (B, 1, S, S).
    """
    got = logits.sigmoid()
    both = (got * alpha).sum(dim=(1, 2, 3))
    either = (got + alpha - got * alpha).sum(dim=(1, 2, 3)).clamp(min=1)
    return {
        "pixel": functional.binary_cross_entropy_with_logits(logits, alpha),
        "overlap": (1 - both / either).mean(),
    }


class Trainer:
    """A model, its optimiser and where they are; `save` and `resume` keep all."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        # Small activations turn into denormals, which CPUs compute ten times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
        model = Segmenter(config.channels, config.middle)
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.samples = 0
        self.seconds = 0.0

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / self.config.samples)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        config = self.config
        warm = min(1.0, (self.samples + config.batch) / config.warmup_samples)
        return (
            config.learning_rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * self.done())) / 2)
        )

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        photo, alpha = batch["photo"].to(self.device), batch["alpha"].to(self.device)
        photo = normalize(photo).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model.logits(photo)
        terms = losses(logits.float(), alpha)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.samples += len(photo)
        return {name: float(term.detach()) for name, term in terms.items()}

    def save(self, folder: Path) -> None:
        """Write all that a resumed run needs, whole or not at all."""
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "samples": self.samples,
            "seconds": self.seconds,
        }
        with replacing(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises XRayError `bad_checkpoint`."""
        path = folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise XRayError(
                "bad_checkpoint",
                f"{path} cannot be resumed ({error}).",
                "Train without --resume, or give the configuration it was trained with.",
            ) from error
        self.samples, self.seconds = state["samples"], state["seconds"]


def export(model: Segmenter, path: Path) -> None:
    """Write what rembg's `u2net_custom` runs: ONNX, its kernels in half precision.

    Raises XRayError `missing_package`.
    """
    try:
        onnx = importlib.import_module("onnx")
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise XRayError(
            "missing_package",
            f"Writing {path.name} takes the package {error.name}.",
            "pip install onnx onnxscript; then train with --resume, which goes on from here.",
        ) from error
    example = torch.zeros(1, 3, SIZE, SIZE)
    program = torch.onnx.export(
        model.eval().cpu(), (example,), input_names=["photo"], output_names=["alpha"], verbose=False
    )
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == "float32" and values.size > 1024:
            # Kept in half precision, and made single again when the file is loaded.
            casts.append(
                onnx.helper.make_node(
                    "Cast", [tensor.name + ".half"], [tensor.name], to=onnx.TensorProto.FLOAT
                )
            )
            half = onnx.numpy_helper.from_array(values.astype("float16"), tensor.name + ".half")
            tensor.CopyFrom(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        del node.metadata_props[:]  # where in which file of this machine each was traced
    onnx.checker.check_model(proto)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> Trainer:
    """Train until `config.samples`, for `minutes` at most, or until `progress` cancels.

    However it ends, a checkpoint is left in `out`; by itself, also `segmentation.onnx`. Raises
    XRayError.
    """
    if not resume:
        refuse_another(out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, device)
    if resume:
        trainer.resume(out)
    dataset = Composites(
        list_meshes(data, split=config.split, exclude=config.exclude),
        seed=config.seed,
        size=SIZE // REDUCTION,
        first_sample=trainer.samples,
    )
    run(
        trainer,
        dataset,
        out,
        batch=config.batch,
        workers=config.workers,
        minutes=minutes,
        log_steps=LOG_STEPS,
        progress=progress,
    )
    export(trainer.model, out / WEIGHTS)
    return trainer
