"""A camera's viewers on a manual clock: how many, for how long, where, and that none costs another anything."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.local_messages import (
    LocalAnswer,
    LocalClose,
    LocalFromWorker,
    LocalOffer,
    LocalPatched,
    LocalRefused,
    LocalTrickle,
    LocalViewerChanged,
    SetLocal,
)
from relay_worker.local.group import MAX_BYTES, OF_FRAME, OF_PAYLOAD
from relay_worker.local.ice import CONSENT, UdpSource
from relay_worker.local.viewer import CONNECT_WITHIN
from relay_worker.local.viewers import LISTEN_AGAIN, SMALL_AGAIN, LocalViewers, viewer_digest
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.rtp.h264 import MAX_PAYLOAD
from tests.fixtures.raw_viewer import plain_offer

KEYFRAME = Frame(Kind.VIDEO, [(b"\x67\x42", False), (b"\x65" + bytes(300), True)], 1.0)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pipeline = Pipeline()
        self.keyframe_requests = 0
        self.said: list[LocalFromWorker] = []
        self.local = LocalViewers(self.pipeline, self.clock, self._keyframe)
        self.local.tell = self.said.append
        self._number = 0

    def _keyframe(self) -> None:
        self.keyframe_requests += 1

    def listen(self, *addresses: str, **settings: Any) -> None:
        self.local.handle(SetLocal(listen=list(addresses or ("127.0.0.1",)), **settings))

    def offer(self, offer: str = "", ends_at: float = 0.0, quality: str = "") -> LocalAnswer | LocalRefused:
        self._number += 1
        number, sdp = self._number, offer or plain_offer()
        self.local.handle(LocalOffer(request=number, viewer=f"v{number}", offer=sdp, ends_at=ends_at, quality=quality))
        said = self.said[-1]
        assert isinstance(said, LocalAnswer | LocalRefused)
        assert said.request == self._number
        return said

    def answer(self, **settings: Any) -> str:
        said = self.offer(**settings)
        assert isinstance(said, LocalAnswer), said
        return said.answer

    def later(self, seconds: float) -> None:
        self.clock._now += seconds
        self.local.check(self.clock.now())

    @property
    def ended(self) -> dict[str, str]:
        changes = [one for one in self.said if isinstance(one, LocalViewerChanged)]
        return {one.viewer: one.reason for one in changes if one.state == "ended"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.local.close()


async def test_nothing_is_answered_until_it_is_set(world: World) -> None:
    refusal = world.offer()
    assert isinstance(refusal, LocalRefused)
    assert refusal.status == 503
    assert world.local.stats(0.0) is None
    assert world.pipeline.viewers is None


async def test_one_viewer_more_than_may_watch_is_refused_until_one_leaves(world: World) -> None:
    world.listen(viewers=4)
    for _ in range(4):
        world.answer()
    refusal = world.offer()
    assert isinstance(refusal, LocalRefused)
    assert (refusal.status, refusal.reason) == (503, "as many viewers as may watch this camera here do: 4")
    assert refusal.retry_after > 0
    world.local.handle(LocalClose(viewer="v2", reason="it left"))
    assert world.ended == {"v2": "it left"}
    world.answer()
    report = world.local.stats(world.clock.now())
    assert report is not None
    assert (len(report.viewers), report.refused) == (4, 1)


async def test_which_picture_a_viewer_gets_is_said_in_its_answer_and_in_every_report(world: World) -> None:
    def gotten() -> list[str]:
        report = world.local.stats(world.clock.now())
        assert report is not None
        return [viewer.quality for viewer in report.viewers]

    world.listen()
    first = world.offer(quality="small")
    assert isinstance(first, LocalAnswer)
    assert first.quality == "full", "no small one is made"
    world.local.has_small = True
    answers = [world.offer(quality=quality) for quality in ("small", "full", "")]
    assert [one.quality for one in answers if isinstance(one, LocalAnswer)] == ["small", "full", "full"]
    assert gotten() == ["full", "small", "full", "full"]
    world.local.has_small = False
    world.later(1.0)
    assert gotten() == ["full"] * 4
    world.local.has_small = True
    asked: list[int] = []
    world.local.on_small_request = lambda: asked.append(1)
    for viewer in world.local._viewers.values():
        viewer.connected = True
    world.later(1.0)
    assert gotten() == ["full"] * 4, "not at once: what comes and goes would cost a keyframe each time"
    world.later(SMALL_AGAIN)
    assert gotten() == ["small", "small", "full", "full"], "also the one that was there before there were any"
    assert len(asked) == 2


async def test_a_viewer_that_never_connects_is_gone_in_ten_seconds(world: World) -> None:
    world.listen()
    world.answer()
    world.later(CONNECT_WITHIN)
    assert world.ended == {}
    world.later(0.1)
    assert world.ended == {"v1": "it did not connect within 10 s"}


@pytest.mark.parametrize("asleep", [12.0, 45.0, 600.0])
async def test_neither_connecting_nor_silence_is_judged_by_time_in_which_this_process_was_paused(
    world: World, asleep: float
) -> None:
    """Nor may a viewer on the same machine have done anything meanwhile."""
    world.listen()
    world.answer()
    world.answer()
    connected = world.local._viewers["v2"]
    connected.connected = True
    world.clock._now += asleep
    world.local.put_off(asleep, world.clock.now())
    world.later(CONNECT_WITHIN)
    assert world.ended == {}
    world.later(0.1)
    assert world.ended == {"v1": "it did not connect within 10 s"}
    world.later(CONSENT - CONNECT_WITHIN - 0.2)
    assert "v2" not in world.ended
    world.later(0.2)
    assert world.ended["v2"] == "nothing was heard of it for 30 s"


async def test_a_viewer_whose_name_is_lost_is_ended_by_its_digest(world: World) -> None:
    world.listen()
    world.answer()
    world.answer()
    world.local.handle(LocalClose(viewer="", digest=viewer_digest("v1"), reason="it is not known"))
    assert world.ended == {"v1": "it is not known"}
    world.local.handle(LocalClose(viewer="", digest=viewer_digest("v1")))
    world.local.handle(LocalClose(viewer="", reason="nobody in particular"))
    assert list(world.local._viewers) == ["v2"]


async def test_the_end_of_its_link_ends_it(world: World) -> None:
    world.listen()
    world.answer(ends_at=world.clock.wall() + 3)
    world.later(2.9)
    assert world.ended == {}
    world.later(0.1)
    assert world.ended == {"v1": "its time is over"}


async def test_a_viewer_that_falls_silent_is_gone(world: World) -> None:
    world.listen()
    world.answer()
    (viewer,) = world.local._viewers.values()
    viewer.connected = True
    world.later(CONSENT)
    viewer.agent.heard_at = world.clock.now()
    world.later(CONSENT)
    assert world.ended == {}
    world.later(0.1)
    assert world.ended == {"v1": "nothing was heard of it for 30 s"}


async def test_what_is_held_is_reported_and_what_was_too_long_is_counted(world: World) -> None:
    world.listen()
    report = world.local.stats(0.0)
    assert report is not None
    assert report.held_bytes == 0
    for number in range(4 * MAX_BYTES // 300_000):
        first = b"\x65" if number in (0, 1 + MAX_BYTES // 300_000) else b"\x41"
        world.local.send(Frame(Kind.VIDEO, [(first + bytes(300_000), True)], number / 30), number / 30)
        report = world.local.stats(0.0)
        assert report is not None
        assert report.held_bytes <= MAX_BYTES
        assert (report.held_bytes > 0) == (number != MAX_BYTES // 300_000 and number < 1 + 2 * (MAX_BYTES // 300_000))
    assert world.local.counters()["groups_too_long"] == 2
    world.local.handle(SetLocal(listen=[]))
    assert world.local._group is None, "held only while it is on"


async def test_announced_addresses_stand_in_place_of_ours(world: World) -> None:
    world.listen(announce=["192.0.2.7", "198.51.100.3:9000", "[2001:db8::1]:9001"])
    report = world.local.stats(0.0)
    assert report is not None
    named = [line.split()[4:6] for line in world.answer().splitlines() if line.startswith("a=candidate")]
    assert named == [["192.0.2.7", str(report.port)], ["198.51.100.3", "9000"], ["2001:db8::1", "9001"]]
    assert "127.0.0.1" not in world.answer()


async def test_only_a_change_of_addresses_ends_viewers(world: World) -> None:
    world.listen()
    world.answer()
    world.listen(announce=["192.0.2.7"], viewers=2)
    assert world.ended == {}
    world.listen("127.0.0.2")
    assert list(world.ended) == ["v1"]
    world.answer()
    world.local.handle(SetLocal(listen=[]))
    assert list(world.ended) == ["v1", "v2"]
    assert world.pipeline.viewers is None


async def test_a_port_that_is_taken_is_said_and_tried_again(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        world.listen(port=port)
        report = world.local.stats(0.0)
        assert report is not None
        assert report.port == 0
        assert report.problem == f"cannot listen on UDP port {port} of 127.0.0.1: Address already in use"
        refusal = world.offer()
        assert isinstance(refusal, LocalRefused)
        assert refusal.reason == report.problem
    world.later(LISTEN_AGAIN)
    report = world.local.stats(0.0)
    assert report is not None
    assert (report.port, report.problem) == (port, "")


async def test_all_addresses_have_one_port(world: World) -> None:
    world.listen("127.0.0.1", "127.0.0.2", "192.0.2.99")
    report = world.local.stats(0.0)
    assert report is not None
    assert report.problem.startswith("cannot listen on UDP of 192.0.2.99: ")
    named = [line.split()[4:6] for line in world.answer().splitlines() if line.startswith("a=candidate")]
    assert named == [["127.0.0.1", str(report.port)], ["127.0.0.2", str(report.port)]]


async def test_a_mistake_in_one_viewers_part_ends_that_one_alone(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.listen()
    for _ in range(2):
        world.answer()
    first, second = world.local._viewers.values()
    got: list[Frame] = []

    def fail(frame: Frame, now: float) -> None:
        raise ValueError("what the viewer sent: s3cret")

    for viewer in (first, second):
        viewer.connected = viewer.begun = True
    monkeypatch.setattr(first, "send", fail)
    monkeypatch.setattr(second, "send", lambda frame, now: got.append(frame))
    with caplog.at_level(logging.DEBUG):
        world.pipeline.deliver(KEYFRAME, 1.0)
    assert world.ended == {"v1": "internal error; see the log"}
    assert len(got) == 1
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text
    assert world.local.counters()["failures"] == 1


async def test_a_viewer_that_cannot_be_ended_in_good_order_is_gone_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own heartbeat calls this: nothing of a viewer may end that."""
    world.listen()
    for _ in range(2):
        world.answer()
    first, _ = world.local._viewers.values()
    monkeypatch.setattr(first._dtls, "close", lambda: 1 / 0)
    world.later(CONNECT_WITHIN + 1)
    assert list(world.ended) == ["v1", "v2"]
    assert world.local._viewers == {}
    assert world.local.counters()["failures"] == 1


async def test_an_offer_that_breaks_something_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.listen()
    monkeypatch.setattr("relay_worker.local.viewers.read_offer", lambda *args, **settings: 1 / 0)
    refusal = world.offer()
    assert isinstance(refusal, LocalRefused)
    assert refusal.status == 500
    assert world.local.counters()["failures"] == 1


async def test_patches_of_nobody_and_of_candidates(world: World) -> None:
    world.listen()
    world.answer()
    for name, fragment, status in (("x", "", 404), ("v1", "a=candidate:1 1 udp 1 a.local 9 typ host", 204)):
        world.local.handle(LocalTrickle(request=9, viewer=name, fragment=fragment))
        said = world.said[-1]
        assert isinstance(said, LocalPatched)
        assert said.status == status


async def test_the_group_is_held_only_while_viewers_may_come(world: World) -> None:
    world.pipeline.deliver(KEYFRAME, 1.0)
    world.listen()
    world.pipeline.deliver(KEYFRAME, 1.0)
    report = world.local.stats(0.0)
    assert report is not None
    assert report.held_bytes == 303 + OF_FRAME + 2 * OF_PAYLOAD
    world.local.handle(SetLocal(listen=[]))
    world.pipeline.deliver(KEYFRAME, 1.0)
    assert world.local._group is None


async def test_who_finds_no_group_has_the_camera_asked_for_a_keyframe_and_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.listen()
    world.answer()
    (viewer,) = world.local._viewers.values()
    got: list[Frame] = []
    monkeypatch.setattr(viewer, "send", lambda frame, now: got.append(frame))
    viewer.connected = True
    world.local.viewer_connected(viewer, 1.0)
    assert world.keyframe_requests == 1
    world.pipeline.deliver(Frame(Kind.VIDEO, [(b"\x41", True)], 0.9), 1.0)
    sound = Frame(Kind.AUDIO, [(b"opus", False)], 0.9, 0.02)
    world.pipeline.deliver(sound, 1.0)
    assert got == [sound]
    world.pipeline.deliver(KEYFRAME, 1.0)
    assert [frame.kind for frame in got] == [Kind.AUDIO, Kind.VIDEO]


async def test_fragments_are_cut_for_the_narrowest_path_and_wide_again_after_it(world: World) -> None:
    world.listen()
    world.answer()
    (viewer,) = world.local._viewers.values()
    viewer.connected = True
    world.local.viewer_connected(viewer, 1.0)
    narrow = world.pipeline.max_payload
    world.pipeline.fit(narrow - 100)
    assert world.pipeline.max_payload == narrow - 100
    world.pipeline.fit(MAX_PAYLOAD)
    assert world.pipeline.max_payload == narrow <= MAX_PAYLOAD
    viewer.end("it left")
    assert world.pipeline.max_payload == MAX_PAYLOAD


async def test_strangers_are_counted(world: World) -> None:
    world.listen()
    world.answer()
    for data in (b"\x00\x01nonsense", b"\x16\xfe\xfd", b"\x80\x60", b"\xff"):
        world.local._received(data, UdpSource(0, ("192.0.2.1", 9)), 1.0)
    counters = world.local.counters()
    assert (counters["malformed_checks"], counters["unknown_datagrams"]) == (1, 3)
