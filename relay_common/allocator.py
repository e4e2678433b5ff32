"""Gives memory that was freed back to the kernel, which glibc does only at the end of its heap."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The C library's `malloc_trim` (glibc alone has it); None elsewhere."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def give_back() -> bool:
    """Give back what can be given back, within a millisecond; False where nothing was, or the C library cannot."""
    trim = _malloc_trim()
    return trim is not None and trim(0) == 1
