"""Functions compiled by numba. Importing this raises ImportError or OSError if numba is unusable.

Compiling takes some seconds. The compiled code is cached beside the function's file, or in the
user's cache folder if that is not writable. Without a cache, each process compiles again. A cache
only depends on one file, so an `inline` function must be in the same file as its callers.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numba

# Exceptions of reading or writing the cache: a full disk, a folder that became read-only, a
# truncated file, code compiled under a different package name.
_CACHE_TROUBLE = (
    OSError,
    ImportError,
    EOFError,
    AttributeError,
    LookupError,
    ValueError,
    RuntimeError,
    pickle.PickleError,
)
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
inline: Any = numba.njit(**_OPTIONS)


class Compiled:
    """A function that is compiled at its first call, or loaded from the cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._call: Callable[..., Any]
        try:
            self._call = numba.njit(cache=True, **_OPTIONS)(function)
        except RuntimeError:  # no cache folder is writable
            self._call = numba.njit(**_OPTIONS)(function)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        try:
            return self._call(*arguments)
        except _CACHE_TROUBLE:
            # The functions themselves never raise.
            self._call = numba.njit(**_OPTIONS)(self._function)
            return self._call(*arguments)
