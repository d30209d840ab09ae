"""The command line: ``python -m xray_addon.process install | check | uninstall``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import XRayError
from ..progress import Cancelled, Progress
from .environment import DEVICES, RuntimeEnvironment


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Exit codes: 0 done, 2 usage, 3 failed, 130 cancelled."""
    parser = argparse.ArgumentParser(
        prog="python -m xray_addon.process", description="Install and check the model runtime."
    )
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
