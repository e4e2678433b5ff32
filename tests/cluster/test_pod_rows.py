"""Rows of the failure matrix that no other test has, on six cameras: `make cluster-matrix` has all, on twenty."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.matrix.bench import Bench, Outcome
from tests.cluster.matrix.rows import dead_before_the_start, hung, impostors, kubelet_dead, starved
from tests.cluster.pod_relay import LIVE, trial

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

MOST_MEMORY = 50.0
"""MB of a worker in a Pod, its shim and pause process, which are not played here, included."""
SHIM = 4.5
"""MB of these two, as measured with containerd 1.6."""


async def test_faults_on_which_nothing_is_lost_or_little(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    options = ("--webrtc", "2", "--second-client", "refuse")
    async with trial(cluster, api, namespace, monkeypatch, 6, options) as world, world.supervisor() as relay:
        await relay.until_live(within=LIVE)
        bench = Bench(cluster, api, world, relay, "refuse")
        memory = bench.memory()
        figure(f"memory of a worker in a Pod: {memory[0]:.1f} to {memory[-1]:.1f} MB (PSS)")
        assert len(memory) == 6
        assert memory[-1] + SHIM <= MOST_MEMORY
        for row in (hung, impostors, kubelet_for_a_while, starved, dead_before_the_start):
            await relay.until(lambda: bench.all_live, LIVE, "all are live")
            outcome = await row(bench)
            times = ", ".join(f"{took:.1f}" for took in outcome.times)
            figure(f"{row.__name__}: live after {times or '-'} s, Generates {outcome.generates} {outcome.words}")
            assert outcome.wrong == [], row.__name__


async def kubelet_for_a_while(bench: Bench) -> Outcome:
    return await kubelet_dead(bench, 10.0)
