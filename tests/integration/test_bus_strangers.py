"""Another process of the relay's own user on the bus: it speaks for no worker, and is given no camera's stream."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import msgspec
import pytest
import zmq

from relay_common.config_cluster import bus_endpoints
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from relay_supervisor.status.model import CameraStatus
from tests.fixtures.bus_peer import Attempt
from tests.fixtures.running_relay import SMALL, RunningRelay, running_relay
from tests.fixtures.tcp_workers import TcpLauncher, over_tcp

pytestmark = pytest.mark.media


async def tried(*attempts: Attempt) -> list[list[dict[str, Any]]]:
    """Have another process try; what it was sent at each attempt."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fixtures.bus_peer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(msgspec.json.encode(attempts)), 60.0)
    assert process.returncode == 0
    heard: list[list[dict[str, Any]]] = msgspec.json.decode(out)
    return heard


def in_the_name_of(relay: RunningRelay, camera: CameraStatus) -> Attempt:
    """What a stranger can find out, and says: a camera's worker, its process and its name on the bus."""
    listen = relay.supervisor.config.cluster.bus_listen
    directory = relay.supervisor.config.paths.runtime()
    return Attempt(
        *(bus_endpoints(listen) or (f"ipc://{directory}/bus.sock", f"ipc://{directory}/bus-stats.sock")),
        routing_id=camera.worker.instance,
        instance=camera.worker.instance,
        camera=camera.id,
        pid=camera.worker.pid,
    )


def key_of(relay: RunningRelay, camera: CameraStatus) -> dict[str, str]:
    """A valid key, made as for a worker of that camera: as if that worker had been taken over."""
    keys = relay.supervisor.fleet.keyring.issue(f"{camera.id}.taken", camera.id)
    return {"public": keys.public, "secret": keys.secret.reveal(), "supervisor": keys.supervisor}


def refused(relay: RunningRelay, *kinds: str) -> int:
    """How many refusals of these kinds the status shows."""
    counters = relay.supervisor.status().counters
    return sum(counters.get(f"bus.refused_{kind}", 0) for kind in kinds)


async def until_refused(relay: RunningRelay, least: int, *kinds: str) -> int:
    """Wait for refusals of these kinds, which the supervisor may come to count after the peer has left."""
    await relay.until(lambda: refused(relay, *kinds) >= least, 30.0, f"{least} refusals: {' or '.join(kinds)}")
    return refused(relay, *kinds)


PLACES = {"on this machine": ForkServerLauncher, "over TCP": TcpLauncher}


@pytest.mark.parametrize("place", PLACES)
async def test_a_stranger_speaks_for_no_worker_and_reads_no_stream_url(
    caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level("INFO", "relay_supervisor.fleet")
    launcher, sections = PLACES[place], over_tcp() if place == "over TCP" else {}
    async with running_relay(2, options=(*SMALL, "--unlimited"), launcher=launcher, sections=sections) as relay:
        await relay.until_live(within=60.0)
        victim, other = relay.camera("Front Door"), relay.camera("Driveway")
        keyring: Keyring = relay.supervisor.fleet.keyring
        disguised = in_the_name_of(relay, victim)

        assert await tried(disguised) == [[]], "without a key"
        await until_refused(relay, 1, "no_key", "unproven")

        public, secret = (key.decode() for key in zmq.curve_keypair())
        mine = {"public": public, "secret": secret, "supervisor": key_of(relay, victim)["supervisor"]}
        assert await tried(msgspec.structs.replace(disguised, **mine)) == [[]], "with a key of its own"
        await until_refused(relay, 1, "stranger")

        earlier = str(relay.supervisor.config.paths.runtime())
        without_keys = {"control": f"ipc://{earlier}/control.sock", "stats": f"ipc://{earlier}/stats.sock"}
        assert await tried(msgspec.structs.replace(disguised, **without_keys)) == [[]], "nobody listens there"

        taken = key_of(relay, other)
        assert await tried(msgspec.structs.replace(disguised, **taken)) == [[]], "with another worker's key"
        by_name = await until_refused(relay, 3, "anothers_name")  # greetings, beats and statistics
        (heard,) = await tried(msgspec.structs.replace(disguised, routing_id="", **taken))
        assert {message["t"] for message in heard} <= {"identify"}, "with that key, and without a name of its own"
        await until_refused(relay, by_name + 1, "anothers_name")

        member = keyring.named(victim.worker.instance)
        assert member is not None
        assert member.address != victim.worker.instance.encode(), "its address says nothing and is not its name"

        for kind in ("that offered no key", "that ended before", "whose key no living worker has"):
            assert sum(kind in record.getMessage() for record in caplog.records) <= 2, "each is said once a peer"
        said = [record.getMessage() for record in caplog.records if "bus refused" in record.getMessage()]
        assert any("a connection that" in text for text in said)
        whence = "(127.0.0.1)" if place == "over TCP" else "(pid "
        assert any(f"a connection whose key no living worker has {whence}" in text for text in said)
        kinds = ("stranger", "anothers_name")
        before = {kind: refused(relay, kind) for kind in kinds}
        metrics = (await relay.http.get(f"{relay.supervisor.url}/metrics")).text
        for kind in kinds:
            (value,) = re.findall(rf'^relay_bus_refused_total{{kind="{kind}"}} (.*)$', metrics, re.MULTILINE)
            assert before[kind] <= float(value) <= refused(relay, kind), "what the peer said last may come meanwhile"
        assert f"the bus refused a message in another worker's name (from {other.id}.taken)" in said

        still = relay.camera("Front Door")
        assert (still.state, still.worker.pid, still.worker.restarts) == ("live", victim.worker.pid, 0)
        slot = relay.supervisor.fleet.slot(victim.id)
        assert slot is not None
        assert slot.stats is not None
        assert slot.stats.sequence < 1_000_000, "no statistics of the stranger"
        assert still.lease.generates == 1
        for name in ("Front Door", "Driveway"):
            (track,) = await relay.published(name)
            assert (track["lost"], track["gaps"]) == (0, [])
