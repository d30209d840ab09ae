"""Applies the result settings to a generated mesh: faces, symmetry, colours, size."""

from .finishing import finish, vertex_positions
from .replacing import ATTEMPTS, replace_steps
from .second_blender import finish_steps, in_object_mode

__all__ = [
    "ATTEMPTS",
    "finish",
    "finish_steps",
    "in_object_mode",
    "replace_steps",
    "vertex_positions",
]
