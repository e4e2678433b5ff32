"""The sender over real SRTP and UDP: packets, reports, retransmission, keyframe requests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.extensions import NO_EXTENSIONS, HeaderExtensions, max_payload
from relay_worker.publish.history import SentHistory
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.retransmission import RESEND_BURST
from relay_worker.publish.sender import MediaSender
from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import pack_transport_feedback
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.prepared import PreparedPackets

pytestmark = pytest.mark.usefixtures("data_path")

FAR = 0xFA5
NUMBERED, TIMED, BOTH = HeaderExtensions(None, 3), HeaderExtensions(2, None), HeaderExtensions(2, 3)
VIDEO, AUDIO = make_offer(audio=True).tracks


def video_track(
    *, rtx: bool = True, nack: bool = True, extensions: HeaderExtensions = NO_EXTENSIONS, remb: bool = True, **more: Any
) -> OutgoingTrack:
    accepted = AcceptedTrack(VIDEO, 106, 107 if rtx else None, "42e01f", nack, extensions, remb)
    return OutgoingTrack(accepted, **more)


def audio_track(extensions: HeaderExtensions = NO_EXTENSIONS) -> OutgoingTrack:
    return OutgoingTrack(AcceptedTrack(AUDIO, 111, None, "", False, extensions))


def payload(index: int, size: int = 1200) -> bytes:
    return index.to_bytes(4, "big") * (size // 4)


def run(first: int, count: int, last: int = 400) -> list[tuple[bytes, bool]]:
    sizes = [1200] * (count - 1) + [last]
    return [(payload(first + i, size), i == count - 1) for i, size in enumerate(sizes)]


def test_payloads_arrive_in_order_whole_and_marked(wire: Any) -> None:
    track = video_track(sequence=65530)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 40), 12345, now=1.0)
    sender.send(track, [(memoryview(payload(99, 8)), True)], 15345, now=1.03)
    media, control = wire.receive()
    assert [p.payload for p in media] == [p for p, _ in run(0, 40)] + [payload(99, 8)]
    assert [p.sequence for p in media] == [(65530 + i) & 0xFFFF for i in range(41)]
    assert [p.marker for p in media] == [False] * 39 + [True, True]
    assert {p.timestamp for p in media[:40]} == {12345}
    assert {(p.payload_type, p.ssrc, p.extension) for p in media} == {(106, VIDEO.ssrc, b"")}
    assert control == []  # without a clock there is nothing to report
    assert track.stats.packets == 41
    assert wire.path.gso is (wire.near.calls < 41)


def test_sizes_in_any_order_arrive(wire: Any) -> None:
    track = video_track()
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sizes = [4, 1200, 1200, 8, 1200, 4, 4, 8, 1396, 1396, 1200, 1200, 1200, 1200, 1200, 1200, 1200, 40, 40, 44]
    sender.send(track, [(payload(i, size), False) for i, size in enumerate(sizes)], 0, now=0.0)
    media, _ = wire.receive()
    assert [p.payload for p in media] == [payload(i, size) for i, size in enumerate(sizes)]


def test_an_oversized_payload_is_counted_not_sent(wire: Any) -> None:
    track = video_track()
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, [(bytes(1401), False), (b"ok", True)], 0, now=0.0)
    media, _ = wire.receive()
    assert [p.payload for p in media] == [b"ok"]
    assert track.stats.oversized == 1


def test_sender_reports_share_one_clock(wire: Any) -> None:
    video, audio = video_track(timestamp_base=0xFFFFFF00), audio_track()
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="porch")
    sender.set_clock(media_time=50.0, wall=1_700_000_000.0, now=1000.0)
    sender.send(video, run(0, 3), video.rtp_time(50.0), now=1000.0)
    sender.send(audio, [(b"opus", False)], audio.rtp_time(50.0), now=1000.1)
    _, control = wire.receive()
    assert len(control) == 1  # at once for the first track that sends, then once a second for all
    for step in range(1, 41):
        sender.send(audio, [(b"opus", False)], audio.rtp_time(50 + step / 10), now=1000.0 + step / 10)
    _, control = wire.receive()
    assert len(control) == 2 * 4
    reports: dict[int, list[rtcp.SenderReport]] = {}
    for compound in control:
        report, description = rtcp.parse_compound(compound)
        assert isinstance(report, rtcp.SenderReport)
        assert isinstance(description, rtcp.SourceDescription)
        assert description.chunks == ((report.ssrc, "porch"),)
        reports.setdefault(report.ssrc, []).append(report)
    for track in (video, audio):
        for report in reports[track.ssrc]:
            media_time = 50.0 + rtcp.unix_time(report.ntp) - 1_700_000_000.0
            difference = (report.rtp - track.rtp_time(media_time) + 0x80000000) % 2**32 - 0x80000000
            assert abs(difference) <= 1
    assert reports[video.ssrc][0].packets == 3
    assert reports[video.ssrc][0].octets == 2800
    assert reports[audio.ssrc][-1].packets == 41


def nack(track: OutgoingTrack, *sequences: int) -> bytes:
    return rtcp.pack_receiver_report(FAR) + rtcp.pack_nack(FAR, track.ssrc, sequences)


@pytest.mark.parametrize("rtx", [True, False])
def test_a_nack_brings_the_packet_again(wire: Any, rtx: bool) -> None:
    track = video_track(sequence=100, rtx=rtx)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 20), 777, now=0.0)
    wire.receive(3, 19)
    sender.receive_rtcp(nack(track, 103, 119), now=0.05)
    media, _ = wire.receive()
    if rtx:
        assert [p.payload[:2] for p in media] == [(103).to_bytes(2, "big"), (119).to_bytes(2, "big")]
        assert [p.payload[2:] for p in media] == [payload(3), payload(19, 400)]
        assert {(p.ssrc, p.payload_type, p.timestamp) for p in media} == {(VIDEO.rtx_ssrc, 107, 777)}
        assert (media[1].sequence - media[0].sequence) & 0xFFFF == 1
    else:
        assert [(p.sequence, p.payload) for p in media] == [(103, payload(3)), (119, payload(19, 400))]
        assert {(p.ssrc, p.payload_type, p.timestamp) for p in media} == {(VIDEO.ssrc, 106, 777)}
    assert [p.marker for p in media] == [False, True]
    assert (track.stats.nacks, track.stats.retransmitted, track.stats.retransmitted_bytes) == (2, 2, 1600)
    assert track.stats.packets == 20


def test_a_repeated_nack_within_a_round_trip_is_ignored(wire: Any) -> None:
    track = video_track(sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 5), 0, now=0.0)
    sender.estimate.lowest_rtt = 0.04
    for now in (0.10, 0.12, 0.15):
        sender.receive_rtcp(nack(track, 2), now)
    assert (track.stats.retransmitted, track.stats.nacks_suppressed) == (2, 1)


def test_on_request_repairs_go_twice(wire: Any) -> None:
    track = video_track(sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 20), 777, now=0.0)
    sender.repair.repairs_twice, sender.estimate.lowest_rtt = True, 0.08
    wire.receive()
    sender.receive_rtcp(nack(track, 3, 4), now=0.1)
    media, _ = wire.receive()
    assert [int.from_bytes(p.payload[:2], "big") for p in media] == [3, 4, 3, 4]
    assert len({p.sequence for p in media}) == 4
    sender.receive_rtcp(nack(track, *range(20)), now=0.11)
    assert track.stats.retransmitted == 4 + 2 * 18, "the others; these two are under way"
    assert track.history is not None
    assert track.history.repaired == 20, "a copy is no sign of loss"
    sender.receive_rtcp(nack(track, 3), now=0.15)
    assert track.stats.retransmitted == 41, "asked for again: a third"


def test_on_request_a_lost_repair_is_repeated_twice(wire: Any) -> None:
    track = video_track(sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 20), 777, now=0.0)
    sender.repair.repeats_twice, sender.estimate.lowest_rtt = True, 0.04
    wire.receive()
    sender.receive_rtcp(nack(track, 3, 4), now=0.1)
    sender.receive_rtcp(nack(track, 4, 5), now=0.15)
    media, _ = wire.receive()
    assert [int.from_bytes(p.payload[:2], "big") for p in media] == [3, 4, 4, 5, 4]
    assert len({p.sequence for p in media}) == 5


def test_on_request_the_last_packet_of_a_picture_goes_twice(wire: Any) -> None:
    video, audio = video_track(sequence=0), audio_track()
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    sender.repair.tails_twice = True
    sender.send(video, run(0, 3)[:2], 777, now=0.0)  # a part of one
    sender.send(video, run(2, 1), 777, now=0.01)
    sender.send(audio, [(b"opus", True)], 0, now=0.01)
    media, _ = wire.receive()
    assert [p.ssrc for p in media] == [VIDEO.ssrc] * 3 + [VIDEO.rtx_ssrc, AUDIO.ssrc]
    assert media[3].payload == (2).to_bytes(2, "big") + media[2].payload
    assert media[3].marker


def test_copies_leave_half_of_the_budget_to_repairs(wire: Any) -> None:
    track = video_track(sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.repair.repairs_twice = sender.repair.tails_twice = True
    for index in range(200):
        sender.send(track, run(index, 1, last=1200), index, now=10.0)
    copies = RESEND_BURST // 2 // 1200
    assert track.stats.retransmitted == copies
    sender.receive_rtcp(nack(track, *range(50)), now=10.0)
    assert track.stats.retransmitted == copies + 50
    assert track.stats.nacks_over_budget == 0


def test_what_is_gone_or_was_never_sent_is_counted(wire: Any) -> None:
    track = video_track(sequence=0, history=SentHistory(seconds=1.5))
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    for index in range(30):
        sender.send(track, run(index, 1), 0, now=index / 10)
    sender.receive_rtcp(nack(track, 3, 29, 30, 5000), now=3.0)
    assert (track.stats.retransmitted, track.stats.nacks_too_late) == (1, 3)


def test_retransmission_has_a_budget_that_refills(wire: Any) -> None:
    track = video_track(sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 400, last=1200), 0, now=10.0)
    sender.receive_rtcp(nack(track, *range(400)), now=10.1)
    assert track.stats.retransmitted == RESEND_BURST // 1200
    assert track.stats.nacks_over_budget == 400 - RESEND_BURST // 1200
    sender.receive_rtcp(nack(track, 399), now=10.5)
    assert track.stats.retransmitted == RESEND_BURST // 1200 + 1


def test_without_negotiated_nack_nothing_is_kept(wire: Any) -> None:
    track = audio_track()
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, [(b"opus", False)], 0, now=0.0)
    sender.receive_rtcp(nack(track, track.sequence - 1), now=0.1)
    assert track.history is None
    assert track.stats.retransmitted == 0


def test_receiver_reports_give_loss_jitter_and_round_trip(wire: Any) -> None:
    track = video_track(sequence=500)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.set_clock(0.0, 1_700_000_000.0, 0.0)
    sender.send(track, run(0, 10), 0, now=5.0)
    _, (compound,) = wire.receive()
    report = rtcp.parse_compound(compound)[0]
    assert isinstance(report, rtcp.SenderReport)
    lsr = report.ntp >> 16 & 0xFFFFFFFF
    block = rtcp.ReportBlock(track.ssrc, 64, 3, 509, 900, lsr, 65536 // 2)
    sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [block]), now=5.58)
    estimate = sender.estimate
    assert estimate.rtt == pytest.approx(0.08, abs=0.001)
    assert (track.stats.fraction_lost, track.stats.lost, track.stats.jitter) == (0.25, 3, 0.01)
    assert estimate.last_report == 5.58
    assert track.acknowledged
    assert track.owed_since is sender.owed_since is None
    sender.send(track, run(10, 2), 3000, now=6.0)
    sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [block]), now=6.58)
    assert estimate.last_report == 6.58
    assert track.owed_since == sender.owed_since == 6.0, "the same number again acknowledges nothing"
    strange = block._replace(ssrc=1)
    sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [strange]), now=9.0)
    assert estimate.last_report == 6.58


def test_keyframe_requests_are_coalesced_and_the_last_is_not_lost(wire: Any) -> None:
    asked: list[float] = []
    now = 0.0
    track = video_track()
    sender = MediaSender(wire.protector, wire.path, [track], cname="c", on_keyframe_request=lambda: asked.append(now))
    pli, fir = rtcp.pack_pli(FAR, track.ssrc), rtcp.pack_fir(FAR, track.ssrc, 1)
    for now, request in ((10.0, pli), (10.1, fir), (10.2, pli)):
        sender.receive_rtcp(request, now)
    for step in range(1, 300):
        now = 10.2 + step / 100
        sender.send(track, [(b"x", True)], 0, now)
    assert asked == [10.0, pytest.approx(11.0, abs=0.011)]
    assert (track.stats.plis, track.stats.firs) == (2, 1)
    now = 20.0
    sender.receive_rtcp(rtcp.pack_pli(FAR, 12345), now)  # about somebody else's stream
    assert len(asked) == 2


def test_transport_wide_numbers_and_feedback(wire: Any) -> None:
    video, audio = video_track(extensions=NUMBERED), audio_track(NUMBERED)
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    for index in range(50):
        now = index / 50
        sender.send(video, run(index, 2), 0, now)
        sender.send(audio, [(b"opus", False)], 0, now)
    media, _ = wire.receive()
    numbers = [int.from_bytes(p.extension[1:3], "big") for p in media]
    assert {p.extension[0] for p in media} == {0x31}
    assert numbers == list(range(1, 151))
    # A queue that grows by 50 ms a second, and every tenth packet lost.
    arrivals = [(n, 100 + (n - 1) // 3 / 50 * 1.05) for n in numbers if n % 10]
    sender.receive_rtcp(pack_transport_feedback(FAR, video.ssrc, 0, arrivals), now=1.0)
    estimate = sender.estimate
    assert estimate.transport_loss == pytest.approx(0.25 * 0.094, abs=0.005)
    assert estimate.received_bitrate == pytest.approx(8 * sum(len(p.payload) + 36 for p in media) * 0.9, rel=0.1)


def test_what_is_remembered_for_transport_feedback_is_bounded(wire: Any) -> None:
    sender = MediaSender(wire.protector, wire.path, [track := audio_track(NUMBERED)], cname="c")
    for index in range(5000):
        sender.send(track, [(b"opus", False)], 0, index / 1000)
    sender.receive_rtcp(pack_transport_feedback(FAR, track.ssrc, 0, [(n, 100.0) for n in range(1, 50)]), now=5.0)
    assert sender.estimate.received_bitrate == 0.0, "long forgotten"
    sender.receive_rtcp(pack_transport_feedback(FAR, track.ssrc, 1, [(n, 100.0) for n in range(4900, 5000)]), now=5.0)
    assert sender.estimate.received_bitrate > 0.0


def test_packets_are_protected_where_they_are_written(wire: Any) -> None:
    """One buffer, for ever: no packet is copied or allocated between its payload and the system call."""

    class Path(UdpPath):
        def send(self, packets: Sequence[memoryview]) -> None:
            buffers.update(id(packet.obj) for packet in packets)
            calls.append([len(packet) for packet in packets])
            super().send(packets)

        def send_prepared(self, packets: PreparedPackets, count: int) -> None:
            self.send(packets.views(0, count))

    buffers: set[int] = set()
    calls: list[list[int]] = []
    wire.path = Path(wire.near, wire.far_address, gso=wire.path.gso)
    sender = MediaSender(wire.protector, wire.path, [track := video_track()], cname="c")
    for index in range(20):
        sender.send(track, run(index, 12), 0, now=index / 30)
    media, _ = wire.receive()
    assert len(media) == 240
    assert buffers == {id(wire.protector.buffer.obj)}
    assert {len(call) for call in calls} == {12}, "a frame in one go"


def test_a_repeat_without_rtx_is_the_very_same_packet(wire: Any) -> None:
    """Two packets under one SRTP nonce would give the authentication key away."""
    track = video_track(rtx=False, sequence=0, extensions=BOTH)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 4), 0, now=0.0)
    wire.receive(1)
    original = wire.raw[1]
    sender.receive_rtcp(nack(track, 1), now=0.1)
    wire.receive()
    assert wire.raw == [original]


@pytest.mark.parametrize("agreed", [True, False])
def test_feedback_counts_only_as_negotiated(wire: Any, agreed: bool) -> None:
    track = video_track(remb=agreed, nack=agreed, extensions=NUMBERED if agreed else TIMED)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    sender.send(track, run(0, 3), 0, now=2.9)
    sender.receive_rtcp(rtcp.pack_remb(FAR, 1_500_000, [track.ssrc]), now=3.0)
    sender.receive_rtcp(pack_transport_feedback(FAR, track.ssrc, 0, [(1, 3.0), (3, 3.1)]), now=3.1)
    sender.receive_rtcp(nack(track, track.sequence - 1), now=3.1)
    estimate = sender.estimate
    assert sender.unagreed_feedback == (0 if agreed else 3)
    assert estimate.remb == (pytest.approx(1_500_000, rel=0.001) if agreed else None)
    assert (estimate.last_remb, estimate.last_feedback) == ((3.0, 3.1) if agreed else (None, None))
    assert track.stats.retransmitted == agreed


@pytest.mark.parametrize("extensions", [NO_EXTENSIONS, TIMED, NUMBERED, BOTH])
def test_extensions_are_those_agreed_for_each_track(wire: Any, extensions: HeaderExtensions) -> None:
    video, audio = video_track(extensions=extensions), audio_track()
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    sender.send(video, run(0, 2), 0, now=65.5)
    sender.send(audio, [(b"opus", False)], 0, now=65.5)
    sender.receive_rtcp(nack(video, video.sequence - 2), now=66.0)
    media, _ = wire.receive()
    picture, sound, repair = media[:2], media[2], media[3]
    assert sound.extension == b""
    assert [p.payload for p in picture] == [p for p, _ in run(0, 2)]
    assert repair.payload[2:] == payload(0)
    for index, packet in enumerate((*picture, repair)):
        elements = b""
        if extensions.abs_send_time is not None:
            # 6.18 fixed point: 65.5 s is 1.5 s into the second round of 64 s.
            elements += b"\x22" + (round((2.0 if packet is repair else 1.5) * 2**18)).to_bytes(3, "big")
        if extensions.transport_cc is not None:
            elements += b"\x31" + (1 + index).to_bytes(2, "big")
        assert packet.extension == elements + bytes(-len(elements) % 4)


@pytest.mark.parametrize("extensions", [NO_EXTENSIONS, TIMED, NUMBERED, BOTH])
def test_the_largest_packet_fits_the_smallest_ipv6_path(wire: Any, extensions: HeaderExtensions) -> None:
    track = video_track(extensions=extensions, sequence=0)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    size = max_payload(40, extensions.size)
    sender.send(track, [(bytes(size), True)], 0, now=1.0)
    sender.receive_rtcp(nack(track, 0), now=2.0)
    wire.receive()
    assert max(map(len, wire.raw)) <= 1280 - 48
    assert size == 1200 or max(map(len, wire.raw)) == 1280 - 48, "and no smaller than needed"
    assert max_payload(20, extensions.size) == 1200, "an IPv4 path has room for all"


def test_outgoing_numbers_never_jump(wire: Any) -> None:
    """libsrtp refuses a packet that is half the range ahead of the last, and a receiver takes any jump for loss."""
    video, audio = video_track(sequence=65500, extensions=BOTH), audio_track(BOTH)
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    sender.repair.tails_twice = sender.repair.repairs_twice = True
    refused = iter([0] * 40)
    protect = wire.protector.protect
    numbers: dict[int, list[int]] = {}
    for index in range(100):
        now = index / 30
        # Some are too large, and some libsrtp does not take.
        wire.protector.protect = (lambda slot, length: next(refused, 0)) if index in (20, 21) else protect
        sender.send(video, [(bytes(1500), False), *run(index, 9)], index, now)
        sender.send(audio, [(b"opus", False)], index, now)
        sender.receive_rtcp(nack(video, (video.sequence - 2) & 0xFFFF, 40_000), now)
        sender.repair.probe(video, 5000, now)
    for packet in wire.receive()[0]:
        numbers.setdefault(packet.ssrc, []).append(packet.sequence)
    steps = {(b - a) & 0xFFFF for sequence in numbers.values() for a, b in itertools.pairwise(sequence)}
    assert len(numbers) == 3
    assert 1 in steps
    assert max(steps) <= 2 * 25 + 1, steps


def test_probes_are_repeats_of_what_was_sent_last(wire: Any) -> None:
    track = video_track(sequence=10, extensions=BOTH)
    sender = MediaSender(wire.protector, wire.path, [track], cname="c")
    assert sender.repair.probe(track, 5000, now=0.9) == 0, "nothing was sent"
    sender.send(track, run(0, 5, last=1200), 777, now=1.0)
    wire.receive()
    assert sender.repair.probe(track, 2500, now=1.1) == 2400
    media, _ = wire.receive()
    assert [(p.ssrc, p.payload_type) for p in media] == [(VIDEO.rtx_ssrc, 107)] * 2
    assert [p.payload for p in media] == [n.to_bytes(2, "big") + payload(n - 10) for n in (14, 13)]
    assert (track.stats.probes, track.stats.probe_bytes, track.stats.retransmitted) == (2, 2400, 0)
    without = video_track(rtx=False)
    assert MediaSender(wire.protector, wire.path, [without], cname="c").repair.probe(without, 5000, now=1.2) == 0


def test_the_receivers_clock_may_begin_anew(wire: Any) -> None:
    """The reference time of transport-wide feedback has 24 bits of 64 ms: it wraps every 12 days."""
    sender = MediaSender(wire.protector, wire.path, [track := audio_track(NUMBERED)], cname="c")
    period = 0.064 * 2**24
    for index in range(40):
        now = 100.0 + index
        sender.send(track, [(b"opus", False)], 0, now)
        arrived = [(index + 1, (period - 20.0 + index) % period)]
        if index >= 20:  # the simulated receiver counts in whole numbers
            arrived = [(index + 1, index - 20.0)]
        sender.receive_rtcp(pack_transport_feedback(FAR, track.ssrc, index, arrived), now + 0.1)
        assert abs(sender.estimate.queue_delay) < 0.001


def test_malformed_rtcp_is_counted_and_its_good_part_used(wire: Any) -> None:
    track = video_track()
    asked: list[int] = []
    sender = MediaSender(wire.protector, wire.path, [track], cname="c", on_keyframe_request=lambda: asked.append(1))
    sender.receive_rtcp(rtcp.pack_pli(FAR, track.ssrc) + b"\x81\xce\xff\xff", now=1.0)
    for junk in (b"", b"\x80", bytes(40), b"\x81\xcd\x00\x01abcd"):
        sender.receive_rtcp(junk, now=1.0)
    assert asked == [1]
    assert sender.malformed_rtcp == 5


def test_goodbye_names_every_stream(wire: Any) -> None:
    video, audio = video_track(), audio_track()
    sender = MediaSender(wire.protector, wire.path, [video, audio], cname="c")
    sender.set_clock(0.0, 1_700_000_000.0, 0.0)
    sender.send(video, run(0, 1), 0, now=0.0)
    wire.receive()
    sender.say_goodbye(now=0.5)
    _, control = wire.receive()
    byes = [p for c in control for p in rtcp.parse_compound(c) if isinstance(p, rtcp.Bye)]
    assert [bye.ssrcs for bye in byes] == [(VIDEO.ssrc, VIDEO.rtx_ssrc)]  # audio never spoke


def test_rtp_time_wraps_and_is_exact_for_opus_frames() -> None:
    track = audio_track()
    times = [track.rtp_time(1_000_000 + index * 0.02) for index in range(1000)]
    assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(times)} == {960}
