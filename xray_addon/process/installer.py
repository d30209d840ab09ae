"""Runs the commands of an install with progress and a log.

Cancelling ends a command with its children, and so does the end of this process.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from ..errors import XRayError
from ..progress import Progress, ProgressCallback

# Installed if Python has no pip (as on Debian) or one that does not report progress.
PIP_VERSION = "26.3"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
PIP_WITH_PROGRESS = (24, 1)
PYPI = "https://pypi.org/simple"
ENSUREPIP = ("-m", "ensurepip", "--default-pip")
NETWORK_TIMEOUT = 60.0  # s without a byte
TICK = 0.1  # s between two calls of the progress callback

# A user name and password in a URL (https://name:password@host), e.g. of a private index.
_SECRET = re.compile(r"(\w+://)[^/\s'\"]*@")

# Messages of pip and its libraries if a connection fails, messages that pip then ends with, and
# patterns of the host's name.
_BROKEN_CONNECTION = (
    "connection broken",
    "Failed to establish",
    "Failed to resolve",
    "timed out",
    "ProxyError",
    "SSLError",
    "confirming the ssl certificate",
    "Max retries exceeded",
)
_AFTER_A_BROKEN_CONNECTION = ("No matching distribution", *_BROKEN_CONNECTION)
_HOST = re.compile(r"host='([^']+)'|[Cc]onnection to (\S+) timed out|https?://([^/\s'\"]+)")

NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console flashes on Windows


def child_environment() -> dict[str, str]:
    """This process's environment variables, except those that configure its Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PYTHON") and name != "__PYVENV_LAUNCHER__"
    }


class Commands:
    """Runs an install's commands one by one: output to the log, progress to the callback."""

    def __init__(self, log: IO[bytes], log_path: str, progress: ProgressCallback) -> None:
        self._log = log
        self._log_path = log_path
        self._progress = progress
        self._latest = Progress("start")

    def report(self, progress: Progress) -> None:
        """Report to the callback, which may raise."""
        self._latest = progress
        self._progress(progress)

    def run(
        self, stage: str, message: str, command: Sequence[str], timeout: float = float("inf")
    ) -> list[str]:
        """Run `command` and return its lines of output. Raises XRayError `install_failed`.

        Calls the progress callback regularly; if that raises, the command is killed.
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
        with process, _guarded(process.pid):
            try:
                lines = self._follow(process, time.monotonic() + timeout)
            except BaseException:
                _kill(process)
                raise
        if process.returncode:
            unreached = _unreached(lines, command)
            raise self._failed(
                unreached
                or _meaningful(lines)
                or f"{command[0]} ended with exit code {process.returncode}",
                network=bool(unreached),
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
                    self._report_line(line, seen)
                self._progress(self._latest)
                if time.monotonic() > end:
                    raise self._failed("it takes too long")
        except BaseException:
            _kill(process)
            raise
        finally:
            reader.join()

    def _report_line(self, line: str, seen: list[str]) -> None:
        """Add `line` to the log and to `seen`, or report it if it is a progress line."""
        stage, message = self._latest.stage, self._latest.message
        if found := re.fullmatch(r"Progress (\d+) of (\d+)", line):
            self._latest = Progress(stage, int(found[1]), int(found[2]), message)
            return
        line = redacted(line)
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
        """Download the pinned wheel of pip from PyPI, or from PIP_INDEX_URL if it is set."""
        name = f"pip-{PIP_VERSION}-py3-none-any.whl"
        index = os.environ.get("PIP_INDEX_URL", PYPI).rstrip("/") + "/pip/"
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
        data = b""
        try:
            with _opened(url) as reply:
                while block := reply.read(1 << 16):
                    data += block
                    self._progress(self._latest)
        except (OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            elif isinstance(error, OSError):
                host = urllib.parse.urlsplit(without_password(url)).netloc
                reason = getattr(error, "reason", error)
                raise self._failed(f"{host} was not reached ({reason})", network=True) from error
            raise self._failed(f"{url} cannot be read ({error})", network=True) from error
        return data

    def _write(self, line: str) -> None:
        self._log.write(f"{redacted(line)}\n".encode("utf-8", "replace"))
        self._log.flush()

    def _failed(self, reason: str, network: bool = False) -> XRayError:
        reason = redacted(reason)  # users share error messages
        self._write(f"failed: {reason}")
        return XRayError(
            "install_failed",
            f"The runtime could not be installed: {reason}.",
            "Check the network connection and try again; behind a proxy, set HTTPS_PROXY."
            if network
            else "Try again; the log holds everything that pip said.",
            self._log_path,
        )


# Waits for the end of its input, which comes when the process that started it ends.
_GUARD = """
import os, signal, sys
sys.stdin.buffer.read()
group = int(sys.argv[1])
if sys.platform == "win32":
    os.kill(group, signal.SIGTERM)
else:
    os.killpg(group, signal.SIGKILL)
"""


@contextmanager
def _guarded(group: int) -> Iterator[None]:
    """Kill the process group `group` if this process ends meanwhile, even if it is killed."""
    guard = subprocess.Popen(
        [sys.executable, "-I", "-c", _GUARD, str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        creationflags=NO_WINDOW,
        start_new_session=True,  # so that Ctrl-C does not end it first
    )
    with guard:
        try:
            yield
        finally:
            guard.kill()


def _kill(process: subprocess.Popen[str]) -> None:
    """End `process` and its children, which would otherwise keep its output open."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def install_pip(python: str, wheel: Path) -> list[str]:
    """The command that installs pip from `wheel` with the pip inside it."""
    return [
        python,
        str(wheel / "pip"),
        "install",
        "--no-index",
        "--no-deps",
        "--upgrade",
        str(wheel),
    ]


def pip_version(venv: Path) -> tuple[int, ...]:
    """The version of pip in `venv`; () if it has none."""
    for path in venv.glob("[Ll]ib/**/pip-*.dist-info"):
        return version_of(path.name)
    return ()


def version_of(name: str) -> tuple[int, ...]:
    """The version in the name of a wheel or a dist-info folder."""
    return tuple(int(part) for part in re.findall(r"\d+", name.split("-")[1].partition(".dist")[0]))


def _opened(url: str) -> Any:
    """Open `url`, which may contain a user name and password."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(without_password(url))
    if parts.username is not None:
        known = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(known).decode()}")
    return urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT, context=certificates())


def without_password(url: str) -> str:
    """`url` without its user name and password, if any."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def redacted(text: str) -> str:
    """`text` with the user name and password of every URL replaced by ***."""
    return _SECRET.sub(r"\1***@", text)


def certificates() -> ssl.SSLContext:
    """An SSL context that trusts the system's certificates and those of `_certificates`."""
    context = ssl.create_default_context()
    for path in _certificates():
        context.load_verify_locations(path)
    return context


def _certificates() -> list[str]:
    """Certificate files set for pip, and Blender's for systems where Python finds none."""
    found = [os.environ.get("PIP_CERT", "")]
    spec = importlib.util.find_spec("certifi")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).with_name("cacert.pem")))
    return [path for path in found if path and Path(path).exists()]


def _unreached(lines: Sequence[str], command: Sequence[str]) -> str:
    """A message with the host that pip could not reach, and why; "" if pip failed otherwise.

    Without its index, pip reports that there is no matching distribution, as for a wrong name.
    """
    last = _meaningful(lines)
    if not any(sign in last for sign in _AFTER_A_BROKEN_CONNECTION):
        return ""
    broken = [line for line in lines if any(sign in line for sign in _BROKEN_CONNECTION)]
    if not broken:
        return ""
    if found := _HOST.search(broken[-1]):
        host = next(filter(None, found.groups()))
    else:  # an older pip, which does not name the host
        index = os.environ.get("PIP_INDEX_URL", PYPI)
        if "--index-url" in command:
            index = command[command.index("--index-url") + 1]
        host = urllib.parse.urlsplit(without_password(index)).netloc
    why = re.search(r"\[Errno -?\d+\] ([^\"')\]]+)|(timed out|certificate)", broken[-1])
    return f"{host} was not reached" + (f" ({why[1] or why[2]})" if why else "")


def _meaningful(lines: Sequence[str]) -> str:
    """The most informative line of a failed command: the last error, else the last line."""
    errors = [line for line in lines if line.startswith("ERROR:")]
    notices = ("[notice]", "WARNING:")
    others = [line for line in lines if line.strip() and not line.startswith(notices)]
    found = (errors or others or [""])[-1]
    return found.removeprefix("ERROR:").strip().rstrip(".")
