"""The simulated SFU moves a viewer between simulcast layers: one stream, at a keyframe or at once, with a fallback."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.dtls import DtlsIdentity
from relay_common.simulation.sfu.ice import IceLite
from relay_common.simulation.sfu.keyframes import begins_keyframe
from relay_common.simulation.sfu.options import SfuFaults, SfuTimings, SfuVariant
from relay_common.simulation.sfu.peer import Peer
from relay_common.simulation.sfu.port import MediaPort
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import Section
from tests.unit.simulation.test_sfu_control_plane import Api, code, make
from tests.unit.simulation.test_sfu_rtp import H264, RTX, Wire, packet
from tests.unit.simulation.test_sfu_rtp import viewer as viewer_of
from tests.unit.simulation.test_sfu_simulcast import published, pull, receive, subscribed

IDR, SPS, SLICE = b"\x65idr", b"\x67sps", b"\x41abc"
SECOND = 90_000


class Stage:
    """Two layers, `a` and `b`, of one track, whose timestamps begin elsewhere, and a viewer of `a`."""

    def __init__(self) -> None:
        self.publisher, self.wire = Wire(), Wire()
        section = Section("video", "0", codecs=[H264, RTX])
        self.a, self.b = (Publication(self.publisher, section, SfuTimings(), rid) for rid in "ab")
        self.viewer = viewer_of(self.wire, self.a)
        self.a.subscribers.clear()
        variant = SfuVariant()
        port = MediaPort(SfuTimings(), variant, SfuFaults())
        self.peer = Peer(port, IceLite("u", "p"), DtlsIdentity(variant.srtp_profiles), 7)
        self.peer.subscribe(self.viewer, self.a)
        self.sequence = {"a": 100, "b": 5000}

    def send(self, rid: str, payload: bytes, at: float, *, late: float = 0.0) -> None:
        """A picture of one packet, taken at `at` seconds, which arrives `late` seconds later."""
        publication, ssrc, start = (self.a, 1, 1000) if rid == "a" else (self.b, 2, 0xFFFFF000)
        self.sequence[rid] += 1
        sequence, timestamp = self.sequence[rid], (start + round(at * SECOND)) & 0xFFFFFFFF
        data = packet(sequence, timestamp, ssrc, payload=payload)
        publication.receive(data, sequence, timestamp, ssrc, at + late)

    def report(self, now: float) -> None:
        """Sender reports of both, on one clock."""
        ntp = int((1000 + now) * (1 << 32))
        self.a.upstream.sender_report = ntp, (1000 + round(now * SECOND)) & 0xFFFFFFFF, now
        self.b.upstream.sender_report = ntp, (0xFFFFF000 + round(now * SECOND)) & 0xFFFFFFFF, now

    @property
    def seen(self) -> list[tuple[int, int, bytes]]:
        """Sequence number, timestamp and payload of what the viewer was sent; it never sees another SSRC."""
        heads = [struct.unpack_from("!HII", sent, 2) for sent in self.wire.rtp]
        assert {ssrc for _, _, ssrc in heads} <= {1000}
        return [(n, t, sent[12:]) for (n, t, _), sent in zip(heads, self.wire.rtp, strict=True)]

    @property
    def asked(self) -> list[int]:
        """SSRCs of the layers that keyframes were requested of."""
        return [struct.unpack_from("!I", rtcp, 8)[0] for rtcp in self.publisher.rtcp if rtcp[0] & 31 == 1]


def continuous(seen: list[tuple[int, int, bytes]]) -> None:
    first = seen[0][0]
    assert [n for n, _, _ in seen] == [(first + index) & 0xFFFF for index in range(len(seen))]


def test_a_viewer_keeps_its_layer_until_the_other_one_can_be_decoded() -> None:
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.report(1.0)
    stage.peer.join(stage.viewer, stage.b, 1.1, at_keyframe=True)
    assert stage.asked == [2], "a keyframe is requested of the layer to come"
    stage.send("b", SLICE, 1.2)
    stage.send("a", SLICE, 1.2)
    stage.send("b", SPS, 1.3)
    stage.send("b", IDR, 1.3)
    stage.send("a", SLICE, 1.4)
    stage.send("b", SLICE, 1.4)
    assert [payload for _, _, payload in stage.seen] == [IDR, SLICE, SPS, IDR, SLICE]
    continuous(stage.seen)
    times = [t for _, t, _ in stage.seen]
    # As the pictures were taken, although the layers' timestamps begin elsewhere.
    assert [t - times[0] for t in times] == [0, 18_000, 27_000, 27_000, 36_000]
    assert (stage.a.viewers, stage.b.viewers, stage.viewer.switches) == (0, 1, 1)


def test_a_keyframe_is_requested_again_and_a_viewers_request_goes_to_the_layer_to_come() -> None:
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.peer.join(stage.viewer, stage.b, 1.0, at_keyframe=True)
    (switch,) = stage.peer.switching.values()
    switch.ask(1.5)
    switch.ask(2.1)
    assert stage.asked == [2, 2]
    compound = sfu_rtcp.picture_loss(9, 1000)
    stage.peer._receive_rtcp(memoryview(compound), 3.0)
    assert stage.asked == [2, 2, 2]


def test_a_viewer_that_was_switched_at_once_is_asked_for_until_its_keyframe_comes() -> None:
    """It sees no error that would make it ask, and Chromium ignores a request soon after another layer's."""
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.peer.join(stage.viewer, stage.b, 1.0, at_keyframe=False)
    (switch,) = stage.peer.switching.values()
    switch.ask(1.5)
    stage.send("b", SLICE, 2.0)
    switch.ask(2.1)
    assert stage.asked == [2, 2]
    stage.send("b", SPS, 2.2)
    stage.send("b", IDR, 2.2)
    switch.ask(9.0)
    assert stage.asked == [2, 2]
    assert [payload for _, _, payload in stage.seen] == [IDR, SLICE, SPS, IDR], "each once"
    stage.peer._outbound = object()
    stage.peer.send_reports(9.0, None)
    assert (stage.peer.switching, stage.b.subscribers) == ({}, [stage.viewer])
    assert stage.b.viewers == 1


def test_one_that_goes_back_before_the_keyframe_is_asked_for_where_it_is() -> None:
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.peer.join(stage.viewer, stage.b, 1.0, at_keyframe=False)
    stage.peer.join(stage.viewer, stage.a, 1.2, at_keyframe=False)
    assert (stage.asked, stage.b.subscribers) == ([2, 1], [])
    (switch,) = stage.peer.switching.values()
    switch.ask(2.3)
    assert stage.asked == [2, 1, 1]
    stage.peer.unsubscribe(stage.viewer)
    assert stage.a.subscribers == []


def test_a_change_of_mind_leaves_the_viewer_where_it_is() -> None:
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.peer.join(stage.viewer, stage.b, 1.1, at_keyframe=True)
    stage.peer.join(stage.viewer, stage.a, 1.2, at_keyframe=True)
    stage.send("b", IDR, 1.3)
    stage.send("a", SLICE, 1.3)
    assert [payload for _, _, payload in stage.seen] == [IDR, SLICE]
    assert stage.b.subscribers == []


def test_at_once_means_the_next_packet_whatever_it_is() -> None:
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.report(1.0)
    stage.peer.join(stage.viewer, stage.b, 1.1, at_keyframe=False)
    stage.send("b", SLICE, 1.2)
    stage.send("a", SLICE, 1.2)
    assert [payload for _, _, payload in stage.seen] == [IDR, SLICE]
    continuous(stage.seen)
    assert stage.asked == [2]


def test_a_layer_that_is_later_never_turns_time_back_and_its_reports_stay_true() -> None:
    """A small picture made from a large one arrives after it; what it is late by is taken back with the next switch."""
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("b", SLICE, 1.0)
    stage.report(1.0)
    stage.send("a", SLICE, 1.2)
    stage.peer.join(stage.viewer, stage.b, 1.2, at_keyframe=True)
    stage.send("b", IDR, 1.1, late=0.2)
    first, last = stage.seen[0][1], stage.seen[-1][1]
    assert last - first == 18_000 + 90, "a millisecond after the picture before"
    report = stage.viewer.report(2.0)
    assert report is not None
    ntp, rtp = struct.unpack_from("!QI", report, 8)
    # Taken at 1.1 s by the publisher's clock, and so say the viewer's report and the picture's timestamp together.
    taken = ntp / (1 << 32) - 1000 + ((last - rtp + 0x80000000 & 0xFFFFFFFF) - 0x80000000) / SECOND
    assert taken == pytest.approx(1.1, abs=0.001)
    stage.peer.join(stage.viewer, stage.a, 3.0, at_keyframe=True)
    stage.send("a", IDR, 3.0)
    assert stage.seen[-1][1] - first == 2 * SECOND


def test_nothing_is_repaired_of_the_layer_before() -> None:
    """Decoding goes on at the keyframe; on a full line, repairs of what came before it delayed that by seconds."""
    stage = Stage()
    stage.send("a", IDR, 1.0)
    stage.send("a", SLICE, 1.1)
    stage.send("b", SLICE, 1.1)
    stage.peer.join(stage.viewer, stage.b, 1.1, at_keyframe=True)
    stage.send("b", IDR, 1.2)
    sequences = [n for n, _, _ in stage.seen]
    stage.viewer.retransmit([sequences[1], sequences[2]])
    (repaired,) = stage.wire.rtp[3:]
    assert repaired[14:] == IDR
    assert struct.unpack_from("!H", repaired, 12)[0] == sequences[2]
    assert stage.viewer.unanswered == 1


@pytest.mark.parametrize(
    ("codec", "payload", "expected"),
    [
        ("H264", IDR, True),
        ("H264", SPS, True),
        ("H264", b"\x78\x00\x04\x67abc\x00\x02\x65i", True),
        ("H264", b"\x7c\x85first", True),
        ("H264", b"\x7c\x05later", False),
        ("H264", SLICE, False),
        ("VP8", b"\x10\x00key", True),
        ("VP8", b"\x90\x80\x81\x02\x00key", True),
        ("VP8", b"\x90\xe0\x11\x02\x03\x01delta", False),
        ("VP8", b"\x00\x00later", False),
        ("VP9", b"\x8f", True),
        ("H264", b"", False),
    ],
)
def test_where_a_keyframe_begins(codec: str, payload: bytes, expected: bool) -> None:
    assert begins_keyframe(codec, memoryview(payload)) is expected


# -- by the API ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = make(variant=SfuVariant(switch_at_keyframes=False))
    yield made
    await made.http.aclose()


def later(api: Api, seconds: float, *sessions: str) -> None:
    """The simulator's timer that much later; the sessions have not lost their transport."""
    now = time.monotonic() + seconds
    for session in sessions:
        api.sfu.service.sessions[session].peer.last_datagram = now
    api.sfu.service.tick(now)


async def viewer_with(api: Api, publisher: str, **wish: str) -> tuple[str, str]:
    viewer = await api.new()
    result, _ = await pull(api, viewer, publisher, **wish)
    return viewer, str(result["mid"])


def rids(api: Api, publisher: str) -> list[str]:
    (session,) = (one for one in api.sfu.sessions() if one["session"] == publisher)
    return [rid for track in session["published"] if track["active"] for rid in track.get("layers", ())]


async def test_a_layer_that_is_not_sent_any_more_is_replaced_where_the_viewer_allows_it(api: Api) -> None:
    publisher, _ = await published(api)
    now = time.monotonic()
    for ssrc, rid in enumerate(("h", "l"), 1):
        receive(api, publisher, rid, ssrc, at=now)
    one, _ = await viewer_with(api, publisher, preferredRid="h", ridNotAvailable="asciibetical")
    other, _ = await viewer_with(api, publisher, preferredRid="h")
    receive(api, publisher, "l", 3, at=now + 20)
    later(api, 20, publisher, one, other)
    assert subscribed(api, publisher) == "hl", "the first of them was moved, the second was not"
    receive(api, publisher, "h", 4, at=now + 22)
    later(api, 22, publisher, one, other)
    assert subscribed(api, publisher) == "h", "and comes back"


async def test_a_silent_layer_is_collected_by_itself(api: Api) -> None:
    publisher, _ = await published(api)
    now = time.monotonic()
    for ssrc, rid in enumerate(("h", "l"), 1):
        receive(api, publisher, rid, ssrc, at=now)
    one, mid = await viewer_with(api, publisher, preferredRid="h", ridNotAvailable="asciibetical")
    other, _dead = await viewer_with(api, publisher, preferredRid="h")
    receive(api, publisher, "l", 3, at=now + 31)
    later(api, 31, publisher, one, other)
    assert rids(api, publisher) == ["l"]
    assert subscribed(api, publisher) == "l"
    states = {s["session"]: s["pulled"][0]["active"] for s in api.sfu.sessions() if s["pulled"]}
    assert states == {one: True, other: False}, "whoever wanted that layer alone has nothing any more"
    assert not receive(api, publisher, "h", 7, at=now + 32), "it does not come back"
    assert receive(api, publisher, "l", 8, at=now + 32), "and the other may even start over"
    change: dict[str, Any] = {"location": "remote", "sessionId": publisher, "trackName": "v", "mid": mid}
    answer = await api.call(one, "tracks/update", {"tracks": [{**change, "simulcast": {"preferredRid": "h"}}]})
    assert answer.json()["tracks"][0]["errorCode"] == "not_found_track_error"


@pytest.mark.parametrize(("taken", "expected"), [("all", "h;m;l"), ("first", "h"), ("refused", None)])
async def test_an_answer_may_refuse_simulcast(taken: Any, expected: str | None) -> None:
    api = make(variant=SfuVariant(simulcast=taken))
    publisher, answer = await published(api)
    lines = [line for line in answer.splitlines() if "simulcast" in line]
    assert lines == ([f"a=simulcast:recv {expected}"] if expected else [])
    assert answer.count("a=rid:") == (len(expected.split(";")) if expected else 0)
    if expected is None:
        assert "extmap" not in answer
        receive(api, publisher, "h", 1)
        assert api.sfu.published("v")["packets"] == 1
        assert "layers" not in api.sfu.published("v")
    await api.http.aclose()


async def test_an_sfu_may_not_know_the_policies() -> None:
    api = make(variant=SfuVariant(simulcast_policies=False))
    publisher, _ = await published(api)
    receive(api, publisher, "h", 1)
    entry: dict[str, Any] = {"location": "remote", "sessionId": publisher, "trackName": "v"}
    for policy in ("priorityOrdering", "ridNotAvailable"):
        wish = {"preferredRid": "h", policy: "asciibetical"}
        response = await api.call(await api.new(), "tracks/new", {"tracks": [{**entry, "simulcast": wish}]})
        assert code(response) == (406, "invalid_params")
    assert (await pull(api, await api.new(), publisher, preferredRid="h", ridNotAvailable="none"))[1] == "h"
    await api.http.aclose()
