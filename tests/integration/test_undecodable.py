"""A picture that no viewer decodes, through the whole relay: detected, reported everywhere, and remedied at no cost."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.fixtures.running_relay import SMALL, RunningRelay, running_relay
from tests.integration.test_control import view

pytestmark = [pytest.mark.media, pytest.mark.timeout(120)]


class Page:
    """A page that receives bytes, and decodes them or not."""

    def __init__(self, relay: RunningRelay, http: httpx.AsyncClient, name: str) -> None:
        self._relay, self._http, self._name, self._view = relay, http, name, ""
        self._bytes = self._frames = 0
        self.faults: list[dict[str, str]] = []

    async def reports(self, *, decodes: bool) -> None:
        """Report what arrived since the last report."""
        self._bytes += 100_000
        self._frames += 30 * decodes
        self._view = self._view or (await view(self._relay, self._name)).view
        camera = self._relay.camera(self._name).id
        told = {"cameras": [{"camera": camera, "bytes": self._bytes, "frames": self._frames}]}
        reply = await self._http.post(f"/api/view/{self._view}/received", json=told)
        self.faults = reply.raise_for_status().json()["faults"]


async def test_bytes_without_frames_are_said_and_mended_at_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_supervisor.viewing.viewers.ANSWER_WITHIN", 300.0)  # offers are not answered here
    async with running_relay(1, options=(*SMALL, "--unlimited")) as relay:
        await relay.until_live()
        name = "Front Door"
        async with httpx.AsyncClient(base_url=relay.supervisor.url, timeout=20.0) as http:
            blind, well = Page(relay, http, name), Page(relay, http, name)
            generates = relay.camera(name).lease.generates

            async def until(decodable: str) -> None:
                deadline = time.monotonic() + 60.0
                while relay.camera(name).decodable != decodable:
                    assert time.monotonic() < deadline, relay.camera(name)
                    await blind.reports(decodes=False)
                    await asyncio.sleep(1.0)

            await until("no")
            status = relay.camera(name)
            assert (status.state, status.stage) == ("live", "decode")
            assert status.reason.startswith("live, not decodable: browsers get its bytes")
            health = relay.supervisor.health()
            assert health.ready
            assert [reason.camera for reason in health.degraded] == [status.id]
            text = (await http.get("/metrics")).text
            assert f'relay_camera_decodable{{camera="{status.id}",name="{name}",verdict="no"}} 1.0' in text
            tried = "mending.tried"
            await relay.until(lambda: relay.camera(name).counters.get(tried) == 1, 20.0, "a remedy is tried")
            assert relay.camera(name).lease.generates == generates
            assert blind.faults == []

            await well.reports(decodes=True)
            await relay.until(lambda: relay.camera(name).decodable == "yes", 10.0, "somebody sees it")
            assert relay.camera(name).reason == ""
            await blind.reports(decodes=False)
            assert [fault["camera"] for fault in blind.faults] == [status.id], "then it is this page's fault"
