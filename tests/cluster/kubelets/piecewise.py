"""One piece of a long run, as a process that is ended with everything that it has started, whatever happens."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.cluster.kubelets import cgroups
from tests.fixtures.product_source import ROOT

ENDS: Final = 60.0
"""Seconds for a piece that is interrupted to take its cluster down."""
GONE: Final = 15.0
"""The same for what ends by itself with a process that was killed."""
_DEVICE: Final = re.compile(r"kube(\d+)")
_FIGURE: Final = re.compile(r"\d+ cameras, |memory|from a Pod's creation|load ")


@dataclass
class Result:
    """What became of a piece; `wrong` is empty where all was as it must be."""

    title: str
    wrong: str = ""
    rows: list[str] = field(default_factory=list)
    """Of the matrix' table."""
    figures: list[str] = field(default_factory=list)


def run(title: str, command: Sequence[str], environment: Mapping[str, str], silent: float) -> Result:
    """Run a command and pass on what it says; it is ended when it has said nothing for `silent` seconds.

    Raises KeyboardInterrupt after it was ended for that.
    """
    result, lines = Result(title), queue.Queue[str | None]()
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    try:
        while (line := lines.get(timeout=silent)) is not None:
            print(f"    {line}", flush=True)
            if line.startswith("| ") and not line.startswith("| fault |"):
                result.rows.append(line)
            elif _FIGURE.match(line):
                result.figures.append(line)
        code = process.wait(GONE)
        result.wrong = f"exit code {code}" if code else ""
    except (queue.Empty, subprocess.TimeoutExpired):
        result.wrong = f"ended, since nothing was heard of it for {silent:.0f} s"
    finally:
        _end(process)
    if left := left_behind():
        result.wrong = "; ".join(filter(None, (result.wrong, f"left behind: {', '.join(left)}")))
    return result


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt it if it runs, so that it tidies up; kill it, and whatever is in its session, if it does not end."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def left_behind() -> list[str]:
    """What of a cluster is there although its process is not; cgroups of that kind are removed."""
    deadline = time.monotonic() + GONE
    while True:
        left = cgroups.sweep()
        for device in Path("/sys/class/net").iterdir():
            found = _DEVICE.fullmatch(device.name)
            if found and not Path("/proc", found[1]).exists():
                left.append(device.name)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)
