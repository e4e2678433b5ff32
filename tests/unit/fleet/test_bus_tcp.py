"""The bus over TCP: whoever may speak there has a living worker's key, and a peer that is gone is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from relay_common import protocol
from relay_common.beat_messages import SupervisorBeat
from relay_common.errors import ConfigError
from relay_common.proc import ref_of
from relay_common.protocol import WorkerState
from relay_common.tcp_bus import GONE
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.bus_sockets import BusSockets
from relay_worker.process.control import Control
from relay_worker.process.worker import Worker
from tests.fixtures.ports import free_ports
from tests.fixtures.stalling_line import StallingLine
from tests.unit.fleet.bus_rig import Rig, spec_of

NOTICED = GONE + 25.0
"""Seconds to see that a peer is gone, and what a busy machine takes."""


def endpoints(host: str = "127.0.0.1") -> tuple[str, str]:
    first, second = free_ports(2)
    return f"tcp://{host}:{first}", f"tcp://{host}:{second}"


def ends(rig: Rig) -> BusSockets:
    return rig.bus.ends(remote=True)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, endpoints())
    await made.bus.start()
    yield made
    await made.close()


async def test_workers_of_both_kinds_are_heard_and_answered(rig: Rig) -> None:
    near = rig.peer(rig.bus.keyring.issue("c.1", "c"))
    far = rig.peer(rig.bus.keyring.issue("d.1", "d"), ends(rig), instance="d.1", camera="d")
    for instance, peer in (("c.1", near), ("d.1", far)):
        await rig.until(lambda name=instance: rig.heard_from(name), peer.say_hello)
        await rig.until(lambda name=instance: name in rig.reports, peer.report)
        assert rig.bus.send(instance, protocol.Welcome())
        await rig.until(lambda peer=peer: protocol.Welcome() in peer.heard())
    assert rig.refused() == {}
    assert rig.bus.reading


@pytest.mark.parametrize(("bound", "host"), [("localhost", "localhost"), ("[::]", "[localhost]")])
async def test_a_name_serves_as_an_address(tmp_path: Path, bound: str, host: str) -> None:
    """It is looked up again for each connection, so that what has the name may move; in brackets as IPv6, or else as
    IPv4.
    """
    listening = endpoints(bound)
    made = Rig(tmp_path, listening)
    await made.bus.start()
    try:
        there = BusSockets("bus", *(one.replace(bound, host) for one in listening))
        far = made.peer(made.bus.keyring.issue("c.1", "c"), there)
        await made.until(lambda: made.heard_from("c.1"), far.say_hello)
        await made.until(lambda: "c.1" in made.reports, far.report)
    finally:
        await made.close()


async def test_a_name_of_another_machine_needs_an_address_to_listen_at(tmp_path: Path) -> None:
    bus = Bus(tmp_path, network=("tcp://relay.invalid:7420", "tcp://relay.invalid:7421"))
    with pytest.raises(ConfigError, match=r"cannot listen on relay\.invalid:7420") as refused:
        await bus.start()
    assert "set cluster.bus_bind" in refused.value.hint
    await bus.stop()


async def test_without_an_address_there_is_no_tcp(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set cluster\.bus_listen"):
        Bus(tmp_path).ends(remote=True)


async def test_a_connection_without_a_key_is_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig.bus.keyring.issue("c.1", "c")
    rig.bus.keyring.admit_process("d.1", "d", ref_of(os.getpid()))  # of an earlier release, on this machine
    for name in ("c.1", "d.1"):
        peer, before = rig.peer(ends=ends(rig), routing_id=name, instance=name), sum(rig.refused().values())
        await rig.until(lambda before=before: sum(rig.refused().values()) > before, peer.say_hello)
        assert not peer.say_hello(), "no connection was accepted"
    assert rig.heard == []
    assert rig.reports == []
    kinds = rig.refused().keys()
    assert kinds <= {"no_key", "unproven"}
    assert caplog.text.count("(over TCP)") == len(kinds), "each is said once"


async def hung_up(rig: Rig, said: bytes) -> None:
    """Connect, say that, and wait until the bus has closed the connection."""
    port = int(ends(rig).control_endpoint.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(30.0):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
    writer.close()


OTHERS = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "zmtp 1": bytes((1, 0)) + bytes(62),
    "zmtp 2": b"\xff" + bytes(8) + b"\x7f\1\5" + bytes(52),
}
"""Versions of ZeroMQ's protocol before 3 know no authentication."""


@pytest.mark.parametrize("said", OTHERS.values(), ids=OTHERS)
async def test_what_speaks_another_language_is_hung_up_on(rig: Rig, said: bytes) -> None:
    await hung_up(rig, said)
    assert rig.heard == []


async def test_who_proves_nothing_keeps_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_common.tcp_bus.HANDSHAKE", 0.2)
    made = Rig(tmp_path, endpoints())
    await made.bus.start()
    try:
        await hung_up(made, b"")
    finally:
        await made.close()


async def test_many_who_may_not_speak_keep_no_worker_out(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Connections that say nothing, and strangers who try again and again."""
    mine = rig.bus.keyring.issue("c.1", "c")
    host, port = "127.0.0.1", int(ends(rig).control_endpoint.rpartition(":")[2])
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(contextlib.closing(socket.create_connection((host, port), timeout=10.0)))
        for _ in range(10):
            public, secret = (key.decode() for key in zmq.curve_keypair())
            rig.peer(mine, ends(rig), public=public, secret=secret)
        await rig.until(lambda: rig.refused().get("stranger", 0) >= 20)
        worker = rig.peer(mine, ends(rig))
        await rig.until(lambda: rig.heard_from("c.1") and rig.reports, lambda: worker.say_hello() and worker.report())
        assert rig.bus.send("c.1", protocol.Identify())
    assert set(rig.heard) == {("c.1", "Hello")}
    assert caplog.text.count("the bus refused") == 1, "they all have one address"


def ended(connection: socket.socket) -> bool:
    """Whether the bus has ended it, after its greeting or before."""
    connection.settimeout(0.2)
    try:
        while connection.recv(100):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def test_who_proves_nothing_is_displaced_by_who_comes_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections have a bound, and a worker that has spoken is none of them, however old it is."""
    monkeypatch.setattr("relay_supervisor.fleet.handshakes.MOST_UNPROVEN", 20)
    worker = rig.peer(rig.bus.keyring.issue("c.1", "c"), ends(rig))
    await rig.until(lambda: rig.heard_from("c.1") and rig.reports, lambda: worker.say_hello() and worker.report())
    port = int(ends(rig).control_endpoint.rpartition(":")[2])
    with contextlib.ExitStack() as held:
        silent = [
            held.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10.0)))
            for _ in range(100)
        ]
        await rig.until(lambda: rig.bus.counters()["crowded_out"] == 80)
        assert sum(map(ended, silent)) == 80, "and their descriptors are free"
        before = len(rig.heard)
        assert worker.say_hello(), "its connection still stands"
        await rig.until(lambda: len(rig.heard) > before)
        late = rig.peer(rig.bus.keyring.issue("d.1", "d"), ends(rig), instance="d.1", camera="d")
        await rig.until(lambda: rig.heard_from("d.1"), late.say_hello)


async def test_a_key_that_no_living_worker_has_is_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    mine = rig.bus.keyring.issue("c.1", "c")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    peer = rig.peer(mine, ends(rig), routing_id="c.1", public=public, secret=secret)
    await rig.until(lambda: rig.refused().get("stranger", 0) >= 2, peer.say_hello)  # control and statistics
    assert not peer.say_hello()
    assert rig.heard == []
    assert caplog.text.count("a connection whose key no living worker has (127.0.0.1)") == 1


async def test_who_takes_another_supervisor_for_this_one_is_refused(rig: Rig) -> None:
    keys = rig.bus.keyring.issue("c.1", "c")
    peer = rig.peer(keys, ends(rig), supervisor=keys.public)
    await rig.until(lambda: rig.refused().get("bad_handshake"), peer.say_hello)
    assert rig.heard == []


async def test_whoever_says_another_name_is_refused_for_each_message(rig: Rig) -> None:
    rig.bus.keyring.issue("c.1", "c")
    keys = rig.bus.keyring.issue("d.1", "d")
    liar = rig.peer(keys, ends(rig))  # says that it is c.1
    for say in (liar.say_hello, liar.report):
        before = rig.refused().get("anothers_name", 0)
        await rig.until(lambda before=before: rig.refused().get("anothers_name", 0) > before, say)
    assert rig.heard == []
    assert rig.reports == []
    await rig.until(lambda: rig.heard, liar.beat)
    assert rig.heard_from("c.1") == set()
    assert rig.heard_from("d.1") == {"Heartbeat"}, "what names nobody counts as from its key"


async def test_the_process_that_a_hello_names_says_nothing_on_another_machine(rig: Rig) -> None:
    peer = rig.peer(rig.bus.keyring.issue("c.1", "c"), ends(rig), pid=1)
    await rig.until(lambda: rig.heard_from("c.1") == {"Hello"}, peer.say_hello)
    local = rig.peer(rig.bus.keyring.issue("d.1", "d"), instance="d.1", camera="d", pid=1)
    await rig.until(lambda: rig.refused().get("anothers_name"), local.say_hello)
    assert rig.heard_from("d.1") == set()


async def test_a_routing_id_hands_no_identity_over(rig: Rig) -> None:
    """ROUTER_HANDOVER gives an address to its latest claimant; whom a message is from is told by its key."""
    worker = rig.peer(rig.bus.keyring.issue("c.1", "c"), ends(rig), routing_id="secret")
    await rig.until(lambda: rig.heard_from("c.1"), worker.say_hello)
    thief = rig.peer(
        rig.bus.keyring.issue("d.1", "d"), ends(rig), routing_id="secret", instance="d.1", camera="d"
    )  # fmt: skip
    rig.heard.clear()
    await rig.until(lambda: rig.refused().get("anothers_name"), thief.beat)
    # On a busy machine another beat has come meanwhile: then the address is the thief's own, and so is what it says.
    assert "Heartbeat" not in rig.heard_from("c.1")
    assert not rig.bus.send("c.1", protocol.Identify())
    assert thief.heard() == []


async def test_answers_go_back_the_way_that_the_last_message_came(rig: Rig) -> None:
    keys = rig.bus.keyring.issue("c.1", "c")
    for way in (rig.bus.keyed, ends(rig), rig.bus.keyed):
        peer = rig.peer(keys, way)
        before = len(rig.heard)
        await rig.until(lambda before=before: len(rig.heard) > before, peer.say_hello)
        assert rig.bus.send("c.1", protocol.Welcome())
        await rig.until(lambda peer=peer: protocol.Welcome() in peer.heard())


async def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        made = Rig(tmp_path, (f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}"))
        try:
            with pytest.raises(ConfigError, match=rf"bus_listen: cannot listen on 127.0.0.1:{port} and .*in use"):
                await made.bus.start()
        finally:
            await made.close()


async def test_ipv6(tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    made = Rig(tmp_path, endpoints("[::1]"))
    await made.bus.start()
    keys = made.bus.keyring.issue("c.1", "c")
    worker = Control(spec_of(keys, *ends(made).endpoints), lambda message: None)
    try:
        await made.hear(worker)
        assert made.bus.send("c.1", protocol.Identify())
    finally:
        await worker.close()
        await made.close()


async def test_a_worker_without_keys_connects_over_tcp_to_nobody() -> None:
    for control, stats in (("tcp://127.0.0.1:1", "ipc:///x"), ("ipc:///x", "tcp://127.0.0.1:1")):
        with pytest.raises(ConfigError, match="without keys"):
            Control(spec_of(None, control, stats), lambda message: None)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers begin a connection anew after a second."""
    monkeypatch.setattr("relay_worker.process.control._CONNECT_AGAIN", 1.0)
    monkeypatch.setattr("relay_worker.process.control._REFUSED_AGAIN", 0.2)


@pytest.mark.usefixtures("soon")
async def test_a_worker_that_was_refused_tries_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """By a supervisor that does not know it, in the place of one that does: libzmq alone would give up."""
    keys = rig.bus.keyring.issue("c.1", "c")
    rig.bus.keyring.remove("c.1")
    worker = Control(spec_of(keys, *ends(rig).endpoints), lambda message: None)
    worker.start()
    try:
        await rig.until(lambda: rig.refused().get("stranger", 0) >= 4)
        rig.bus.keyring.admit("c.1", "c", keys.public)
        await rig.hear(worker)
        stats = WorkerStats(instance="c.1", camera="c", sequence=1, at=0.0, uptime=1.0, state=WorkerState.LIVE)
        await rig.until(lambda: rig.reports, lambda: worker.beat(WorkerState.LIVE, 0.0, stats))
        for endpoint in ends(rig).endpoints:
            assert caplog.text.count(f"what listens at {endpoint} refuses this worker") == 1
    finally:
        await worker.close()


async def test_a_worker_looks_for_another_supervisor_when_the_one_that_it_has_falls_silent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands still keeps its connections, and one that is cut off from the cluster does not know better."""
    monkeypatch.setattr("relay_worker.process.control._LOOK", 0.05)
    monkeypatch.setattr("relay_worker.process.control._SILENT", 10)
    keys, lost, back = rig.bus.keyring.issue("c.1", "c"), list[str](), list[str]()
    spec = spec_of(keys, *ends(rig).endpoints)
    worker = Control(spec, lambda message: None, lambda: back.append("again"), lambda: lost.append("lost"))
    worker.start()
    try:
        await rig.hear(worker)
        await asyncio.sleep(1.0)
        assert (lost, back) == ([], []), "this one does not say that it lives"
        worker.beats = True

        def beat() -> None:
            assert rig.bus.send("c.1", SupervisorBeat())

        beaten = time.monotonic()
        await rig.until(lambda: time.monotonic() > beaten + 1.0, beat)
        assert lost == [], "it is heard"
        for number in (1, 2):
            await rig.until(lambda number=number: len(back) == number)
            assert len(lost) == number
            await rig.hear(worker)
    finally:
        await worker.close()


@pytest.mark.usefixtures("soon")
async def test_a_worker_whose_supervisors_port_another_program_had_finds_the_next_supervisor(tmp_path: Path) -> None:
    made, answered = Rig(tmp_path, endpoints()), list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(await reader.read(10))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    made.bus.keyring.open()
    keys = made.bus.keyring.issue("c.1", "c")
    server = await asyncio.start_server(answer, "127.0.0.1", int(ends(made).control_endpoint.rpartition(":")[2]))
    worker = Control(spec_of(keys, *ends(made).endpoints), lambda message: None)
    worker.start()
    try:
        await made.until(lambda: len(answered) >= 2)
        server.close()
        await server.wait_closed()
        await made.bus.start()
        await made.hear(worker)
    finally:
        await worker.close()
        await made.close()


BUSY = """
import asyncio, sys, time
from pathlib import Path
from tests.unit.fleet.bus_rig import Rig, spec_of

async def main(directory, control, stats):
    rig = Rig(Path(directory), (control, stats))
    await rig.bus.start()
    peer = rig.peer(rig.bus.keyring.issue("c.1", "c"), rig.bus.ends(remote=True))
    await rig.until(lambda: rig.heard and rig.reports, lambda: peer.beat() and peer.report())
    for number in range(1000):
        peer.report(number)
    time.sleep(0.5)  # while nobody reads
    peer.close()
    time.sleep(2.5)
    await rig.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_a_worker_that_goes_while_the_supervisor_is_busy_takes_it_along_no_more(tmp_path: Path) -> None:
    """With heartbeats of its own, libzmq aborts: the connection has ended, and not all that came by it is read."""
    ran = await asyncio.create_subprocess_exec(sys.executable, "-c", BUSY, str(tmp_path), *endpoints())
    assert await asyncio.wait_for(ran.wait(), 60.0) == 0


@pytest.mark.slow
async def test_both_ends_notice_that_the_line_is_cut_and_the_worker_says_hello_when_it_is_back(rig: Rig) -> None:
    """What either sent meanwhile is lost, and the supervisor, which was not away, does not ask."""
    keys = rig.bus.keyring.issue("c.1", "c")
    first, second = (int(endpoint.rpartition(":")[2]) for endpoint in ends(rig).endpoints)
    async with StallingLine(first) as control, StallingLine(second) as stats:
        spec = spec_of(keys, *(f"tcp://127.0.0.1:{line.port}" for line in (control, stats)))
        worker = Worker(spec, preloaded=True)
        running = asyncio.create_task(worker.run())
        try:
            await rig.until(lambda: "Hello" in rig.heard_from("c.1"))
            rig.bus.send("c.1", protocol.Welcome())
            await rig.until(lambda: "Heartbeat" in rig.heard_from("c.1") and rig.reports)
            control.cut()
            stats.cut()
            async with asyncio.timeout(NOTICED):
                while worker._control.connected or rig.bus.send("c.1", protocol.DumpStacks()):
                    await asyncio.sleep(0.1)
            await rig.until(lambda: worker._disowned)
            rig.heard.clear()
            rig.reports.clear()
            control.mend()
            stats.mend()
            await rig.until(lambda: "Hello" in rig.heard_from("c.1") and rig.reports)
            assert worker._disowned, "nobody has welcomed it yet"
            assert rig.bus.send("c.1", protocol.Welcome())
            await rig.until(lambda: not worker._disowned)
            assert rig.bus.send("c.1", protocol.Stop(within=1.0))
            async with asyncio.timeout(30.0):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("remote", [False, True], ids=["here", "over TCP"])
async def test_a_supervisor_that_is_started_again_hears_the_same_worker(tmp_path: Path, remote: bool) -> None:
    rig, back, lost, said = Rig(tmp_path, endpoints()), list[str](), list[str](), list[protocol.FromSupervisor]()
    await rig.bus.start()
    keys = rig.bus.keyring.issue("c.1", "c")

    def again() -> None:
        back.append("again")
        raise ValueError("whatever")

    spec = spec_of(keys, *rig.bus.ends(remote=remote).endpoints)
    worker = Control(spec, said.append, again, lambda: lost.append("lost"))
    worker.start()
    try:
        await rig.hear(worker)
        assert lost == []
        for number in (1, 2):
            followed = number if remote else 0  # a Unix socket's end is not
            await rig.bus.stop()
            await rig.until(lambda followed=followed: len(lost) == followed)
            rig = await rig.next(keys)
            await rig.until(lambda followed=followed: len(back) == followed)
            await rig.hear(worker)
            assert rig.bus.send("c.1", protocol.Identify())
            await rig.until(lambda number=number: len(said) == number)
            assert len(lost) == followed, "attempts to connect in between lose nothing"
    finally:
        await worker.close()
        await rig.bus.stop()
