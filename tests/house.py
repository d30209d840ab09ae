"""The structure of the code, read from its imports: ``python tests/house.py``.

A room is what one has to look at in a package: a file or a sub-package. An arrow leads from a room
to one that it imports, in whatever place; a circle is a set of files that import each other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xray_addon", "operators", "panels", "runtime", "farm")


def modules(packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Each module's file, by its dotted name; a package goes by its own name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imports(module: str, path: Path) -> set[str]:
    """Dotted names of all that the module imports, in whatever place.

    `from a import b` counts as "a.b", as b may be a module.
    """
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join(base + (node.module.split(".") if node.module else []))
            names |= {f"{target}.{alias.name}".lstrip(".") for alias in node.names}
    return names


def graph() -> dict[str, set[str]]:
    """For each module of the project those that it imports."""
    known = modules()
    found = {}
    for module, path in known.items():
        targets = set()
        for name in imports(module, path):
            while name and name not in known:
                name = name.rpartition(".")[0]
            targets.add(name)
        found[module] = targets - {"", module}
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import each other, directly or through others (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in arrows[module]:
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in arrows:
        if module not in index:
            visit(module)
    return found


def room(module: str) -> str:
    """The room of a package that the module lies in; the package's own name for its face."""
    return ".".join(module.split(".")[:2])


def rooms(package: str) -> set[str]:
    """What one has to look at in the package."""
    return {room(module) for module in modules([package])} - {package}


def main() -> int:
    """Print rooms, arrows, circles and the longest files."""
    arrows = graph()
    lines = []
    for package in PACKAGES:
        inside = {
            (room(module), room(target))
            for module, targets in arrows.items()
            for target in targets
            if module.split(".")[0] == target.split(".")[0] == package
        }
        between = sum(first != second for first, second in inside)
        files = sum(
            target.split(".")[0] == package
            for module in modules([package])
            for target in arrows[module]
        )
        lines.append(
            f"{package}: {len(rooms(package))} rooms, {between} arrows between them, "
            f"{files} between files"
        )
    lines += [f"circle: {', '.join(circle)}" for circle in circles(arrows)] or ["no circles"]
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules().items()}
    longest = sorted(sizes, key=lambda name: -sizes[name])[:8]
    lines.append("longest: " + ", ".join(f"{name} {sizes[name]}" for name in longest))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
