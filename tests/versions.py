"""Blender's half of the tests in other Blenders: ``python tests/versions.py`` (make test-versions).

Each Blender is a module from PyPI in an environment of its own in ``.venv/versions``. All of
tests/blender runs with the NumPy that it brings, and `ARRAYS` also with the newest that this Python
takes. The tests that know no Blender run once with each Python and NumPy. Logs go to
``build/versions/`` and the table to ``build/versions/table.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv" / "versions"
OUT = ROOT / "build" / "versions"
REQUIREMENTS = dict(
    re.findall(r"^([\w-]+)==(\S+)", (ROOT / "tests/requirements.txt").read_text(), re.MULTILINE)
)
TOOLS = ("pytest", "hypothesis", "trimesh", "embreex", "scipy", "numba")

# From Blender 5.1 on the module needs Python 3.13; "" is the newest there is.
OLDER = ("4.2.0", REQUIREMENTS["bpy"], "5.0.1")
NEWEST = ""

BLENDER = ("tests/blender",)
# Where much is done with NumPy; the other tests hardly touch it.
ARRAYS = tuple(
    f"tests/blender/test_{part}.py"
    for part in (
        "baking",
        "capture",
        "convert",
        "cut_slices",
        "dataset_slices",
        "layers",
        "materials",
        "omage_ops",
        "rendering",
        "results",
        "slices_ops",
    )
)
WITHOUT_BLENDER = ("tests/core", "tests/test_architecture.py", "tests/test_docs.py")


def run(*command: str | Path) -> None:
    """Run to the end; its failure is this program's."""
    subprocess.run(command, check=True, cwd=ROOT)


def output(*command: str | Path) -> str:
    """What it prints."""
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def installed(python: Path, package: str) -> str:
    """The version of a package in an environment."""
    return output(python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))")


def environment(version: str, base: str) -> Path:
    """The interpreter of the environment with that Blender, which is made if it is not there."""
    if version == REQUIREMENTS["bpy"]:
        return ROOT / ".venv" / "blender" / "bin" / "python"
    folder = FOLDER / (version or "newest")
    python = folder / "bin" / "python"
    if not python.exists():
        run(base, "-m", "venv", folder)
    # NumPy is left to Blender.
    tools = [f"{name}=={REQUIREMENTS[name]}" for name in TOOLS]
    blender = [f"bpy=={version}"] if version else ["--upgrade", "bpy"]
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *blender, *tools)
    return python


def with_newest_numpy(python: Path) -> Path:
    """The interpreter of an environment over that of `python`, with the newest NumPy."""
    folder = python.parents[1]
    folder = FOLDER / f"{'blender' if folder.parent != FOLDER else folder.name}-numpy"
    above = folder / "bin" / "python"
    if not above.exists():
        run(python, "-m", "venv", folder)
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        below, own = output(python, "-c", where), output(above, "-c", where)
        # What lies in `own` is found first.
        (Path(own) / "below.pth").write_text(below + "\n")
    quiet = ("-q", "--disable-pip-version-check")
    run(above, "-m", "pip", "install", *quiet, "--upgrade", "--no-deps", "numpy")
    return above


def test(python: Path, tests: tuple[str, ...], what: str) -> tuple[str, bool]:
    """Run tests, `what` in the table; its row, and whether all passed."""
    blender, numpy = installed(python, "bpy"), installed(python, "numpy")
    name = f"{blender}-numpy-{numpy}"
    OUT.mkdir(parents=True, exist_ok=True)
    report = OUT / f"{name}.xml"
    report.unlink(missing_ok=True)
    sys.stderr.write(f"Blender {blender}, NumPy {numpy}: build/versions/{name}.log\n")
    with (OUT / f"{name}.log").open("wb") as log:
        subprocess.run(
            [python, "-m", "pytest", *tests, f"--junitxml={report}", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env={"XRAY_RUNTIME_DIR": str(ROOT / ".venv" / "runtime"), **os.environ},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    version = output(python, "-c", "import platform; print(platform.python_version())")
    cells = [blender, version, numpy, what]
    if not report.exists():
        return f"| {' | '.join([*cells, '', 'did not run', ''])} |", False
    suite = next(ET.parse(report).iter("testsuite"))
    total, errors, failures, skipped = (
        int(suite.get(key, 0)) for key in ("tests", "errors", "failures", "skipped")
    )
    failed = errors + failures
    counts = [str(total - failed - skipped), str(failed), str(skipped)]
    return f"| {' | '.join([*cells, *counts])} |", failed == 0


def main() -> int:
    """0 if all tests passed in every Blender."""
    parser = argparse.ArgumentParser(description="Blender's half of the tests in other Blenders.")
    parser.add_argument("--python", default="python3.11", help="a Python 3.11, up to Blender 5.0")
    parser.add_argument("--python313", default="python3.13", help="a Python 3.13, for newer ones")
    parser.add_argument(
        "--only", nargs="+", default=[*OLDER, NEWEST], help="these Blenders; '' is the newest"
    )
    arguments = parser.parse_args()
    bases = {
        version: arguments.python
        if version and tuple(map(int, version.split(".")[:2])) <= (5, 0)
        else arguments.python313
        for version in arguments.only
    }
    for base in bases.values():
        if shutil.which(base) is None:
            parser.error(f"there is no {base}; say where it is with --python or --python313")
    rows, passed = [], True
    known = set()  # which NumPy in which Python
    for version, base in bases.items():
        python = environment(version, base)
        newest = with_newest_numpy(python)
        runs = [(python, BLENDER, "tests/blender")]
        if installed(newest, "numpy") != installed(python, "numpy"):
            runs.append((newest, ARRAYS, "those with arrays"))
        for interpreter, tests, what in runs:
            pair = (base, installed(interpreter, "numpy"))
            if pair not in known:
                tests, what = (*tests, *WITHOUT_BLENDER), f"{what}, tests/core"
            known.add(pair)
            row, good = test(interpreter, tests, what)
            rows.append(row)
            passed = passed and good
            sys.stderr.write(f"{row}\n")
    head = ["| Blender | Python | NumPy | tests | passed | failed | skipped |", f"|{'---|' * 7}"]
    (OUT / "table.md").write_text("\n".join([*head, *rows]) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
