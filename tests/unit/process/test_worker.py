"""What a worker says to its supervisor when something fails, and when it ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from relay_common import protocol, wire
from relay_common.clock import ManualClock
from relay_common.errors import Remedy
from relay_common.ingest_messages import IngestOfferFailed, MakeOffer
from relay_common.local_messages import LocalOffer, SetLocal
from relay_common.protocol import FromWorker, Protocol, Stage, WorkerState
from relay_common.secrets import Secret
from relay_common.worker_stats import WorkerStats
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.ingest_keeper import _Session
from relay_worker.camera.webrtc_source import IngestSettings, WebRtcSource
from relay_worker.pipeline import Pipeline
from relay_worker.process.sandbox import Sandbox
from relay_worker.process.spec import WorkerSpec
from relay_worker.process.worker import Worker
from tests.fixtures.raw_viewer import plain_offer


class Rig:
    """A worker whose words are kept and reach nobody."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = WorkerSpec(
            camera="c",
            name="Porch",
            instance="c.1",
            control=f"ipc://{directory}/control.sock",
            stats=f"ipc://{directory}/stats.sock",
            orphan_grace=60.0,
        )
        self.worker, self.said = Worker(spec, preloaded=True), list[FromWorker]()
        monkeypatch.setattr(self.worker._control, "send", self.said.append)

    async def answered(self) -> FromWorker:
        async with asyncio.timeout(20.0):
            while not self.said:
                await asyncio.sleep(0.01)
        (message,) = self.said
        return message


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, monkeypatch)
    yield made
    await made.worker._control.close()


async def fail(*given: object) -> bytes:
    raise ValueError("a fault of ours, with a secret in it")


async def test_an_offer_that_fails_in_an_unforeseen_way_is_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.worker._relay, "make_offer", fail)
    rig.worker._handle(MakeOffer(request=7))
    assert await rig.answered() == IngestOfferFailed(request=7, reason="internal error; see the log")


async def test_a_picture_that_fails_in_an_unforeseen_way_is_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.worker._relay, "snapshot", fail)
    rig.worker._handle(protocol.TakeSnapshot(request=8))
    assert await rig.answered() == protocol.FilePart(request=8, last=True, error="internal error; see the log")


@pytest.mark.parametrize(("told", "contested"), [(0.0, False), (4.5, True), (-1.5, True)])
async def test_a_stream_is_contested_also_when_the_time_for_that_is_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, told: float, contested: bool
) -> None:
    given = list[GrantedStream]()
    monkeypatch.setattr(rig.worker._relay, "play", given.append)
    now = rig.worker._clock.now()
    rig.worker._handle(protocol.Play(generation=1, protocol=Protocol.RTSP, url="x", expires_at=1.0, contested=told))
    assert given[0].contested is contested
    assert given[0].contested_until - now == pytest.approx(told, abs=1.0)


def report(state: WorkerState, reason: str = "", publication: str = "") -> WorkerStats:
    return WorkerStats(
        instance="", camera="", sequence=0, at=0.0, uptime=0.0, state=state, reason=reason, publication=publication
    )


async def test_every_other_beat_of_a_camera_that_is_live_has_a_report(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every one until then, and as long as something is wrong."""
    worker: Any = rig.worker
    live, connecting = WorkerState.LIVE, WorkerState.CONNECTING
    told = [
        *(report(connecting), report(connecting), report(live), report(live), report(live, "no sound"), report(live)),
        *(report(live, publication="p"), report(live, publication="p"), report(connecting)),
    ]
    states = iter([connecting, connecting, live, live, live, live, live, live, live, live, live, live, connecting])
    relay = SimpleNamespace(publication="")
    monkeypatch.setattr(worker, "_relay", relay)
    carried = []
    for number, state in enumerate(states):
        if number == 9:
            relay.publication = "p"
        carried.append(worker._has_to_report(state))
        if carried[-1]:
            worker._reported = told.pop(0)
    assert carried == [True, True, True, False, True, False, True, True, False, True, False, True, True]
    assert not told


def seconds(begin: float, end: float) -> Iterator[float]:
    while begin < end:
        yield begin
        begin += 1.0


async def test_a_worker_is_an_orphan_after_its_grace_without_supervisor_and_lease(rig: Rig) -> None:
    worker = rig.worker
    assert not any(worker._orphaned(now) for now in seconds(100.0, 160.5))
    assert worker._orphaned(161.5)
    worker._control.connected = True
    assert not worker._orphaned(162.5)
    worker._control.connected = False
    assert not any(worker._orphaned(now) for now in seconds(163.5, 223.0)), "the grace begins anew"
    assert any(worker._orphaned(now) for now in seconds(223.5, 226.0))


async def test_time_in_which_it_stood_still_makes_no_orphan(rig: Rig) -> None:
    """Its supervisor may have stood still with it."""
    assert not any(rig.worker._orphaned(now) for now in seconds(100.0, 130.5))
    assert not any(rig.worker._orphaned(now) for now in seconds(1000.0, 1029.0))
    assert any(rig.worker._orphaned(now) for now in seconds(1029.0, 1035.0))


async def test_a_worker_that_is_left_alone_keeps_what_it_has_and_ends_with_its_lease(rig: Rig) -> None:
    """Its supervisor may have given the camera to another one; a connection alone does not say that it has not."""
    worker, relay = rig.worker, rig.worker._relay
    worker._control.connected = True
    stream = GrantedStream(1, Protocol.RTSP, Secret(""), worker._clock.wall() + 100.0)
    relay.source.stream = stream
    worker._left_alone()
    assert not relay.source._allowed.is_set()
    assert not relay.publications._allowed.is_set()
    assert not any(worker._orphaned(now) for now in seconds(100.0, 300.0)), "its lease lasts"
    stream.expires_at = worker._clock.wall() - 1.0
    assert worker._orphaned(300.0)
    worker._handle(protocol.Welcome())
    assert relay.source._allowed.is_set()
    assert relay.publications._allowed.is_set()
    assert not worker._orphaned(301.0)
    worker._left_alone()
    relay.source.stream = None
    assert not any(worker._orphaned(now) for now in seconds(302.0, 362.5)), "without a stream, after its grace"
    assert worker._orphaned(363.5)


@pytest.mark.parametrize(("until", "put_off"), [(102.0, 0.0), (115.0, 13.0), (129.0, 27.0), (140.0, 0.0)])
async def test_time_in_which_it_stood_still_is_silence_of_nobody_unless_all_gave_up_meanwhile(
    rig: Rig, wire: Any, until: float, put_off: float
) -> None:
    source, ingest = rig.worker._relay.source, WebRtcSource(Pipeline(), ManualClock(), IngestSettings(loopback=True))
    stream = GrantedStream(1, Protocol.WEB_RTC, Secret(""), 0.0, answer=Secret(""), offer=1)
    source.ingests._shown = _Session(stream, ingest)
    local = rig.worker._relay.local
    local.handle(SetLocal(listen=["127.0.0.1"]))
    local.handle(LocalOffer(request=1, viewer="viewer", offer=plain_offer()))
    (viewer,) = local._viewers.values()
    viewer._begin(wire.protector, wire.path, [], "name")
    assert viewer._sender is not None
    viewer._made_at = viewer.agent.heard_at = 100.0
    source._began = ingest._alive_at = viewer._sender.owed_since = 100.0
    assert not rig.worker._orphaned(100.0)
    assert not rig.worker._orphaned(101.0)
    assert not rig.worker._resumed(101.0)
    assert not rig.worker._orphaned(until)
    assert rig.worker._resumed(until) == (until > 102.0)
    assert source._last_video() == ingest._alive_at == 100.0 + put_off
    away = until - 102.0
    assert viewer._sender.owed_since == viewer._made_at == viewer.agent.heard_at == 100.0 + away, "however long it was"
    local.close()
    source.ingests._shown = None
    await ingest.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_worker_that_cannot_read_a_replaced_file_makes_room_for_one_that_can(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    """Without a supervisor nobody would start another: it stays."""
    monkeypatch.setattr(Sandbox, "outdated", lambda self, stage: "ca.pem has changed" if stage is Stage.TLS else "")
    rig.worker._control.connected = connected
    rig.worker.source_failed(1, Stage.CONNECT, Remedy.RETRY, "refused")
    rig.worker.source_failed(1, Stage.TLS, Remedy.REGENERATE, "not trusted")
    told = [message.stage for message in rig.said if isinstance(message, protocol.SourceFailed)]
    assert told == ([Stage.CONNECT] if connected else [Stage.CONNECT, Stage.TLS])
    assert rig.worker._stop.is_set() == connected
    assert rig.worker._farewell == ("ca.pem has changed" if connected else "")


async def test_reports_go_with_heartbeats_to_whom_reads_them_there_and_are_published_to_an_earlier_supervisor(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, published = rig.worker._control, list[bytes]()
    monkeypatch.setattr(rig.worker._relay.publications, "hurry", lambda: None)

    monkeypatch.setattr(control._stats, "send", lambda data, flags: published.append(data))

    def beat() -> tuple[Any, int]:
        del rig.said[:], published[:]
        control.beat(protocol.WorkerState.LIVE, 0.25, rig.worker._report(100.0))
        (said,) = rig.said
        return said, len(published)

    assert beat() == (protocol.Heartbeat(state=protocol.WorkerState.LIVE, lag=0.25), 1), "nobody has said anything"
    rig.worker._handle(protocol.Welcome(reports=True))
    said, count = beat()
    assert count == 0
    report = wire.stats_reader().decode(said.report)
    assert report is not None
    assert (report.instance, report.camera, report.sequence) == ("c.1", "c", 2)
    assert (said.state, said.lag) == (protocol.WorkerState.LIVE, 0.25)
    rig.worker._handle(protocol.Welcome())
    assert beat() == (protocol.Heartbeat(state=protocol.WorkerState.LIVE, lag=0.25), 1), "an earlier one follows"
    control.beat(protocol.WorkerState.LIVE, 0.0, None)
    assert rig.said[-1] == protocol.Heartbeat(state=protocol.WorkerState.LIVE)
    assert len(published) == 1, "after a pause there is nothing to report"


def test_an_earlier_supervisor_says_nothing_of_reports() -> None:
    assert wire.worker_reader().decode(msgspec.msgpack.encode({"t": "welcome", "protocol": 1})) == protocol.Welcome()
