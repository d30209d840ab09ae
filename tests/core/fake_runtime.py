"""A runtime for the tests: the real server with fake generators, or a child that misbehaves.

``fake_runtime.py serve [IDLE]`` serves; any other mode breaks the protocol in its own way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

MODES = ("serve", "mute", "deaf", "wrong_version", "exit", "garbage", "flood", "half_line")


class FakeGenerator:
    """Takes `settings.steps` steps of 20 ms; `name` says how it goes wrong."""

    def __init__(self, name: str, checkpoint: str | None) -> None:
        self.name = name
        self.device = "cpu"
        time.sleep(0.2 if checkpoint else 0.1)  # so that a poll sees that it loads

    def generate(self, _inputs: Any, settings: Any, progress: Any = None) -> Any:
        from xray_addon.camera import Camera
        from xray_addon.errors import XRayError
        from xray_addon.generated import Generated
        from xray_addon.progress import Progress
        from xray_addon.surface import Surface

        if self.name == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(300)
        if self.name == "printing":
            sys.stdout.write('{"jsonrpc":"2.0","id":1,"result":{}}\n')
            sys.__stdout__.flush()
            os.write(1, b"not a message\n")
            os.system("echo neither is this")
        if self.name == "crashing":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.name == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if self.name == "broken":
            raise ValueError("the weights are upside down")
        if self.name == "blind":
            raise XRayError("no_object", "There is no object in the image.", "Choose another.")
        if self.name == "reading":
            sys.stdin.read()
        time.sleep(0.02)
        for step in range(settings.steps):
            progress(Progress("sample", step, settings.steps))
            time.sleep(0.02)
        vertices = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, settings.seed, 1.0]]
        surface = Surface(vertices, [[0, 1, 2]])
        return Generated(surface, None, Camera.look_at((0.0, -2.0, 0.0)))


def register_fakes() -> None:
    """Make the fakes known to this process; the client's needs their settings too."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fake_systems import add_system

    for name in (
        "fake",
        "stubborn",
        "printing",
        "crashing",
        "memory",
        "broken",
        "blind",
        "reading",
    ):
        add_system(name, lambda path, _device, name=name: FakeGenerator(name, path))


def misbehave(mode: str) -> None:
    if mode == "exit":
        sys.stderr.write("ModuleNotFoundError: No module named 'runtime'\n")
        sys.exit(3)
    if mode == "deaf":
        time.sleep(300)
    for line in sys.stdin:
        message = json.loads(line)
        if mode == "mute":
            continue
        if message["method"] == "initialize":
            version = 999 if mode == "wrong_version" else 2
            answer(message, {"protocol": version, "pid": os.getpid(), "versions": {}})
        elif message["method"] == "status":
            answer(message, {"pid": os.getpid()})
        elif message["method"] == "generate":
            raw = sys.stdout.buffer
            if mode == "garbage":
                raw.write(b"\xff\xfe not utf-8 \x80\n")
            elif mode == "flood":
                raw.write(b"x" * (3 << 20) + b"\n")
            elif mode == "half_line":
                raw.write(b'{"jsonrpc": "2.0", "id": 1, "resu')
                raw.flush()
                os._exit(0)
            raw.flush()


def answer(message: dict[str, Any], result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        register_fakes()
        from runtime.server import serve

        sys.exit(serve(float(sys.argv[2]) if len(sys.argv) > 2 else 300.0))
    misbehave(sys.argv[1])
