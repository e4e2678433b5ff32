"""One camera, really relayed and judged at the SFU: delay, wedged stages, a stall, a lost keyframe.

Each test has its own relay and simulators; all are watched at the same time.
"""

from __future__ import annotations

import random
import time

import pytest
import uvloop

from relay_common.clock import SystemClock
from relay_common.protocol import WorkerState
from relay_worker import native
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from tests.benchmarks.delay import match
from tests.fixtures.at_once import AtOnce, Played
from tests.fixtures.media_rig import MediaRig, media_rig

pytestmark = [pytest.mark.serial, pytest.mark.media, pytest.mark.timeout(300)]

CASES = AtOnce(most=3, browser=False, loop_factory=uvloop.new_event_loop)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Played:
    return CASES.play(request)


async def windows(rig: MediaRig, count: int, from_now: int) -> list[tuple[float, float]]:
    """The relay's own p50 and p99 of the next `count` seconds."""
    wanted = from_now + count
    await rig.until(lambda: len(rig.stats) >= wanted, "more reports", within=60.0)
    return [(s.delay_p50, s.delay_p99) for s in rig.stats[from_now:wanted]]


@CASES.case(media_rig)
async def test_the_delay_that_is_reported_is_the_delay_there_is(rig: MediaRig) -> None:
    """The meter counts from packet in to packet out; the camera's and the SFU's own logs must agree with it."""
    began = len(rig.stats) + 2
    await rig.camera("record", {})
    await rig.sfu("record", {})
    even = await windows(rig, 6, began)
    seen = match(
        [entry for entry in (await rig.camera("sent"))["sent"] if entry[1] == "video"],
        [entry for entry in (await rig.sfu("record"))["arrivals"] if entry[1] == video_ssrc(rig)],
    )
    # The limits, in the best second: the machine may be busy in the others.
    assert min(p50 for p50, _ in even) <= 0.002, even
    assert min(p99 for _, p99 in even) <= 0.010, even
    # Measured from outside, it includes the path into the relay.
    assert len(seen.seconds) > 500
    assert seen.quantile(0.5) <= sorted(p50 for p50, _ in even)[3] + 0.010
    # The time for which bursts are held back counts.
    await rig.camera("fault", {"kind": "burst"})
    began = len(rig.stats) + 4
    assert max(p50 for p50, _ in await windows(rig, 3, began)) >= 0.150


def video_ssrc(rig: MediaRig) -> int:
    publisher = rig.relay.keeper.publisher
    assert publisher is not None
    video = publisher._video
    assert video is not None
    return video.ssrc


class Wedged:
    """In the place of what was compiled for a session, an output or a track, which calls none of the methods that are
    stuck.

    Like that it is of no use any more with another output or input, and no other session keeps it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._output, self._audio = pipeline, pipeline.output, pipeline.inputs[Kind.AUDIO]

    def take(self, data: bytes, now: float) -> int:
        return native.NOT_PLAIN if self._pipeline.output is self._output else native.CHANGED

    def hear(self, data: bytes, now: float) -> int:
        return native.NOT_PLAIN if self._pipeline.inputs[Kind.AUDIO] is self._audio else native.CHANGED

    def send(self, payloads: object, media_time: float, step: float, now: float) -> int:
        raise NotImplementedError("only of what an output has")


@CASES.case(media_rig)
async def test_wedges_are_found_named_and_mended(rig: MediaRig) -> None:
    pipeline, keeper = rig.relay.pipeline, rig.relay.keeper
    await rig.until(lambda: len(rig.stats) > 3, "some reports")

    async def whole_again() -> None:
        before = pipeline.taken_whole
        if native.compiled() is not None:
            await rig.until(lambda: pipeline.taken_whole > before + 10, "wakes are taken whole again")

    # Packets arrive but yield no frame: the smallest remedy is a new session.
    await whole_again()
    pipeline.wake = Wedged(pipeline)
    stuck = pipeline.inputs[Kind.VIDEO]
    stuck.receive_packets = lambda packets, now, out: stuck.receiver.receive_all(packets, now)  # type: ignore[method-assign]
    took = await rig.until(lambda: pipeline.sessions == 2, "another session with the camera", within=15.0)
    assert took <= 11.0
    assert any("video packets come, and no frame" in stats.reason for stats in rig.stats)
    assert keeper.published == 1
    await rig.until(lambda: rig.relay.state is WorkerState.LIVE, "live again")
    await whole_again()

    # Only sound is stuck: its input is rebuilt, and nothing else.
    audio = pipeline.inputs[Kind.AUDIO]
    audio.receive_packets = lambda packets, now, out: audio.receiver.receive_all(packets, now)  # type: ignore[method-assign]
    # Frames are ready but none is sent: a new publication.
    publisher = keeper.publisher
    assert publisher is not None
    pipeline.wake = pipeline._ear = Wedged(pipeline)
    publisher.send = lambda frame, now: None  # type: ignore[method-assign]
    took = await rig.until(lambda: keeper.published == 2, "another publication", within=15.0)
    assert took <= 11.0
    await rig.until(lambda: pipeline.inputs[Kind.AUDIO] is not audio, "another audio input", within=15.0)
    assert pipeline.sessions == 2
    await rig.until(lambda: rig.relay.state is WorkerState.LIVE, "live again")
    await whole_again()
    assert rig.listener.failures == []


@CASES.case(media_rig)
async def test_a_lost_keyframe_of_300_kb_is_repaired_whole(rig: MediaRig) -> None:
    publisher = rig.relay.keeper.publisher
    assert publisher is not None
    video = publisher._video
    assert video is not None
    rig.relay.source.drop()  # the camera would go on
    keyframe = [(b"\x65\x88" + random.Random(i).randbytes(1198), i == 255) for i in range(256)]
    before = await rig.published()
    await rig.sfu("faults", {"upstream_loss": 0.3})
    clock = SystemClock()
    publisher.send(Frame(Kind.VIDEO, keyframe, time.monotonic() + 0.001), clock.now())
    tail = time.monotonic()
    while time.monotonic() - tail < 1.0:
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a" + bytes(50), True)], time.monotonic()), clock.now())
        await clock.sleep(0.033)
    await rig.sfu("faults", {"upstream_loss": 0.0})
    deadline = time.monotonic() + 5.0
    while (after := await rig.published())["lost"]:
        assert time.monotonic() < deadline, after
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a" + bytes(50), True)], time.monotonic()), clock.now())
        await clock.sleep(0.05)
    assert after["lost_before_repair"] - before["lost_before_repair"] > 50
    assert after["gaps"] == before["gaps"]
    assert video.stats.nacks_too_late == 0
