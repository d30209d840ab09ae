"""Applies the result settings to a generated mesh: faces, symmetry, colours, size."""

from .finishing import finish, vertex_positions
from .second_blender import finish_steps, in_object_mode

__all__ = ["finish", "finish_steps", "in_object_mode", "vertex_positions"]
