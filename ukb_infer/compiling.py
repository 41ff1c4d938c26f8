"""Compile loops with numba, with a cache on disk if possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile on first call, releasing the interpreter's lock.

    The machine code is cached on disk (next to the source, or in ``NUMBA_CACHE_DIR``). If no such folder is writable,
    as in a read-only container, every process compiles again, which takes a few seconds.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        made: _F = njit(cache=True, **options)(function)
    except RuntimeError:
        made = njit(**options)(function)
    return made
