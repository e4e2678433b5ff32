"""Runs the simulation lane: one seed with all that happens, or many.

python -m tests.simulation SEED
python -m tests.simulation --seeds 10000 [--first 0]
"""

from __future__ import annotations

import sys
import time

import click

from tests.simulation.lane import Lane, Violation


@click.command()
@click.argument("seed", required=False, type=int)
@click.option("--seeds", default=0, help="How many seeds to run.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
def main(seed: int | None, seeds: int, first: int) -> None:
    """Replay SEED, or search many seeds for one that breaks an invariant."""
    if seed is not None:
        try:
            Lane(seed, echo=True).run()
        except Violation as violation:
            sys.exit(f"seed {seed}: {str(violation).splitlines()[-2]}")
        return
    found: list[int] = []
    began, slowest = time.process_time(), 0.0
    for number in range(first, first + seeds):
        lane = Lane(number)
        try:
            lane.run()
        except Violation:
            found.append(number)
            print(f"seed {number}: {lane.violations[0]}", flush=True)
        slowest = max(slowest, lane.live_after)
        if number % 500 == 499:
            print(f"{number + 1 - first} seeds, {time.process_time() - began:.0f} s, {len(found)} found", flush=True)
    print(f"{seeds} seeds in {time.process_time() - began:.0f} s of CPU: {len(found)} found; ", end="")
    print(f"all live at most {slowest:.0f} s after the last fault")
    sys.exit(f"seeds: {found}" if found else 0)


if __name__ == "__main__":
    main()
