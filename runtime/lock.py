"""Writes the hashes of all packages in the runtime, for every platform.

python -m runtime.lock          writes runtime/requirements.lock, with the runtime's own Python

Run it after changing `requirements.txt`, in a fresh installation of these requirements: their
versions are used. Packages that only other platforms need are locked in their newest version. The
hashes are those of the package index for every wheel that fits one of `PYTHONS`, so one line serves
all platforms; a line that only some platforms need has a marker (PEP 508). torch is locked only for
macOS: elsewhere it comes from PyTorch's own index.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_addon.files.atomic import replacing
from xray_addon.process.installer import certificates

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
LOCK = REQUIREMENTS.with_suffix(".lock")
INDEX = "https://pypi.org/simple"
PYTHONS = ("3.11", "3.13")  # Blender's
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "win32": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
}
MACHINES = {"linux": "x86_64", "win32": "AMD64", "darwin": "arm64"}
ELSEWHERE = "torch"  # which is not from the index, except on macOS
HEAD = """\
# Written by `python -m runtime.lock`: change requirements.txt instead. pip installs no other files.
# torch for Linux and Windows, and the GPU libraries that it names, come from PyTorch's own index:
# they are not among these.
"""


@dataclass(frozen=True)
class Target:
    """A platform and a Python version, for markers."""

    platform: str
    python: str

    def environment(self, extra: str = "") -> dict[str, str]:
        """The variables of PEP 508 markers."""
        return {
            **PLATFORMS[self.platform],
            "platform_machine": MACHINES[self.platform],
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": extra,
        }


TARGETS = [Target(platform, python) for platform in PLATFORMS for python in PYTHONS]


def main() -> int:
    """Write the lock. Raises OSError if the index cannot be read."""
    needed: dict[tuple[str, str], set[Target]] = {}
    for target in TARGETS:
        for name, version in closure(target):
            if name != ELSEWHERE or target.platform == "darwin":
                needed.setdefault((name, version), set()).add(target)
    text = HEAD + "".join(_entry(*package, needed[package]) for package in sorted(needed))
    with replacing(LOCK) as temporary:
        temporary.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(needed)} packages in {LOCK}\n")
    return 0


def closure(target: Target) -> Iterator[tuple[str, str]]:
    """Name and version of every package that the requirements need on `target`."""
    names = _packaging("utils").canonicalize_name
    requirement = _packaging("requirements").Requirement
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    todo = [(requirement(line), "") for line in lines if line]
    seen: set[tuple[str, str]] = set()
    versions = {}
    while todo:
        wanted, extra = todo.pop()
        if wanted.marker is not None and not wanted.marker.evaluate(target.environment(extra)):
            continue
        name = names(wanted.name)
        for with_extra in (*wanted.extras, ""):
            if (name, with_extra) in seen:
                continue
            seen.add((name, with_extra))
            versions[name], requires = _known(name, wanted.specifier)
            todo += [(requirement(text), with_extra) for text in requires]
    yield from sorted(versions.items())


def _known(name: str, specifier: Any) -> tuple[str, list[str]]:
    """Version and requirements: as installed here, or else the newest on the index that fits."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        version = _newest(name, specifier)
        # Packages that only other platforms need have so far had no requirements themselves.
        return version, []
    return found.version.partition("+")[0], list(found.requires or [])


def _newest(name: str, specifier: Any) -> str:
    parse = _packaging("version").parse
    versions = [parse(text) for text in _page(name)["versions"]]
    fitting = [version for version in specifier.filter(versions) if not version.is_prerelease]
    return str(max(fitting))


def _entry(name: str, version: str, targets: set[Target]) -> str:
    marker = _marker(targets)
    head = f"{name}=={version}" + (f" ; {marker}" if marker else "")
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in _hashes(name, version))
    return head + hashes + "\n"


def _marker(targets: set[Target]) -> str:
    """The marker for `targets`; "" for all of them."""
    if len(targets) == len(TARGETS):
        return ""
    platforms = {target.platform for target in targets}
    if targets == {target for target in TARGETS if target.platform in platforms}:
        return " or ".join(f'sys_platform == "{name}"' for name in sorted(platforms))
    pythons = {target.python for target in targets}
    if targets == {target for target in TARGETS if target.python in pythons}:
        return " or ".join(f'python_version == "{name}"' for name in sorted(pythons))
    return " or ".join(
        f'(sys_platform == "{target.platform}" and python_version == "{target.python}")'
        for target in sorted(targets, key=lambda target: (target.platform, target.python))
    )


def _hashes(name: str, version: str) -> list[str]:
    """The hashes of a version's wheels, or of its source if it has none. Raises ValueError."""
    files = [file for file in _page(name)["files"] if not file.get("yanked")]
    wheels = [file for file in files if _is_wheel_of(file["filename"], version)]
    sources = [file for file in files if _is_source_of(file["filename"], version)]
    found = sorted({file["hashes"]["sha256"] for file in wheels or sources})
    if not found:
        raise ValueError(f"the index has no {name} {version}")
    return found


def _is_wheel_of(filename: str, version: str) -> bool:
    """Whether the file is a wheel of that version for one of `PYTHONS`."""
    utils = _packaging("utils")
    try:
        _, found, _, tags = utils.parse_wheel_filename(filename)
    except utils.InvalidWheelFilename:
        return False
    ours = {f"cp{python.replace('.', '')}" for python in PYTHONS}
    fits = (tag.interpreter in (*ours, "py3") or tag.abi == "abi3" for tag in tags)
    return str(found) == version and any(fits)


def _is_source_of(filename: str, version: str) -> bool:
    utils = _packaging("utils")
    try:
        return str(utils.parse_sdist_filename(filename)[1]) == version
    except utils.InvalidSdistFilename:
        return False


_pages: dict[str, Any] = {}


def _page(name: str) -> Any:
    """The index's data about a package (PEP 691)."""
    if name not in _pages:
        request = urllib.request.Request(
            f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        )
        with urllib.request.urlopen(request, timeout=60, context=certificates()) as reply:
            _pages[name] = json.load(reply)
    return _pages[name]


def _packaging(module: str) -> Any:
    """pip's own copy of packaging, which every environment with pip has."""
    return importlib.import_module(f"pip._vendor.packaging.{module}")


if __name__ == "__main__":
    sys.exit(main())
