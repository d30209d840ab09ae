"""Checks the configuration of a network before it is built.

Building modules takes time even if their tensors take no memory, as on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xray_addon.files import json_schema as schema

WIDEST, DEEPEST, MOST_LEVELS, LONGEST_TEXT = 1 << 16, 128, 16, 400
_DEEP = ("layer", "block", "depth")


def setting(value: Any, where: str) -> Any:
    """A number, text or list of a configuration, limited well above any published model's."""
    name = where.rpartition(".")[2].partition("[")[0]
    if isinstance(value, list):
        return schema.list_of(setting, most=MOST_LEVELS)(value, where)
    if isinstance(value, dict):
        return schema.plain(value, where)
    if isinstance(value, str):
        return schema.text(LONGEST_TEXT)(value, where)
    if isinstance(value, int) and not isinstance(value, bool):
        deep = any(word in name for word in _DEEP) and "channels" not in name
        return schema.integer(-WIDEST, DEEPEST if deep else WIDEST)(value, where)
    return value


NETWORK = schema.table_of(setting)


def differences(before: Any, after: Any, names: Iterable[str]) -> str:
    """Which of the attributes `names` differ, and what they are, for a message; "" if none does."""
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return ", ".join(f"{name} was {old} and is {new}" for name, old, new in pairs if old != new)
