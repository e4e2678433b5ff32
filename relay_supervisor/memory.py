"""Gives memory that was freed back to the kernel, which glibc does only at the end of its heap.

A burst (the backlog after a pause, many requests at once) otherwise leaves pages behind for good: between what is still
used on them nearly everything is free, and the next burst takes other ones.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Final

from relay_common.clock import Clock

_EVERY: Final = 10.0
"""Seconds between two times; one takes less than a millisecond."""


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
    """Give back what can be given back; False where nothing was, or the C library cannot."""
    trim = _malloc_trim()
    return trim is not None and trim(0) == 1


async def keep_small(clock: Clock) -> None:
    """Give memory back every ten seconds, until cancelled."""
    while True:
        await clock.sleep(_EVERY)
        give_back()
