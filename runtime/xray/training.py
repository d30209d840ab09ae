"""Training of a `Network` on meshes that are cast on the fly, or on a dataset on disk.

python -m runtime train --config FILE --data DIR --out DIR [--minutes N] [--resume]

DIR contains meshes, or is a dataset: in the published layout, a folder of tars, a tar or a
metadata.jsonl. The command writes to --out: `checkpoint.pt` (everything that a resumed run needs),
`model.safetensors` (the averaged weights, rounded, which the generator loads) and the metrics (see
`training.run`). Several processes can train together, see `parallel`.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.errors import XRayError

from ..meshes.collection import Source, list_meshes
from ..torch_helpers.devices import training_dtype
from ..training import parallel, run
from ..training.configs import RunConfig
from ..training.datasets import XRayDataset
from ..training.muon import Optimizers, update_average
from ..training.random_objects import RandomObject
from ..training.trainer import WEIGHTS, term_values
from ..training.trainer import Trainer as SharedTrainer
from .batches import BatchDataset
from .data import CastDataset, Pairs, Variety
from .networks import adapted, make_network
from .networks.base import Network, NetworkConfig, Prediction, image_to_input
from .sampling import noised
from .stored import StoredDataset, stored_places
from .weights import load_weights, save_weights


@dataclass
class TrainingConfig(RunConfig):
    """How a model is built and trained.

    network to lens : see `NetworkConfig`.
    batch : samples per step and process; an even number, because samples come in pairs.
    samples : length of the run and of the learning rate's cosine schedule.
    compute_minutes : if above 0, the length of both in minutes of computation by the steps, instead
        of samples. It is CPU time on a CPU, so that runs on a busy machine can be compared.
    denoise_share : share of each batch that learns to denoise the hidden layers, which sampling
        needs. The rest learns to predict all layers in one pass.
    cast : "workers" casts meshes in the loader's workers, "device" a batch at a time on the
        training device. The samples are the same.
    one_color_share : probability of accepting a random object that has one flat colour, 0 to 1.
    random_objects : number of random objects to add to the meshes, see `training.random_objects`.
    roll : standard deviation of the camera's roll, degrees.
    stretch : by how much objects are stretched, see `data.new_shape`.
    farthest : how many times as far away as in the canonical frame cameras are at most, see
        `views.random_frame`; needs lens.
    only_lens : train only what the lens changes. Images of the canonical camera give the same as
        with the weights of start_from.
    start_from : weights (safetensors) to start from, of the same network but possibly another
        resolution or fewer blocks at the coarsest level; "" for random weights.
    """

    example: ClassVar[str] = "runtime/xray/config.json"
    network_settings: ClassVar[tuple[str, ...]] = (
        *("network", "layers", "resolution", "image_resolution"),
        *("channels", "blocks", "fold", "frame_features", "lens"),
    )

    generator: str = "xray"
    network: str = "stacked"
    layers: int = 8
    resolution: int = 64
    image_resolution: int = 128
    channels: tuple[int, ...] = (96, 224, 288)
    blocks: tuple[int, ...] = (2, 2, 3)
    fold: int = 2
    frame_features: int = 32
    lens: bool = False
    samples: int = 146_000
    compute_minutes: float = 0.0
    learning_rate: float = 2e-3
    ema: float = 0.999
    denoise_share: float = 0.0
    depth_weight: float = 4.0
    hit_weight: float = 1.0
    normal_weight: float = 1.0
    color_weight: float = 1.0
    pose_weight: float = 0.5
    split: str = "train"
    exclude: tuple[str, ...] = ()
    cast: str = "workers"
    one_color_share: float = 1.0
    random_objects: int = 0
    roll: float = 0.0
    stretch: float = 0.0
    farthest: float = 1.0
    only_lens: bool = False
    start_from: str = ""

    def __post_init__(self) -> None:
        if self.batch < 2 or self.batch % 2:
            raise ValueError(f"batch must be an even number, got {self.batch}")
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}")
        if not 0 < self.one_color_share <= 1:
            raise ValueError(f"one_color_share must be above 0, at most 1: {self.one_color_share}")
        if self.random_objects < 0:
            raise ValueError(f"random_objects must be 0 or more, got {self.random_objects}")
        if self.stretch < 0:
            raise ValueError(f"stretch must be 0 or more, got {self.stretch}")
        if self.farthest < 1:
            raise ValueError(f"farthest must be 1 or more, got {self.farthest}")
        if self.farthest > 1 and not self.lens:
            raise ValueError("farthest above 1 needs lens, which says how far away a camera is")
        if self.only_lens and not (self.lens and self.start_from):
            raise ValueError("only_lens needs lens, and start_from with the weights that stay")
        if self.cast not in ("workers", "device"):
            raise ValueError(f"cast must be workers or device, got {self.cast!r}")
        self.network_config()

    def length(self) -> int:
        """Samples of the whole run, if it is not counted in minutes."""
        return self.samples

    def network_config(self) -> NetworkConfig:
        """The network's part of the configuration."""
        return NetworkConfig(
            network=self.network,
            layers=self.layers,
            resolution=self.resolution,
            image_resolution=self.image_resolution,
            channels=self.channels,
            blocks=self.blocks,
            fold=self.fold,
            frame_features=self.frame_features,
            lens=self.lens,
        )

    def model(self) -> Network:
        """A new model with random weights."""
        return make_network(self.network_config())


def losses(prediction: Prediction, frames: Tensor, pose: Tensor) -> dict[str, Tensor]:
    """The terms of the loss: depth, normal and colour (mean L1 over the hits), hit and pose.

    frames (B, L, 8, S, S) as in `views.to_frames`, pose (B, 2).
    """
    got = prediction.frames
    hit = frames[:, :, 7] > 0
    count = hit.sum().clamp(min=1)

    def over_hits(first: int, last: int) -> Tensor:
        error = (got[:, :, first:last] - frames[:, :, first:last]).abs().mean(dim=2)
        return (error * hit).sum() / count

    return {
        "depth": over_hits(0, 1),
        "normal": over_hits(1, 4),
        "color": over_hits(4, 7),
        "hit": functional.binary_cross_entropy_with_logits(got[:, :, 7], hit.float()),
        "pose": (prediction.pose - pose).abs().sum(dim=1).mean(),
    }


class Trainer(SharedTrainer[TrainingConfig]):
    """A model, its average and its optimisers.

    Forward and backward passes run on a copy in `training_dtype`.
    """

    several_processes = True
    model: Network

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        if config.start_from:
            start, _ = load_weights(Path(config.start_from), device)
            try:
                self.model = adapted(start, config.network_config())
            except ValueError as error:
                raise XRayError(
                    "bad_settings",
                    f"The configuration's network cannot start from {config.start_from}: {error}.",
                    "Give it the network of those weights; only the size of frames and image, "
                    "lens, and a larger last number of blocks may differ.",
                ) from error
        else:
            self.model = config.model().to(self.device)
        self.model.train()
        if config.only_lens:
            self.model.requires_grad_(False)
            for parameter in self.model.lens_parameters():
                parameter.requires_grad_(True)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        dtype = training_dtype(self.device)
        self.working = copy.deepcopy(self.model)
        for parameter in self.working.parameters():
            parameter.data = parameter.data.to(dtype)
        self.muon = Optimizers(self.model, self.model.kernels(), config, dtype)
        self.optimizers = self.muon.both
        self.compute_seconds = 0.0

    def dataset(self, data: Path) -> Pairs:
        """The training samples of this process, from the meshes or the dataset in `data`."""
        config = self.config
        shape: dict[str, int] = {
            "seed": config.seed,
            "layers": config.layers,
            "resolution": config.resolution,
            "image_resolution": config.image_resolution,
            "batch": config.batch,
            "first_batch": self.samples // config.batch + parallel.rank(),
            "batch_step": parallel.processes(),
        }
        if places := stored_places(data):
            names = ("exclude", "one_color_share", "random_objects", "roll", "stretch")
            default = TrainingConfig()
            if any(getattr(config, name) != getattr(default, name) for name in names):
                raise XRayError(
                    "bad_settings",
                    f"{data} holds finished views, so {', '.join(names[:-1])} and {names[-1]} have "
                    "no effect.",
                    "Remove them from the configuration, or train on meshes.",
                )
            return StoredDataset(XRayDataset(places), **shape)
        files: list[Source] = [*list_meshes(data, split=config.split, exclude=config.exclude)]
        files += map(RandomObject, range(config.random_objects))
        roll, pairs = math.radians(config.roll), max(1, config.samples // 2)
        variety = Variety(config.one_color_share, roll, config.stretch, pairs, config.farthest)
        if config.cast == "device":
            return BatchDataset(files, variety=variety, device=self.device, **shape)
        return CastDataset(files, variety=variety, **shape)

    def done(self) -> float:
        """Share of the run that is done, 0 to 1."""
        config = self.config
        if config.compute_minutes:
            return min(1.0, self.compute_seconds / (60 * config.compute_minutes))
        return super().done()

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        began = clock()
        with torch.no_grad():
            torch._foreach_copy_(list(self.working.parameters()), list(self.model.parameters()))
        terms = self.losses({name: tensor.to(self.device) for name, tensor in batch.items()})
        total = self.total(terms)
        total.backward()
        for parameter, copied in zip(
            self.model.parameters(), self.working.parameters(), strict=True
        ):
            parameter.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None
        parallel.average([p.grad for p in self.model.parameters() if p.grad is not None])
        self.muon.take_gradients()
        # Clip the other gradients only: the size of Muon's steps does not depend on them.
        self.move(total, self.muon.others)
        self.count(len(batch["image"]))
        update_average(self.average, self.model, self.config.ema, self.steps)
        result = term_values(terms, total)
        # All processes count the same time, because it sets the learning rate.
        seconds = torch.tensor(clock() - began, device=self.device)
        parallel.average([seconds])
        self.compute_seconds += float(seconds)
        return result

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The `losses` of the copy."""
        frames = batch["frames"]
        seen, share = self._seen(frames)
        image, pose = image_to_input(batch["image"]), batch["pose"]
        prediction = self.working(image, seen, share, pose[:, 2])
        return losses(prediction, frames, pose[:, :2])

    def _seen(self, frames: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The noised frames that the network sees, and their share of signal (B,).

        Samples for the one-pass predictor have zeros for both. Returns None if all are such.
        """
        config = self.config
        if not config.denoise_share:
            return None, None
        generator = torch.Generator().manual_seed(
            config.seed * 1_000_003 + self.samples + parallel.rank()
        )
        denoised = torch.rand(len(frames), generator=generator) < config.denoise_share
        share = (torch.rand(len(frames), generator=generator) * denoised).to(self.device)
        noise = torch.randn(frames.shape, generator=generator).to(self.device)
        kept = denoised.to(self.device)[:, None, None, None, None]
        return noised(frames, noise, share) * kept, share

    def parts(self) -> dict[str, Any]:
        """The objects with a `state_dict`, or lists of them, by their name in the checkpoint."""
        return super().parts() | {"average": self.average}

    def counters(self) -> tuple[str, ...]:
        """The names of the attributes that store the run's progress."""
        return (*super().counters(), "compute_seconds")

    def record(self) -> dict[str, Any]:
        """How the weights were trained, as plain data."""
        return super().record() | {"trained_compute_seconds": round(self.compute_seconds)}

    def save_weights(self, folder: Path) -> None:
        """Write the averaged weights, rounded, for the generator."""
        save_weights(folder / WEIGHTS, self.average, self.record())

    def load_weights(self, folder: Path) -> dict[str, Any]:
        """Load the weights written by `save_weights` in `folder`; returns their record."""
        model, record = load_weights(folder / WEIGHTS, str(self.device))
        if model.config != self.model.config:
            raise ValueError("it holds another network")
        self.model.load_state_dict(model.state_dict())
        self.average.load_state_dict(model.state_dict())
        return record

    def start_warm(self, folder: Path) -> dict[str, Any]:
        """Continue from the weights in `folder`; returns their record."""
        record = super().start_warm(folder)
        self.compute_seconds = record.get("trained_compute_seconds", 0)
        return record


train = partial(run.train, Trainer)
