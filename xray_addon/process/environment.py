"""The runtime's own Python environment: a venv with torch, made on request, outside Blender.

Command line: ``python -m xray_addon.process.environment install [--folder F] [--wheelhouse W]
[--device auto|cpu|cuda|rocm] [--offline]``, ``check`` and ``uninstall``.

A folder holds the venv, `install.log`, `runtime.log` and `installed.json`. The last is written
when all else is done and moved before anything is touched, so half an install is none. While an
install runs, `venv.old` and `installed.old.json` keep what it replaces.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import IO, Any

from ..errors import XRayError
from ..files.atomic import replacing
from ..progress import Cancelled, Progress, ProgressCallback, ignore_progress

DEVICES = ("auto", "cpu", "cuda", "rocm")

REQUIREMENTS = Path(__file__).resolve().parents[2] / "runtime" / "requirements.txt"

# PyPI's torch for Linux is the CUDA build of several GB; PyTorch's own indexes have one a device.
TORCH_INDEX = "https://download.pytorch.org/whl"
ROCM_TAG = "rocm7.2"
OLDEST_DRIVER = 525  # NVIDIA's first that runs CUDA 12

NEEDED_SPACE = {"cpu": 3_000_000_000, "cuda": 8_000_000_000, "rocm": 8_000_000_000}  # bytes

# Bytes of the wheels for Linux, about; 0 where nobody has counted them.
DOWNLOAD = {"cpu": 400_000_000, "cuda": 2_950_000_000, "rocm": 0}
BUILDS = {"cpu": "CPU", "cuda": "NVIDIA ({})", "rocm": "AMD ({})"}

# The pip for Pythons that have none (Debian's) or one that tells no progress.
PIP_VERSION = "26.3"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
PIP_WITH_PROGRESS = (24, 1)
ENSUREPIP = ("-m", "ensurepip", "--default-pip")

CHECK_TIMEOUT = 600.0  # s; the first import of torch from a cold disk takes long
NETWORK_TIMEOUT = 60.0  # s without a byte
TICK = 0.1  # s between two calls of the progress callback
FREE_TIMEOUT = 5.0  # s; Windows frees the files of a killed process a bit later

NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console flashes on Windows


def default_folder() -> Path:
    """Where the environment lives: per user, shared by every Blender, short.

    The environment variable XRAY_RUNTIME_DIR overrides it.
    """
    if chosen := os.environ.get("XRAY_RUNTIME_DIR"):
        return Path(chosen).absolute()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "xray" / "runtime"


def child_environment() -> dict[str, str]:
    """This process's environment without what steers its own Python, for a child of another."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PYTHON") and name != "__PYVENV_LAUNCHER__"
    }


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
    memory : bytes that the device has; 0 where it is unknown. driver : NVIDIA's version, or "".
    """

    versions: dict[str, str]
    device: str
    device_name: str
    memory: int = 0
    driver: str = ""


@dataclass(frozen=True)
class Plan:
    """What an install would do.

    build : of torch, for people. download : bytes it fetches, about; 0 where that is unknown.
    needed : bytes of free space it wants.
    """

    build: str
    download: int
    needed: int


class RuntimeEnvironment:
    """The environment in `folder` (default: `default_folder()`), which need not exist.

    requirements : the file of pinned packages to install.
    imports : modules that have to be importable for an install to count.
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
        self._imports = tuple(imports)
        # A subfolder of its own: removing it can never take what else a chosen folder holds.
        self._venv = self.folder / "venv"
        self._marker = self.folder / "installed.json"
        self._old_venv = self.folder / "venv.old"
        self._old_marker = self.folder / "installed.old.json"

    @property
    def python(self) -> Path:
        """The interpreter, whether or not it is there yet."""
        if sys.platform == "win32":
            return self._venv / "Scripts" / "python.exe"
        return self._venv / "bin" / "python"

    @property
    def log(self) -> Path:
        """Everything the last install did and pip wrote."""
        return self.folder / "install.log"

    @property
    def runtime_log(self) -> Path:
        """The log file for `RuntimeClient`."""
        return self.folder / "runtime.log"

    @property
    def is_installed(self) -> bool:
        """Whether a whole install of just these requirements is there.

        Quick enough for `poll` and `draw`.
        """
        return (
            self._record.get("requirements") == self._requirements_hash()
            and self.python.exists()
            # A venv borrows its base's library: it dies with the Blender that made it.
            and self._base_exists()
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the installed packages, as the install found them; empty without an install."""
        versions = self._record.get("versions", {})
        return dict(versions) if isinstance(versions, dict) else {}

    @property
    def size(self) -> int:
        """Bytes on disk, as the install found them; 0 without an install."""
        size = self._record.get("size", 0)
        return size if isinstance(size, int) else 0

    @property
    def _record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._marker.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def sizes(self, device: str = "auto") -> Sizes:
        """How much space is taken, needed and free. Walks the folder: not for `draw`."""
        installed = _bytes_in(self._venv) + _bytes_in(self._old_venv)
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if device == "auto":
            device = "cuda" if _nvidia() else "cpu"
        return Sizes(installed, NEEDED_SPACE[device], shutil.disk_usage(existing).free)

    def install(
        self,
        *,
        online: bool,
        wheelhouse: str | PathLike[str] | None = None,
        device: str = "auto",
        progress: ProgressCallback = ignore_progress,
        base_python: str | PathLike[str] = sys.executable,
    ) -> Check:
        """Make the environment. Blocks: run it in a thread.

        What was there before is put back if this fails, unless the disk cannot hold both. A
        runtime that runs from it has to be stopped before.

        online : Blender's online-access setting; False uses nothing but `wheelhouse`.
        wheelhouse : folder of wheels, taken before anything from the network.
        device : "auto" is CUDA where there is an NVIDIA driver, else the CPU. A torch wheel in
            the wheelhouse or in pip's own find-links is used as it is, whatever its device.
        progress : called several times a second on the calling thread (it must not touch bpy);
            raising `Cancelled` in it stops pip and removes the half environment.

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
        index = _torch_index(device)
        sizes = self.sizes("cpu" if index is None or index.endswith("/cpu") else "cuda")
        if sizes.free + sizes.installed < sizes.needed:
            raise XRayError(
                "no_space",
                f"The runtime needs {sizes.needed / 1e9:.0f} GB, and {self.folder} has "
                f"{sizes.free / 1e9:.1f} GB left.",
                "Free some space, or set XRAY_RUNTIME_DIR to a folder on another disk.",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / "install.lock"), self.log.open("wb") as log:
                steps = _Steps(log, str(self.log), progress)
                self._restore()  # after an install that was killed
                self._set_aside()
                if shutil.disk_usage(self.folder).free < sizes.needed:
                    self._remove_old()
                try:
                    check = self._install(steps, online, wheels, index, str(base_python))
                except BaseException:
                    self._remove()
                    self._restore()
                    raise
                self._remove_old()
                return check
        except OSError as error:
            raise XRayError(
                "not_writable",
                f"The runtime cannot be written to {self.folder} ({error}).",
                "Set XRAY_RUNTIME_DIR to a folder that can be written to.",
                str(self.log),
            ) from error

    def plan(self, device: str = "auto") -> Plan:
        """What `install` would fetch for `device`. Asks the driver: not for `draw`.

        Raises XRayError `driver_too_old`.
        """
        index = _torch_index(device)
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
            with self.log.open("ab") as log:
                return self._check(_Steps(log, str(self.log), ignore_progress))
        except (XRayError, OSError) as error:
            reason = error.message if isinstance(error, XRayError) else str(error)
            raise XRayError(
                "broken",
                f"The installed runtime does not work: {reason}",
                "Install the runtime again.",
                str(self.log),
            ) from error

    def uninstall(self) -> None:
        """Remove the environment. Raises XRayError `busy` where files are in use."""
        if self.folder.is_dir():
            with _locked(self.folder / "install.lock"):
                self._remove()
                self._remove_old()

    def _install(
        self,
        steps: _Steps,
        online: bool,
        wheelhouse: Path | None,
        torch_index: str | None,
        base_python: str,
    ) -> Check:
        steps.run(
            "venv",
            "Creating the environment",
            [base_python, "-m", "venv", "--without-pip", str(self._venv)],
        )
        self._bring_pip(steps, online, wheelhouse)
        pip = [str(self.python), "-m", "pip", "install", "--prefer-binary"]
        if _pip_version(self._venv) >= PIP_WITH_PROGRESS:
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
        steps.run(
            "packages", "Installing the packages", [*pip, *extra, "-r", str(self._requirements)]
        )
        check = self._check(steps)
        record = {
            "requirements": self._requirements_hash(),
            "size": _bytes_in(self._venv),
            **asdict(check),
        }
        with replacing(self._marker) as temporary:
            temporary.write_text(json.dumps(record, indent=1), "utf-8")
        steps.report(Progress("done", 1, 1, "The runtime is installed"))
        return check

    def _bring_pip(self, steps: _Steps, online: bool, wheelhouse: Path | None) -> None:
        """Install pip: from the wheelhouse, from Python itself, or from the network."""
        python = str(self.python)
        wheels = [] if wheelhouse is None else sorted(wheelhouse.glob("pip-*-py3-none-any.whl"))
        if wheels:
            wheel = max(wheels, key=lambda path: _version_of(path.name))
            steps.run("pip", "Installing pip", _install_pip(python, wheel))
            return
        try:
            steps.run("pip", "Installing pip", [python, *ENSUREPIP])
        except XRayError as error:
            if error.code != "install_failed":
                raise
            if not online:
                raise XRayError(
                    "install_failed",
                    "This Python brings no pip, and the wheelhouse holds none.",
                    f"Put the wheel of pip {PIP_VERSION} into the wheelhouse.",
                    str(self.log),
                ) from error
        if online and _pip_version(self._venv) < PIP_WITH_PROGRESS:
            with tempfile.TemporaryDirectory(prefix="xray-") as folder:
                wheel = steps.download_pip(Path(folder))
                steps.run("pip", "Installing pip", _install_pip(python, wheel))

    def _check(self, steps: _Steps) -> Check:
        command = [str(self.python), "-c", _CHECK, *self._imports]
        lines = steps.run("check", "Trying the runtime", command, CHECK_TIMEOUT)
        check = Check(**json.loads(lines[-1]))
        return replace(check, driver=_query_nvidia("driver_version").partition("\n")[0])

    def _pinned(self, name: str) -> str | None:
        """The requirement of `name`, e.g. "torch==2.13.0"."""
        for line in self._requirements.read_text("utf-8").splitlines():
            requirement = line.partition("#")[0].strip()
            if re.split(r"[^\w.-]", requirement, maxsplit=1)[0] == name:
                return requirement
        return None

    def _requirements_hash(self) -> str:
        try:
            text = self._requirements.read_text("utf-8")
        except OSError:
            return ""
        return hashlib.sha256(text.encode()).hexdigest()

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

    # Each order below is such that `_restore` puts right what a kill at any point leaves.

    def _set_aside(self) -> None:
        """Make room for a new install. Raises XRayError `busy`; then nothing has changed."""
        if not self._venv.exists():
            self._marker.unlink(missing_ok=True)
            return
        if self._old_venv.exists():  # an earlier one, which could not be removed
            raise self._in_use()
        if self._marker.exists():
            self._marker.replace(self._old_marker)
        end = time.monotonic() + FREE_TIMEOUT
        while self._venv.exists():
            try:
                # Where files are in use, Windows refuses this before a single one is lost.
                self._venv.rename(self._old_venv)
            except OSError as error:
                if time.monotonic() > end:
                    self._restore()
                    raise self._in_use() from error
                time.sleep(TICK)

    def _restore(self) -> None:
        """Put back what was set aside, or remove it where a whole install has replaced it."""
        if self._old_marker.exists() and not self._marker.exists():
            if self._old_venv.exists():
                self._remove()
                self._old_venv.rename(self._venv)
            self._old_marker.replace(self._marker)
        else:
            self._remove_old()

    def _remove_old(self) -> None:
        self._old_marker.unlink(missing_ok=True)
        shutil.rmtree(self._old_venv, ignore_errors=True)  # the next install takes the rest

    def _in_use(self) -> XRayError:
        return XRayError(
            "busy",
            f"Files in {self.folder} are in use.",
            "Stop the runtime in every open Blender and try again.",
        )


class _Steps:
    """Runs an install's commands one by one: output to the log, progress to the callback."""

    def __init__(self, log: IO[bytes], log_path: str, progress: ProgressCallback) -> None:
        self._log = log
        self._log_path = log_path
        self._progress = progress
        self._latest = Progress("start")

    def report(self, progress: Progress) -> None:
        """Tell the callback, which may raise."""
        self._latest = progress
        self._progress(progress)

    def run(
        self, stage: str, message: str, command: Sequence[str], timeout: float = float("inf")
    ) -> list[str]:
        """The lines that `command` wrote. Raises XRayError `install_failed`.

        Calls the progress callback all the while; when that raises, the command is killed.
        """
        self._write(f"$ {subprocess.list2cmdline(command)}")
        self.report(Progress(stage, message=message))
        environment = {
            name: value
            for name, value in child_environment().items()
            if name not in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON")
        } | {
            "PYTHONNOUSERSITE": "1",
            "PYTHONUTF8": "1",
            "PIP_USER": "0",
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                creationflags=NO_WINDOW,
                start_new_session=True,  # so that its children can be killed with it
            )
        except OSError as error:
            raise self._failed(f"{command[0]} cannot be started ({error})") from error
        with process:
            try:
                lines = self._follow(process, time.monotonic() + timeout)
            except BaseException:
                _kill(process)
                raise
        if process.returncode:
            raise self._failed(
                _meaningful(lines) or f"{command[0]} ended with exit code {process.returncode}",
                any("connection broken" in line or "NewConnectionError" in line for line in lines),
            )
        return lines

    def _follow(self, process: subprocess.Popen[str], end: float) -> list[str]:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line.rstrip())
            lines.put(None)

        reader = threading.Thread(target=read, name="xray-install", daemon=True)
        reader.start()
        seen: list[str] = []
        try:
            while True:
                try:
                    line = lines.get(timeout=TICK)
                except queue.Empty:
                    line = ""
                if line is None:
                    return seen
                if line:
                    self._hear(line, seen)
                self._progress(self._latest)
                if time.monotonic() > end:
                    raise self._failed("it takes too long")
        except BaseException:
            _kill(process)
            raise
        finally:
            reader.join()

    def _hear(self, line: str, seen: list[str]) -> None:
        """Put `line` in the log and among the `seen` ones, or read the progress that it tells."""
        stage, message = self._latest.stage, self._latest.message
        if found := re.fullmatch(r"Progress (\d+) of (\d+)", line):
            self._latest = Progress(stage, int(found[1]), int(found[2]), message)
            return
        seen.append(line)
        self._write(line)
        words = line.split()
        if words[0] in ("Collecting", "Downloading") and len(words) > 1:
            name = words[1].rpartition("/")[2].partition("-")[0]
            size = " ".join(words[2:]) if words[0] == "Downloading" else ""
            self._latest = Progress(stage, message=f"{words[0]} {name} {size}".strip())
        elif line.startswith("Installing collected packages:"):
            count = len(line.partition(":")[2].split(","))
            self._latest = Progress(stage, message=f"Unpacking {count} packages")

    def download_pip(self, folder: Path) -> Path:
        """The pinned wheel of pip, from PyPI or from the index that PIP_INDEX_URL names."""
        name = f"pip-{PIP_VERSION}-py3-none-any.whl"
        index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
        self._write(f"downloading {name} from {index}")
        self.report(Progress("pip", message="Downloading pip"))
        page = self._fetch(index).decode("utf-8", "replace")
        links = map(html.unescape, re.findall(r'href="([^"]+)"', page))
        link = next((link for link in links if f"/{name}" in link), None)
        if link is None:
            raise self._failed(f"{index} has no {name}")
        data = self._fetch(urllib.parse.urljoin(index, link.partition("#")[0]))
        if hashlib.sha256(data).hexdigest() != PIP_SHA256:
            raise self._failed(f"the checksum of the downloaded {name} is wrong")
        wheel = folder / name
        wheel.write_bytes(data)
        return wheel

    def _fetch(self, url: str) -> bytes:
        context = ssl.create_default_context()
        for certificates in _certificates():
            context.load_verify_locations(certificates)
        data = b""
        try:
            with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT, context=context) as reply:
                while block := reply.read(1 << 16):
                    data += block
                    self._progress(self._latest)
        except (OSError, ValueError) as error:
            raise self._failed(f"{url} cannot be read ({error})", network=True) from error
        return data

    def _write(self, line: str) -> None:
        self._log.write(f"{line}\n".encode("utf-8", "replace"))
        self._log.flush()

    def _failed(self, reason: str, network: bool = False) -> XRayError:
        self._write(f"failed: {reason}")
        return XRayError(
            "install_failed",
            f"The runtime could not be installed: {reason}.",
            "Check the network connection and try again; behind a proxy, set HTTPS_PROXY."
            if network
            else "Try again; the log holds everything that pip said.",
            self._log_path,
        )


# Run by the environment's own Python; the last line it writes is `Check` as JSON.
_CHECK = """
import importlib, importlib.metadata, json, os, platform, sys
for name in sys.argv[1:]:
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
print(json.dumps(found))
"""


def cuda_tag(driver: int, capability: float) -> str:
    """PyTorch's newest index that a GPU can use.

    driver : NVIDIA's major version. capability : the GPU's compute capability, e.g. 8.6.

    Raises XRayError `driver_too_old`.
    """
    if driver < OLDEST_DRIVER:
        raise XRayError(
            "driver_too_old",
            f"The NVIDIA driver {driver} is too old.",
            f"Update it to {OLDEST_DRIVER} or newer, or install for the CPU.",
        )
    if capability < 7.5:
        return "cu126"  # the last that knows these GPUs
    if driver >= 580:
        return "cu130"
    return "cu129" if capability >= 10 else "cu126"


def _torch_index(device: str) -> str | None:
    """PyTorch's index for `device`; None is PyPI, which has the one build macOS needs."""
    if sys.platform == "darwin":
        return None
    if device == "rocm":
        return f"{TORCH_INDEX}/{ROCM_TAG}"
    nvidia = _nvidia() if device in ("auto", "cuda") else None
    if nvidia is not None:
        return f"{TORCH_INDEX}/{cuda_tag(*nvidia)}"
    # CUDA for a machine without a GPU, as one prepares an image: the build most drivers run.
    return f"{TORCH_INDEX}/cu126" if device == "cuda" else f"{TORCH_INDEX}/cpu"


def _nvidia() -> tuple[int, float] | None:
    """The driver's major version and the lowest compute capability; None without a driver."""
    rows = [line.split(",") for line in _query_nvidia("driver_version,compute_cap").splitlines()]
    try:
        return int(rows[0][0].split(".")[0]), min(float(row[1]) for row in rows)
    except (ValueError, IndexError):
        return None


def _bytes_in(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
    )


def _query_nvidia(what: str) -> str:
    """A line for each GPU with what its driver says; "" without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        return subprocess.run(
            [program, f"--query-gpu={what}", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            creationflags=NO_WINDOW,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _kill(process: subprocess.Popen[str]) -> None:
    """End `process` and its children, which would hold its output open."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _install_pip(python: str, wheel: Path) -> list[str]:
    """The command with which the pip inside `wheel` installs itself."""
    return [
        python,
        str(wheel / "pip"),
        "install",
        "--no-index",
        "--no-deps",
        "--upgrade",
        str(wheel),
    ]


def _pip_version(venv: Path) -> tuple[int, ...]:
    """Of the pip in `venv`; () without one."""
    for path in venv.glob("[Ll]ib/**/pip-*.dist-info"):
        return _version_of(path.name)
    return ()


def _version_of(name: str) -> tuple[int, ...]:
    """The numbers of a wheel's or a dist-info's name."""
    return tuple(int(part) for part in re.findall(r"\d+", name.split("-")[1].partition(".dist")[0]))


def _certificates() -> list[str]:
    """Those pip is told to use, and those Blender brings for systems where Python finds none."""
    found = [os.environ.get("PIP_CERT", "")]
    spec = importlib.util.find_spec("certifi")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).with_name("cacert.pem")))
    return [path for path in found if path and Path(path).exists()]


def _meaningful(lines: Sequence[str]) -> str:
    """The line of a failed command that says most: the last error, else the last of all."""
    errors = [line for line in lines if line.startswith("ERROR:")]
    notices = ("[notice]", "WARNING:")
    others = [line for line in lines if line.strip() and not line.startswith(notices)]
    found = (errors or others or [""])[-1]
    return found.removeprefix("ERROR:").strip().rstrip(".")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, which the system frees when this process dies."""
    with path.open("a+b") as stream:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise XRayError(
                "busy",
                "The runtime is being installed or removed by another Blender.",
                "Wait until that is done.",
            ) from error
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Exit codes: 0 done, 2 usage, 3 failed, 130 cancelled."""
    parser = argparse.ArgumentParser(prog="python -m xray_addon.process.environment", description=__doc__)
    parser.add_argument("command", choices=("install", "check", "uninstall"))
    parser.add_argument("--folder", help="where the environment is (default: per user)")
    parser.add_argument("--wheelhouse", help="folder of wheels, taken before the network")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--offline", action="store_true", help="use nothing but the wheelhouse")
    arguments = parser.parse_args(argv)
    environment = RuntimeEnvironment(arguments.folder)
    last = ""

    def show(progress: Progress) -> None:
        nonlocal last
        if progress.message != last:
            last = progress.message
            sys.stdout.write(f"{progress.stage}: {progress.message}\n")
            sys.stdout.flush()

    try:
        if arguments.command == "uninstall":
            environment.uninstall()
            return 0
        if arguments.command == "install":
            check = environment.install(
                online=not arguments.offline,
                wheelhouse=arguments.wheelhouse,
                device=arguments.device,
                progress=show,
            )
        else:
            check = environment.check()
    except (KeyboardInterrupt, Cancelled):
        sys.stderr.write("cancelled\n")
        return 130
    except XRayError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3
    torch = check.versions.get("torch", "missing")
    sys.stdout.write(f"{environment.python}\ntorch {torch} on {check.device}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
