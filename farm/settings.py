"""How the work is distributed: the settings of the command line and of cluster jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xray_addon.dataset.worker import ITEM_TIMEOUT
from xray_addon.settings.base import Settings


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": help, **limits})


@dataclass
class FarmSettings(Settings):
    """How items are distributed over Blender processes on one machine."""

    blender: str = _setting(
        "blender",
        "Blender's executable, or a Python (its name begins with 'python') with Blender as the "
        "module bpy; the extension must be installed there",
    )
    jobs: int = _setting(
        0, "Number of Blender processes; 0 means one per CPU core", min=0, max=1024
    )
    timeout: float = _setting(
        ITEM_TIMEOUT, "Seconds after which an item's worker is killed", min=0.1, max=1e6
    )
    recycle: int = _setting(500, "A worker is replaced after this many items", min=1, max=1_000_000)
    memory: int = _setting(
        4096, "Resident megabytes above which a worker is replaced", min=64, max=16_777_216
    )
    tar: bool = _setting(
        False, "Also pack the shard's items into OUT-000i.tar; a URL as OUT always gets only these"
    )
    staging: str = _setting(
        "",
        "Folder for items until they are packed and uploaded to a URL; empty for a folder here "
        "that is named after OUT",
    )


@dataclass
class ClusterSettings(Settings):
    """The number and resources of cluster jobs."""

    array: int = _setting(8, "Number of jobs, each with its own shard", min=1, max=100_000)
    partition: str = _setting("", "SLURM partition; empty for the default one")
    time: int = _setting(
        240, "Time limit of a job in minutes; then it is requeued and continues", min=1, max=100_000
    )
    cpus: int = _setting(
        4,
        "CPU cores per job; each runs one Blender process, unless --jobs is given",
        min=1,
        max=1024,
    )
    job_memory: int = _setting(16, "Gigabytes of memory per job", min=1, max=16_384)
