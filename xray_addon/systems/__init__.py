"""The published systems behind the Generate button. Each is described in one file here.

To add a system, add a file here with a `System` called `SYSTEM`, and the runtime package that it
names. Files are found automatically. Panel, operators, command lines, runtime, downloads,
evaluation and docs are all made from these descriptions.
"""

from __future__ import annotations

import importlib
import pkgutil

from ..settings.generate import DEFAULT_GENERATOR, GenerateSettings, unknown_generator
from .system import Published, System

# The files here that are not systems.
_TOOLS = {"system", "arguments", "extras", "weights"}


def _found() -> dict[str, System]:
    names = sorted({module.name for module in pkgutil.iter_modules(__path__)} - _TOOLS)
    systems: list[System] = [importlib.import_module(f"{__name__}.{name}").SYSTEM for name in names]
    systems.sort(key=lambda system: (system.name != DEFAULT_GENERATOR, system.label))
    return {system.name: system for system in systems}


# By name, the default first.
SYSTEMS: dict[str, System] = _found()
GenerateSettings.kinds = {name: (each.label, each.settings) for name, each in SYSTEMS.items()}
# Weights that can be downloaded, by name.
PUBLISHED: dict[str, Published] = {
    weights.name: weights for system in SYSTEMS.values() for weights in system.weights
}


def find_system(name: str) -> System:
    """The system called `name`. Raises XRayError `unknown_generator`."""
    if name not in SYSTEMS:
        raise unknown_generator(name, SYSTEMS)
    return SYSTEMS[name]


def markdown_table() -> str:
    """The README's table of systems."""
    rows = ["| | takes | gives | weights |", "|---|---|---|---|"]
    for system in SYSTEMS.values():
        needs = {name: getattr(system, name).value for name in ("image", "mask", "category")}
        takes = [
            name if need == "required" else f"{name} (optional)"
            for name, need in needs.items()
            if need != "none"
        ]
        gives = ["mesh", *sorted(output.value for output in system.outputs)]
        rows.append(
            f"| [{system.label}]({system.paper}) `{system.name}` | {', '.join(takes)} | "
            f"{', '.join(gives)} | {system.licence} |"
        )
    return "\n".join(rows) + "\n"
