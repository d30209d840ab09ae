"""The user guide knows each error that the source can raise, and no other; links lead on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xray_addon", "operators", "panels", "runtime", "farm")
GUIDE = ROOT / "docs" / "user-guide.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "farm" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Which argument of a call is an error's code.
CODE_ARGUMENT = {"XRayError": 0, "_fail_start": 0, "gate": 0, "Result": 2}


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
    return found - {""}


def test_the_guide_has_every_error_code():
    table = set(re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    source = codes_in_source()
    assert len(source) > 60
    assert {"runtime_died", "few_hits", "no_hits_left"} <= source
    assert sorted(source - table) == []
    assert sorted(table - source) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
