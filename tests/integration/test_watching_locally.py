"""Watching without Cloudflare: the real supervisor and its workers, and stock WHEP players; there is no SFU."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator

import aioice.ice
import pytest

from relay_supervisor.app import Supervisor
from tests.fixtures.ports import free_udp_ports
from tests.fixtures.running_relay import SMALL, RunningRelay, running_relay
from tests.fixtures.whep_player import WhepPlayer

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]

IDLE_AFTER = 2.0


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@contextlib.asynccontextmanager
async def playing(relay: RunningRelay, camera: str, **headers: str) -> AsyncIterator[WhepPlayer]:
    player = WhepPlayer(relay.http, f"{relay.supervisor.url}/whep/{camera}", headers)
    try:
        yield player
    finally:
        await player.aclose()


async def test_cameras_are_watched_woken_and_let_go_without_an_sfu() -> None:
    ports = free_udp_ports(2)
    sections = {
        "local": {"listen": "127.0.0.1", "udp_ports": f"{ports[0]}-{ports[-1]}", "viewers": 2},
        "cameras": {"Driveway": {"mode": "on_demand", "idle_after": IDLE_AFTER}},
    }
    async with running_relay(2, sections=sections, sfu=False) as relay:
        await relay.until_live("Front Door")
        door, drive = relay.camera("Front Door"), relay.camera("Driveway")
        assert drive.state == "idle"
        async with playing(relay, "front-door") as player, playing(relay, door.id) as second:
            reply = await player.ask()
            assert reply.status_code == 201, reply.text
            await player.watches()
            assert player.places == {("127.0.0.1", relay.camera("Front Door").local.port)}
            assert {port for _, port in player.places} <= set(ports)
            assert (await second.ask()).status_code == 201
            await second.watches()
            async with playing(relay, door.id) as third:
                refused = await third.ask()
                assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
            await _guest_until_the_link_ends(relay, door.id, second)
            await player.watches()
            assert (await player.leave()).status_code == 200
            await relay.until(player.ended.is_set, 30.0, "the worker ends the connection")
            await relay.until(lambda: relay.camera("Front Door").local.viewers == 0, 30.0, "no viewer is left")

        async with playing(relay, "driveway") as player:
            await relay.nest("cameras/Driveway/fault", {"kind": "stall"})
            reply = await player.ask()
            assert reply.status_code == 201, "at once: it does not wait for the camera"
            await relay.nest("cameras/Driveway/clear", {})
            await player.watches()
            await relay.until_live("Driveway")
            await relay.until(lambda: relay.camera("Driveway").state == "live", 30.0, "kept awake")
            left = time.monotonic()
            await player.leave()
        await relay.until(lambda: relay.camera("Driveway").state == "idle", 30.0, "it is let go")
        assert time.monotonic() - left >= IDLE_AFTER / 2
        status = relay.supervisor.status()
        assert (status.sinks, [camera.viewable for camera in status.cameras]) == ([], [True, False])
        assert [camera.sfu for camera in status.cameras] == [False, False]


async def _guest_until_the_link_ends(relay: RunningRelay, camera: str, leaving: WhepPlayer) -> None:
    """A guest's viewers end with their link or its revocation, at the worker too; they see one port of the camera."""
    await leaving.leave()
    await relay.until(lambda: relay.camera("Front Door").local.viewers == 1, 30.0, "there is room again")
    url = f"{relay.supervisor.url}/api/cameras/{camera}/link"
    for seconds in (4, 600):
        made = (await relay.http.post(url, json={"seconds": seconds})).json()
        query = made["path"].partition("?")[2]
        async with playing(relay, f"{camera}?{query}") as guest:
            reply = await guest.ask()
            assert reply.status_code == 201, reply.text
            assert {address for address, _ in guest.places} == {"127.0.0.1"}
            over = made["expires_at"]
            if seconds == 600:
                await guest.watches()
                over = time.time()
                revoked = await relay.http.delete(f"{relay.supervisor.url}/api/links/{made['id']}")
                assert revoked.json()["views"] == 1
            await relay.until(guest.ended.is_set, 30.0, "its link has ended, or was revoked")
            assert time.time() - over < 5.0
            await relay.until(lambda: relay.camera("Front Door").local.viewers == 1, 30.0, "it is forgotten")


async def test_viewers_outlive_the_supervisor_and_obey_the_next_one() -> None:
    local = {"local": {"listen": "127.0.0.1"}}
    async with running_relay(1, sections=local, sfu=False, options=(*SMALL, "--lease", "300")) as relay:
        await relay.until_live()
        async with playing(relay, "front-door") as player:
            assert (await player.ask()).status_code == 201
            await player.watches()
            worker, before = relay.camera("Front Door").worker.pid, relay.supervisor.url
            await relay.supervisor.stop(keep_workers=True)
            await player.watches()
            following = Supervisor(relay.world.config(**local))
            relay.supervisor = following
            await following.start()
            try:
                await relay.until_live()
                assert relay.camera("Front Door").worker.pid == worker
                await relay.until(lambda: relay.camera("Front Door").local.viewers == 1, 30.0, "it is known")
                await player.watches()
                assert not player.ended.is_set()
                player.location = player.location.replace(before, following.url)
                assert (await player.leave()).status_code == 200
                await relay.until(player.ended.is_set, 30.0, "the worker ends the connection")
            finally:
                await following.stop()


async def test_a_viewer_that_the_state_has_forgotten_is_ended_by_the_next_supervisor() -> None:
    """Nobody could revoke it; its page or player comes again with its credential."""
    local = {"local": {"listen": "127.0.0.1"}}
    async with running_relay(1, sections=local, sfu=False, options=(*SMALL, "--lease", "300")) as relay:
        await relay.until_live()
        async with playing(relay, "front-door") as forgotten, playing(relay, "front-door") as kept:
            for player in (forgotten, kept):
                assert (await player.ask()).status_code == 201
                await player.watches()
            await relay.supervisor.stop(keep_workers=True)
            config = relay.world.config(**local)
            with sqlite3.connect(config.paths.state() / "relay.sqlite3") as state:
                lost = forgotten.location.rpartition("/")[2]
                assert state.execute("DELETE FROM local_viewers WHERE viewer = ?", (lost,)).rowcount == 1
            following = relay.supervisor = Supervisor(config)
            await following.start()
            try:
                await relay.until(forgotten.ended.is_set, 30.0, "the worker is told to end it")
                assert following.local.outcomes["unknown"] == 1
                await kept.watches()
                assert not kept.ended.is_set()
            finally:
                await following.stop()
