"""The model runtime: a process of its own with torch, which Blender's process never imports."""

from .registry import DEFAULT_GENERATOR, GENERATORS, Generator, load

__all__ = ["DEFAULT_GENERATOR", "GENERATORS", "Generator", "load"]
