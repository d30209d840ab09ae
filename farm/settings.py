"""How the work is spread: the single source for the command line and the cluster's jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xray_addon.dataset.worker import ITEM_TIMEOUT
from xray_addon.settings.base import Settings


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": help, **limits})


@dataclass
class FarmSettings(Settings):
    """How items are spread over Blender processes on one machine."""

    blender: str = _setting(
        "blender",
        "Blender's executable, or a Python (its name begins with 'python') that has Blender as "
        "the module bpy; the extension must be installed there",
    )
    jobs: int = _setting(
        0, "Blender processes at once; 0 takes as many as there are CPU cores", min=0, max=1024
    )
    timeout: float = _setting(
        ITEM_TIMEOUT, "Seconds that one item may take before its worker is ended", min=0.1, max=1e6
    )
    recycle: int = _setting(500, "Items after which a worker is replaced", min=1, max=1_000_000)
    memory: int = _setting(
        4096, "Resident megabytes above which a worker is replaced", min=64, max=16_777_216
    )
    tar: bool = _setting(
        False, "Also pack the shard's items into OUT-000i.tar; a URL as OUT gets only these"
    )
    staging: str = _setting(
        "",
        "Where items lie until they are packed and sent to a URL; empty for a folder called "
        "after OUT, here",
    )


@dataclass
class ClusterSettings(Settings):
    """What each job of a cluster is given."""

    array: int = _setting(8, "Number of jobs, each with a shard of its own", min=1, max=100_000)
    partition: str = _setting("", "SLURM partition; empty for the default one")
    time: int = _setting(
        240, "Minutes a job may take; it is requeued and goes on after that", min=1, max=100_000
    )
    cpus: int = _setting(4, "CPU cores a job, each with a Blender process", min=1, max=1024)
    job_memory: int = _setting(16, "Gigabytes of memory a job", min=1, max=16_384)
