"""What it costs to ask a supervisor that stands by: answers for 20 cameras, directly and through it.

    python -m tests.benchmarks.passing_on [SECONDS]

Both are as they serve, in a process each, with TLS between them on loopback; a third asks one and the other in turns,
by a connection that it keeps to each.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from relay_common.clock import SystemClock
from relay_supervisor.http.interface import HttpInterface
from relay_supervisor.http.passed_on import AmongReplicas, PeerListen
from relay_supervisor.http.passing import Commander, PassOn
from relay_supervisor.http.standby import StandbyInterface
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import SeatStatus
from relay_supervisor.supervise import Loops
from tests.fixtures.fake_relay import FakeRelay
from tests.fixtures.ports import free_ports
from tests.fixtures.supervisor_pair import BEARER, TLS, configured

CAMERAS: Final = 20
PATHS: Final = ("/api/stats", "/api/cameras", "/")
_WARM: Final = 50


async def _commands(directory: Path, port: int, peers: int) -> None:
    clock, config = SystemClock(), configured(directory, port, [])
    relay, at = FakeRelay(clock, cameras=CAMERAS), PeerListen("127.0.0.1", peers, TLS.server)
    relay.seat = SeatStatus(replica="a", state="in command", holder="a", others=["b"])
    store = Store(config.paths.state() / "relay.sqlite3", clock).open()
    await HttpInterface(relay, config, clock, Loops(clock), store, AmongReplicas(peers=at)).start()
    await asyncio.Event().wait()


async def _stands_by(directory: Path, port: int, peers: int) -> None:
    clock = SystemClock()
    seat = SeatStatus(replica="b", state="standing by", commands=False, holder="a", known=True)
    passing = PassOn("b", lambda: Commander("a", f"127.0.0.1:{peers}", clock.now()), lambda: TLS.client, clock)
    await StandbyInterface(configured(directory, port, []), clock, lambda: seat, passing).start()
    await asyncio.Event().wait()


def _forked(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    if (pid := os.fork()) == 0:
        gc.freeze()
        asyncio.run(work())
        os._exit(0)
    return pid


def _asked(connection: http.client.HTTPConnection, path: str) -> tuple[float, int]:
    began = time.perf_counter()
    connection.request("GET", path, headers=BEARER)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, (path, answer.status)
    return time.perf_counter() - began, len(body)


def _waits(port: int) -> http.client.HTTPConnection:
    until = time.monotonic() + 30.0
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
        try:
            _asked(connection, "/api/stats")
        except (OSError, AssertionError):
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return connection


def _measure(own: http.client.HTTPConnection, through: http.client.HTTPConnection, seconds: float) -> None:
    print("| | bytes | of the one that commands: half, 99 % | through one that stands by | each, requests |")
    for path in PATHS:
        taken: tuple[list[float], list[float]] = [], []
        until, size = time.perf_counter() + seconds, 0
        while time.perf_counter() < until or len(taken[0]) < 2 * _WARM:
            for times, connection in zip(taken, (own, through), strict=True):
                once, size = _asked(connection, path)
                times.append(1e3 * once)
        cells = []
        for times in taken:
            parts = statistics.quantiles(times[_WARM:], n=100)
            cells.append(f"{parts[49]:.1f}, {parts[98]:.1f} ms")
        print(f"| `{path}` | {size} | {' | '.join(cells)} | {len(taken[0]) - _WARM} |", flush=True)


def main() -> None:
    """Start both, ask, and end them."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    first, second, peers = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        pids = [
            _forked(lambda: _commands(Path(folder, "a"), first, peers)),
            _forked(lambda: _stands_by(Path(folder, "b"), second, peers)),
        ]
        try:
            _measure(_waits(first), _waits(second), seconds)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
