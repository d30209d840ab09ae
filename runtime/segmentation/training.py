"""Trains `Segmenter` on composites that are made on the fly.

python -m runtime train --config runtime/segmentation/config.json --data DIR --out DIR

--data is a folder of meshes. --out gets `checkpoint.pt` (everything for resuming),
`model.safetensors` (only the weights), the metrics (see `training.run`) and, at the end,
`segmentation.onnx`. Only that file needs the packages onnx and onnxscript.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError
from xray_addon.files.atomic import replacing

from ..meshes.collection import list_meshes
from ..torch_helpers.devices import training_dtype
from ..training import run
from ..training.configs import RunConfig
from ..training.trainer import WEIGHTS
from ..training.trainer import Trainer as SharedTrainer
from .data import REUSE, Composites
from .model import REDUCTION, SIZE, Segmenter, normalize

ONNX = "segmentation.onnx"


@dataclass
class TrainingConfig(RunConfig):
    """How the network is built and trained.

    samples : length of the learning rate's cosine schedule, and of the run unless it is stopped.
    """

    example: ClassVar[str] = "runtime/segmentation/config.json"
    network_settings: ClassVar[tuple[str, ...]] = ("channels", "middle")

    generator: str = "segmentation"
    channels: tuple[int, ...] = (24, 48, 72, 96)
    middle: int = 2
    samples: int = 60_000
    warmup: float = 0.05
    learning_rate: float = 3e-3
    gradient_norm: float = 0.0
    split: str = "train"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch % REUSE:
            raise ValueError(f"batch must be a multiple of {REUSE}, got {self.batch}")

    def length(self) -> int:
        """Samples of the whole run."""
        return self.samples


def losses(logits: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each pixel, and 1 - soft intersection over union of each photo.

    logits, alpha : (B, 1, S, S).
    """
    got = logits.sigmoid()
    both = (got * alpha).sum(dim=(1, 2, 3))
    either = (got + alpha - got * alpha).sum(dim=(1, 2, 3)).clamp(min=1)
    return {
        "pixel": functional.binary_cross_entropy_with_logits(logits, alpha),
        "overlap": (1 - both / either).mean(),
    }


class Trainer(SharedTrainer[TrainingConfig]):
    """A `Segmenter` and its optimiser."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        segmenter = Segmenter(config.channels, config.middle)
        self.model = segmenter.to(self.device, memory_format=torch.channels_last).train()
        self.optimizers = [
            torch.optim.AdamW(
                self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
            )
        ]

    def dataset(self, data: Path) -> Composites:
        """Composites of the meshes in `data`."""
        config = self.config
        return Composites(
            list_meshes(data, split=config.split, exclude=config.exclude),
            seed=config.seed,
            size=SIZE // REDUCTION,
            batch=config.batch,
            first_batch=self.samples // config.batch,
        )

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `losses`."""
        photo = normalize(batch["photo"]).contiguous(memory_format=torch.channels_last)
        dtype = training_dtype(self.device)
        with torch.autocast(self.device.type, dtype, enabled=dtype == torch.bfloat16):
            logits = self.model.logits(photo)
        return losses(logits.float(), batch["alpha"])

    def save_weights(self, folder: Path) -> None:
        """Write weights from which a run can continue."""
        tensors = {name: t.cpu().contiguous() for name, t in self.model.state_dict().items()}
        with replacing(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, {"training": json.dumps(self.record())})

    def finish(self, folder: Path) -> None:
        """Write `segmentation.onnx`."""
        export(self.model, folder / ONNX)


def export(model: Segmenter, path: Path) -> None:
    """Write an ONNX file with kernels in half precision.

    Raises XRayError `missing_package`.
    """
    try:
        onnx = importlib.import_module("onnx")
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise XRayError(
            "missing_package",
            f"Writing {path.name} needs the package {error.name}.",
            "Run `pip install onnx onnxscript`, then train with --resume to continue from here.",
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
            # Stored in half precision, and converted to single when the file is loaded.
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
        del node.metadata_props[:]  # source files and lines on this machine
    onnx.checker.check_model(proto)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


train = partial(run.train, Trainer)
