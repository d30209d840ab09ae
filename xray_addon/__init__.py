"""X-Rays and their tools that need only NumPy: no bpy, no torch, imports without side effects."""

from .camera import Camera
from .casting import cast
from .errors import XRayError
from .generated import Generated
from .metrics import chamfer_distance, f_score
from .published import decode_published
from .reconstruction import reconstruct
from .settings.capture import CaptureSettings
from .settings.generate import GenerateSettings
from .surface import Material, Surface
from .systems.system import Inputs
from .xray import Points, XRay

__all__ = [
    "Camera",
    "CaptureSettings",
    "GenerateSettings",
    "Generated",
    "Inputs",
    "Material",
    "Points",
    "Surface",
    "XRay",
    "XRayError",
    "cast",
    "chamfer_distance",
    "decode_published",
    "f_score",
    "reconstruct",
]
