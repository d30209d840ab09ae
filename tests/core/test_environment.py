"""The installer: whole or not at all, honest about the network, and it can be stopped."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xray_addon.errors import XRayError
from xray_addon.files.locks import lock
from xray_addon.process import environment as module
from xray_addon.process import installer, torch_builds
from xray_addon.process.__main__ import main
from xray_addon.process.environment import RuntimeEnvironment
from xray_addon.process.installer import child_environment
from xray_addon.process.torch_builds import cuda_tag
from xray_addon.progress import Cancelled, Progress, ignore_progress

ROOT = Path(__file__).parents[2]
ensurepip = pytest.importorskip("ensurepip")
PIP_WHEEL = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))


def write_wheel(folder: Path, name: str, code: str = "") -> None:
    """A wheel of one empty module, version 1.0."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={encoded(data)},{len(data)}\n" for path, data in files.items())
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def encoded(data: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data.encode()).digest()).decode().rstrip("=")


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    write_wheel(folder, "tiny")
    write_wheel(folder, "broken", "raise ImportError('libcudart.so is missing')")
    return folder


def make(folder: Path, requirements: str = "tiny==1.0\n", **more: Any) -> RuntimeEnvironment:
    file = folder / "requirements.txt"
    file.write_text(requirements)
    return RuntimeEnvironment(folder / "runtime", requirements=file, imports=["tiny"], **more)


class Installed:
    def __init__(self, folder: Path, wheelhouse: Path) -> None:
        self.environment = make(folder)
        self.reports: list[Progress] = []
        self.check = self.environment.install(
            online=False, wheelhouse=wheelhouse, device="cpu", progress=self.reports.append
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheelhouse)


@pytest.fixture
def quick_pip(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies the pip of the installed environment, where how it comes is not what is tested."""

    def copy(environment: RuntimeEnvironment, *_: Any) -> None:
        for found in installed.environment.folder.glob("venv/lib/python*/site-packages/pip*"):
            relative = found.relative_to(installed.environment.folder)
            shutil.copytree(found, environment.folder / relative)

    monkeypatch.setattr(RuntimeEnvironment, "_bring_pip", copy)


def assert_nothing_is_left(environment: RuntimeEnvironment) -> None:
    assert not environment.is_installed
    assert not environment.python.exists()
    assert not (environment.folder / "venv").exists()


def test_a_wheelhouse_serves_a_machine_without_network(installed: Installed) -> None:
    environment = installed.environment
    assert environment.is_installed
    assert installed.check.versions["tiny"] == "1.0"
    assert installed.check.device == "cpu"
    assert environment.check() == installed.check
    assert environment.sizes("cpu").installed > 100_000
    assert environment.size == environment.sizes("cpu").installed


def test_it_tells_what_it_is_doing(installed: Installed) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in installed.reports))
    assert stages == ["venv", "pip", "packages", "check", "done"]
    assert all(progress.message for progress in installed.reports)
    log = installed.environment.log.read_text()
    assert "Successfully installed tiny-1.0" in log


def test_other_requirements_are_not_installed(installed: Installed, tmp_path: Path) -> None:
    newer = tmp_path / "newer.txt"
    newer.write_text("tiny==2.0\n")
    environment = RuntimeEnvironment(installed.environment.folder, requirements=newer)
    assert not environment.is_installed
    with pytest.raises(XRayError) as caught:
        environment.check()
    assert caught.value.code == "not_installed"
    assert "Install Runtime" in caught.value.remedy


@pytest.mark.parametrize("missing", ["installed.json", "venv/pyvenv.cfg", "python"])
def test_half_an_environment_is_not_installed(installed: Installed, missing: str) -> None:
    environment = installed.environment
    path = environment.python if missing == "python" else environment.folder / missing
    aside = path.with_name("aside")
    path.rename(aside)
    assert not environment.is_installed
    aside.rename(path)
    assert environment.is_installed


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"requirements": "another"}'])
def test_a_damaged_record_is_not_an_install(tmp_path: Path, text: str) -> None:
    environment = make(tmp_path)
    environment.folder.mkdir()
    (environment.folder / "installed.json").write_text(text)
    assert not environment.is_installed
    assert environment.size == 0


def test_an_environment_dies_with_the_blender_that_made_it(installed: Installed) -> None:
    config = installed.environment.folder / "venv" / "pyvenv.cfg"
    text = config.read_text()
    config.write_text(text.replace("home = ", "home = /no/such"))
    assert not installed.environment.is_installed
    config.write_text(text)
    assert installed.environment.is_installed


@pytest.mark.usefixtures("quick_pip")
@pytest.mark.parametrize("stage", ["venv", "packages", "check", "done"])
def test_cancel_removes_what_was_begun(tmp_path: Path, wheelhouse: Path, stage: str) -> None:
    environment = make(tmp_path)

    def stop(progress: Progress) -> None:
        if progress.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu", progress=stop)
    assert_nothing_is_left(environment)


class Existing:
    """A whole install of one file, which a new one is to replace."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "NEEDED_SPACE", dict.fromkeys(module.NEEDED_SPACE, 0))
        monkeypatch.setattr(module, "FREE_TIMEOUT", 0.0)
        self.environment = make(folder)
        self.environment.folder.mkdir()
        self.make("old")

    def make(self, name: str, *, whole: bool = True) -> None:
        (self.environment.folder / "venv").mkdir()
        (self.environment.folder / "venv" / name).touch()
        if whole:
            (self.environment.folder / "installed.json").write_text(name)

    def replace(self, error: BaseException | None = None) -> None:
        """Install anew; `error` comes half-way."""

        def install(*_: Any) -> module.Check:
            self.make("new", whole=error is None)
            if error is not None:
                raise error
            return module.Check({}, "cpu", "")

        self.environment._install = install  # type: ignore[method-assign]
        self.environment.install(online=True, device="cpu")

    def assert_is(self, name: str) -> None:
        folder = self.environment.folder
        assert [path.name for path in (folder / "venv").iterdir()] == [name]
        assert (folder / "installed.json").read_text() == name
        assert not list(folder.glob("*.old*"))


@pytest.fixture
def existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Existing:
    return Existing(tmp_path, monkeypatch)


def test_a_new_install_takes_the_place_of_the_old_one(existing: Existing) -> None:
    existing.replace()
    existing.assert_is("new")


@pytest.mark.parametrize("error", [XRayError("install_failed", "No network."), Cancelled()])
def test_a_new_install_that_fails_leaves_the_old_one(existing: Existing, error: Exception) -> None:
    with pytest.raises(type(error)):
        existing.replace(error)
    existing.assert_is("old")


def test_an_install_that_is_in_use_stays_as_it_is(
    existing: Existing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError  # Windows', for a folder that a process runs from

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(XRayError) as caught:
        existing.replace()
    assert caught.value.code == "busy"
    existing.assert_is("old")


def test_an_older_install_that_cannot_be_removed_is_never_put_back(
    existing: Existing, monkeypatch: pytest.MonkeyPatch
) -> None:
    remains = existing.environment.folder / "venv.old"
    remains.mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(XRayError) as caught:
        existing.replace()
    assert caught.value.code == "busy"
    remains.rmdir()
    existing.assert_is("old")


@pytest.mark.parametrize("state", ["half aside", "aside", "half new", "new"])
def test_an_install_that_was_killed_loses_nothing(existing: Existing, state: str) -> None:
    folder = existing.environment.folder
    (folder / "installed.json").rename(folder / "installed.old.json")
    if state != "half aside":
        (folder / "venv").rename(folder / "venv.old")
    if state in ("half new", "new"):
        existing.make("new", whole=state == "new")
    with pytest.raises(Cancelled):
        existing.replace(Cancelled())
    existing.assert_is("new" if state == "new" else "old")


def test_a_disk_without_room_for_two_keeps_none(
    existing: Existing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = module.Sizes(installed=2**60, needed=2**60, free=0)
    monkeypatch.setattr(existing.environment, "sizes", lambda _: sizes)
    with pytest.raises(Cancelled):
        existing.replace(Cancelled())
    assert_nothing_is_left(existing.environment)
    assert not list(existing.environment.folder.glob("*.old*"))


def test_a_silent_command_is_stopped_at_once(tmp_path: Path) -> None:
    end = time.monotonic() + 0.3

    def stop(_: Progress) -> None:
        if time.monotonic() > end:
            raise Cancelled

    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (tmp_path / "log").open("wb") as log, pytest.raises(Cancelled):
        installer.Commands(log, "log", stop).run("packages", "Sleeping", command)
    assert time.monotonic() < end + 10.0


@pytest.mark.skipif(sys.platform == "win32", reason="it reads /proc")
def test_a_command_and_its_children_end_with_a_killed_blender(tmp_path: Path) -> None:
    child = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print('pids', os.getpid(), child.pid, flush=True); time.sleep(60)"
    )
    parent = (
        "import sys; from xray_addon.process.installer import Commands; "
        "from xray_addon.progress import ignore_progress; "
        f"log = open({str(tmp_path / 'log')!r}, 'wb'); "
        "command = [sys.executable, '-c', sys.argv[1]]; "
        "Commands(log, 'log', ignore_progress).run('packages', 'Sleeping', command)"
    )
    blender = subprocess.Popen([sys.executable, "-c", parent, child], cwd=ROOT)
    end = time.monotonic() + 20.0
    while not (found := re.findall(r"(?m)^pids (\d+) (\d+)$", text_of(tmp_path / "log"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    blender.kill()
    blender.wait()
    while any(is_running(int(pid)) for pid in found[0]):
        assert time.monotonic() < end
        time.sleep(0.05)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lock_of(wheel: Path, digest: str = "") -> str:
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"tiny==1.0 \\\n    --hash=sha256:{digest}\n"


@pytest.mark.usefixtures("quick_pip")
def test_another_file_than_the_locked_one_is_not_installed(tmp_path: Path, wheelhouse) -> None:
    environment = make(tmp_path, "tiny==1.0\n")
    lock_file = environment._requirements.with_suffix(".lock")
    wheel = wheelhouse / "tiny-1.0-py3-none-any.whl"
    lock_file.write_text(lock_of(wheel, "0" * 64))
    with pytest.raises(XRayError) as caught:
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert caught.value.code == "install_failed"
    assert "DO NOT MATCH THE HASHES" in environment.log.read_text()
    assert_nothing_is_left(environment)
    lock_file.write_text(lock_of(wheel))
    environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert environment.is_installed


def test_the_lock_holds_every_requirement_with_its_hash() -> None:
    """Written by `python -m runtime.lock`; what it lacks pip would take from any index."""
    wanted = {
        line.partition("#")[0].strip().replace("[cpu]", "").replace("_", "-").lower()
        for line in module.REQUIREMENTS.read_text().splitlines()
    } - {""}
    text = module.REQUIREMENTS.with_suffix(".lock").read_text()
    entries = text.replace(" \\\n    ", " ").splitlines()
    locked = {line.split()[0] for line in entries if line and line[0] != "#"}
    assert wanted <= locked
    for line in entries:
        assert line[0] == "#" or re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


SECRET = "https://somebody:s3cr%40t@index.example/simple"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"Looking in indexes: {SECRET}", "Looking in indexes: https://***@index.example/simple"),
        ("ERROR: 403 for url: https://t0ken@host/x", "ERROR: 403 for url: https://***@host/x"),
        ("proxy http://u:p@ss@proxy:3128 failed", "proxy http://***@proxy:3128 failed"),
        ("mail me@example.org https://host/a@b", "mail me@example.org https://host/a@b"),
    ],
)
def test_passwords_in_addresses_are_told_to_nobody(text: str, told: str) -> None:
    assert installer.redacted(text) == told


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_the_index_s_password_is_in_no_log_and_no_error(tmp_path: Path, monkeypatch) -> None:
    environment = make(tmp_path, "tiny==1.0\n")
    environment.folder.mkdir(parents=True)
    environment.log.write_text("of an earlier version")
    environment.log.chmod(0o644)
    monkeypatch.setenv("PIP_INDEX_URL", SECRET.replace("index.example", "127.0.0.1:9"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(XRayError) as caught:
        environment.install(online=True, device="cpu")
    for text in (str(caught.value), environment.log.read_text()):
        assert "s3cr" not in text
        assert "somebody" not in text
    assert environment.log.stat().st_mode & 0o777 == 0o600


def test_an_index_with_a_password_is_asked_with_it(monkeypatch, tmp_path: Path) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://somebody:s3cr%40t@127.0.0.1:{server.server_port}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", address)
        log = io.BytesIO()
        with pytest.raises(XRayError) as caught:
            installer.Commands(log, "log", ignore_progress).download_pip(tmp_path)
        server.shutdown()
    known = base64.b64encode(b"somebody:s3cr@t").decode()
    assert asked == [("/simple/pip/", f"Basic {known}")]
    assert "s3cr" not in str(caught.value) + log.getvalue().decode()


@pytest.mark.usefixtures("quick_pip")
def test_what_pip_could_not_do_is_said_with_the_log(tmp_path: Path, wheelhouse: Path) -> None:
    environment = make(tmp_path, "nosuchthing==1.0\n")
    with pytest.raises(XRayError) as caught:
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    error = caught.value
    assert error.code == "install_failed"
    assert "No matching distribution found for nosuchthing==1.0" in error.message
    assert error.log == str(environment.log)
    assert "ERROR: No matching distribution" in environment.log.read_text()
    assert_nothing_is_left(environment)


@pytest.mark.usefixtures("quick_pip")
def test_an_environment_that_does_not_work_is_not_installed(
    tmp_path: Path, wheelhouse: Path
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("broken==1.0\n")
    environment = RuntimeEnvironment(tmp_path / "r", requirements=file, imports=["broken"])
    with pytest.raises(XRayError, match=r"libcudart\.so is missing"):
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert_nothing_is_left(environment)


def test_offline_without_a_wheelhouse_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(XRayError) as caught:
        make(tmp_path).install(online=False)
    assert caught.value.code == "offline"
    assert "wheelhouse" in caught.value.remedy
    assert "online access" in caught.value.remedy


def test_a_python_without_ensurepip_takes_the_wheelhouses_pip(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENSUREPIP", ("-m", "no_such_module"))
    environment = make(tmp_path)
    with pytest.raises(XRayError, match="no pip") as caught:
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert "pip" in caught.value.remedy
    assert_nothing_is_left(environment)
    wheels = shutil.copytree(wheelhouse, tmp_path / "wheels")
    shutil.copy(PIP_WHEEL, wheels)
    environment.install(online=False, wheelhouse=wheels, device="cpu")
    assert environment.is_installed


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package index on this machine with Python's own pip under the pinned name."""
    name = f"pip-{installer.PIP_VERSION}-py3-none-any.whl"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f'<a href="/files/{name}#sha256=0">pip</a>'.encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page if self.path == "/simple/pip/" else PIP_WHEEL.read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("index")
def test_the_downloaded_pip_is_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = installer.Commands(io.BytesIO(), "log", ignore_progress)
    with pytest.raises(XRayError, match="checksum"):
        steps.download_pip(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(installer, "PIP_SHA256", hashlib.sha256(PIP_WHEEL.read_bytes()).hexdigest())
    assert zipfile.is_zipfile(steps.download_pip(tmp_path))


def test_an_index_that_does_not_answer_is_a_network_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(XRayError) as caught:
        installer.Commands(io.BytesIO(), "log", ignore_progress).download_pip(tmp_path)
    assert "network" in caught.value.remedy
    assert "127.0.0.1:9 was not reached (" in caught.value.message


RETRYING = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after "
    "connection broken by "
)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            f"""{RETRYING}'NameResolutionError("HTTPSConnection(host='pypi.org', port=443): """
            """Failed to resolve 'pypi.org' ([Errno -2] Name or service not known)")': /x/""",
            "pypi.org was not reached (Name or service not known)",
        ),
        (
            f"""{RETRYING}'NewConnectionError("HTTPSConnection(host='10.0.0.1', port=9): Failed """
            """to establish a new connection: [Errno 111] Connection refused")': /x/""",
            "10.0.0.1 was not reached (Connection refused)",
        ),
        (
            f"""{RETRYING}'ConnectTimeoutError(<HTTPSConnection object at 0x7f>, 'Connection to """
            """download.pytorch.org timed out. (connect timeout=15)')': /whl/cpu/torch/""",
            "download.pytorch.org was not reached (timed out)",
        ),
        (
            "Could not fetch URL https://pypi.org/simple/x/: There was a problem confirming the "
            "ssl certificate: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded",
            "pypi.org was not reached (certificate)",
        ),
    ],
)
def test_an_index_that_is_not_reached_is_named(line: str, told: str) -> None:
    end = "ERROR: No matching distribution found for torch==2.13.0"
    script = "import sys; print(sys.argv[1]); print(sys.argv[2]); sys.exit(1)"
    commands = installer.Commands(io.BytesIO(), "log", ignore_progress)
    with pytest.raises(XRayError) as caught:
        commands.run("torch", "Downloading", [sys.executable, "-c", script, line, end])
    assert caught.value.message == f"The runtime could not be installed: {told}."
    assert "network" in caught.value.remedy
    # A connection that broke once is not why there is no space left.
    full = "ERROR: Could not install packages due to an OSError: No space left on device"
    with pytest.raises(XRayError, match="No space left"):
        commands.run("torch", "Downloading", [sys.executable, "-c", script, line, full])


@pytest.mark.usefixtures("quick_pip")
def test_pip_without_its_index_says_that_the_host_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    environment = make(tmp_path, "nosuchthing==1.0\n")
    with pytest.raises(XRayError, match=r"127\.0\.0\.1:9 was not reached \(Connection refused\)"):
        environment.install(online=True, device="cpu")


class RecordingCommands(installer.Commands):
    """Runs nothing; a command with one of `failing` in it fails."""

    failing: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "log", ignore_progress)
        self.commands: list[list[str]] = []

    def run(self, _stage: str, _message: str, command: Any, _timeout: float = 0) -> list[str]:
        self.commands.append(list(command))
        if any(word in self.failing for word in command):
            raise self._failed("No matching distribution")
        return ["xray-check " + json.dumps({"versions": {}, "device": "cpu", "device_name": ""})]


def torch_commands(
    folder: Path, *, online: bool, local: bool, index: str | None
) -> list[list[str]]:
    environment = make(folder, "torch==2.13.0\ntiny==1.0\n")
    environment.folder.mkdir(exist_ok=True)
    steps = RecordingCommands()
    steps.failing = () if local else ("--no-index",)
    environment._bring_pip = lambda *_: None  # type: ignore[method-assign]
    environment._install(steps, online, None, index)
    return [command for command in steps.commands if "pip" in command]


def test_a_torch_wheel_on_disk_is_used_as_it_is(tmp_path: Path) -> None:
    commands = torch_commands(tmp_path, online=True, local=True, index="https://whl/cpu")
    assert "--no-index" in commands[0]
    assert not any("--index-url" in command for command in commands)


def test_torch_comes_from_the_index_of_the_device_before_its_dependencies(tmp_path: Path) -> None:
    local, torch, rest = torch_commands(tmp_path, online=True, local=False, index="https://w/cpu")
    assert "torch==2.13.0" in local
    assert torch[torch.index("--index-url") + 1] == "https://w/cpu"
    assert "--no-deps" in torch
    assert "--index-url" not in rest
    assert "-r" in rest


def test_rocm_finds_its_triton_on_pytorchs_index(tmp_path: Path) -> None:
    rest = torch_commands(tmp_path, online=True, local=False, index="https://w/rocm7.2")[-1]
    assert rest[rest.index("--extra-index-url") + 1] == "https://w/rocm7.2"


@pytest.mark.parametrize(
    ("driver", "capability", "tag"),
    [
        (550, 8.6, "cu126"),
        (580, 8.6, "cu130"),
        (580, 6.1, "cu126"),
        (575, 12.0, "cu129"),
        (590, 12.0, "cu130"),
    ],
)
def test_the_cuda_build_fits_driver_and_gpu(driver: int, capability: float, tag: str) -> None:
    assert cuda_tag(driver, capability) == tag


def test_an_old_driver_is_named() -> None:
    with pytest.raises(XRayError) as caught:
        cuda_tag(470, 8.6)
    assert caught.value.code == "driver_too_old"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one build")
def test_a_machine_without_a_gpu_never_takes_the_cuda_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_builds, "nvidia_driver", lambda: None)
    assert torch_builds.torch_index("auto") == "https://download.pytorch.org/whl/cpu"
    monkeypatch.setattr(torch_builds, "nvidia_driver", lambda: (580, 8.9))
    assert torch_builds.torch_index("auto") == "https://download.pytorch.org/whl/cu130"
    assert torch_builds.torch_index("cpu") == "https://download.pytorch.org/whl/cpu"


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert torch_builds.nvidia_driver() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '580.65.06, 9.0'\necho '580.65.06, 8.6'\n")
    tool.chmod(0o755)
    assert torch_builds.nvidia_driver() == (580, 8.6)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert torch_builds.nvidia_driver() is None


def test_what_would_be_installed_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = RuntimeEnvironment()
    monkeypatch.setattr(torch_builds, "nvidia_driver", lambda: None)
    assert environment.plan().build == "CPU"
    assert environment.plan().download < environment.plan("cuda").download
    assert "rocm" in environment.plan("rocm").build
    monkeypatch.setattr(torch_builds, "nvidia_driver", lambda: (470, 8.6))
    with pytest.raises(XRayError, match="too old"):
        environment.plan()


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = module.Sizes(installed=0, needed=3_000_000_000, free=1_000_000_000)
    environment = make(tmp_path)
    monkeypatch.setattr(environment, "sizes", lambda _: sizes)
    with pytest.raises(XRayError, match=r"needs 3 GB, and .* has 1\.0 GB left") as caught:
        environment.install(online=True, device="cpu")
    assert caught.value.code == "no_space"
    assert not environment.folder.exists()


def test_two_blenders_do_not_install_at_once(tmp_path: Path, wheelhouse: Path) -> None:
    environment = make(tmp_path)
    environment.folder.mkdir()
    with (
        lock(environment.folder / "install.lock", wait=False),
        pytest.raises(XRayError) as caught,
    ):
        environment.install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert caught.value.code == "busy"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, wheelhouse: Path) -> None:
    (tmp_path / "runtime").write_text("a file is in the way")
    with pytest.raises(XRayError) as caught:
        make(tmp_path).install(online=False, wheelhouse=wheelhouse, device="cpu")
    assert caught.value.code == "not_writable"
    assert "XRAY_RUNTIME_DIR" in caught.value.remedy


def test_uninstall_takes_nothing_else_with_it(tmp_path: Path) -> None:
    environment = make(tmp_path)
    environment.uninstall()
    (environment.folder / "venv" / "bin").mkdir(parents=True)
    (environment.folder / "precious.blend").touch()
    environment.uninstall()
    assert (environment.folder / "precious.blend").exists()
    assert not (environment.folder / "venv").exists()


def stub(folder: Path, says: str) -> RuntimeEnvironment:
    """An installed environment whose Python only says `says`."""
    environment = make(folder)
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text(f"#!/bin/sh\n{says}\n")
    environment.python.chmod(0o755)
    (environment.folder / "venv" / "pyvenv.cfg").write_text(f"home = {folder}\n")
    marker = {"requirements": environment._requirements_hash(), "size": 1}
    (environment.folder / "installed.json").write_text(json.dumps(marker))
    assert environment.is_installed
    return environment


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_what_libraries_say_does_not_hide_the_checks_result(tmp_path: Path) -> None:
    found = json.dumps({"versions": {}, "device": "cpu", "device_name": "x"})
    says = f"echo 'loading'; echo 'xray-check {found}'; echo 'Exception ignored in: x' >&2"
    assert stub(tmp_path, says).check().device_name == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("says", ["exit 0", "echo hello", "echo 'xray-check {'"])
def test_a_python_that_says_nothing_of_use_is_broken(tmp_path: Path, says: str) -> None:
    with pytest.raises(XRayError) as caught:
        stub(tmp_path, says).check()
    assert caught.value.code == "broken"


def test_a_folder_that_cannot_be_emptied_is_named(tmp_path: Path) -> None:
    environment = make(tmp_path)
    (environment.folder / "installed.json").mkdir(parents=True)  # no file: cannot be unlinked
    with pytest.raises(XRayError, match="runtime") as caught:
        environment.uninstall()
    assert caught.value.code == "not_writable"
    assert caught.value.remedy


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_RUNTIME_DIR", str(tmp_path / "mine"))
    assert RuntimeEnvironment().folder == tmp_path / "mine"
    monkeypatch.delenv("XRAY_RUNTIME_DIR")
    assert RuntimeEnvironment().folder.parts[-2:] == ("xray", "runtime")


def test_blenders_python_settings_do_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/blender/python")
    monkeypatch.setenv("PYTHONPATH", "/blender/scripts")
    monkeypatch.setenv("XRAY_TEST", "stays")
    environment = child_environment()
    assert not any(name.startswith("PYTHON") for name in environment)
    assert environment["XRAY_TEST"] == "stays"


def test_the_command_line_tells_errors_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path / "runtime")]
    assert main(["install", "--offline", *folder]) == 3
    assert main(["check", *folder]) == 3
    assert main(["uninstall", *folder]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)
