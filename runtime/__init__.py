"""The model runtime: a process of its own with torch, which Blender's process never imports."""

from .generator import Generator
from .registry import load

__all__ = ["Generator", "load"]
