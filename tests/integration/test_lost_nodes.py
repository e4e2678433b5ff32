"""A node is lost with its workers: their cameras go on elsewhere, and nothing is taken back when it is heard again.

Whether Google refuses a camera's second client or replaces the first one nobody knows: the relay gets by with both.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from relay_supervisor.fleet.keeper import CONTESTED
from tests.fixtures.far_workers import FarLauncher
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay
from tests.fixtures.tcp_workers import over_tcp

pytestmark = [pytest.mark.media, pytest.mark.slow]

AFTER_HEALING = 8.0
"""Seconds for a worker that is heard again to do what it must not do."""
RTSP, WEB_RTC = "Front Door", "Driveway"


async def simulated(relay: RunningRelay) -> dict[str, dict[str, Any]]:
    """What Google and the cameras have seen, by camera."""
    answer = await relay.http.get(relay.world.endpoints["control"]["nest"] + "/cameras")
    return {camera["name"]: camera for camera in answer.json()["cameras"]}


async def packets_lost(relay: RunningRelay) -> dict[str, tuple[int, int]]:
    """Of each camera's newest publication: how many there were, and the packets that it lacks."""
    found = {}
    for name in (RTSP, WEB_RTC):
        tracks = await relay.published(name)
        found[name] = len(tracks), tracks[-1]["lost"]
    return found


@pytest.mark.parametrize("second", ["refuse", "replace"])
@pytest.mark.parametrize("node", ["partitioned", "powerless"])
async def test_a_lost_node_costs_a_generate_only_where_it_must_and_heals_unnoticed(second: str, node: str) -> None:
    launchers: list[FarLauncher] = []

    def launcher(directory: Any) -> FarLauncher:
        launchers.append(FarLauncher(directory))
        return launchers[0]

    options = (*SMALL, "--webrtc", "1", "--unlimited", "--second-client", second)
    async with running_relay(2, launcher=launcher, options=options, sections=over_tcp() | UNLIMITED) as relay:
        (far,) = launchers
        try:
            await relay.until_live(within=60.0)
            old = list(far.pids)
            far.nodes[0].cut()
            if node == "powerless":
                for pid in old:
                    os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()

            def elsewhere() -> bool:
                cameras = relay.supervisor.status().cameras
                return all(c.state == "live" and c.worker.pid not in old for c in cameras)

            took = await relay.until(elsewhere, 60.0, "both are live elsewhere")
            seen = await simulated(relay)
            generates = {name: camera["generates"] - 1 for name, camera in seen.items()}
            print(f"{node}, {second}: live again after {took:.1f} s; Generates {generates}")
            assert generates == {RTSP: int(second == "refuse"), WEB_RTC: 1}
            if second == "refuse":
                assert time.monotonic() - began > CONTESTED - 2.0, "the old worker might have ended until then"

            before = await packets_lost(relay)
            for pid in old:
                os.kill(pid, signal.SIGCONT)
            far.nodes[0].mend()
            healed = time.monotonic()
            await relay.until(lambda: time.monotonic() - healed > AFTER_HEALING, 600.0, "time passes")
            assert await packets_lost(relay) == before
            now = await simulated(relay)
            for name, camera in now.items():
                for kind in ("describes", "refused", "generates"):
                    assert camera[kind] == seen[name][kind], (name, kind)
            assert now[RTSP]["sessions_cut"] == seen[RTSP]["sessions_cut"]
            assert elsewhere()
        finally:
            await far.close()
