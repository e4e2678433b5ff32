"""All that is run on true nodes: `make test-cluster`, as root on Debian 12 with cgroup v1, alone; an hour and a half.

Each piece (`pieces.py`) has a cluster of its own in a process of its own: one that fails or hangs costs no other piece
anything, and no node of its outlives it. A table of all figures beside their bars comes at the end. Exits with 1 when a
piece failed or a bar was missed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.cluster.engine import unavailable
from tests.cluster.kubelets import cgroups
from tests.cluster.kubelets.node import KubeletNode
from tests.cluster.kubelets.pieces import Piece, pieces
from tests.cluster.kubelets.piecewise import Result, run
from tests.cluster.matrix.__main__ import HEAD
from tests.cluster.network import not_permitted

SILENT: Final = 1200.0
"""Seconds for which a piece that is well may say nothing, on a machine that has much else to do; and for as long as the
API server is away."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make test-cluster", description=__doc__)
    parser.add_argument(
        "--permitted", action="store_true", help="say why there can be no true node here, if so, and end"
    )
    parser.add_argument("--list", action="store_true", help="name the pieces, and end")
    parser.add_argument("-k", default="", help="words, any of which is in a row's name or a piece's title; else all")
    parser.add_argument("--second", default="refuse,replace", help="what cameras do with a second client")
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--webrtc", type=int, default=8, help="so many of them over WebRTC")
    parser.add_argument("--away", type=float, default=300.0, help="seconds for which the API server is away")
    parser.add_argument("--before", default="", help="a command that each piece is run by")
    parser.add_argument("--logs", type=Path, help="a folder for the supervisors' logs")
    chosen = parser.parse_args(arguments)
    wanted = list(pieces(chosen.second.split(","), chosen.k.split(",")))
    if chosen.list:
        print("\n".join(piece.title for piece in wanted))
        return 0
    if why := (not_permitted() or cgroups.missing() if chosen.permitted else unavailable(KubeletNode)):
        print(why, file=sys.stderr)
        return 1
    if chosen.permitted:
        return 0
    if not wanted:
        print(f"no row and no piece has {chosen.k} in its name", file=sys.stderr)
        return 1
    options = ["--cameras", str(chosen.cameras), "--webrtc", str(chosen.webrtc), "--away", str(chosen.away)]
    options += ["--logs", str(chosen.logs.resolve())] if chosen.logs else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return every(wanted, options, shlex.split(chosen.before), SILENT + chosen.away)


def every(wanted: Sequence[Piece], options: Sequence[str], before: Sequence[str], silent: float) -> int:
    """Run them one after the other; returns the exit code."""
    began, results = time.monotonic(), list[Result]()
    try:
        with tempfile.TemporaryDirectory(prefix="relay-test-cluster-") as folder:
            environment = {"RELAY_CLUSTER_NODES": "kubelet", "RELAY_REQUIRE_CLUSTER": "1", "TMPDIR": folder}
            for number, piece in enumerate(wanted, 1):
                since = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - began))
                print(f"[{number}/{len(wanted)}, after {since}] {piece.title}", flush=True)
                command = [*before, sys.executable, *piece.command(options)]
                results.append(run(piece.title, command, environment, silent))
    except KeyboardInterrupt:
        results.append(Result("the rest", "was not run: interrupted"))
    return told(results, time.monotonic() - began)


def told(results: Sequence[Result], seconds: float) -> int:
    """Print the table, and what is wrong; returns the exit code."""
    rows = [line for result in results for line in result.rows]
    if rows:
        print("\n".join((f"\n{HEAD}", *rows)))
    for result in results:
        for line in result.figures:
            print(f"{result.title}: {line}")
    bad = [result for result in results if result.wrong]
    for result in bad:
        print(f"NOT as it must be: {result.title}: {result.wrong}")
    well = f"{len(results) - len(bad)} of {len(results)} pieces as they must be"
    print(f"{well}, in {seconds / 60:.0f} minutes; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
