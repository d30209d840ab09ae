"""Checks that the system libraries that Blender loads are there; names what is missing."""

from __future__ import annotations

import ctypes
import platform
import sys

# Library -> Debian's and Fedora's package.
LIBRARIES = {
    "libX11.so.6": ("libx11-6", "libX11"),
    "libXrender.so.1": ("libxrender1", "libXrender"),
    "libXfixes.so.3": ("libxfixes3", "libXfixes"),
    "libXi.so.6": ("libxi6", "libXi"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon"),
    "libSM.so.6": ("libsm6", "libSM"),
    "libGL.so.1": ("libgl1", "libglvnd-glx"),
    "libEGL.so.1": ("libegl1", "libglvnd-egl"),
}


def missing() -> list[str]:
    """The libraries that do not load."""
    absent = []
    for library in LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            absent.append(library)
    return absent


def main() -> int:
    """0 if all is there, 1 with the line that installs it."""
    if platform.system() != "Linux":
        return 0
    absent = missing()
    if not absent:
        return 0
    debian, fedora = (" ".join(LIBRARIES[name][i] for name in absent) for i in (0, 1))
    sys.stderr.write(
        f"Blender needs system libraries that are missing: {', '.join(absent)}.\n"
        f"On Debian and Ubuntu:  sudo apt-get install -y --no-install-recommends {debian}\n"
        f"On Fedora:             sudo dnf install -y {fedora}\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
