"""From an X-Ray to one mesh."""

from __future__ import annotations

from .camera import Camera
from .surface import Surface
from .xray import XRay


def reconstruct(xray: XRay, camera: Camera) -> Surface:
    raise NotImplementedError
