"""Memory that was freed goes back to the kernel, also where something behind it is still in use."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import platform
import subprocess
import sys
import weakref

import pytest

from relay_common.allocator import give_back
from relay_common.clock import ManualClock
from relay_common.proc import resident_bytes
from relay_supervisor import memory

MB = 1 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no malloc_trim")
def test_what_was_freed_below_the_end_of_the_heap_is_given_back() -> None:
    blocks = [os.urandom(4096) for _ in range(40 * MB // 4096)]
    last = blocks[-1]  # what glibc would have to be free to shorten the heap by itself
    full = resident_bytes()
    blocks.clear()
    kept = resident_bytes()
    assert give_back()
    assert resident_bytes() < full - 30 * MB, f"{full / MB:.0f} MB, {kept / MB:.0f} MB after they were freed"
    assert len(last) == 4096


_THREADS = """
import ctypes, gc, sys, threading
from relay_supervisor import memory
if "settle" in sys.argv:
    memory.settle()
ready = threading.Barrier(4)
def allocate():
    ready.wait()
    kept.append([b"x" * 2000 for _ in range(2000)])
    ready.wait()
kept = []
threads = [threading.Thread(target=allocate) for _ in range(4)]
for one in threads:
    one.start()
for one in threads:
    one.join()
libc = ctypes.CDLL(None)
print(gc.get_freeze_count(), flush=True)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no malloc_info")
def test_a_settled_process_has_one_heap_and_does_not_count_what_it_imported_as_garbage_to_be() -> None:
    def run(*arguments: str) -> tuple[int, int]:
        command = [sys.executable, "-c", _THREADS, *arguments]
        frozen, information = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n", 1)
        return int(frozen), information.count("<heap nr=")

    assert run()[1] > 1, "threads have no arenas of their own any more: nothing has to be settled"
    frozen, arenas = run("settle")
    assert frozen > 10_000
    assert arenas == 1


_LARGE = """
import ctypes, sys
from relay_supervisor import memory
if "settle" in sys.argv:
    memory.settle()
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
for _ in range(10):
    bytes(1 << 20)
before = mallinfo().hblks
kept = bytes(300_000)
print(mallinfo().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library has no mallinfo2")
def test_a_settled_process_takes_large_blocks_from_the_kernel_however_many_it_has_freed() -> None:
    def run(*arguments: str) -> int:
        command = [sys.executable, "-c", _LARGE, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert run() == 0, "the heap holds no large blocks any more: nothing has to be settled"
    assert run("settle") == 1


class _Ring:
    """Refers to itself, so that only a collection of garbage frees it."""

    def __init__(self) -> None:
        self.self = self


async def test_cyclic_garbage_does_not_wait_for_python_to_look_for_it() -> None:
    clock = ManualClock()
    keeping = asyncio.create_task(memory.keep_small(clock))
    automatic = gc.isenabled()
    gc.disable()
    try:
        ring = weakref.ref(_Ring())
        await clock.advance(9.0)
        assert ring() is not None
        await clock.advance(2.0)
        assert ring() is None
    finally:
        if automatic:
            gc.enable()
        keeping.cancel()


async def test_it_happens_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, times = ManualClock(), []
    monkeypatch.setattr(memory, "give_back", lambda: times.append(clock.now()))
    began = clock.now()
    keeping = asyncio.create_task(memory.keep_small(clock))
    for _ in range(4):
        await clock.advance(8.0)
    keeping.cancel()
    assert [at - began for at in times] == [10.0, 20.0, 30.0]
