"""The one reader of JSON that others may have made or changed.

It bounds the size, the nesting and the numbers before anything is done with them, and every file
has a schema (`json_schema`) of its fields, their types and their ranges.
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
DEEPEST = 32  # lists and objects within one another
LONGEST_NUMBER = 400  # digits; Python takes no longer over more, but says so in other words

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def read_json(path: str | PathLike[str], schema: Check, *, largest: int = LARGEST) -> Any:
    """The value in the file at `path`, as `schema` gives it.

    largest : bytes. While it is read, at most 48 times as much memory is taken.

    Raises OSError where it cannot be read, also for what is no regular file, and ValueError, with
    the field where there is one, for everything that does not fit.
    """
    return parse_json(read_at_most(path, largest), schema, largest=largest)


def parse_json(data: bytes | str, schema: Check, *, largest: int = LARGEST) -> Any:
    """`read_json` of what was read already. Raises ValueError."""
    octets = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(octets) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    # Before it is parsed: Python's parser calls itself, which in a thread may end the process.
    if _depth(octets) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    try:
        value = json.loads(
            octets.decode("utf-8-sig"),
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    return schema(value, "")


def _depth(octets: bytes) -> int:
    outside = np.frombuffer(_STRING.sub(b"", octets), np.uint8)
    steps = _STEPS[outside]
    return int(np.cumsum(steps[steps != 0], dtype=np.int32).max(initial=0))


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is not a finite number")
    return value


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("it holds a number that is too long")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")
