"""What the SFU says, as RTCP, and what pacer and sender may send after it."""

from __future__ import annotations

from typing import Any

import pytest

from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.retransmission import RESEND_RATE
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.uplink import RESEND_SHARE, Uplink
from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import pack_transport_feedback
from tests.fixtures.pacing import hand_in

pytestmark = pytest.mark.usefixtures("data_path")

FAR = 0xFA5
VIDEO = make_offer(audio=False).tracks[0]
FPS, PACKETS, SIZE = 30, 4, 1200
NEEDED = 8 * FPS * PACKETS * SIZE
RTT = 0.04


class World:
    """A camera of some 1.2 Mbit/s, pacer, sender and uplink, and an SFU that reports once a second."""

    def __init__(self, wire: Any, *, transport_cc: int | None = None) -> None:
        self._wire, self.now = wire, 100.0
        extensions = HeaderExtensions(transport_cc=transport_cc)
        self.track = OutgoingTrack(AcceptedTrack(VIDEO, 106, 107, "42e01f", True, extensions, remb=True), sequence=0)
        self.sender = MediaSender(wire.protector, wire.path, [self.track], cname="c")
        self.sender.set_clock(0.0, 1_700_000_000.0, self.now)
        self.pacer = Pacer()
        self.uplink = Uplink(self.pacer, self.sender, self.track)
        self._report_sent = (0, 0.0)  # NTP time of the last sender report, and when it left
        self._sent: list[tuple[int, float]] = []  # transport-wide number and time of each packet
        self._feedbacks = self._seconds = 0
        self.gop = 1
        """Seconds from one keyframe to the next."""

    def run(self, seconds: int, *, loss: float = 0.0, queue: float = 0.0) -> None:
        """Play; receiver reports tell of `loss` and of a round trip that a queue lengthens by `queue` seconds."""
        for _ in range(seconds):
            self.play()
            self.report(loss=loss, queue=queue)

    def report(self, *, loss: float = 0.0, queue: float = 0.0, waited: float = 0.0) -> None:
        """A receiver report on all that was sent, which is read `waited` seconds after it arrived."""
        lsr, sent = self._report_sent[0] >> 16 & 0xFFFFFFFF, self._report_sent[1]
        dlsr = round((self.now - waited - sent - RTT - queue) * 65536)
        block = rtcp.ReportBlock(self.track.ssrc, int(256 * loss), 0, self.track.sequence - 1, 0, lsr, dlsr)
        self.hear(rtcp.pack_receiver_report(FAR, [block]), waited)

    def play(self) -> None:
        """A second of video."""
        for index in range(FPS):
            media_time = self.now + index / FPS
            head = b"\x67" if index == 0 and self._seconds % self.gop == 0 else b"\x41"
            payloads = [(head + bytes(SIZE - 1), False)] * PACKETS
            for release in hand_in(self.pacer, "video", payloads, media_time, media_time):
                self.sender.send(self.track, release.payloads, self.track.rtp_time(media_time), media_time)
            if self.uplink.probing:
                self.uplink.probe(media_time)
            self._note(media_time)
        self.now += 1.0
        self._seconds += 1

    def _note(self, at: float) -> None:
        media, control = self._wire.receive()
        self._sent += [(int.from_bytes(p.extension[1:3], "big"), at) for p in media if p.extension]
        for compound in control:
            if isinstance(report := rtcp.parse_compound(compound)[0], rtcp.SenderReport):
                self._report_sent = report.ntp, at

    def hear(self, compound: bytes, waited: float = 0.0) -> None:
        self.sender.receive_rtcp(compound, self.now, waited)
        self.uplink.heard(self.now)

    def acknowledge(self, *, loss: float = 0.0, queue: float = 0.0) -> None:
        """Transport-wide feedback on all that was sent since the last."""
        every = round(1 / loss) if loss else 0
        arrived = [(n, at + queue) for i, (n, at) in enumerate(self._sent) if not every or (i + 1) % every]
        self._feedbacks += 1
        self.hear(pack_transport_feedback(FAR, self.track.ssrc, self._feedbacks, arrived))
        self._sent = []


def test_a_clean_uplink_has_no_ceiling(wire: Any) -> None:
    world = World(wire)
    world.run(8)
    assert world.pacer.ceiling is None
    assert world.pacer.network_delay == pytest.approx(0.0, abs=0.001)
    assert world.sender.repair.rate == RESEND_RATE


def test_loss_that_reports_tell_of_brings_a_ceiling(wire: Any) -> None:
    world = World(wire)
    world.run(4)
    world.run(3, loss=0.4)
    assert world.pacer.ceiling is not None
    assert world.pacer.ceiling < 0.8 * NEEDED


def test_a_queue_that_reports_tell_of_brings_a_ceiling_and_counts_as_delay(wire: Any) -> None:
    world = World(wire)
    world.run(4)
    world.run(3, queue=0.4)
    assert world.pacer.ceiling is not None
    assert world.pacer.ceiling < NEEDED
    assert world.pacer.network_delay == pytest.approx(0.4, abs=0.01)


def test_a_loop_that_reads_late_is_no_queue(wire: Any) -> None:
    """Pauses of less than a second are no pauses of the process, and every report may wait for the end of one."""
    world = World(wire)
    for _ in range(8):
        world.play()
        world.report(waited=0.6)
        assert world.pacer.network_delay == pytest.approx(0.0, abs=0.001)
    assert world.pacer.ceiling is None
    assert world.sender.estimate.rtt == pytest.approx(RTT, abs=0.001)


def test_loss_that_repair_hides_from_reports_counts(wire: Any) -> None:
    world = World(wire)
    world.run(4)
    for _ in range(3):
        last = world.track.sequence
        world.play()
        world.hear(rtcp.pack_nack(FAR, world.track.ssrc, range(last, last + 48)))  # 40 % of a second
        world.report()
    assert world.track.stats.retransmitted > 0
    assert world.pacer.ceiling is not None


@pytest.mark.parametrize(
    ("remb", "queue", "limited"),
    [(47_000, 0.0, False), (47_000, 0.03, False), (47_000, 0.08, True), (9_000_000, 0.08, False)],
)
def test_remb_is_a_ceiling_only_where_a_queue_agrees(wire: Any, remb: int, queue: float, limited: bool) -> None:
    world = World(wire)
    world.run(3)
    assert world.pacer.needed == pytest.approx(NEEDED, rel=0.1)
    for _ in range(10):
        world.hear(rtcp.pack_remb(FAR, remb, [world.track.ssrc]))
        world.run(1, queue=queue)
    assert (world.pacer.ceiling is not None) is limited
    assert (world.pacer.stats.thinned_frames > 0) is limited


def test_a_ceiling_is_filled_with_repeats_and_rises_until_it_is_gone(wire: Any) -> None:
    world = World(wire)
    world.gop = 4
    world.run(4)
    world.run(4, loss=0.4)
    assert world.pacer.ceiling is not None
    assert world.pacer.ceiling < 0.5 * NEEDED
    assert world.track.stats.probes == 0, "not while it suffers"
    world.run(10)
    assert world.track.stats.probes > 0
    thinned = world.pacer.stats.thinned_frames
    world.run(10)
    assert world.pacer.ceiling is None
    assert world.pacer.stats.thinned_frames == thinned
    probes = world.track.stats.probes
    world.run(3)
    assert world.track.stats.probes == probes


@pytest.mark.parametrize(("loss", "queue"), [(0.5, 0.0), (0.0, 0.4)], ids=["loss", "queue"])
def test_transport_wide_feedback_alone_brings_a_ceiling(wire: Any, loss: float, queue: float) -> None:
    world = World(wire, transport_cc=3)
    for strained in (False, True):
        for _ in range(5):
            world.play()
            world.acknowledge(loss=loss if strained else 0.0, queue=queue if strained else 0.0)
            world.report()
        assert (world.pacer.ceiling is not None) is strained


def test_what_is_sent_again_has_its_share_of_the_ceiling(wire: Any) -> None:
    world = World(wire)
    world.run(3)
    world.run(2, queue=0.4)
    ceiling = world.pacer.ceiling
    assert ceiling is not None
    assert world.sender.repair.rate == pytest.approx(RESEND_SHARE * ceiling / 8, rel=0.001)


def test_what_is_sent_again_takes_from_what_is_new(wire: Any) -> None:
    world = World(wire)
    world.run(3)
    world.run(2, queue=0.4)
    assert world.pacer.ceiling is not None
    picture = [(b"\x67" + bytes(SIZE - 1), True)]
    assert hand_in(world.pacer, "video", picture, world.now, world.now)
    last = world.track.sequence
    world.hear(rtcp.pack_nack(FAR, world.track.ssrc, range(last - 30, last)))
    assert world.track.stats.retransmitted > 20
    assert not hand_in(world.pacer, "video", picture, world.now + 0.001, world.now)
