"""One settings dataclass per task, used by panel, operator, command line and runtime.

Each field's metadata contains its help text and limits. Panel properties and command line
arguments are made from it.
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
