"""Four seeds of several accounts among three supervisors; more: `python -m tests.simulation.spreading 300`."""

from __future__ import annotations

from tests.simulation.spreading import SpreadWorld


def test_spreading_seeds() -> None:
    takeovers = given_up = 0
    for seed in range(4):
        world = SpreadWorld(seed)
        world.run()
        takeovers += world.takeovers
        given_up += world.given_up
    assert takeovers > 20, "the faults move accounts"
    assert given_up >= 4, "and what has come together is spread again"
