"""The runtime's own Python environment: a venv with torch, made on request, outside Blender.

Command line: ``python -m xray_addon.environment install [--folder F] [--wheelhouse W]
[--device auto|cpu|cuda|rocm] [--offline]``, ``check`` and ``uninstall``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from .progress import ProgressCallback, ignore_progress

DEVICES = ("auto", "cpu", "cuda", "rocm")


def default_folder() -> Path:
    """Where the environment lives: per user, shared by every Blender, short.

    The environment variable XRAY_RUNTIME_DIR overrides it.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Sizes:
    """Bytes. installed : on disk now; needed : free space an install wants; free : on that disk."""

    installed: int
    needed: int
    free: int


@dataclass(frozen=True)
class Check:
    """What works in the environment.

    versions : by package. device : "cuda", "mps" or "cpu"; device_name : for people.
    """

    versions: dict[str, str]
    device: str
    device_name: str


class RuntimeEnvironment:
    """The environment in `folder` (default: `default_folder()`), which need not exist."""

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        requirements: str | PathLike[str] | None = None,
        imports: Sequence[str] = ("torch", "diffusers"),
    ) -> None:
        raise NotImplementedError

    @property
    def python(self) -> Path:
        """The interpreter, whether or not it is there yet."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """Everything the last install did and pip wrote."""
        raise NotImplementedError

    @property
    def runtime_log(self) -> Path:
        """The log file for `RuntimeClient`."""
        raise NotImplementedError

    @property
    def is_installed(self) -> bool:
        """Whether a whole install of just these requirements is there. Quick: for `poll`, `draw`."""
        raise NotImplementedError

    @property
    def versions(self) -> dict[str, str]:
        """Of the installed packages, as the install found them; empty without an install."""
        raise NotImplementedError

    def sizes(self, device: str = "auto") -> Sizes:
        """How much space is taken, needed and free. Walks the folder: not for `draw`."""
        raise NotImplementedError

    def install(
        self,
        *,
        online: bool,
        wheelhouse: str | PathLike[str] | None = None,
        device: str = "auto",
        progress: ProgressCallback = ignore_progress,
        base_python: str | PathLike[str] = sys.executable,
    ) -> Check:
        """Make the environment; what was there before is replaced. Blocks: run it in a thread.

        online : Blender's online-access setting; False uses nothing but `wheelhouse`.
        wheelhouse : folder of wheels, taken before anything from the network.
        device : "auto" is CUDA where there is an NVIDIA driver, else the CPU.
        progress : called several times a second on the calling thread (it must not touch bpy);
            raising `Cancelled` in it stops pip and removes the half environment.

        Raises XRayError: `offline`, `no_space`, `busy`, `driver_too_old`, `install_failed`.
        """
        raise NotImplementedError

    def check(self) -> Check:
        """Import torch in the environment. Takes seconds. Raises XRayError `not_installed`, `broken`."""
        raise NotImplementedError

    def uninstall(self) -> None:
        """Remove the environment. Raises XRayError `busy` where files are in use."""
        raise NotImplementedError
