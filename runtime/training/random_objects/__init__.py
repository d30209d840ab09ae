"""Random objects of kinds that a collection of meshes may lack: figures, vessels, printed boxes,
furniture, plates and piles of solids. Training can add them to its meshes.

Training on random shapes follows Zeroverse (Xie et al., LRM-Zero, NeurIPS 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xray_addon.surface import Surface

from .kinds import boxes, figure, furniture, pile, plate, vessel

SEED = 1
# How often each kind comes.
SHARES = {figure: 0.32, vessel: 0.2, pile: 0.15, boxes: 0.13, plate: 0.12, furniture: 0.08}


@dataclass(frozen=True)
class RandomObject:
    """Random object `number`, always the same one, to train on like the mesh of a file."""

    number: int

    @property
    def group(self) -> str:
        """It has no copies."""
        return f"random {self.number}"

    def read(self) -> Surface:
        """Make it: z up, its longest side 1. Takes 0.1 s."""
        return random_object(np.random.default_rng([SEED, self.number]))


def random_object(random: np.random.Generator) -> Surface:
    """A random object, z up, its longest side 1."""
    kinds, shares = list(SHARES), list(SHARES.values())
    surface = None
    while surface is None:
        surface = kinds[random.choice(len(kinds), p=shares)](random)
    return surface.normalized()
