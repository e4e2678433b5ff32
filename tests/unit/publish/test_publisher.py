"""The publisher's state table, and what it says when signalling fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop

from relay_common.errors import RemoteError
from relay_common.fsm import IllegalTransition, Machine
from relay_common.protocol import Stage
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.history import SentHistory
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.publication import PublishError, PublisherSettings, PublishTrack
from relay_worker.publish.publisher import Publisher
from relay_worker.publish.publisher_states import PUBLISHER_TABLE, PublisherEvent, PublisherState
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.uplink import Uplink
from relay_worker.rtp import rtcp
from relay_worker.webrtc.transport import MediaTransport


class Answering:
    def __init__(self, answer: str | Exception, delay: float = 0.0) -> None:
        self._answer, self._delay = answer, delay
        self.offers: list[tuple[str, list[PublishTrack]]] = []

    async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
        self.offers.append((offer, list(tracks)))
        await asyncio.sleep(self._delay)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


SETTINGS = PublisherSettings(loopback=True, signaling_timeout=0.05)


def test_every_edge_of_the_table() -> None:
    edges = list(PUBLISHER_TABLE.edges())
    for source, event, target in edges:
        assert Machine(PUBLISHER_TABLE, source).fire(event) is target
    legal = {(source, event) for source, event, _ in edges}
    for source in PublisherState:
        for event in PublisherEvent:
            if (source, event) not in legal:
                machine = Machine(PUBLISHER_TABLE, source)
                with pytest.raises(IllegalTransition):
                    machine.fire(event)
                assert machine.state is source
    # Every state is left for closed in one step, and closed is the end.
    assert all(
        PUBLISHER_TABLE.target(s, PublisherEvent.CLOSE) for s in PublisherState if s is not PublisherState.CLOSED
    )


async def test_signalling_is_given_the_offer_and_its_tracks() -> None:
    signaling = Answering("nonsense")
    publisher = Publisher("porch", signaling, settings=SETTINGS)
    with pytest.raises(PublishError, match="porch: the answer is not SDP") as failure:
        await publisher.start()
    assert failure.value.stage is Stage.PUBLISH
    ((offer, tracks),) = signaling.offers
    assert tracks == [PublishTrack("0", "video"), PublishTrack("1", "audio")]
    assert "127.0.0.1" in offer
    assert publisher.state is PublisherState.FAILED
    await publisher.close()
    assert publisher.state is PublisherState.CLOSED


async def test_an_error_of_signalling_passes_unchanged() -> None:
    error = RemoteError("the SFU refuses", hint="wait")
    publisher = Publisher("porch", Answering(error), settings=SETTINGS)
    with pytest.raises(RemoteError) as failure:
        await publisher.start()
    assert failure.value is error
    await publisher.close()


async def test_silence_of_signalling_is_an_error() -> None:
    publisher = Publisher("porch", Answering("", delay=10), settings=SETTINGS)
    with pytest.raises(PublishError, match=r"porch: no SDP answer within 0\.05 s"):
        await publisher.start()
    await publisher.close()


async def test_closing_while_publishing_ends_it() -> None:
    publisher = Publisher("porch", Answering("x", delay=0.02), settings=SETTINGS)
    start = asyncio.create_task(publisher.start())
    await asyncio.sleep(0.01)
    await publisher.close()
    with pytest.raises(PublishError, match="closed while it was being published"):
        await start
    assert publisher.state is PublisherState.CLOSED


async def test_a_pause_in_sending_is_no_silence_of_the_sfu(wire: Any) -> None:
    """Under a ceiling everything up to the next keyframe may be left out, and that may be ten seconds."""
    publisher, video, _ = connected(wire)
    sender = publisher._sender
    assert sender is not None
    for now in (1000.0, 1001.0, 1011.5, 1012.0):
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        assert publisher.check(now), "the report on what was just sent is not there yet"
        sender.receive_rtcp(
            rtcp.pack_receiver_report(7, [rtcp.ReportBlock(video.ssrc, 0, 0, video.sequence - 1, 0, 0, 0)]), now + 0.3
        )
    await publisher.close()


async def test_a_pause_of_our_own_is_no_silence_of_the_sfu(wire: Any) -> None:
    """Reports that came meanwhile are still unread when it is judged again."""
    lost: list[PublishError] = []
    publisher, video, audio = connected(wire, on_lost=lost.append)
    sender = publisher._sender
    assert sender is not None
    video.acknowledged = audio.acknowledged = True
    publisher.put_off(20.0, 990.0)
    assert sender.owed_since is None, "nothing is owed yet"
    for now in (1000.0, 1020.0):
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        publisher.send(Frame(Kind.AUDIO, [(b"opus", False)], now, 0.02), now)
        publisher.put_off(19.0 if now > 1000.0 else 0.0, now)
        assert publisher.check(now)
    publisher.put_off(100.0, 1020.0)
    assert (sender.owed_since, video.owed_since) == (1020.0, 1020.0), "never later than now"
    for now in (1026.0, 1028.0):
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        assert publisher.check(now) == (now < 1027.0), "silence after it counts"
    assert len(lost) == 1
    await publisher.close()


@pytest.mark.parametrize("first", ["timers", "sockets"])
async def test_reports_that_a_pause_of_our_own_kept_tell_of_no_queue(wire: Any, first: str) -> None:
    """They come one a second, about the last sender report before it, and are read all at once."""
    publisher, video, _ = connected(wire)
    sender = publisher._sender
    assert sender is not None
    video.history = SentHistory()
    publisher._uplink = uplink = Uplink(publisher._pacer, sender, video)
    publisher.set_clock(1000.0, 1_700_000_000.0, 1000.0)

    def second(now: float, dlsr: float = 0.05) -> None:
        publisher.send(Frame(Kind.VIDEO, [(b"\x41" + bytes(1000), True)] * 20, now), now)
        report(now + 0.1, dlsr)

    def report(now: float, dlsr: float) -> None:
        lsr = sender.feedback._reports_sent[-1][0] if sender.feedback._reports_sent else before
        block = rtcp.ReportBlock(video.ssrc, 0, 0, video.sequence - 1, 0, lsr, round(dlsr * 65536))
        sender.receive_rtcp(rtcp.pack_receiver_report(7, [block]), now)
        uplink.heard(now)

    for now in (1000.0, 1001.0, 1002.0, 1003.0):
        second(now)
    before = sender.feedback._reports_sent[-1][0]
    if first == "timers":
        publisher.put_off(14.0, 1018.0)
    for late in range(14):
        report(1018.0 + late / 1000, late + 0.05)
    if first == "sockets":
        assert publisher._pacer.ceiling is not None, "such reports were taken for a queue"
        publisher.put_off(14.0, 1018.02)
    for now in (1019.0, 1020.0, 1021.0, 1022.0):
        second(now)
        assert (publisher._pacer.ceiling, uplink.probing) == (None, False)
        assert sender.estimate.queue_delay < 0.1
        assert sender.estimate.rtt == pytest.approx(0.05, abs=0.01)
    assert uplink.counters() == {"decreases": int(first == "sockets")}
    await publisher.close()


async def test_what_a_report_waited_in_its_socket_is_no_round_trip(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, video, _ = connected(wire)
    assert publisher._sender is not None
    publisher.set_clock(1000.0, 1_700_000_000.0, 1000.0)
    publisher.send(Frame(Kind.VIDEO, [(b"\x41", True)], 1000.0), 1000.0)
    publisher._transport = MediaTransport()
    monkeypatch.setattr("relay_worker.publish.publisher.waited", {None: 0.7}.__getitem__)
    lsr, _ = publisher._sender.feedback._reports_sent[-1]
    block = rtcp.ReportBlock(video.ssrc, 0, 0, video.sequence - 1, 0, lsr, 0)
    publisher._received(rtcp.pack_receiver_report(7, [block]), True, 1000.8)
    assert publisher._sender.estimate.rtt == pytest.approx(0.1, abs=0.001)
    await publisher.close()


async def test_one_track_that_is_no_longer_acknowledged_ends_the_publication(wire: Any) -> None:
    lost: list[PublishError] = []
    publisher, video, audio = connected(wire, on_lost=lost.append)
    sender = publisher._sender
    assert sender is not None
    for second in range(30):
        now = 1000.0 + second
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        publisher.send(Frame(Kind.AUDIO, [(b"opus", False)], now, 0.02), now)
        heard = [audio] if second >= 10 else [video] if second < 3 else [video, audio]
        reports = [rtcp.ReportBlock(track.ssrc, 0, 0, track.sequence - 1, 0, 0, 0) for track in heard]
        sender.receive_rtcp(rtcp.pack_receiver_report(7, reports), now)
        # A track on which the SFU has never reported is not judged: it may not report on sound at all.
        if not publisher.check(now):
            break
    assert second == 18  # the first that was not acknowledged left at 10
    assert [error.message for error in lost] == ["porch: the SFU acknowledged no video packet: ended after 7 s"]
    await publisher.close()


def connected(wire: Any, **settings: Any) -> tuple[Publisher, OutgoingTrack, OutgoingTrack]:
    """A publisher whose connection is `wire`, and its tracks."""
    publisher = Publisher("porch", Answering(""), settings=SETTINGS, **settings)
    video, audio = (
        OutgoingTrack(AcceptedTrack(offered, 100 + index, None, "42e01f", False))
        for index, offered in enumerate(make_offer(audio=True).tracks)
    )
    publisher._video, publisher._audio = video, audio
    wire.uncounted()
    publisher._sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    for event in (PublisherEvent.START, PublisherEvent.ANSWERED, PublisherEvent.ESTABLISHED):
        publisher._fire(event)
    return publisher, video, audio


def test_what_is_due_at_once_leaves_on_the_workers_loop_too(wire: Any) -> None:
    """uvloop answers `call_at` with another kind of handle when the time has come already."""

    async def late() -> None:
        publisher, video, _ = connected(wire)
        for number in range(5):
            now = time.monotonic() - 0.1  # it was read long ago
            publisher.send(Frame(Kind.VIDEO, [(b"\x65\x88" + bytes(1198), False)] * 40, 1000.0 + number), now)
        async with asyncio.timeout(10):
            while video.stats.packets < 200:
                await asyncio.sleep(0.01)
        await publisher.close()

    uvloop.run(late())


async def test_media_before_the_connection_is_counted_not_kept() -> None:
    publisher = Publisher("porch", Answering(""), settings=SETTINGS)
    publisher.send(Frame(Kind.VIDEO, [(b"\x65x", True)], 1.0), 1.0)
    publisher.send(Frame(Kind.AUDIO, [(b"opus", False)], 1.0, 0.02), 1.0)
    assert publisher.counters() == {"not_connected": 2}
    assert publisher.stats().queued_bytes == 0
    assert not publisher.check(1.0)
    await publisher.close()
    await publisher.close()


@pytest.mark.parametrize(("every", "lives"), [(7.5, True), (None, False)], ids=["as libwebrtc may", "never again"])
async def test_sound_is_reported_on_more_rarely(wire: Any, every: float | None, lives: bool) -> None:
    """RFC 3550 §6.2: 5 s, randomised to 7.5 s at most; a browser in the SFU's seat was taken for dead at 7 s."""
    lost: list[PublishError] = []
    publisher, video, audio = connected(wire, on_lost=lost.append)
    sender = publisher._sender
    assert sender is not None
    heard = 1000.0
    for step in range(120):
        now = 1000.0 + step / 2
        publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        publisher.send(Frame(Kind.AUDIO, [(b"opus", False)], now, 0.02), now)
        tracks = [video]
        if step == 0 or (every is not None and now - heard >= every):
            tracks, heard = [video, audio], now
        reports = [rtcp.ReportBlock(track.ssrc, 0, 0, track.sequence - 1, 0, 0, 0) for track in tracks]
        sender.receive_rtcp(rtcp.pack_receiver_report(7, reports), now)
        if not publisher.check(now):
            break
    assert [error.message for error in lost] == (
        [] if lives else ["porch: the SFU acknowledged no audio packet: ended after 16 s"]
    )
    await publisher.close()
