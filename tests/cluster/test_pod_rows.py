"""Rows of the failure matrix on four cameras: `make cluster-matrix` has all, on twenty, and of supervisors as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.matrix.bench import Bench, Outcome
from tests.cluster.matrix.rows import (
    dead_before_the_start,
    drained,
    hung,
    impostors,
    kubelet_dead,
    partitioned,
    powerless,
    starved,
)
from tests.cluster.pod_relay import LIVE, trial

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

CAMERAS = 4
"""On three nodes: two are lost with one, or more after an earlier row."""
MOST_MEMORY = 50.0
"""MB of a worker in a Pod, its shim and pause process, which are not played here, included."""
SHIM = 4.5
"""MB of these two, as measured with containerd 1.6."""


async def kubelet_for_a_while(bench: Bench) -> Outcome:
    return await kubelet_dead(bench, 10.0)


@pytest.mark.parametrize(
    ("second", "rows"),
    [
        pytest.param("refuse", (powerless, partitioned, hung), id="refuse"),
        pytest.param("replace", (powerless, partitioned, drained, dead_before_the_start), id="replace"),
        pytest.param("refuse", (impostors, kubelet_for_a_while, starved), id="nothing-is-lost"),
    ],
)
async def test_each_fault_costs_what_it_may(
    cluster: Cluster,
    api: Api,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[[str], None],
    second: str,
    rows: Sequence[Callable[[Bench], Awaitable[Outcome]]],
) -> None:
    options = ("--webrtc", "2", "--second-client", second)
    async with trial(cluster, api, namespace, monkeypatch, CAMERAS, options) as world, world.supervisor() as relay:
        await relay.until_live(within=LIVE)
        bench = Bench(cluster, api, world, relay, second)
        memory = bench.memory()
        figure(f"memory of a worker in a Pod: {memory[0]:.1f} to {memory[-1]:.1f} MB")
        assert len(memory) == CAMERAS
        assert memory[-1] + SHIM <= MOST_MEMORY
        for row in rows:
            await relay.until(lambda: bench.all_live, LIVE, "all are live")
            relay.forget_faults()
            outcome = await row(bench)
            times = ", ".join(f"{took:.1f}" for took in outcome.times)
            figure(f"{second}, {row.__name__}: live after {times or '-'} s, {outcome.generates} {outcome.words}")
            assert outcome.wrong == [], row.__name__
