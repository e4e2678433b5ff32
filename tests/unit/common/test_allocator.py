"""What the C library's allocator keeps: a process that forks leaves no holes for what others allocate."""

from __future__ import annotations

import subprocess
import sys

import pytest

from relay_common import allocator

_HOLES = """
import ctypes, sys
from relay_common.allocator import fill_holes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
sizes = [24, 100, 600, 3000, 20000]
blocks = [[libc.malloc(size) for _ in range(300)] for size in sizes]
for each in blocks:
    for block in each[::2]:
        libc.free(block)
if sys.argv[1:]:
    assert fill_holes() >= 150 * len(sizes)
last = max(map(max, blocks))
print(sum(libc.malloc(size) < last for size in sizes for _ in range(100)))
"""


def reused(*arguments: str) -> int:
    """How many of 500 new blocks lie among the old ones."""
    ran = subprocess.run([sys.executable, "-c", _HOLES, *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_new_blocks_are_not_in_the_holes_among_old_ones() -> None:
    assert reused() > 300, "as it is without"
    assert reused("fill") == 0


def test_a_c_library_that_cannot_say_where_its_heap_ends_keeps_its_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.fill_holes() == 0
