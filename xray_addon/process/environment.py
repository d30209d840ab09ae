"""The runtime's own Python environment outside Blender: a venv with torch, made on request.

Command line: ``python -m xray_addon.process install [--folder F] [--wheelhouse W]
[--device auto|cpu|cuda|rocm] [--offline]``, ``check`` and ``uninstall``.

Its folder contains the venv, `install.log`, `runtime.log` and `installed.json`. An install moves
`installed.json` away first and writes it last, so an interrupted install counts as not installed.
During an install, `venv.old` and `installed.old.json` are backups of the previous one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import XRayError, is_no_space
from ..files.atomic import replacing
from ..files.folders import default_folder
from ..files.json_files import parse_json, read_json
from ..files.json_schema import integer, plain, record, table_of, text
from ..files.locks import lock
from ..files.opening import append_regular
from ..progress import Progress, ProgressCallback, ignore_progress
from .installer import (
    ENSUREPIP,
    PIP_VERSION,
    PIP_WITH_PROGRESS,
    TICK,
    Commands,
    install_pip,
    pip_version,
    version_of,
)
from .torch_builds import BUILDS, DOWNLOAD, NEEDED_SPACE, nvidia_driver, query_nvidia, torch_index

_CHECKED = record(
    {"versions": table_of(text()), "device": text(), "device_name": text()},
    {"memory": integer(0)},
)

DEVICES = ("auto", "cpu", "cuda", "rocm")

REQUIREMENTS = Path(__file__).resolve().parents[2] / "runtime" / "requirements.txt"

CHECK_TIMEOUT = 600.0  # s; the first import of torch from a cold disk is slow
FREE_TIMEOUT = 5.0  # s; Windows releases the files of a killed process with a delay


@dataclass(frozen=True)
class Sizes:
    """Bytes. installed : currently on disk; needed : by an install; free : on that disk."""

    installed: int
    needed: int
    free: int


@dataclass(frozen=True)
class Check:
    """The result of a check of the environment.

    versions : by package. device : "cuda", "mps" or "cpu"; device_name : for display.
    memory : bytes of the device; 0 if unknown. driver : version of NVIDIA's driver, or "".
    """

    versions: dict[str, str]
    device: str
    device_name: str
    memory: int = 0
    driver: str = ""


@dataclass(frozen=True)
class Plan:
    """What an install would do.

    build : of torch, for display. download : approximate bytes to download; 0 if unknown.
    needed : bytes of free space that it needs.
    """

    build: str
    download: int
    needed: int


class RuntimeEnvironment:
    """The environment in `folder` (default: `default_folder()`), which need not exist.

    requirements : the file of pinned packages to install. A file beside it with the suffix .lock
        has the hashes of these and their dependencies, see `runtime.lock`.
    imports : modules that must be importable for an install to succeed.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        requirements: str | PathLike[str] = REQUIREMENTS,
        imports: Sequence[str] = ("torch", "diffusers"),
    ) -> None:
        self.folder = default_folder() if folder is None else Path(folder).absolute()
        self._requirements = Path(requirements).absolute()
        self._lock = self._requirements.with_suffix(".lock")
        self._imports = tuple(imports)
        # A separate subfolder, so that removing it cannot remove other files in a chosen folder.
        self._venv = self.folder / "venv"
        self._marker = self.folder / "installed.json"
        self._old_venv = self.folder / "venv.old"
        self._old_marker = self.folder / "installed.old.json"

    @property
    def python(self) -> Path:
        """The path of the interpreter, whether or not it exists."""
        if sys.platform == "win32":
            return self._venv / "Scripts" / "python.exe"
        return self._venv / "bin" / "python"

    @property
    def log(self) -> Path:
        """The log of the last install, with pip's output."""
        return self.folder / "install.log"

    @property
    def runtime_log(self) -> Path:
        """The log file for `RuntimeClient`."""
        return self.folder / "runtime.log"

    @property
    def is_installed(self) -> bool:
        """Whether a complete install of exactly these requirements exists.

        Fast enough for `poll` and `draw`.
        """
        return (
            self._record.get("requirements") == self._requirements_hash()
            and self.python.exists()
            # A venv uses its base Python's library, so it breaks if that Blender is removed.
            and self._base_exists()
        )

    @property
    def size(self) -> int:
        """Bytes on disk, as measured by the install; 0 without an install."""
        size = self._record.get("size", 0)
        return size if isinstance(size, int) else 0

    @property
    def _record(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = read_json(self._marker, table_of(plain))
        except (OSError, ValueError):
            return {}
        return found

    def sizes(self, device: str = "auto") -> Sizes:
        """The used, needed and free space. Walks the folder, so it is too slow for `draw`."""
        installed = _bytes_in(self._venv) + _bytes_in(self._old_venv)
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if device == "auto":
            device = "cuda" if nvidia_driver() else "cpu"
        return Sizes(installed, NEEDED_SPACE[device], shutil.disk_usage(existing).free)

    def install(
        self,
        *,
        online: bool,
        wheelhouse: str | PathLike[str] | None = None,
        device: str = "auto",
        progress: ProgressCallback = ignore_progress,
    ) -> Check:
        """Make the environment. Blocks, so run it in a thread.

        If it fails, the previous environment is restored, unless the disk is too small for both.
        Stop any runtime that uses the environment first.

        online : Blender's online-access setting; False uses only `wheelhouse`.
        wheelhouse : folder of wheels that are preferred to the network.
        device : "auto" is CUDA if there is an NVIDIA driver, else the CPU. A torch wheel in the
            wheelhouse or in pip's own find-links is used regardless of its device.
        progress : called several times a second on the calling thread (it must not use bpy);
            raising `Cancelled` in it stops pip and removes the incomplete environment.

        Raises XRayError: `offline`, `no_space`, `busy`, `driver_too_old`, `install_failed`,
        `not_writable`, `bad_settings`.
        """
        if device not in DEVICES:
            raise XRayError("bad_settings", f"device must be one of {DEVICES}, got {device!r}.")
        wheels = None if wheelhouse is None else Path(wheelhouse).absolute()
        if wheels is not None and not wheels.is_dir():
            raise XRayError(
                "bad_settings",
                f"The wheelhouse {wheels} is not a folder.",
                "Choose the folder that the wheels are in.",
            )
        if not online and wheels is None:
            raise XRayError(
                "offline",
                "Blender may not go online, and the runtime has to be downloaded.",
                "Allow online access in Preferences > System > Network, or choose a wheelhouse: "
                "a folder with the runtime's wheels.",
            )
        index = torch_index(device)
        sizes = self.sizes("cpu" if index is None or index.endswith("/cpu") else "cuda")
        if sizes.free + sizes.installed < sizes.needed:
            raise XRayError(
                "no_space",
                f"The runtime needs {sizes.needed / 1e9:.0f} GB, and {self.folder} has "
                f"{sizes.free / 1e9:.1f} GB left.",
                "Free some space, or set XRAY_RUNTIME_DIR to a folder on another disk.",
            )
        with self._writing("Set XRAY_RUNTIME_DIR to a folder that can be written to."):
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder), append_regular(self.log, private=True) as log:
                log.truncate(0)
                steps = Commands(log, str(self.log), progress)
                self._restore()  # after an install that was killed
                self._set_aside()
                if shutil.disk_usage(self.folder).free < sizes.needed:
                    self._remove_old()
                try:
                    check = self._install(steps, online, wheels, index)
                except BaseException:
                    self._remove()
                    self._restore()
                    raise
                self._remove_old()
                return check

    def plan(self, device: str = "auto") -> Plan:
        """What `install` would do for `device`. Queries the driver, so it is too slow for `draw`.

        Raises XRayError `driver_too_old`.
        """
        index = torch_index(device)
        build = "cpu" if index is None else index.rpartition("/")[2]
        kind = "cpu" if build == "cpu" else "rocm" if build.startswith("rocm") else "cuda"
        return Plan(BUILDS[kind].format(build), DOWNLOAD[kind], NEEDED_SPACE[kind])

    def check(self) -> Check:
        """Import torch in the environment; takes seconds.

        Raises XRayError: `not_installed`, `broken`.
        """
        if not self.is_installed:
            raise XRayError(
                "not_installed",
                "The model runtime is not installed, or not for this version of X-Ray.",
                'Press "Install Runtime" in the preferences of X-Ray.',
            )
        try:
            with append_regular(self.log, private=True) as log:
                return self._check(Commands(log, str(self.log), ignore_progress))
        except (XRayError, OSError) as error:
            reason = error.message if isinstance(error, XRayError) else str(error)
            raise XRayError(
                "broken",
                f"The installed runtime does not work: {reason}",
                "Install the runtime again.",
                str(self.log),
            ) from error

    def uninstall(self) -> None:
        """Remove the environment.

        Raises XRayError: `busy` if files are in use, `not_writable`.
        """
        if self.folder.is_dir():
            remedy = "Let somebody who may write there remove it."
            with self._writing(remedy), _alone(self.folder):
                self._remove()
                self._remove_old()

    @contextmanager
    def _writing(self, remedy: str) -> Iterator[None]:
        """Convert the OSErrors of changing the folder to XRayErrors."""
        try:
            yield
        except OSError as error:
            raise XRayError(
                "no_space" if is_no_space(error) else "not_writable",
                f"The runtime's folder {self.folder} cannot be written to ({error}).",
                remedy,
                str(self.log),
            ) from error

    def _install(
        self,
        steps: Commands,
        online: bool,
        wheelhouse: Path | None,
        torch_index: str | None,
    ) -> Check:
        steps.run(
            "venv",
            "Creating the environment",
            [sys.executable, "-m", "venv", "--without-pip", str(self._venv)],
        )
        self._bring_pip(steps, online, wheelhouse)
        pip = [str(self.python), "-m", "pip", "install", "--prefer-binary"]
        if pip_version(self._venv) >= PIP_WITH_PROGRESS:
            pip += ["--progress-bar", "raw"]
        if wheelhouse is not None:
            pip += ["--find-links", str(wheelhouse)]
        extra = [] if online else ["--no-index"]
        torch = self._pinned("torch")
        if torch is not None:
            torch_only = [*pip, "--no-deps", torch]
            try:
                steps.run("torch", "Looking for torch on this machine", [*torch_only, "--no-index"])
            except XRayError as error:
                if not online or error.code != "install_failed":
                    raise
                source = [] if torch_index is None else ["--index-url", torch_index]
                steps.run("torch", "Downloading torch", [*torch_only, *source])
                if torch_index is not None and "rocm" in torch_index:
                    extra += ["--extra-index-url", torch_index]  # its triton is not on PyPI
        if self._lock.is_file():
            # Only files with known hashes, from any index.
            locked = ["--require-hashes", "--no-deps", "-r", str(self._lock)]
            steps.run("packages", "Installing the packages", [*pip, *extra, *locked])
        # The rest: on NVIDIA and AMD GPUs, the libraries that torch requires.
        steps.run(
            "packages", "Installing the packages", [*pip, *extra, "-r", str(self._requirements)]
        )
        check = self._check(steps)
        marker = {
            "requirements": self._requirements_hash(),
            "size": _bytes_in(self._venv),
            **asdict(check),
        }
        with replacing(self._marker) as temporary:
            temporary.write_text(json.dumps(marker, indent=1), "utf-8")
        steps.report(Progress("done", 1, 1, "The runtime is installed"))
        return check

    def _bring_pip(self, steps: Commands, online: bool, wheelhouse: Path | None) -> None:
        """Install pip: from the wheelhouse, from Python itself, or from the network."""
        python = str(self.python)
        wheels = [] if wheelhouse is None else sorted(wheelhouse.glob("pip-*-py3-none-any.whl"))
        if wheels:
            wheel = max(wheels, key=lambda path: version_of(path.name))
            steps.run("pip", "Installing pip", install_pip(python, wheel))
            return
        try:
            steps.run("pip", "Installing pip", [python, *ENSUREPIP])
        except XRayError as error:
            if error.code != "install_failed":
                raise
            if not online:
                raise XRayError(
                    "install_failed",
                    "This Python has no pip, and the wheelhouse has no wheel of it.",
                    f"Put the wheel of pip {PIP_VERSION} into the wheelhouse.",
                    str(self.log),
                ) from error
        if online and pip_version(self._venv) < PIP_WITH_PROGRESS:
            with tempfile.TemporaryDirectory(prefix="xray-") as folder:
                wheel = steps.download_pip(Path(folder))
                steps.run("pip", "Installing pip", install_pip(python, wheel))

    def _check(self, steps: Commands) -> Check:
        command = [str(self.python), "-c", _CHECK, _MARK, *self._imports]
        lines = steps.run("check", "Trying the runtime", command, CHECK_TIMEOUT)
        # Libraries write lines of their own, before and after.
        found = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
        try:
            check = Check(**parse_json(found[-1], _CHECKED))
        except (IndexError, ValueError) as error:
            raise XRayError(
                "install_failed",
                "The runtime's Python did not answer as it should.",
                "Install the runtime again; the log has what it said.",
                str(self.log),
            ) from error
        return replace(check, driver=query_nvidia("driver_version").partition("\n")[0])

    def _pinned(self, name: str) -> str | None:
        """The requirement of `name`, e.g. "torch==2.13.0"."""
        for line in self._requirements.read_text("utf-8").splitlines():
            requirement = line.partition("#")[0].strip()
            if re.split(r"[^\w.-]", requirement, maxsplit=1)[0] == name:
                return requirement
        return None

    def _requirements_hash(self) -> str:
        try:
            content = self._requirements.read_text("utf-8")
        except OSError:
            return ""
        return hashlib.sha256(content.encode()).hexdigest()

    def _base_exists(self) -> bool:
        try:
            lines = (self._venv / "pyvenv.cfg").read_text("utf-8").splitlines()
        except OSError:
            return False
        values = {key.strip(): value.strip() for key, _, value in (x.partition("=") for x in lines)}
        return Path(values.get("home", "")).is_dir()

    def _remove(self) -> None:
        self._marker.unlink(missing_ok=True)
        end = time.monotonic() + FREE_TIMEOUT
        while self._venv.exists():
            shutil.rmtree(self._venv, ignore_errors=True)
            if self._venv.exists() and time.monotonic() > end:
                raise self._in_use()

    # The order of the steps below lets `_restore` recover from a kill at any point.

    def _set_aside(self) -> None:
        """Move the old environment aside. Raises XRayError `busy`, leaving everything unchanged."""
        if not self._venv.exists():
            self._marker.unlink(missing_ok=True)
            return
        if self._old_venv.exists():  # from an earlier install; it could not be removed
            raise self._in_use()
        if self._marker.exists():
            self._marker.replace(self._old_marker)
        end = time.monotonic() + FREE_TIMEOUT
        while self._venv.exists():
            try:
                # If files are in use, Windows refuses this before any of them is lost.
                self._venv.rename(self._old_venv)
            except OSError as error:
                if time.monotonic() > end:
                    self._restore()
                    raise self._in_use() from error
                time.sleep(TICK)

    def _restore(self) -> None:
        """Restore what was set aside, or remove it if a complete install has replaced it."""
        if self._old_marker.exists() and not self._marker.exists():
            if self._old_venv.exists():
                self._remove()
                self._old_venv.rename(self._venv)
            self._old_marker.replace(self._marker)
        else:
            self._remove_old()

    def _remove_old(self) -> None:
        self._old_marker.unlink(missing_ok=True)
        shutil.rmtree(self._old_venv, ignore_errors=True)  # the next install removes the rest

    def _in_use(self) -> XRayError:
        return XRayError(
            "busy",
            f"Files in {self.folder} are in use.",
            "Stop the runtime in every open Blender and try again.",
        )


# Run by the environment's Python with `_MARK` and the modules to import. The line of its output
# that begins with the mark is a `Check` as JSON.
_MARK = "xray-check "
_CHECK = """
import importlib, importlib.metadata, json, os, platform, sys
mark, *modules = sys.argv[1:]
for name in modules:
    importlib.import_module(name)
versions = {
    distribution.metadata["Name"]: distribution.version
    for distribution in importlib.metadata.distributions()
}
device, device_name, memory = "cpu", platform.processor() or platform.machine(), 0
if sys.platform == "linux":
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/cpuinfo", errors="replace") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device_name = names[0] if names else device_name
torch = sys.modules.get("torch")
if torch is not None and torch.cuda.is_available():
    device, device_name = "cuda", torch.cuda.get_device_name(0)
    memory = torch.cuda.get_device_properties(0).total_memory
elif torch is not None and torch.backends.mps.is_available():
    device = "mps"
versions["python"] = platform.python_version()
print()
found = {"versions": versions, "device": device, "device_name": device_name, "memory": memory}
print(mark + json.dumps(found))
"""


def _bytes_in(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock `folder` against other installs. Raises XRayError `busy` if one is running."""
    with lock(folder / "install.lock", wait=False) as alone:
        if not alone:
            raise XRayError(
                "busy",
                "The runtime is being installed or removed by another Blender.",
                "Wait until that is done.",
            )
        yield
