"""The model runtime: a separate process with torch, which Blender's process never imports."""

from .generator import Generator
from .registry import load

__all__ = ["Generator", "load"]
