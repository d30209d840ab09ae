"""Trains the geometry network or the material network on omages.

python -m runtime train --config runtime/omages/null2geo.json --data OMAGES --out DIR/geometry
python -m runtime train --config runtime/omages/geo2mat.json --data OMAGES --out DIR/material

OMAGES is a folder of `.npz` omages in folders named after categories, a dataset with omages, or
the published `df_p64_m02_res64.h5`. Losses and optimisers are the published ones. `--generator
omages --checkpoint DIR` finds both weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..training import run
from ..training.configs import RunConfig
from ..training.trainer import Trainer as SharedTrainer
from .data import SPLITS, OmageDataset, collection, split_numbers
from .objectives import GeometryObjective, MaterialObjective
from .sampling import Schedule
from .transformer import GeometryTransformer, TransformerConfig
from .unet import MaterialNetwork, UNetConfig
from .weights import GEOMETRY_FILE, MATERIAL_FILE, save_geometry, save_material

AVERAGE = 0.999  # decay of the material network's running average


@dataclass
class TrainingConfig(RunConfig):
    """How a network is built and trained; the learning rate is constant, as published.

    part : "geometry" or "material". network : fields of `TransformerConfig` or `UNetConfig` that
    differ from the published ones. size : px per side of the omages. samples : length of the run
    unless it is stopped. split : "train", "val" or "all", as published.
    """

    example: ClassVar[str] = "runtime/omages/null2geo.json"
    network_settings: ClassVar[tuple[str, ...]] = ("part", "network", "size")

    generator: str = "omages"
    part: str = "geometry"
    network: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    batch: int = 4
    samples: int = 24_000_000
    warmup: float = 0.0
    learning_rate: float = 1e-4
    final_rate: float = 1.0
    weight_decay: float = 0.0
    gradient_norm: float = 0.0
    split: str = "all"

    def __post_init__(self) -> None:
        if self.part not in ("geometry", "material"):
            raise ValueError(f"part must be 'geometry' or 'material', got {self.part!r}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {self.split!r}")
        if min(self.batch, self.samples, self.size) < 1:
            raise ValueError("batch, samples and size must be 1 or more")
        self.network_config()

    def length(self) -> int:
        """Samples of the whole run."""
        return self.samples

    def network_config(self) -> TransformerConfig | UNetConfig:
        """The network's configuration."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in self.network.items()
        }
        if self.part == "geometry":
            return TransformerConfig(**values | {"size": self.size})
        return UNetConfig(**values)


class Trainer(SharedTrainer[TrainingConfig]):
    """A network, its optimiser and, for the material network, its running average."""

    weights_files = (GEOMETRY_FILE, MATERIAL_FILE)
    log_steps = 20

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        made = config.network_config()
        if isinstance(made, TransformerConfig):
            self.model = GeometryTransformer(made)
            self.objective: Any = GeometryObjective(Schedule.geometry())
            trained: nn.Module = self.model
            kind: Any = partial(torch.optim.AdamW, weight_decay=config.weight_decay)
        else:
            self.model = MaterialNetwork(made)
            self.objective = MaterialObjective()
            # As published, the label embedding is not trained.
            trained = self.model.unets
            kind = partial(torch.optim.Adam, betas=(0.9, 0.99), weight_decay=config.weight_decay)
        self.model.to(self.device).train()
        self.trained = [p for p in trained.parameters() if p.requires_grad]
        self.optimizers = [kind(self.trained, config.learning_rate)]
        averaged = [] if self.is_geometry else [p.detach().clone() for p in self.trained]
        self.average = nn.ParameterList(nn.Parameter(p, requires_grad=False) for p in averaged)

    @property
    def is_geometry(self) -> bool:
        """Whether this trains the geometry network."""
        return isinstance(self.model, GeometryTransformer)

    def dataset(self, data: Path) -> OmageDataset:
        """The omages in `data`; raises XRayError `no_data`, `bad_data`, `missing_package`."""
        config = self.config
        omages = collection(data, config.size)
        return OmageDataset(
            omages,
            split_numbers(len(omages), config.split),
            config.size,
            seed=config.seed,
            batch=config.batch,
            first_batch=self.samples // config.batch,
        )

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `objectives`."""
        # Depends only on the seed and the step, so that a resumed run continues identically.
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.steps)
        omage = batch["omage"]
        clean = omage[:, :4] if self.is_geometry else omage
        # Published in float16, which would need loss scaling.
        half = self.is_geometry and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            terms: dict[str, Tensor] = self.objective.losses(
                self.model, clean, batch["label"], random
            )
        return terms

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update, including the average."""
        terms = super().step(batch)
        if len(self.average):
            # At first the average forgets faster, as published.
            kept = min(AVERAGE, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average), self.trained, 1 - kept)
        return terms

    def parts(self) -> dict[str, Any]:
        """Includes the average."""
        return super().parts() | {"average": self.average}

    def save_weights(self, folder: Path) -> None:
        """Write a checkpoint in the published format."""
        if isinstance(self.model, GeometryTransformer):
            save_geometry(folder / GEOMETRY_FILE, self.model, self.steps, self.record())
        elif isinstance(self.model, MaterialNetwork):
            average = [parameter.detach() for parameter in self.average]
            path = folder / MATERIAL_FILE
            save_material(path, self.model, self.steps, self.record(), average=average)


train = partial(run.train, Trainer)
