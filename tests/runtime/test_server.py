"""The server alone, over raw pipes: what it answers, and that it always ends."""

from __future__ import annotations

import gc
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.errors import typed_error
from runtime.server import Server
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.process.protocol import PROTOCOL_VERSION
from xray_addon.progress import Cancelled

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "core" / "fake_runtime.py"


class Peer:
    """A client of a few lines: sends what it is told, collects what comes."""

    def __init__(self, folder: Path, idle: str = "300") -> None:
        self.folder = folder
        self.log = (folder / "log.txt").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE), "serve", idle],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.notes: list[dict[str, Any]] = []

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, method: str, params: Any = None, id: Any = 1) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": id}
        self.write(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next answer; notifications are put aside."""
        while "id" not in (message := self.lines.get(timeout=40)):
            self.notes.append(message["params"])
        return message

    def ask(self, method: str, params: Any = None, id: Any = 1) -> dict[str, Any]:
        self.send(method, params, id)
        return self.receive()

    def generate(self, generator: str, id: int, steps: int = 1) -> None:
        settings = {"generator": generator, "steps": steps}
        image = self.folder / "image.png"
        image.touch()
        inputs = {"image": str(image)}
        params = {"inputs": inputs, "folder": str(self.folder), "settings": settings}
        self.send("generate", params, id)

    def wait_for_stage(self, stage: str) -> None:
        while self.lines.get(timeout=40).get("params", {}).get("stage") != stage:
            pass

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass
        self.reader.join()
        self.log.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path)
    yield peer
    peer.end()


@pytest.fixture
def ready(peer: Peer) -> Peer:
    peer.ask("initialize", {"protocol": 2})
    return peer


def test_importing_the_server_imports_no_torch() -> None:
    code = "import sys, runtime.server; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_initialize_tells_who_answers(peer: Peer) -> None:
    result = peer.ask("initialize", {"protocol": 2})["result"]
    assert result["protocol"] == 2
    assert result["pid"] == peer.process.pid
    assert result["versions"]["python"]


def test_another_version_is_refused(peer: Peer) -> None:
    error = peer.ask("initialize", {"protocol": 1})["error"]
    assert error["data"]["code"] == "version_mismatch"
    assert error["data"]["remedy"]


def test_nothing_is_done_before_initialize(peer: Peer) -> None:
    assert peer.ask("status")["error"]["code"] == -32600


def test_a_mesh_comes_as_a_file_after_its_progress(ready: Peer) -> None:
    ready.generate("fake", id=7, steps=3)
    answer = ready.receive()
    assert answer["id"] == 7
    assert len(Generated.load(answer["result"]["file"]).surface.faces) == 1
    assert [note["stage"] for note in ready.notes] == [
        "load",
        "generate",
        "sample",
        "sample",
        "sample",
        "save",
    ]
    assert all(note["id"] == 7 for note in ready.notes)


def test_what_is_no_image_is_refused_before_a_model_is_loaded(ready: Peer) -> None:
    page = ready.folder / "page.png"
    page.write_bytes(b"<!doctype html>")
    params = {
        "inputs": {"image": str(page)},
        "folder": str(ready.folder),
        "settings": {"generator": "fake", "steps": 1},
    }
    assert ready.ask("generate", params)["error"]["data"]["code"] == "unreadable_image"
    assert ready.ask("status", id=2)["result"]["generator"] == ""


def test_a_cut_out_comes_as_a_picture(ready: Peer) -> None:
    image = ready.folder / "photo.png"
    photo = np.full((64, 64, 3), 255, np.uint8)
    photo[20:44, 16:48] = (200, 30, 30)
    Image.fromarray(photo).save(image)
    covered = []
    for number, margin in enumerate((0.0, 5.0, -5.0), 7):
        settings = {"remove_background": "plain", "margin": margin}
        inputs = {"image": str(image)}
        params = {"inputs": inputs, "folder": str(ready.folder), "settings": settings}
        answer = ready.ask("cut_out", params, number)["result"]
        assert answer["how"] == "plain"
        picture = np.load(answer["file"])
        assert picture.shape == (256, 256, 4)
        covered.append(picture[128, :, :3].min(axis=1).max())
    # Framed alike; only what is beyond the object's edge is white.
    assert covered[1] > covered[0] == pytest.approx(covered[2], abs=8)


@pytest.mark.parametrize(
    ("image", "code"),
    [("", "missing_image"), (".", "missing_file"), ("gone.png", "missing_file"),
     ("page.png", "unreadable_image")],
)  # fmt: skip
def test_a_cut_out_of_what_is_no_image_is_refused(ready: Peer, image: str, code: str) -> None:
    (ready.folder / "page.png").write_bytes(b"<!doctype html>")
    inputs = {"image": str(ready.folder / image) if image else ""}
    params = {"inputs": inputs, "folder": str(ready.folder), "settings": {}}
    assert ready.ask("cut_out", params)["error"]["data"]["code"] == code


def test_after_a_cut_out_an_idle_server_releases_its_networks() -> None:
    server = Server(io.BytesIO(), io.BytesIO(), idle_timeout=60.0)
    assert server._idle_left() is None
    server._cancels[1] = threading.Event()
    server._do(1, dict)
    left = server._idle_left()
    assert left is not None
    assert 0 < left <= 60
    server._release()
    assert server._idle_left() is None


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        (b"\xff\xfe\n", -32700, None),
        (b"{\n", -32700, None),
        (b"x" * (5 << 20) + b"\n", -32700, None),
        (b"[]\n", -32600, None),
        (b'{"jsonrpc": "2.0", "method": 1, "id": 4}\n', -32600, 4),
        (b'{"jsonrpc": "2.0", "method": "fly", "id": 4}\n', -32601, 4),
        (b'{"jsonrpc": "2.0", "method": "status", "params": [], "id": 4}\n', -32602, 4),
        (b'{"jsonrpc": "2.0", "method": "generate", "id": 4}\n', -32602, 4),
    ],
)
def test_malformed_messages_are_answered_and_the_server_goes_on(
    ready: Peer, line: bytes, code: int, id: int | None
) -> None:
    ready.write(line)
    answer = ready.receive()
    assert answer["error"]["code"] == code
    assert answer["id"] == id
    assert "result" in ready.ask("status", id=9)


def test_noise_between_messages_never_stops_it(ready: Peer) -> None:
    ready.write(b"\n\n" + bytes(range(128, 256)) + b"\n" + b'{"jsonrpc": "2.0", "result": {}}\n')
    ready.generate("fake", id=5)
    while (answer := ready.receive())["id"] != 5:
        assert "error" in answer
    assert "result" in answer


def test_wrong_settings_are_named(ready: Peer) -> None:
    ready.generate("fake", id=3, steps=-1)
    error = ready.receive()["error"]
    assert error["data"]["code"] == "bad_settings"
    assert "steps" in error["message"]


def test_cancel_reaches_a_queued_and_a_running_request(ready: Peer) -> None:
    ready.generate("fake", id=1, steps=1000)
    ready.generate("fake", id=2, steps=1000)
    ready.wait_for_stage("sample")
    assert ready.ask("cancel", {"id": 2}, id=10)["result"] == {"cancelled": True}
    assert ready.ask("cancel", {"id": 1}, id=11)["result"] == {"cancelled": True}
    answers = [ready.receive(), ready.receive()]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert all(answer["error"]["data"]["code"] == "cancelled" for answer in answers)
    assert ready.ask("cancel", {"id": 1}, id=12)["result"] == {"cancelled": False}


def test_release_lets_the_weights_go(ready: Peer) -> None:
    ready.generate("fake", id=1)
    ready.receive()
    assert ready.ask("status", id=2)["result"]["generator"] == "fake"
    assert ready.ask("release", id=3)["result"] == {"released": True}
    assert ready.ask("status", id=4)["result"]["generator"] == ""
    assert ready.ask("release", id=5)["result"] == {"released": False}


@pytest.mark.parametrize("generator", ["idle", "fake", "stubborn"])
@pytest.mark.parametrize("how", ["stdin", "shutdown"])
def test_it_ends_when_stdin_closes_or_when_asked(ready: Peer, generator: str, how: str) -> None:
    if generator != "idle":
        ready.generate(generator, id=1, steps=1000)
        ready.wait_for_stage("generate")
    if how == "stdin":
        ready.close_stdin()
    else:
        ready.send("shutdown", id=2)
    assert ready.process.wait(timeout=30) == 0


PARENT = """
import json, subprocess, sys, time
pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
server = subprocess.Popen([sys.executable, sys.argv[1], "serve"], **pipe)
hold = [server.stdin.fileno(), server.stdout.fileno()]
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], pass_fds=hold)
hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocol": 2}}
server.stdin.write(json.dumps(hello).encode() + b"\\n")
server.stdin.flush()
server.stdout.readline()
print(server.pid, sleeper.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows nobody else holds the pipe")
def test_it_ends_with_its_parent_though_another_child_holds_the_pipe() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(FAKE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        server, sleeper = map(int, parent.stdout.readline().split())
        parent.kill()
    try:
        end = time.monotonic() + 30
        while not is_gone(server):
            assert time.monotonic() < end, "the server outlives its parent"
            time.sleep(0.05)
    finally:
        os.kill(sleeper, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """A process nobody has waited for yet (a zombie) is gone as well."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGINT for a child")
def test_ctrl_c_in_the_terminal_is_the_parents_business(ready: Peer) -> None:
    ready.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert "result" in ready.ask("status", id=2)


def test_out_of_memory_is_recognized() -> None:
    torch = pytest.importorskip("torch")
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ):
        found = typed_error(error)
        assert found.code == "out_of_memory"
        assert "release" in found.remedy


class Tensor:
    """Stands for one: something that can be weakly referred to."""


@pytest.mark.parametrize("how", ["bug", "cancelled", "out of memory"])
def test_a_failed_request_keeps_nothing_while_the_caches_are_emptied(monkeypatch, how) -> None:
    server = Server(io.BytesIO(), io.BytesIO())
    server._cancels[1] = threading.Event()
    held: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def work() -> dict[str, Any]:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        if how == "cancelled":
            raise Cancelled
        try:
            raise RuntimeError("out of memory" if how == "out of memory" else "a bug")
        except RuntimeError as error:
            if how == "bug":
                raise
            raise XRayError("out_of_memory", "The card has not enough free memory.") from error

    def empty() -> None:
        gc.collect()
        alive.append(held[0]() is not None)

    monkeypatch.setattr("runtime.server._empty_caches", empty)
    monkeypatch.setattr("runtime.server.logger.disabled", True)  # pytest keeps what is logged
    server._do(1, work)
    assert alive == [False]


def test_other_errors_are_recognized() -> None:
    assert typed_error(OSError(28, "No space left on device")).code == "no_space"
    for error in (PermissionError(13, "Permission denied", "/x"), OSError(30, "Read-only", "/x")):
        found = typed_error(error)
        assert found.code == "cannot_write"
        assert "/x" in found.message
    found = typed_error(PermissionError("not yours"))
    assert "None" not in found.message
    assert "not yours" in found.message
    driver = RuntimeError("The NVIDIA driver on your system is too old (found version 11040)")
    assert typed_error(driver).code == "driver_too_old"
    odd = typed_error(KeyError("layer.0\nweight"))
    assert odd.code == "internal"
    assert "\n" not in str(odd)


@pytest.mark.parametrize("id", [[], {}, ["a"], True, 1.5, "x" * 201, 2**60])
def test_an_id_that_is_none_is_refused_and_the_next_request_is_heard(peer, id):
    peer.ask("initialize", {"protocol": PROTOCOL_VERSION})
    assert peer.ask("cancel", {"id": id}, 2)["error"]["code"] == -32602
    assert "result" in peer.ask("status", {}, 3)
    peer.send("status", {}, id)
    assert peer.receive()["error"]["code"] == -32600
    assert "result" in peer.ask("status", {}, 4)


def test_what_is_too_long_to_be_answered_is_answered_shorter(peer):
    peer.ask("initialize", {"protocol": PROTOCOL_VERSION})
    assert peer.ask("m" * 700_000, {}, 2)["error"]["code"] == -32601
    long = {"inputs": {"image": "/" + "a" * 700_000}, "folder": str(peer.folder),
            "settings": {"generator": "broken"}}  # fmt: skip
    answer = peer.ask("generate", long, 3)
    assert answer["error"]["data"]["code"] in ("missing_file", "missing_image", "bad_message")
    assert len(answer["error"]["message"]) < 5000
    assert "result" in peer.ask("status", {}, 4)


def test_deep_and_strange_json_is_answered(peer):
    for line in (b"[" * 500_000, b'{"a":' * 100_000, b'{"jsonrpc": "2.0", "id": 1e999}', b"NaN"):
        peer.write(line + b"\n")
        assert peer.receive()["error"]["code"] == -32700
    assert "result" in peer.ask("initialize", {"protocol": PROTOCOL_VERSION})
