"""Changes while the relay runs: cameras appear, disappear, are renamed and watched, accounts are repaired."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from relay_common import config_file
from relay_common.secrets import Secret
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.viewing.views import ViewAnswer
from tests.fixtures.running_relay import SMALL, RunningRelay, running_relay

pytestmark = pytest.mark.media

EAGER: dict[str, dict[str, Any]] = {
    "cameras": {"rediscover": 1.0, "Driveway": {"mode": "on_demand", "idle_after": 3.0}},
    "limits": {"devices_list_per_minute": 10_000},
}


async def simulated(relay: RunningRelay, name: str) -> dict[str, Any]:
    """The simulated camera's own report; it keeps its first name when renamed."""
    cameras = (await relay.nest("cameras"))["cameras"]
    return next(camera for camera in cameras if camera["name"] == name)  # type: ignore[no-any-return]


async def view(relay: RunningRelay, *names: str) -> ViewAnswer:
    """Open a view as a page does: ask again until there is a picture."""
    ids = [relay.camera(name).id for name in names]
    async with asyncio.timeout(60.0):
        while True:
            answer = await relay.supervisor.viewers.open(ids)
            if {track.camera for track in answer.tracks} == set(ids):
                return answer
            await relay.supervisor.viewers.close(answer.view)
            await asyncio.sleep(0.25)


async def test_cameras_come_go_and_are_renamed_without_touching_the_rest() -> None:
    async with running_relay(3, options=(*SMALL, "--unlimited"), sections=EAGER) as relay:
        await relay.until_live("Front Door", "Back Garden")
        untouched = relay.camera("Front Door")
        (before,) = await relay.published("Front Door")

        await relay.nest("cameras/Front Door/device", {"traitless": True})
        await asyncio.sleep(3.5)  # three listings
        assert relay.camera("Front Door").state == "live", "its traits are not available: it is still a camera"
        await relay.nest("cameras/Front Door/device", {"traitless": False})

        await relay.nest("cameras/Back Garden/device", {"withdrawn": True})

        def there(name: str) -> bool:
            return any(camera.name == name for camera in relay.supervisor.status().cameras)

        await relay.until(lambda: not there("Back Garden"), 30.0, "the withdrawn camera is gone")
        await relay.nest("cameras/Back Garden/device", {"withdrawn": False, "renamed": "Orangery"})
        await relay.until(lambda: there("Orangery"), 30.0, "a new camera is found")
        await relay.until_live("Orangery", within=20.0)
        found = relay.camera("Orangery")
        await relay.nest("cameras/Back Garden/device", {"renamed": "Conservatory"})
        await relay.until(lambda: there("Conservatory"), 30.0, "the new name is found")
        await relay.until_live("Conservatory", within=20.0)
        renamed = relay.camera("Conservatory")
        assert renamed.id == found.id
        assert renamed.lease.generates == 1, "a new name costs no command"

        (after,) = await relay.published("Front Door")
        assert after["packets"] > before["packets"] + 60
        assert (after["lost"], after["gaps"]) == (0, [])
        still = relay.camera("Front Door")
        assert (still.worker.pid, still.source_sessions, still.lease.generates) == (untouched.worker.pid, 1, 1)


async def test_a_camera_on_demand_streams_while_it_is_watched() -> None:
    async with running_relay(2, options=(*SMALL, "--unlimited"), sections=EAGER) as relay:
        await relay.until_live("Front Door")
        idle = relay.camera("Driveway")
        assert (idle.state, idle.reason, idle.worker.pid) == ("idle", "on demand, nobody watches", 0)
        status = relay.supervisor.status()
        assert (status.totals.connected, status.totals.failed) == (1, 0)
        assert relay.supervisor.health().degraded == []
        assert (await simulated(relay, "Driveway"))["generates"] == 0

        watching = await view(relay, "Driveway", "Front Door")
        assert {track.camera for track in watching.tracks} >= {idle.id}
        await asyncio.sleep(4.0)
        assert relay.camera("Driveway").state == "live", "it is watched, longer than its idle time"

        left = time.monotonic()
        await relay.supervisor.viewers.close(watching.view)
        await relay.until(lambda: relay.camera("Driveway").state == "idle", 30.0, "it is let go")
        assert time.monotonic() - left > 2.0
        await relay.until(lambda: relay.camera("Driveway").worker.pid == 0, 30.0, "its worker has ended")
        async with asyncio.timeout(30.0):
            while (await simulated(relay, "Driveway"))["stops"] != 1:
                await asyncio.sleep(0.1)
        assert (await simulated(relay, "Driveway"))["streams"] == []

        again = await view(relay, "Driveway")
        assert again.tracks
        assert (await simulated(relay, "Driveway"))["generates"] == 2
        (other,) = await relay.published("Front Door")
        assert (other["lost"], other["gaps"]) == (0, [])
        assert relay.camera("Front Door").lease.generates == 1


async def test_who_comes_back_in_time_gets_the_stream_that_was_being_let_go() -> None:
    """Viewers that leave and return at any moment never leave a camera without a worker."""
    eager = EAGER | {"cameras": {"Front Door": {"mode": "on_demand", "idle_after": 1.0}}}
    async with running_relay(1, options=(*SMALL, "--unlimited"), sections=eager) as relay:
        await relay.until(lambda: bool(relay.supervisor.status().cameras), 20.0, "the camera is discovered")
        for pause in (0.0, 1.2, 1.5):
            watching = await view(relay, "Front Door")
            await relay.supervisor.viewers.close(watching.view)
            await asyncio.sleep(pause)
        await view(relay, "Front Door")
        await relay.until_live()


@contextlib.asynccontextmanager
async def started(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def test_a_grant_that_was_revoked_is_mended_by_a_reload() -> None:
    async with demo_world(1, "320x180", SMALL) as world, httpx.AsyncClient() as http:
        good = world.config()
        revoked = [msgspec.structs.replace(good.nest[0], refresh_token=Secret("revoked"))]
        bad = msgspec.structs.replace(good, nest=revoked)
        async with started(Supervisor(bad, reread=lambda: good)) as supervisor:
            relay = RunningRelay(supervisor, world, http)

            def error() -> str:
                return supervisor.status().budgets[0].auth_error

            await relay.until(lambda: bool(error()), 20.0, "the refusal is told")
            assert "partnerconnections" in error(), "with the link that mends it"
            assert not supervisor.health().ready
            report = await supervisor.verbs.reload()
            assert report.applied == ["nest.refresh_token"]
            await relay.until_live(within=60.0)
            assert error() == ""
            assert supervisor.health().ready


async def test_two_accounts_have_their_own_cameras_and_budgets(tmp_path: Path) -> None:
    """One user's quota is used up by other programs; the other user's camera starts at once."""
    async with (
        demo_world(1, "320x180", SMALL) as world,
        demo_world(1, "320x180", (*SMALL, "--seed", "7")) as other,
        httpx.AsyncClient() as http,
    ):
        document = world.document()
        document["nest"] = [document["nest"], other.endpoints["nest"]]
        authorities = tmp_path / "ca.pem"
        files = [Path(one.endpoints["rtsp"]["ca_file"]) for one in (world, other)]
        authorities.write_bytes(b"".join(file.read_bytes() for file in files))
        document["rtsp"] = {"ca_file": str(authorities)}
        elsewhere = RunningRelay(None, other, http)  # type: ignore[arg-type]
        await elsewhere.nest("cameras/*/fail_commands", {"status": 429, "count": 100})
        async with started(Supervisor(config_file.parse(document, source="two accounts"))) as supervisor:
            relay = RunningRelay(supervisor, world, http)
            # First: a minute that the first camera may take half of, where the machine is busy.
            await relay.until(lambda: supervisor.status().budgets[1].hold > 50.0, 30.0, "Google refuses the second's")
            await relay.until(lambda: supervisor.status().totals.connected == 1, 40.0, "the first account's camera")
            assert len(supervisor.status().cameras) == 2, "both accounts' cameras"
            first, second = supervisor.status().budgets
            assert (first.hold, first.failed) == (0.0, 0)
            assert (first.executed, second.failed) == (2, 1), "list and generate; one refusal"
            assert second.account == f"{first.account}#2", "two users of one project"
