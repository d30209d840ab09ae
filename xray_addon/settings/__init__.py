"""One dataclass per job: the single source for panel, operator, command line and runtime.

Each field carries its help text and limits in its metadata, which the panel's properties and
the command line's arguments are made from.
"""

from .base import Settings, setting
from .capture import CaptureSettings
from .dataset import DatasetSettings
from .generate import GenerateSettings
from .result import ResultSettings

__all__ = [
    "CaptureSettings",
    "DatasetSettings",
    "GenerateSettings",
    "ResultSettings",
    "Settings",
    "setting",
]
