"""Run rows of the matrix and print a table: `make cluster-matrix`, as root, alone on the machine.

Exits with 1 when a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.engine import Cluster, running_cluster, unavailable
from tests.cluster.matrix.bench import PATIENCE, WEB_RTC, Bench, Outcome
from tests.cluster.matrix.rows import ROWS
from tests.cluster.pod_relay import trial

HEAD = """| fault | second client | lost | live again after (bar) | Generates, RTSP and WebRTC | lost of others | |
|---|---|---:|---|---|---:|---|"""


def line(name: str, second: str, outcome: Outcome, bar: float) -> str:
    """A row of the table."""
    times = f"{outcome.times[0]:.1f} to {outcome.times[-1]:.1f} s ({bar:.0f})" if outcome.times else "nothing was lost"
    spent = f"{outcome.generates['RTSP']}, {outcome.generates[WEB_RTC]}"
    said = "; ".join(outcome.wrong) or outcome.words or "nothing"
    return f"| {name} | {second} | {len(outcome.times)} | {times} | {spent} | {outcome.others_lost} | {said} |"


async def rows(cluster: Cluster, second: str, cameras: int, webrtc: int, names: Sequence[str]) -> int:
    """Run the rows of one kind of cameras; returns how many were not as they must be."""
    missed = 0
    await cluster.ready()
    options = ("--webrtc", str(webrtc), "--second-client", second)
    async with cluster.api() as api:
        namespace = await cluster.make_namespace(api, f"matrix-{second}")
        with pytest.MonkeyPatch.context() as patch:
            async with trial(cluster, api, namespace, patch, cameras, options) as world, world.supervisor() as relay:
                took = await relay.until_live(within=PATIENCE * 2)
                bench = Bench(cluster, api, world, relay, second)
                print(f"{cameras} cameras, {webrtc} over WebRTC, live after {took:.1f} s", flush=True)
                used = bench.memory()
                print(f"memory: {used[0]:.1f} to {used[-1]:.1f} MB (PSS) of {len(used)} workers", flush=True)
                for name in names:
                    await relay.until(lambda: bench.all_live, PATIENCE, "all are live")
                    row, bar = ROWS[name]
                    try:
                        await bench.spread_out()
                        outcome = await row(bench)
                    except AssertionError as error:
                        outcome = Outcome(wrong=[str(error)[:300]])
                    late = bool(outcome.times) and outcome.times[-1] > bar
                    missed += late or bool(outcome.wrong)
                    print(line(name, second, outcome, bar), flush=True)
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--webrtc", type=int, default=8, help="so many of them over WebRTC")
    parser.add_argument("--second", default="refuse,replace", help="what cameras do with a second client")
    parser.add_argument("--rows", default="", help="words, any of which is in a row's name; all rows without")
    arguments = parser.parse_args()
    if why := unavailable():
        sys.exit(why)
    wanted = arguments.rows.split(",")
    names = [name for name in ROWS if any(word in name for word in wanted)]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n{HEAD}", flush=True)
    missed = 0
    for second in arguments.second.split(","):
        with tempfile.TemporaryDirectory(prefix="relay-matrix-") as folder, running_cluster(Path(folder)) as cluster:
            missed += asyncio.run(rows(cluster, second, arguments.cameras, arguments.webrtc, names))
    print(f"load {os.getloadavg()[0]:.1f}; {missed} rows missed their bars")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
