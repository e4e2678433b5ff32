"""Logging to a standard error that nobody reads: in processes of their own, on real pipes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading

import pytest

from relay_common import log as log_setup
from relay_common import stderr

LINES = 20_000
SCRIPT = """
import logging, sys, time
from relay_common import log
log.configure("info", sys.argv[1], {"camera": "Porch"})
logger, began = logging.getLogger("relay_worker.test"), time.monotonic()
for number in range(int(sys.argv[2])):
    logger.info("line %d of many, and each is long enough to fill a pipe soon", number)
print(time.monotonic() - began, flush=True)
sys.stdin.readline()
"""


class Ring(logging.Handler):
    """What `relay-supervisor logs` shows."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()


def start(style: str, lines: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, style, str(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_reader_that_is_stuck_stops_nobody_and_is_told_what_it_missed() -> None:
    process = start("json", LINES)
    assert process.stdout is not None
    assert process.stderr is not None
    fcntl.fcntl(process.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
    took = float(process.stdout.readline())  # would never come from one that waits for its reader
    assert took < 30.0
    _, text = process.communicate("\n", timeout=30.0)
    lines = text.splitlines()
    (notice,) = [line for line in lines if "log lines were dropped" in line]
    dropped = int(notice.partition('"message":"')[2].split()[0])
    assert '"camera":"Porch"' in notice
    assert dropped > 0
    assert len(lines) - 1 + dropped == LINES
    assert f"line {LINES - 1} of many" in lines[-1], "the newest are kept"


def test_a_reader_that_reads_misses_nothing_and_gets_the_lines_in_order() -> None:
    process = start("console", 2000)
    _, text = process.communicate("\n", timeout=60.0)
    numbers = [int(line.partition("line ")[2].split()[0]) for line in text.splitlines()]
    assert numbers == list(range(2000))


def test_a_closed_pipe_ends_nobody() -> None:
    process = start("json", 50)
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout is not None
    assert process.stdout.readline()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(30.0) == 0


def test_a_full_disk_costs_no_line_but_those_beyond_the_bound_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lost a line a second, unsaid, and left half a line before the next one."""
    written, full, really = bytearray(), [True], os.write
    tried = threading.Event()

    def write(fd: int, data: bytes) -> int:
        if fd != handler._fd:
            return really(fd, data)
        if full[0]:
            if not written:  # what still fits is written
                written.extend(data[:3])
                return 3
            tried.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.extend(data)
        return len(data)

    monkeypatch.setattr(stderr, "_BROKEN", 0.01)
    handler, logger, ring = stderr.StderrHandler(bound=400), logging.getLogger("relay_common.stderr"), Ring()
    monkeypatch.setattr(os, "write", write)
    for sink in (handler, ring):
        logger.addHandler(sink)
    try:
        logger.warning("line 0")
        assert tried.wait(60.0)
        for number in range(1, 100):
            logger.warning("line %d", number)
        full[0] = False
        handler.flush(60.0)
    finally:
        for sink in (handler, ring):
            logger.removeHandler(sink)
    assert "standard error could not be written (No space left on device): the latest lines are kept" in ring.text
    lines = written.decode().splitlines()
    assert (lines[0], lines[-1]) == ("line 0", "line 99")
    why = f"{handler.dropped} log lines were dropped: standard error could not be written (No space left on device)"
    assert [line for line in lines if "dropped" in line] == [why]
    assert len(lines) + handler.dropped == 102, "with the warning and what tells of those that were dropped"


def test_a_forked_child_writes_its_own_lines_only() -> None:
    script = """
import logging, os
from relay_common import log
log.configure("info", "console")
logging.getLogger("relay_worker.test").info("of the parent")
child = os.fork()
if not child:
    logging.getLogger("relay_worker.test").info("of the child")
log.flush()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60.0)
    assert done.stderr.count("of the parent") == 1
    assert done.stderr.count("of the child") == 1


@pytest.mark.parametrize("turn", ["before", "after"])
def test_a_program_that_runs_in_a_test_takes_the_logs_of_no_later_test(turn: str) -> None:
    """They would come between the dots, and no `caplog` would have them."""
    assert not any(isinstance(handler, stderr.StderrHandler) for handler in logging.getLogger().handlers), turn
    log_setup.configure()
