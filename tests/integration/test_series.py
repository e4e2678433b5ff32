"""Every exported series changes on a live relay, or is on a short list that says why it cannot here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay
from tests.integration.test_control import view

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]

TOKEN: Final = "a-token-for-the-tests-only"
LEASE: Final = 16
"""Seconds that a stream lives: extensions come within the run."""

_REFUSALS: Final = (*("no_key", "unproven", "bad_handshake", "stranger", "unknown_process", "anothers_name", "ended"),)
_NONE: Final = ("audio", "video")
_LOCAL: Final = (
    *("sent_packets_total", "sent_bytes_total", "retransmitted_packets_total", "lost_packets_total"),
    *("refused_offers_total", "up", "viewers", "held_bytes"),
)
_RENDITIONS: Final = (
    *("pictures_total", "sent_packets_total", "sent_bytes_total", "refused_answers_total"),
    *("up", "smooth", "limited", "viewers", "cpu_ratio"),
)
_BAD_PICTURES: Final = (
    *("replaced_pictures_total", "failed_pictures_total", "refused_pictures_total", "stuck_threads_total"),
)
STILL: Final[dict[str, str]] = {
    "relay_build_info": "always 1",
    "relay_in_command": "nobody stands by here: tests/cluster/test_replicas.py",
    "relay_budget_limit": "Google's limit is what it is",
    "relay_account_error": "the account is sound",
    "relay_account_expiring": "its authorisation does not end soon",
    "relay_budget_hold_seconds": "Google refuses nothing for quota",
    "relay_queue_depth": "commands wait for milliseconds, scrapes are a quarter of a second apart",
    "relay_camera_reason": "1 while there is a reason and absent without one: relay_cameras_by_reason moves with it",
    "relay_problem": "nothing is wrong with the relay or the account",
    "relay_camera_degraded": "that takes five failures in a row",
    "relay_camera_worker_compiled": "always 0 where nothing is compiled",
    "relay_camera_worker_data_path_fallbacks_total": "no worker crashes",
    "relay_workers_waiting": "no worker is a Pod here: tests/cluster/test_pod_faults.py",
    "relay_auth_blocked_total": "that takes ten wrong tokens in a minute",
    "relay_sfu_retries_total": "the SFU answers every call",
    "relay_event_streams_dropped_total": "no page is slow",
    "relay_event_streams_refused_total": "one page is not too many",
    **{f"relay_camera_ceiling_bits_per_second {kind}": "loopback carries everything" for kind in _NONE},
    **{f"relay_camera_thinned_frames_total {kind}": "loopback carries everything" for kind in _NONE},
    **{f"relay_camera_send_drops_total {kind}": "loopback carries everything" for kind in _NONE},
    **{f"relay_camera_plis_total {kind}": "the viewer here is no decoder that could ask" for kind in _NONE},
    **{f"relay_camera_firs_total {kind}": "the viewer here is no decoder that could ask" for kind in _NONE},
    **{f"relay_bus_refused_total {kind}": "nobody else is on the bus: test_bus_strangers.py" for kind in _REFUSALS},
    **{f"relay_local_{name}": "[local] is off here" for name in _LOCAL},
    **{f"relay_rendition_{name}": "renditions are off here: test_watched_renditions.py" for name in _RENDITIONS},
    **{f"relay_rendition_{name}": "what goes wrong with pictures: tests/unit/rendition" for name in _BAD_PICTURES},
    "relay_sink_ice_restarts_total": "no way breaks: tests/peers/test_whip_restart.py",
    "relay_sink_ice_restarts_failed_total": "no way breaks: tests/peers/test_whip_restart.py",
    "relay_camera_nacks_total audio": "sound is offered without NACK: a lost 20 ms is concealed",
    "relay_camera_retransmitted_packets_total audio": "the same",
    "relay_camera_dropped_packets_total audio": "packets of sound are held back for nothing",
}
"""Series that need not change in this run, and why."""


class Watch:
    """The values of each series: by sample name, with the labels that distinguish series of one kind."""

    def __init__(self) -> None:
        self.seen: dict[str, set[float]] = defaultdict(set)
        self.counters: set[str] = set()

    def look(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith(("_bucket", "_created")):
                    continue
                told = [sample.labels[name] for name in ("kind", "quantile") if name in sample.labels]
                key = " ".join((sample.name, *told))
                self.seen[key].add(sample.value)
                if family.type != "gauge":
                    self.counters.add(key)

    def still(self) -> set[str]:
        """Counters that stayed at zero, gauges that had one value."""
        return {
            key for key, values in self.seen.items() if (not any(values) if key in self.counters else len(values) == 1)
        }


async def provoke(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    """One viewer, one loss each way, a failed and a granted extension, a restart, a wrong token, a page's events."""
    opened = await view(relay, "Front Door", "Driveway")
    for session in (await relay.sfu("sessions"))["sessions"]:
        if session["published"]:
            await relay.sfu(f"sessions/{session['session']}", {"upstream_loss": 0.2})
    # A report shows a loss of the picture only while its repair is on the way.
    cameras = ("Front Door", "Driveway")
    await relay.until(lambda: any(relay.camera(name).video.loss_out for name in cameras), 60.0, "a loss is reported")
    await relay.nest("cameras/Driveway/fail_commands", {"status": 500, "command": "*", "count": 1})
    assert (await http.get("/api/stats", headers={"Authorization": "Bearer wrong-one-entirely"})).status_code == 401
    async with http.stream("GET", "/api/events") as events:
        lines = events.aiter_lines()
        assert await anext(lines)
        await asyncio.sleep(1.5)
    before = {name: relay.camera(name).lease.extends for name in cameras}
    await relay.until(
        lambda: all(relay.camera(name).lease.extends > count for name, count in before.items()), 60.0, "extensions"
    )
    await relay.nest("cameras/Front Door/fault", {"kind": "loss", "seconds": 3, "rate": 0.3})
    await asyncio.sleep(4.5)
    restarts = relay.camera("Front Door").worker.restarts
    await relay.supervisor.restart(relay.camera("Front Door").id)
    await relay.until(lambda: relay.camera("Front Door").worker.restarts > restarts, 30.0, "a restart")
    await relay.until_live()
    await relay.supervisor.viewers.close(opened.view)
    await asyncio.sleep(2.5)


async def test_every_series_moves_on_a_live_relay() -> None:
    options = (*SMALL, "--unlimited", "--lease", str(LEASE), "--webrtc", "1")
    sections = {**UNLIMITED, "http": {"token": TOKEN}}
    async with running_relay(2, options=options, sections=sections) as relay:
        watch = Watch()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=relay.supervisor.url, headers=headers, timeout=20.0) as http:

            async def scrape() -> None:
                while True:
                    watch.look((await http.get("/metrics")).raise_for_status().text)
                    await asyncio.sleep(0.25)

            scraping = asyncio.create_task(scrape())
            try:
                await relay.until_live()
                # Which packets are lost is chance, and a gauge may pass between two looks.
                for _ in range(3):
                    await provoke(relay, http)
                    await asyncio.sleep(1.0)
                    if watch.still() <= STILL.keys():
                        break
            finally:
                scraping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await scraping
    assert len(watch.seen) > 80
    assert sorted(watch.still() - STILL.keys()) == [], "exported, and never moved"
    assert sorted(STILL.keys() - watch.seen.keys()) == [], "listed here, and not exported"
