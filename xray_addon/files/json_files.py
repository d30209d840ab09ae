"""The only reader of untrusted JSON files.

It checks the size, the nesting and the numbers first, and then the file's fields, their types and
their ranges against a schema (`json_schema`).
"""

from __future__ import annotations

import json
import math
import re
from os import PathLike
from typing import Any

import numpy as np

from .json_schema import Check
from .opening import read_at_most

LARGEST = 16 << 20  # bytes
DEEPEST = 32  # nested lists and objects
LONGEST_NUMBER = 400  # digits; more would be as fast, but Python's error message is different

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LONG = re.compile(rb"[0-9]{%d}" % (LONGEST_NUMBER + 1))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def read_json(path: str | PathLike[str], schema: Check, *, largest: int = LARGEST) -> Any:
    """The value in the file at `path`, as returned by `schema`.

    largest : bytes. Reading uses at most 48 times as much memory.

    Raises OSError if the file cannot be read or is not a regular file, and ValueError, naming the
    field if there is one, if the content is invalid.
    """
    return parse_json(read_at_most(path, largest), schema, largest=largest)


def parse_json(data: bytes | str, schema: Check, *, largest: int = LARGEST) -> Any:
    """As `read_json`, for data in memory. Raises ValueError."""
    octets = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(octets) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    _check_structure(octets)
    try:
        value = json.loads(
            octets.decode("utf-8-sig"), parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    return schema(value, "")


def _check_structure(octets: bytes) -> None:
    """Raise ValueError if the nesting is too deep or a number is too long.

    This must precede parsing: Python's parser is recursive and may crash the process in a thread.
    """
    may_be_deep = octets.count(b"[") + octets.count(b"{") > DEEPEST
    if not may_be_deep and _LONG.search(octets) is None:
        return
    outside = _STRING.sub(b"", octets)
    steps = _STEPS[np.frombuffer(outside, np.uint8)]
    if np.cumsum(steps[steps != 0], dtype=np.int32).max(initial=0) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if _LONG.search(outside):
        raise ValueError("it holds a number that is too long")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is not a finite number")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")
