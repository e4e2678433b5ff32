"""The bus with real sockets and peers that lie: who is heard, who is answered, what is refused and said."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from relay_common import protocol
from relay_common.proc import ref_of
from relay_common.protocol import FromSupervisor, Hello
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.keyring import KEY_FILE
from relay_supervisor.socket_file import SocketFile
from relay_worker.process.control import Control
from relay_worker.process.worker import Worker
from tests.unit.fleet.bus_rig import Rig, spec_of

ME = os.getpid()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.bus.start()
    yield made
    await made.close()


async def test_a_worker_with_its_keys_is_heard_and_answered(rig: Rig) -> None:
    peer = rig.peer(rig.bus.keyring.issue("c.1", "c"))
    assert not rig.bus.send("c.1", protocol.Identify()), "it has not spoken yet"
    await rig.until(lambda: rig.heard_from("c.1"), peer.say_hello)
    await rig.until(lambda: rig.reports, peer.report)
    assert rig.heard_from("c.1") == {"Hello"}
    assert set(rig.reports) == {"c.1"}
    assert rig.bus.send("c.1", protocol.Welcome())
    heard: list[FromSupervisor] = []
    await rig.until(lambda: protocol.Welcome() in heard, lambda: heard.extend(peer.heard()))
    assert rig.refused() == {}


async def test_a_report_in_a_heartbeat_is_read_like_one_that_is_published(rig: Rig) -> None:
    peer = rig.peer(rig.bus.keyring.issue("c.1", "c"))
    await rig.until(lambda: rig.reports, peer.beat_with_report)
    assert set(rig.reports) == {"c.1"}
    assert rig.heard_from("c.1") == {"Heartbeat"}
    assert rig.refused() == {}


async def test_a_report_in_anothers_name_is_refused_in_a_heartbeat_too(rig: Rig) -> None:
    rig.bus.keyring.issue("d.1", "d")
    liar = rig.peer(rig.bus.keyring.issue("c.1", "c"), instance="d.1", camera="d")
    await rig.until(lambda: rig.refused().get("anothers_name", 0) > 1, liar.beat_with_report)
    assert rig.reports == []


async def test_what_is_no_report_is_counted_and_the_heartbeat_heard(rig: Rig) -> None:
    peer = rig.peer(rig.bus.keyring.issue("c.1", "c"))
    beat = protocol.Heartbeat(state=protocol.WorkerState.LIVE, report=b"\x81\xa1x")
    await rig.until(lambda: rig.bus.refused > 1, lambda: peer.say(beat))
    assert rig.heard_from("c.1") == {"Heartbeat"}
    assert rig.reports == []


async def test_a_connection_without_a_key_is_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Who finds the mismatch of mechanisms first hangs up: the bus or its peer."""
    caplog.set_level(logging.INFO)
    rig.bus.keyring.issue("c.1", "c")
    for _ in range(5):
        peer, before = rig.peer(routing_id="c.1"), sum(rig.refused().values())
        await rig.until(lambda before=before: sum(rig.refused().values()) > before, peer.say_hello)
        assert not peer.say_hello(), "no connection was accepted"
    assert rig.heard == []
    assert rig.reports == []
    kinds = rig.refused().keys()
    assert kinds <= {"no_key", "unproven"}
    assert caplog.text.count("the bus refused a connection that ") == len(kinds)


async def test_a_key_that_no_living_worker_has_is_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    mine = rig.bus.keyring.issue("c.1", "c")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    peer = rig.peer(routing_id="c.1", supervisor=mine.supervisor, public=public, secret=secret)
    await rig.until(lambda: rig.refused().get("stranger", 0) == 2, peer.say_hello)  # control and statistics
    assert not peer.say_hello()
    assert rig.heard == []
    assert caplog.text.count(f"a connection whose key no living worker has (pid {ME})") == 1


async def test_who_takes_another_supervisor_for_this_one_is_refused(rig: Rig) -> None:
    keys = rig.bus.keyring.issue("c.1", "c")
    peer = rig.peer(keys, supervisor=keys.public)
    await rig.until(lambda: rig.refused().get("bad_handshake"), peer.say_hello)
    assert rig.heard == []


LIES: list[dict[str, Any]] = [{"instance": "c.1"}, {"instance": "d.1", "camera": "c"}, {"pid": os.getppid()}]


@pytest.mark.parametrize("lie", LIES, ids=["the instance", "the camera", "the process"])
async def test_a_hello_in_anothers_name_is_refused(rig: Rig, lie: dict[str, Any]) -> None:
    rig.bus.keyring.issue("c.1", "c")
    liar = rig.peer(rig.bus.keyring.issue("d.1", "d"), **{"instance": "d.1", "camera": "d"} | lie)
    await rig.until(lambda: rig.refused().get("anothers_name"), liar.say_hello)
    assert rig.heard == []
    liar.beat()
    await rig.until(lambda: rig.heard)
    assert rig.heard == [("d.1", "Heartbeat")], "what it says of itself counts"


async def test_statistics_in_anothers_name_are_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.bus.keyring.issue("c.1", "c")
    liar = rig.peer(rig.bus.keyring.issue("d.1", "d"), instance="c.1", camera="c")
    await rig.until(lambda: rig.refused().get("anothers_name", 0) > 1, liar.report)
    assert rig.reports == []
    assert caplog.text.count("the bus refused a message in another worker's name (from d.1)") == 1


async def test_a_routing_id_that_is_anothers_name_is_refused(rig: Rig) -> None:
    rig.bus.keyring.issue("c.1", "c")
    liar = rig.peer(rig.bus.keyring.issue("d.1", "d"), routing_id="c.1", instance="d.1", camera="d")
    await rig.until(lambda: rig.refused().get("anothers_name"), liar.say_hello)
    assert rig.heard == []
    assert not rig.bus.send("c.1", protocol.Identify())
    assert not rig.bus.send("d.1", protocol.Identify())


async def test_a_stolen_address_gets_nothing_once_the_thief_has_spoken(rig: Rig) -> None:
    worker = rig.peer(rig.bus.keyring.issue("c.1", "c"), routing_id="secret")
    await rig.until(lambda: rig.heard_from("c.1"), worker.say_hello)
    thief = rig.peer(rig.bus.keyring.issue("d.1", "d"), routing_id="secret", instance="d.1", camera="d")
    await rig.until(lambda: rig.refused().get("anothers_name"), thief.beat)
    assert rig.heard_from("d.1") == set()
    assert not rig.bus.send("c.1", protocol.Identify())
    assert thief.heard() == []


async def test_a_worker_that_has_ended_is_not_heard_on_an_open_connection(rig: Rig) -> None:
    keys = rig.bus.keyring.issue("c.1", "c")
    peer = rig.peer(keys)
    await rig.until(lambda: rig.heard, peer.beat)
    await rig.until(lambda: rig.reports, peer.report)
    rig.bus.keyring.remove("c.1")
    rig.heard.clear()
    rig.reports.clear()
    for say in (peer.beat, peer.report):
        before = rig.refused().get("ended", 0)
        await rig.until(lambda before=before: rig.refused().get("ended", 0) > before + 1, say)
    assert rig.heard == []
    assert rig.reports == []
    assert not rig.bus.send("c.1", protocol.Identify())
    again = rig.peer(keys)
    await rig.until(lambda: rig.refused().get("stranger"), again.beat)


async def test_without_workers_of_an_earlier_release_there_is_no_socket_without_keys(rig: Rig) -> None:
    assert sorted(file.name for file in rig.directory.glob("*.sock")) == ["bus-stats.sock", "bus.sock"]


SPEAK = """
import sys, time
from tests.fixtures.bus_peer import Attempt, tell
control, stats, name = sys.argv[1:]
tell(Attempt(control, stats, routing_id=name, instance=name, seconds=60.0))
"""


def speaking(bus: Bus) -> subprocess.Popen[bytes]:
    """Another process that speaks on the sockets for workers without keys."""
    return subprocess.Popen([sys.executable, "-c", SPEAK, *bus.unkeyed.endpoints, "c.1"])


async def test_a_worker_of_an_earlier_release_is_known_by_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path)
    spoken = [speaking(rig.bus), speaking(rig.bus)]
    try:
        pid = spoken[0].pid
        rig.bus.keyring.admit_process("c.1", "c", ref_of(pid))
        await rig.bus.start()
        await rig.until(lambda: rig.heard_from("c.1") == {"Hello", "Heartbeat"} and rig.reports)
        # Control and statistics; more where libzmq finds the connection closed before it has read the refusal, and
        # connects again (2 to 7 were seen). With keys there are always two.
        await rig.until(lambda: rig.refused().get("unknown_process", 0) >= 2)
        (refusal,) = [record.getMessage() for record in caplog.records if "no worker of an" in record.getMessage()]
        assert refusal.endswith(f"an earlier release (pid {spoken[1].pid})"), "nobody else's"
        assert rig.refused().keys() == {"unknown_process"}
        assert rig.bus.send("c.1", protocol.Identify())
        rig.bus.keyring.admit_process("d.1", "d", ref_of(ME))  # a worker, too, but not that one
        liar = rig.peer(ends=rig.bus.unkeyed, routing_id="c.1", instance="d.1", camera="d")
        await rig.until(lambda: rig.refused().get("anothers_name"), liar.beat)
        assert rig.heard_from("d.1") == set()
    finally:
        for process in spoken:
            process.kill()
            process.wait()
        await rig.close()


@pytest.mark.parametrize("admitted", [True, False])
async def test_a_worker_waits_for_its_connection(rig: Rig, admitted: bool) -> None:
    keys, ends = rig.bus.keyring.issue("c.1", "c"), rig.bus.keyed
    if not admitted:
        rig.bus.keyring.remove("c.1")
    worker = Control(spec_of(keys, *ends.endpoints), lambda message: None)
    try:
        assert not worker.send(protocol.Goodbye(reason="")), "the handshake needs this loop"
        async with asyncio.timeout(30.0):
            await worker.until_connected(60.0 if admitted else 0.3)
        assert worker.send(protocol.Goodbye(reason="")) is admitted
    finally:
        await worker.close()


async def test_a_worker_that_finds_no_supervisor_tries_twice_a_second(rig: Rig) -> None:
    """However long it is gone: who starts again waits for all workers' hellos."""
    keys, ends = rig.bus.keyring.issue("c.1", "c"), rig.bus.keyed
    worker = Control(spec_of(keys, *ends.endpoints), lambda message: None)
    try:
        for socket in (worker._control, worker._stats):
            assert 0 < socket.getsockopt(zmq.RECONNECT_IVL) <= socket.getsockopt(zmq.RECONNECT_IVL_MAX) <= 500
    finally:
        await worker.close()


async def test_a_worker_says_hello_once_it_is_connected_not_at_its_next_try(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_worker.process.worker.HELLO_AGAIN", 600.0)
    keys, ends = rig.bus.keyring.issue("c.1", "c"), rig.bus.keyed
    running = asyncio.create_task(Worker(spec_of(keys, *ends.endpoints), preloaded=True).run())
    try:
        await rig.until(lambda: "Hello" in rig.heard_from("c.1"))
        rig.bus.send("c.1", protocol.Stop(within=1.0))
        async with asyncio.timeout(30.0):
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_supervisors_key_is_written_again_when_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SocketFile.__init__.__kwdefaults__, "every", 0.05)
    made = Rig(tmp_path)
    await made.bus.start()
    try:
        file = tmp_path / KEY_FILE
        before = file.read_bytes()
        file.unlink()
        await made.until(file.exists)
        assert file.read_bytes() == before
    finally:
        await made.close()


async def test_nothing_said_on_the_bus_shows_a_secret(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = rig.bus.keyring.issue("c.1", "c")
    peer = rig.peer(keys)
    await rig.until(lambda: rig.heard, peer.say_hello)
    for secret in (keys.secret.reveal(), rig.bus.keyring.secret.reveal()):
        assert secret not in caplog.text
        assert secret not in repr(rig.bus.keyring.named("c.1"))


def test_the_hello_of_a_peer_is_a_workers() -> None:
    """The liars above speak the real language."""
    assert {field.name for field in msgspec.structs.fields(Hello) if field.required} == {
        "protocol", "instance", "camera", "pid", "started", "state",
    }  # fmt: skip
