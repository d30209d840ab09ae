"""Datasets at scale: plain Python that launches Blender, on one machine or on a cluster.

``python -m farm SOURCE OUT`` only calls `run`. A run can be killed at any point and started again:
an item is complete or absent, and complete items are skipped.
"""

from .run import Work, run, run_shard
from .settings import ClusterSettings, FarmSettings

__all__ = ["ClusterSettings", "FarmSettings", "Work", "run", "run_shard"]
