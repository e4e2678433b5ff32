"""A few facts about processes from proc(5)."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path
from typing import Final

_REF: Final = re.compile(r"process ([1-9]\d*) ([1-9]\d*)", re.ASCII)

CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT})
"""Signals that wrong compiled code ends a process with."""


def start_ticks(pid: int) -> int:
    """Kernel start time of `pid` in clock ticks since boot (field 22 of stat); 0 when no such process runs.

    A pid and its start time together identify a process permanently: pids are reused, pairs are not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The command name may hold spaces and parentheses: count fields from the last one.
    fields = text.rpartition(")")[2].split()
    # A process that has ended stays in the table until its parent has reaped it.
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def process_ref(pid: int, started: int) -> str:
    """What a process of this machine is known by, in words: "process", its pid and its start time."""
    return f"process {pid} {started}"


def process_of(ref: str) -> tuple[int, int]:
    """Pid and start time in a `process_ref`; twice 0 when it is something else."""
    found = _REF.fullmatch(ref)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def ref_of(pid: int) -> str:
    """The `process_ref` of a pid as of now; one that nobody has when no such process runs."""
    return process_ref(pid, start_ticks(pid))


def seconds_queued(pid: int) -> float:
    """Seconds for which the main thread of `pid` could run, but other processes had the processors; 0 where unknown.

    It stands still while the thread sleeps, runs or is stopped (`schedstat` of the kernel's sched-stats.rst).
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def seconds_wanted() -> float:
    """Seconds for which this process ran, or its main thread could have: none of those in which it was suspended."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + seconds_queued(os.getpid())


def resident_bytes() -> int:
    """Resident set of this process; 0 where proc is not mounted."""
    # Asked every second by every worker: a text file takes five times as long, and twice the system calls.
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 128).split()[1]) * resource.getpagesize()
    finally:
        os.close(descriptor)
