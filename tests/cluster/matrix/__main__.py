"""Run rows of the matrix and print a table: `make cluster-matrix`, as root, alone on the machine.

Exits with 1 when a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.cluster.engine import Cluster, running_cluster, unavailable
from tests.cluster.kubelets.node import kind_of_nodes
from tests.cluster.matrix.bench import PROTOCOLS, Bench, Outcome
from tests.cluster.matrix.logs import kept
from tests.cluster.matrix.pair import Pair, pair
from tests.cluster.matrix.pair_rows import PAIR_ROWS
from tests.cluster.matrix.patience import PATIENCE
from tests.cluster.matrix.rows import LIMITED_ROWS, ROWS
from tests.cluster.pod_relay import trial

USUAL: Final = 30
"""Pictures a second."""
T = TypeVar("T")
Rows = Mapping[str, tuple[Callable[[T], Awaitable[Outcome]], float]]
"""By name, with the longest time until all is well, in seconds."""

HEAD = """| fault | second client | lost (RTSP, WebRTC) | live again after, each (bar) | Generates | lost of others | |
|---|---|---|---|---|---:|---|"""


def span(times: list[float]) -> str:
    first, last = f"{times[0]:.1f}", f"{times[-1]:.1f}"
    return f"{first} to {last} s" if first != last else f"{last} s"


def line(name: str, second: str, outcome: Outcome, bar: float) -> str:
    """A row of the table."""
    each = [outcome.by_protocol[protocol] for protocol in PROTOCOLS]
    spans = [span(times) for times in (each if any(each) else [outcome.times]) if times]
    late = ": missed" * any(time > bar for time in outcome.times)
    times = f"{', '.join(spans)} ({bar:.0f}){late}" if spans else "nothing was lost"
    lost, spent = (f"{a}, {b}" for a, b in (map(len, each), map(outcome.generates.__getitem__, PROTOCOLS)))
    said = "; ".join(outcome.wrong) or outcome.words or "nothing"
    return f"| {name} | {second} | {lost} | {times} | {spent} | {outcome.others_lost} | {said} |"


@dataclass(frozen=True)
class Size:
    """What the rows are run on."""

    second: str
    """What cameras do with a second client."""
    cameras: int
    webrtc: int
    away: float
    """Seconds for which the API server is away."""

    async def row(self, name: str, bar: float, row: Callable[[], Awaitable[Outcome]]) -> bool:
        """Run one and print it; whether it was not as it must be."""
        try:
            outcome = await row()
        except AssertionError as error:
            outcome = Outcome(wrong=[str(error)[:600]])
        bar += outcome.allowed
        print(line(name, self.second, outcome, bar), flush=True)
        return bool(outcome.wrong) or (bool(outcome.times) and outcome.times[-1] > bar)

    async def of_workers(self, cluster: Cluster, chosen: Rows[Bench], *, limited: bool) -> int:
        """Rows of nodes and workers; returns how many were not as they must be."""
        missed = 0
        await cluster.ready()
        options = ("--webrtc", str(self.webrtc), "--second-client", self.second)
        async with cluster.api() as api:
            namespace = await cluster.make_namespace(api, f"matrix-{self.second}{'-limited' * limited}")
            with pytest.MonkeyPatch.context() as patch:
                running = trial(cluster, api, namespace, patch, self.cameras, options, limited=limited, fps=USUAL)
                async with running as world, world.supervisor() as relay:
                    took = await relay.until_live(within=PATIENCE * 4)
                    bench = Bench(cluster, api, world, relay, self.second)
                    bench.away = self.away
                    print(f"{self.cameras} cameras, {self.webrtc} over WebRTC, live after {took:.1f} s", flush=True)
                    used = bench.memory()
                    print(f"memory: {used[0]:.1f} to {used[-1]:.1f} MB of {len(used)} workers", flush=True)
                    for name, (row, bar) in chosen.items():
                        missed += await self.row(name, bar, functools.partial(self._spread, bench, row))
        return missed

    async def _spread(self, bench: Bench, row: Callable[[Bench], Awaitable[Outcome]]) -> Outcome:
        await bench.live()
        await bench.spread_out()
        return await row(bench)

    async def of_supervisors(self, cluster: Cluster, folder: Path, chosen: Rows[Pair]) -> int:
        """Rows of supervisors; returns how many were not as they must be."""
        missed = 0
        await cluster.ready()
        size = self.second, self.cameras, self.webrtc
        async with cluster.api() as api, pair(cluster, api, folder, *size, fps=USUAL) as both:
            both.away = self.away
            for name, (row, bar) in chosen.items():
                missed += await self.row(name, bar, functools.partial(row, both))
        return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--webrtc", type=int, default=8, help="so many of them over WebRTC")
    parser.add_argument("--second", default="refuse,replace", help="what cameras do with a second client")
    parser.add_argument("--away", type=float, default=300.0, help="seconds for which the API server is away")
    parser.add_argument("--ahead", type=float, default=0.0, help="seconds by which the second node's clock is ahead")
    parser.add_argument("--rows", default="", help="words, any of which is in a row's name; all rows without")
    parser.add_argument("--row", action="append", default=[], help="the name of a row, in place of --rows; repeatable")
    parser.add_argument("--logs", type=Path, help="a folder for the supervisors' logs")
    arguments = parser.parse_args()
    if why := unavailable(kind_of_nodes()):
        sys.exit(why)
    for number in (signal.SIGINT, signal.SIGTERM):  # the cluster is taken down, also where a shell has these ignored
        signal.signal(number, signal.default_int_handler)
    wanted = arguments.row or arguments.rows.split(",")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n{HEAD}", flush=True)
    missed = 0
    for second in arguments.second.split(","):
        size = Size(second, arguments.cameras, arguments.webrtc, arguments.away)
        with (
            tempfile.TemporaryDirectory(prefix="relay-matrix-") as folder,
            running_cluster(Path(folder), kind=kind_of_nodes(), ahead=arguments.ahead) as cluster,
            kept(arguments.logs, f"{second}-{os.getpid()}", cluster),
        ):
            for rows in (ROWS, LIMITED_ROWS):
                if chosen := among(rows, wanted):
                    missed += asyncio.run(size.of_workers(cluster, chosen, limited=rows is LIMITED_ROWS))
            if of_both := among(PAIR_ROWS, wanted):
                missed += asyncio.run(size.of_supervisors(cluster, Path(folder), of_both))
    print(f"load {os.getloadavg()[0]:.1f}; {missed} rows missed their bars")
    sys.exit(missed > 0)


def among(rows: Rows[T], wanted: list[str]) -> Rows[T]:
    """Those with one of these words in their names, in the order of the words."""
    return {name: row for word in wanted for name, row in rows.items() if word in name}


if __name__ == "__main__":
    main()
