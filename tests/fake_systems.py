"""Systems that only tests know, and generators in place of real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from xray_addon.settings.base import setting
from xray_addon.settings.generate import GenerateSettings
from xray_addon.systems import SYSTEMS
from xray_addon.systems.system import Need, System

Load = Callable[[str | None, str], Any]


def stand_in(name: str, **contents: Any) -> None:
    """A module of that name in place of one that there is, or of none."""
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module


def add_system(name: str, load: Load, **facts: Any) -> System:
    """A system `name` with a setting `steps`, whose generators `load(checkpoint, device)` makes."""

    @dataclass
    class FakeSettings(GenerateSettings):
        generator: str = setting(name, "The system")
        steps: int = setting(2, "Steps", min=0, max=1000)

    facts = {"settings": FakeSettings, "image": Need.REQUIRED} | facts
    system = System(
        name=name,
        label=name.title(),
        about="For tests",
        paper="https://example.org",
        licence="none",
        module=f"fake_{name}",
        **facts,
    )
    SYSTEMS[name] = system
    GenerateSettings.kinds[name] = (system.label, system.settings)
    stand_in(f"fake_{name}")
    stand_in(f"fake_{name}.generator", load=load)
    return system


def remove_system(name: str) -> None:
    """Take back what `add_system` did."""
    del SYSTEMS[name], GenerateSettings.kinds[name]
    del sys.modules[f"fake_{name}"], sys.modules[f"fake_{name}.generator"]
