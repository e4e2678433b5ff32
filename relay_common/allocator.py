"""What glibc's allocator keeps: how many arenas there are, and when freed memory goes back to the kernel."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Final

_ARENA_MAX: Final = -8
"""`M_ARENA_MAX` of glibc's malloc.h."""
_MMAP_THRESHOLD: Final = -3
"""`M_MMAP_THRESHOLD` of the same."""
_LARGE: Final = 128 * 1024
"""Bytes: where the threshold is before glibc moves it."""
_BLOCKS: Final = (*(1 << power for power in range(16, 10, -1)), *range(1032, 8, -16))
"""Bytes of the blocks that fill holes, the largest first; larger ones would get pages of their own."""
_MOST_BLOCKS: Final = 200_000


class _Mallinfo2(ctypes.Structure):
    """What glibc's `mallinfo2` returns (since 2.33)."""

    _fields_ = (("before", ctypes.c_size_t * 9), ("keepcost", ctypes.c_size_t))


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


def share_one_arena() -> bool:
    """Have threads that are started from now on allocate from the one heap, instead of an arena of their own each.

    For a process whose threads allocate little: what one of them frees serves the others. False where the C library
    cannot.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))
    except (OSError, AttributeError):
        return False


def keep_large_blocks_apart() -> bool:
    """Have each block of 128 KiB or more come from the kernel and go back to it.

    glibc does so at first, and after the first such block is freed no longer. For a process that reads little, but from
    many sockets: asyncio reads into a new block of 256 KiB each time, and on the heap what stays of one keeps the pages
    around it. False where the C library cannot.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE))
    except (OSError, AttributeError):
        return False


def fill_holes() -> int:
    """Take every free block of the heap but the last, which grows, for as long as this process lives; returns how many.

    For a process that forks others: what they allocate is then in new pages, and not in holes of pages that they share,
    which they would have to copy. Their own frees are used again. 0 where the C library cannot say where the heap ends.
    """
    libc = ctypes.CDLL(None)
    try:
        info, malloc, free, sbrk = libc.mallinfo2, libc.malloc, libc.free, libc.sbrk
    except AttributeError:
        return 0
    info.restype, malloc.restype, sbrk.restype = _Mallinfo2, ctypes.c_void_p, ctypes.c_void_p
    malloc.argtypes, free.argtypes, sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
    taken = 0
    end = (sbrk(0) or 0) - int(info().keepcost)
    for size in _BLOCKS:
        while taken < _MOST_BLOCKS and (block := malloc(size)):
            if block >= end:  # the last block, or pages of its own
                free(block)
                break
            taken += 1
    return taken
