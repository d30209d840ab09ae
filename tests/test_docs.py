"""The docs keep up with the code: error codes, the table of systems, links."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

import pytest

from xray_addon.errors import ERROR_CODES, SOME_FAILED, XRayError, error_code, exit_code
from xray_addon.systems import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xray_addon", "operators", "panels", "runtime", "farm")
GUIDE = ROOT / "docs" / "user-guide.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "farm" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Which argument of a call is an error's code.
CODE_ARGUMENT = {
    **dict.fromkeys(("XRayError", "WorkerLost", "__init__", "_fail_start", "gate"), 0),
    "ItemResult": 2,
}
MADE_OF_NAMES = {"missing_image", "missing_mask", "missing_category"}  # by `System.check`


def codes_in_source() -> set[str]:
    found = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = CODE_ARGUMENT.get(name)
            if place is not None and len(node.args) > place:
                code = node.args[place]
                either = (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,)
                found |= {str(part.value) for part in either if isinstance(part, ast.Constant)} - {
                    ""
                }
    return found - {""} | MADE_OF_NAMES


def codes_in_guide() -> dict[str, str]:
    """The page of each code that a table of the guide explains."""
    pages, page = {}, ""
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip().lower()
            anchor = re.sub(r"[^\w -]", "", heading).replace(" ", "-")
            page = f"docs/{GUIDE.name}#{anchor}"
        elif row := re.match(r"\| `(\w+)` \|", line):
            assert row[1] not in pages, f"{row[1]} stands there twice"
            pages[row[1]] = page
    return pages


def test_every_error_code_is_in_the_table():
    source = codes_in_source()
    assert len(source) > 60
    assert {"runtime_died", "few_hits", "no_hits_left", "worker_died", "bad_message"} <= source
    assert sorted(source - {*ERROR_CODES}) == []
    assert sorted({*ERROR_CODES} - source) == []


def test_the_guide_has_every_error_code_where_the_table_says():
    assert codes_in_guide() == {code: known.page for code, known in ERROR_CODES.items()}


def test_a_code_of_a_later_version_has_no_consequences():
    known = error_code("of_a_later_version")
    assert (known.exit_code, known.stops, known.rejects, known.gate) == (None, False, False, "")
    assert exit_code(XRayError("of_a_later_version", "New."), SOME_FAILED) == SOME_FAILED


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_readmes_picture_shows_the_weights_that_ship():
    # `make picture` makes it, and writes the checksum into it.
    weights = (ROOT / "runtime" / "weights" / "xray.safetensors").read_bytes()
    picture = (ROOT / "tests" / "demo" / "blender.png").read_bytes()
    made_with = re.search(rb"tEXtweights\0([0-9a-f]{64})", picture)
    assert made_with, "the picture does not say which weights made it: run `make picture`"
    assert made_with[1].decode() == hashlib.sha256(weights).hexdigest(), "run `make picture`"


def test_the_readme_has_the_table_of_systems():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- systems -->\n")[2].partition("<!-- /systems -->")[0]
    assert table == markdown_table()
