"""What Python itself would print reaches the log: in its form, redacted, and with the context of each line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, sys, threading, warnings
from relay_common import log
from relay_common.uncaught import log_uncaught, logged_end

log.configure("info", "json", {"camera": "Porch"})
log_uncaught()

def fails(*_):
    raise RuntimeError("no answer from rtsps://camera.example/live?auth=g.0.streamToken")

def worker():
    try:
        with logged_end():
            fails()
    finally:
        log.flush()

class Careless:
    __del__ = fails

match sys.argv[1]:
    case "process":
        fails()
    case "thread":
        threading.Thread(target=fails, name="pictures").start()
    case "finaliser":
        Careless()
    case "warning":
        warnings.warn("rtsps://camera.example/live?auth=g.0.streamToken is odd")
    case "worker":
        child = multiprocessing.get_context("fork").Process(target=worker)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    case "interrupt":
        raise KeyboardInterrupt
"""


def ran(what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, what], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("what", "status", "level", "words"),
    [
        ("process", 1, "critical", "the process ends by an error"),
        ("thread", 0, "critical", "thread pictures ends by an error"),
        ("finaliser", 0, "error", "Exception ignored in"),
        ("warning", 0, "warning", "is odd"),
        ("worker", 1, "critical", "the process ends by an error"),
    ],
)
def test_it_is_a_line_of_the_log(what: str, status: int, level: str, words: str) -> None:
    done = ran(what)
    assert done.returncode == status
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], line["camera"]) == (level, "Porch")
    assert words in line["message"]
    assert "auth=[redacted]" in line["message"] + line.get("exception", "")
    assert "streamToken" not in done.stderr
    assert what == "warning" or "in fails" in line["exception"]


def test_an_interrupt_is_as_it_was() -> None:
    assert "KeyboardInterrupt" in ran("interrupt").stderr
