"""A camera's faults affect only that camera, and it recovers by itself."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay

pytestmark = pytest.mark.media

NAMES = ("Front Door", "Driveway", "Back Garden")


async def generates(relay: RunningRelay) -> dict[str, int]:
    return {name: relay.camera(name).lease.generates for name in NAMES}


async def test_a_killed_worker_costs_the_others_nothing_and_its_camera_no_command() -> None:
    async with running_relay(3) as relay:
        await relay.until_live()
        await asyncio.sleep(1.0)
        victim, *others = NAMES
        before = {name: (await relay.published(name))[-1] for name in NAMES}
        commands = relay.supervisor.status().budgets[0].executed
        os.kill(relay.camera(victim).worker.pid, signal.SIGKILL)
        await relay.until(lambda: relay.camera(victim).state != "live", 30.0, "the death is noticed")
        await relay.until_live(victim)  # how soon: tests/chaos, which have the machine to themselves

        for name in others:
            async with asyncio.timeout(30.0):
                while (track := (await relay.published(name))[0])["packets"] <= before[name]["packets"] + 30:
                    await asyncio.sleep(0.1)
            assert len(await relay.published(name)) == 1
            assert track["lost"] == 0, f"{name} lost packets"
            assert track["gaps"] == []
            assert relay.camera(name).worker.restarts == 0
        assert relay.camera(victim).worker.restarts == 1
        assert relay.camera(victim).worker.last_exit == "killed by SIGKILL while live"
        assert (await generates(relay)) == dict.fromkeys(NAMES, 1)
        assert relay.supervisor.status().budgets[0].executed == commands


async def test_a_hung_worker_is_noticed_and_replaced() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        first = relay.camera("Front Door").worker.pid
        os.kill(first, signal.SIGSTOP)
        await relay.until(lambda: relay.camera("Front Door").worker.restarts == 1, 30.0, "the hung worker is replaced")
        await relay.until_live()
        camera = relay.camera("Front Door")
        assert camera.worker.pid != first
        assert camera.worker.last_exit == "hung while live, killed by SIGKILL"
        assert camera.lease.generates == 1


async def test_extension_keeps_every_session_up_past_expiry_and_a_failed_one_recovers() -> None:
    """Leases of 8 s: all are extended several times; one camera's extensions fail until its stream is cut."""
    options = (*SMALL, "--lease", "8", "--unlimited")
    async with running_relay(3, options=options, sections=UNLIMITED) as relay:
        await relay.until_live()
        unlucky, *lucky = NAMES
        sessions = {name: relay.camera(name).source_sessions for name in NAMES}
        body = {"command": "ExtendRtspStream", "status": 500, "count": 20, "grpc_status": "INTERNAL"}
        await relay.nest(f"cameras/{unlucky}/fail_commands", body)
        await relay.until(lambda: relay.camera(unlucky).lease.generates >= 2, 60.0, "a new stream is generated")
        await relay.nest(f"cameras/{unlucky}/fail_commands", body | {"count": 0})
        await asyncio.sleep(10.0)
        await relay.until_live()
        await relay.until(
            lambda: all(relay.camera(name).lease.extends >= 3 for name in lucky), 30.0, "three extensions"
        )

        report = (await relay.nest("cameras"))["cameras"]
        for name in lucky:
            camera = relay.camera(name)
            assert camera.lease.generates == 1
            assert camera.source_sessions == sessions[name], f"{name}'s RTSP session did not stay up"
            assert camera.video.lost_in == 0
            (track,) = await relay.published(name)
            assert track["lost"] == 0
        assert relay.camera(unlucky).source_sessions > sessions[unlucky]
        assert report is not None


async def test_a_lost_rtsp_connection_is_rebuilt_without_a_command() -> None:
    async with running_relay(2) as relay:
        await relay.until_live()
        before = relay.camera("Front Door").source_sessions
        await relay.nest("cameras/Front Door/fault", {"kind": "reset"})
        await relay.until(lambda: relay.camera("Front Door").source_sessions > before, 30.0, "a new RTSP session")
        await relay.until_live()
        assert relay.camera("Front Door").lease.generates == 1
        assert len(await relay.published("Front Door")) == 1, "the publication survived"
        (other,) = await relay.published("Driveway")
        assert other["lost"] == 0


async def test_a_lost_sfu_session_is_replaced_while_the_camera_plays_on() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        first = relay.camera("Front Door").publication
        session = next(s for s in (await relay.sfu("sessions"))["sessions"] if s["published"])
        await relay.sfu(f"sessions/{session['session']}", {"end": True})
        await relay.until(
            lambda: relay.camera("Front Door").publication not in ("", first), 60.0, "another publication"
        )
        await relay.until_live()
        camera = relay.camera("Front Door")
        assert camera.lease.generates == 1
        assert camera.source_sessions == 1
