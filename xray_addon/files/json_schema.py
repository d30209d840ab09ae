"""Schemas of JSON files, composed of small checks.

A check takes a value and its location (for error messages). It returns the value or raises
ValueError. ``record({"uid": text()}, {"views": list_of(integer(0))})`` is an object with a field
`uid` and an optional field `views`. All numbers are finite: `json_files` rejects others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")

Check = Callable[[Any, str], Any]

LONGEST_TEXT = 1 << 16
MOST_ITEMS = 1 << 20
LARGEST_INTEGER = 2**53  # JSON's integers are exact everywhere up to this
DEEPEST_PLAIN = 8


def text(longest: int = LONGEST_TEXT) -> Check:
    """A string of at most `longest` characters that UTF-8 can encode."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise _bad(where, f"must be text of at most {longest} characters", value)
        if _SURROGATE.search(value):
            raise ValueError(f"{where or 'it'} holds half a character")
        return value

    return check


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _bad(where, "must be true or false", value)
    return value


def integer(low: int = -LARGEST_INTEGER, high: int = LARGEST_INTEGER) -> Check:
    """A whole number from `low` to `high`; 3.0 is accepted."""

    def check(value: Any, where: str) -> int:
        is_whole = type(value) is int or (type(value) is float and value.is_integer())
        if not is_whole or not low <= value <= high:
            raise _bad(where, f"must be a whole number from {low} to {high}", value)
        return int(value)

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A number from `low` to `high`; returned as a float."""

    def check(value: Any, where: str) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise _bad(where, f"must be a number from {low:g} to {high:g}", value)
        return float(value)

    return check


def choice(*choices: Any) -> Check:
    """One of `choices`, with the same type."""

    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(known) and value == known for known in choices):
            raise _bad(where, f"must be one of {choices}", value)
        return value

    return check


def list_of(item: Check, least: int = 0, most: int = MOST_ITEMS) -> Check:
    """A list of `least` to `most` items."""

    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise _bad(where, f"must be a list of {least} to {most} items", value)
        try:
            return [item(each, where) for each in value]
        except ValueError:  # formatting locations is slow, so only after an error
            return [item(each, f"{where}[{i}]") for i, each in enumerate(value)]

    return check


def record(
    required: Mapping[str, Check],
    optional: Mapping[str, Check] | None = None,
    *,
    others: Check | None = None,
) -> Check:
    """An object with all `required` fields and any of the `optional` ones.

    others : the check for all other fields; by default they are dropped.
    """
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _bad(where, "must be an object", value)
        missing = [name for name in required if name not in value]
        if missing:
            raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
        checked = {}
        for name, each in value.items():
            test = known.get(name, others)
            if test is not None:
                checked[name] = test(each, f"{where}.{name}" if where else name)
        return checked

    return check


def table_of(value: Check, name: Check | None = None) -> Check:
    """An object with arbitrary field names, which pass `name`, and values that pass `value`."""

    def check(table: Any, where: str) -> dict[str, Any]:
        if not isinstance(table, dict) or len(table) > MOST_ITEMS:
            raise _bad(where, f"must be an object of at most {MOST_ITEMS} fields", table)
        if name is not None:
            for key in table:
                name(key, f"a name in {where or 'it'}")
        return {key: value(each, f"{where}.{key:.80}") for key, each in table.items()}

    return check


def nullable(inner: Check) -> Check:
    """Null, or a value that passes `inner`."""
    return lambda value, where: None if value is None else inner(value, where)


def matching(test: Callable[[Any], bool], what: str) -> Check:
    """A value for which `test` returns True; `what` describes it in the error message."""

    def check(value: Any, where: str) -> Any:
        if not test(value):
            raise _bad(where, f"must be {what}", value)
        return value

    return check


def plain(value: Any, where: str, depth: int = DEEPEST_PLAIN) -> Any:
    """Any JSON value nested at most `DEEPEST_PLAIN` deep."""
    if isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"{where or 'it'} is nested too deeply")
        for each in value.values() if isinstance(value, dict) else value:
            plain(each, where, depth - 1)
    return value


def _bad(where: str, rule: str, value: Any) -> ValueError:
    got = value if isinstance(value, int | float | bool | None) else type(value).__name__
    return ValueError(f"{where or 'it'} {rule}, got {got!s:.80}")
