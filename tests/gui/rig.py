"""A real Blender with a window, on a virtual screen in a chroot, driven from outside."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# All that the tests write; each process of pytest-xdist has its own folder and screen.
OUT = ROOT / "build" / "gui" / os.environ.get("PYTEST_XDIST_WORKER", "")
MODULE = "bl_ext.user_default.xray"
BUILD_LIMIT = 600  # s
WIDTH, HEIGHT = 1280, 1000  # px of the screen and Blender's window
BUTTON_STEP = 10  # px between two looks for a button, which is at least twice as high

Result = subprocess.CompletedProcess


class Unavailable(Exception):
    """Why there can be no such Blender here."""


def rootfs() -> Path:
    """The chroot: XRAY_GUI_ROOTFS, or one that is built in `build/` the first time."""
    if chosen := os.environ.get("XRAY_GUI_ROOTFS"):
        folder = Path(chosen)
        if not (folder / "usr/bin/blender").exists():
            raise Unavailable(f"XRAY_GUI_ROOTFS={folder} holds no Blender")
    else:
        folder = ROOT / "build" / "rootfs"
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("a chroot needs Linux and root")
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if tried.returncode:
        raise Unavailable(f"no mount namespaces here: {tried.stderr.decode().strip()}")
    if not folder.exists():
        _build(folder)
    return folder


def _build(folder: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise Unavailable("mmdebstrap is missing (apt-get install mmdebstrap)")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        try:
            subprocess.run(
                [HERE / "rootfs.sh", folder],
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=BUILD_LIMIT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"the chroot cannot be built ({error}); see {log}") from error


class Screen:
    """A virtual screen in the chroot, and commands that run there."""

    def __init__(self, folder: Path, python: Path) -> None:
        """python : of the runtime's environment; it and what it is made from are seen inside."""
        self._folder = folder
        base = subprocess.run(
            [python, "-c", "import sys; print(sys.base_prefix)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        # A checkout's .venv may be a link to another's.
        self._mounts = (str(ROOT), base, str(Path(python).parents[2].resolve()))
        for path in self._mounts:
            (folder / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (folder / "tmp/.X11-unix").mkdir(mode=0o1777, parents=True, exist_ok=True)
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "XDG_RUNTIME_DIR": "/tmp",
        }
        read, write = os.pipe()
        self._server = self.start(
            "Xvfb",
            "-displayfd",  # it takes a free number and writes it there once it is up
            write,
            "-screen",
            "0",
            f"{WIDTH}x{HEIGHT}x24",
            "-nolisten",
            "tcp",
            log="xvfb",
            fds=(write,),
        )
        os.close(write)
        with os.fdopen(read) as stream:
            ready, _, _ = select.select([stream], [], [], 20)
            number = stream.readline().strip() if ready else ""
        if not number:
            raise RuntimeError(f"Xvfb does not start; see {OUT / 'xvfb.log'}")
        self.environment["DISPLAY"] = f":{number}"

    def command(self, *arguments: Any) -> list[str]:
        """`arguments` as a command that runs in the chroot; mounts end with it."""
        script = 'r=$1; shift; while [ "$1" != -- ]; do mount --bind "$1" "$r$1"; shift; done; '
        script += 'shift; mount -t proc proc "$r/proc"; exec chroot "$r" "$@"'
        words = [self._folder, *self._mounts, "--", *arguments]
        return ["unshare", "-m", "bash", "-ec", script, "_", *map(str, words)]

    def run(self, *arguments: Any, **extra: str) -> Result[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment | extra,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(
        self, *arguments: Any, log: str, fds: tuple[int, ...] = (), **extra: str
    ) -> subprocess.Popen[bytes]:
        """Start and go on; what it writes goes to `build/gui/<log>.log`."""
        OUT.mkdir(parents=True, exist_ok=True)
        with (OUT / f"{log}.log").open("wb") as stream:
            return subprocess.Popen(
                self.command(*arguments),
                env=self.environment | extra,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
            )

    def close(self) -> None:
        """End the X server."""
        self._server.terminate()
        self._server.wait(10)


def install_extension(screen: Screen) -> Path:
    """Build the zip and install it; the user's folder that it is enabled in."""
    user, archive = OUT / "user", OUT / "xray.zip"
    OUT.mkdir(parents=True, exist_ok=True)
    for arguments in (
        ("build", "--source-dir", ROOT, "--output-filepath", archive),
        ("install-file", "-r", "user_default", "--enable", archive),
    ):
        done = screen.run(
            "blender", "--command", "extension", *arguments, BLENDER_USER_RESOURCES=str(user)
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
    return user


class Blender:
    """One Blender on a screen. `do` runs code in it; mouse and keys are real ones."""

    def __init__(self, screen: Screen, name: str, user: Path, **extra: str) -> None:
        self.screen = screen
        self.name = name
        self.log = OUT / f"{name}.log"
        read, theirs_out = os.pipe()
        theirs_in, self._write = os.pipe()
        self._answers = os.fdopen(read)
        self._process = screen.start(
            "blender",
            "--window-geometry",
            "0",
            "0",
            WIDTH,
            HEIGHT,
            "-P",
            HERE / "driver.py",
            "--",
            theirs_in,
            theirs_out,
            log=name,
            fds=(theirs_in, theirs_out),
            BLENDER_USER_RESOURCES=str(user),
            **extra,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.do("", 60)  # it is up

    @property
    def pid(self) -> int:
        """Of Blender: the shells before it have become it."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, code: str) -> None:
        """Have it run `code`, without waiting for an answer."""
        os.write(self._write, (json.dumps({"code": code}) + "\n").encode())

    def do(self, code: str, timeout: float = 30) -> Any:
        """Run `code` in Blender's main thread; what it leaves in `result`."""
        self.send(code)
        ready, _, _ = select.select([self._answers], [], [], timeout)
        line = self._answers.readline() if ready else ""
        if not line:
            raise RuntimeError(f"no answer; Blender said:\n{self.log.read_text()[-3000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def get(self, expression: str) -> Any:
        """The value of an expression in Blender."""
        return self.do(f"result = {expression}")

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Wait until `expression` is true in Blender; its value."""
        end = time.monotonic() + seconds
        while not (value := self.get(expression)):
            if time.monotonic() > end:
                self.shot("gave-up")
                raise RuntimeError(f"never true: {expression}; see {OUT}/{self.name}-gave-up.png")
            time.sleep(0.1)
        return value

    def shot(self, name: str) -> Path:
        """A picture of the whole screen, in `build/gui`."""
        self.do("draw()")
        time.sleep(0.2)
        path = OUT / f"{self.name}-{name}.png"
        done = self.screen.run("import", "-window", "root", path)
        assert done.returncode == 0, done.stderr
        return path

    def click_operator(self, name: str, across: float = 0.4) -> None:
        """Click the sidebar's button of the operator `name`, such as "xray.generate".

        across : where the button is in the sidebar, 0 at its left and 1 at its right edge.
        """
        x, top, bottom = self.get(
            f"(lambda r, h: (r.x + r.width * {across}, h - r.y - r.height, h - r.y))"
            "(sidebar(), view3d()['window'].height)"
        )
        for y in range(int(top), int(bottom), BUTTON_STEP):
            self._xdotool("mousemove", int(x), y)
            time.sleep(0.1)
            if self.get("pointed_at()").startswith(f"bpy.ops.{name}("):
                self._xdotool("mousemove_relative", "1", str(BUTTON_STEP // 2))
                time.sleep(0.3)
                self._xdotool("click", "1")
                time.sleep(0.3)
                return
        self.shot("no-button")
        raise RuntimeError(f"no button {name}; see {OUT}/{self.name}-no-button.png")

    def press(self, *keys: str) -> None:
        """Press keys by xdotool's names, one after the other."""
        for key in keys:
            self._xdotool("key", key)
            time.sleep(0.3)

    def type(self, text: str) -> None:
        """Type lower-case text."""
        self._xdotool("type", "--delay", "80", text)
        time.sleep(0.5)

    def hover_view(self) -> None:
        """Put the mouse over the middle of the 3D view."""
        self._xdotool("mousemove", "400", "400")
        self._xdotool("mousemove_relative", "1", "1")
        time.sleep(0.3)

    def nudge(self, x: int, y: int) -> None:
        """Move the mouse by so many pixels."""
        self._xdotool("mousemove_relative", "--", x, y)
        time.sleep(0.3)

    def drag(self, start: tuple[int, int], stop: tuple[int, int], steps: int = 12) -> None:
        """Move the mouse from one place of the screen to another with its button held."""
        self._xdotool("mousemove", *map(str, start))
        time.sleep(0.2)
        self._xdotool("mousedown", "1")
        for step in range(1, steps + 1):
            place = [a + (b - a) * step // steps for a, b in zip(start, stop, strict=True)]
            self._xdotool("mousemove", *map(str, place))
            time.sleep(0.05)
        self._xdotool("mouseup", "1")
        time.sleep(0.3)

    def _xdotool(self, *arguments: Any) -> None:
        done = self.screen.run("xdotool", *arguments)
        assert done.returncode == 0, done.stderr

    def wait(self, seconds: float = 20) -> int:
        """Wait for its end; the exit code."""
        return self._process.wait(seconds)

    def close(self) -> None:
        """End it, by force."""
        if self.lives:
            self._process.kill()
            self._process.wait(10)
        os.close(self._write)
        self._answers.close()
