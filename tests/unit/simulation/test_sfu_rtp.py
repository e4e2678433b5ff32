"""The simulated SFU's media rules without sockets: reception, forwarding, RTCP (checked against aiortc's reader)."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from aiortc import rtp as aiortc_rtp
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.codecs import fit, translate
from relay_common.simulation.sfu.downstream import Downstream
from relay_common.simulation.sfu.feedback import TransportFeedback, one_byte_extension
from relay_common.simulation.sfu.options import SfuTimings
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import Codec, Section
from relay_common.simulation.sfu.upstream import Upstream, begins_idr

H264 = Codec(101, "H264", 90000, fmtp="packetization-mode=1", feedback=("nack", "nack pli"))
RTX = Codec(102, "rtx", 90000, fmtp="apt=101")


class Wire:
    """Stands where a peer's transport does and keeps what is sent, in plain."""

    ssrc = 7

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(4096))
        self.rtp: list[bytes] = []
        self.rtcp: list[bytes] = []

    def send_rtp(self, size: int) -> None:
        self.rtp.append(bytes(self.scratch[:size]))

    def send_rtcp(self, compound: bytes) -> None:
        self.rtcp.append(compound)


def packet(
    sequence: int, timestamp: int = 0, ssrc: int = 1, kind: int = 101, payload: bytes = b"\x41abc"
) -> memoryview:
    return memoryview(bytearray(struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, timestamp, ssrc) + payload))


def publication(wire: Wire) -> Publication:
    return Publication(wire, Section("video", "0", codecs=[H264, RTX]), SfuTimings())


def viewer(wire: Wire, source: Publication, *, rtx: bool = True) -> Downstream:
    downstream = Downstream(
        wire,
        source.upstream,
        ssrc=1000,
        rtx_ssrc=1001,
        payload_types={101: 101},
        rtx_types={101: 102} if rtx else {},
        first_sequence=65530,
        cname="c",
    )
    downstream.active = True
    source.subscribers.append(downstream)
    return downstream


def feed(source: Publication, *sequences: int, ssrc: int = 1, now: float = 0.0) -> None:
    for sequence in sequences:
        data = packet(sequence, sequence * 3000 & 0xFFFFFFFF, ssrc)
        source.receive(data, sequence & 0xFFFF, sequence * 3000 & 0xFFFFFFFF, ssrc, now)


def headers(packets: list[bytes]) -> list[tuple[int, int, int]]:
    """(sequence, timestamp, SSRC) of each."""
    return [struct.unpack_from("!HII", data, 2) for data in packets]


def test_reception_across_the_wrap_counts_loss_duplicates_and_repair() -> None:
    source = publication(Wire())
    feed(source, 65534, 65535, 65537, 65540, 65540, 65538)
    upstream = source.upstream
    assert (upstream.packets, upstream.duplicates, upstream.skipped, upstream.repaired) == (5, 1, 3, 1)
    assert sorted(upstream.missing) == [65536, 65539]
    assert upstream.highest == 65540


def test_missing_packets_are_asked_for_again_and_then_given_up() -> None:
    upstream = Upstream("video", 90000, nack_retry=0.05, nack_give_up=0.2)
    upstream.restart(1)
    for sequence in (10, 14, 15):
        upstream.receive(sequence, 0, 20, 1.0)
    assert upstream.nacks(1.0) == [11, 12, 13]
    assert upstream.nacks(1.01) == []
    upstream.receive(12, 0, 20, 1.02)
    assert upstream.nacks(1.06) == [11, 13]
    assert upstream.lost == 0
    assert upstream.nacks(1.3) == []
    assert upstream.lost == 2
    assert [(first, count) for _, first, count in upstream.gaps] == [(11, 1), (13, 1)]
    # It came after all.
    assert upstream.receive(13, 0, 20, 1.4) == 13
    assert upstream.lost == 1


def test_a_long_jump_is_a_restart_not_loss() -> None:
    source = publication(Wire())
    feed(source, 1, 2, 20000, 20001)
    assert (source.upstream.restarts, source.upstream.skipped, source.upstream.packets) == (1, 0, 4)


def test_report_block_is_read_by_aiortc() -> None:
    source = publication(Wire())
    source.upstream.sender_report = None
    feed(source, 10, 11, 13, 14, now=5.0)
    source.upstream.sender_report = (0x1122334455667788, 0, 4.5)
    block = source.upstream.report_block(5.0)
    assert block is not None
    (report,) = aiortc_rtp.RtcpPacket.parse(sfu_rtcp.receiver_report(9, [block]))
    info = report.reports[0]
    assert (info.ssrc, info.fraction_lost, info.packets_lost, info.highest_sequence) == (1, 256 // 5, 1, 14)
    assert (info.lsr, info.dlsr) == (0x33445566, 32768)
    again = source.upstream.report_block(6.0)
    assert again is not None
    assert again[4] == 0, "the fraction is of the interval alone"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\x65\x88", True),
        (b"\x41\x9a", False),
        (b"\x7c\x85", True),
        (b"\x7c\x05", False),
        (b"\x7c\x81", False),
        (b"\x78\x00\x02\x67\x42\x00\x02\x65\x88", True),
        (b"\x78\x00\x02\x67\x42", False),
        (b"", False),
    ],
)
def test_idr_is_recognised(payload: bytes, expected: bool) -> None:
    assert begins_idr(memoryview(payload)) is expected


def test_retransmission_is_unwrapped_and_forwarded() -> None:
    wire = Wire()
    source = publication(wire)
    viewer(wire, source)
    feed(source, 1, 3)
    original = packet(2, 6000)
    rtx = packet(900, 6000, ssrc=2, kind=102, payload=b"\x00\x02" + bytes(original[12:]))
    source.receive_rtx(rtx, 6000, 0.0)
    assert (source.upstream.repaired, source.upstream.retransmissions) == (1, 1)
    assert headers(wire.rtp) == [(65530, 3000, 1000), (65532, 9000, 1000), (65531, 6000, 1000)]
    assert wire.rtp[2][12:] == bytes(original[12:])
    source.receive_rtx(packet(901, 0, ssrc=2, kind=102, payload=b""), 0, 0.0)
    assert source.upstream.empty == 1


@pytest.mark.parametrize("rtx", [True, False])
def test_viewer_nack_is_answered_from_the_buffer(rtx: bool) -> None:
    wire = Wire()
    source = publication(wire)
    downstream = viewer(wire, source, rtx=rtx)
    feed(source, *range(100, 110))
    sent = wire.rtp.copy()
    downstream.retransmit([65533, 0, 200])
    repeated = wire.rtp[10:]
    assert (downstream.retransmitted, downstream.unanswered) == (2, 1)
    if rtx:
        assert [data[1] & 127 for data in repeated] == [102, 102]
        assert headers(repeated) == [(65530, 103 * 3000, 1001), (65531, 106 * 3000, 1001)]
        assert [data[12:14] + data[14:] for data in repeated] == [b"\xff\xfd" + sent[3][12:], b"\0\0" + sent[6][12:]]
    else:
        assert repeated == [sent[3], sent[6]]


def test_a_change_of_source_continues_sequence_and_time() -> None:
    wire, other = Wire(), Wire()
    first, second = publication(wire), publication(other)
    downstream = viewer(wire, first)
    feed(first, 50, 51, now=10.0)
    feed(second, 7000, ssrc=2, now=10.0)
    downstream.follow(second.upstream)
    first.subscribers.remove(downstream)
    second.subscribers.append(downstream)
    feed(second, 7001, 7003, 7000, 7002, ssrc=2, now=10.5)
    base = 51 * 3000
    assert headers(wire.rtp)[2:] == [
        (65532, base + 45000, 1000),
        (65534, base + 45000 + 6000, 1000),
        (65533, base + 45000 + 3000, 1000),
    ]


def test_sender_report_carries_the_publishers_clock() -> None:
    wire = Wire()
    source = publication(wire)
    downstream = viewer(wire, source)
    feed(source, 1, 2, now=1.0)
    assert downstream.report(1.0) is None
    source.upstream.sender_report = (100 << 32, 3000, 1.0)
    compound = downstream.report(1.5)
    assert compound is not None
    report, description = aiortc_rtp.RtcpPacket.parse(compound)
    info = report.sender_info
    assert (info.ntp_timestamp, info.rtp_timestamp) == ((100 << 32) + (1 << 31), 3000 + 45000)
    assert (info.packet_count, info.octet_count) == (2, 8)
    assert description.chunks[0].items[0] == (1, b"c")


def test_keyframe_requests_are_coalesced() -> None:
    wire = Wire()
    source = publication(wire)
    source.request_keyframe(0.0)
    assert wire.rtcp == [], "nobody to ask before the first packet"
    feed(source, 1)
    for now in (0.0, 0.05, 0.15):
        source.request_keyframe(now)
    packets = [aiortc_rtp.RtcpPacket.parse(data)[0] for data in wire.rtcp]
    assert [(p.fmt, p.ssrc, p.media_ssrc) for p in packets] == [(aiortc_rtp.RTCP_PSFB_PLI, 7, 1)] * 2


@settings(deadline=None)
@given(st.sets(st.integers(0, 300), min_size=1), st.integers(0, 0xFFFF))
def test_nack_round_trip(offsets: set[int], base: int) -> None:
    sequences = [base + offset & 0xFFFF for offset in sorted(offsets)]
    compound = sfu_rtcp.nack(1, 2, sequences)
    (read,) = aiortc_rtp.RtcpPacket.parse(compound)
    # aiortc does not wrap what a mask adds.
    lost = sorted(sequence & 0xFFFF for sequence in read.lost)
    assert (read.ssrc, read.media_ssrc, lost) == (1, 2, sorted(sequences))
    ((kind, fmt, body),) = sfu_rtcp.packets(memoryview(compound))
    assert (kind, fmt, sfu_rtcp.nacked(body)) == (sfu_rtcp.RTPFB, sfu_rtcp.FMT_NACK, sequences)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_rtcp_is_read_without_an_error(data: bytes) -> None:
    for kind, _, body in sfu_rtcp.packets(memoryview(data)):
        if kind == sfu_rtcp.RTPFB:
            sfu_rtcp.nacked(body)


def test_remb_is_read_by_aiortc() -> None:
    (read,) = aiortc_rtp.RtcpPacket.parse(sfu_rtcp.remb(1, 2_500_000, [5, 6]))
    bitrate, ssrcs = aiortc_rtp.unpack_remb_fci(read.fci)
    assert bitrate == pytest.approx(2_500_000, rel=1e-4)
    assert ssrcs == [5, 6]


def test_transport_feedback_tells_arrival_times() -> None:
    feedback = TransportFeedback(3)
    for sequence, at in ((65534, 10.0), (65535, 10.001), (1, 10.5)):
        data = struct.pack("!BBHII", 0x90, 101, 5, 0, 1) + b"\xbe\xde\x00\x01" + struct.pack("!BHx", 0x31, sequence)
        assert one_byte_extension(memoryview(data + b"xx"), 3) == struct.pack("!H", sequence)
        feedback.receive(memoryview(data + b"xx"), at)
    report = feedback.report(7, 1)
    assert report is not None
    assert feedback.report(7, 1) is None
    base, count, reference = struct.unpack_from("!HHI", report, 12)
    assert (base, count, reference & 0xFF) == (65534, 4, 1)
    (chunk,) = struct.unpack_from("!H", report, 20)
    assert [chunk >> 12 - 2 * index & 3 for index in range(4)] == [1, 1, 0, 2]
    first, second, third = struct.unpack_from("!BBh", report, 22)
    start = (reference >> 8) * 0.064
    assert start + first * 0.00025 == pytest.approx(10.0, abs=0.00026)
    assert (second, third) == (4, 1996)


def test_a_probe_is_padding_alone_and_disturbs_nothing() -> None:
    wire = Wire()
    source = publication(wire)
    downstream = viewer(wire, source)
    downstream.probe()
    assert wire.rtp == [], "nothing before the first packet"
    feed(source, 1)
    downstream.probe()
    feed(source, 2)
    probe = aiortc_rtp.RtpPacket.parse(wire.rtp[1])
    assert (probe.payload_type, probe.ssrc, probe.payload, probe.padding_size) == (102, 1001, b"", 200)
    assert headers(wire.rtp[::2]) == [(65530, 3000, 1000), (65531, 6000, 1000)]


def opus(number: int) -> Codec:
    return Codec(number, "opus", 48000, 2)


def test_payload_types_are_kept_unless_another_codec_has_them() -> None:
    first = Section("video", "0", codecs=[H264, RTX])
    assert fit([H264, RTX], [first]) == ([H264, RTX], {101: 101})
    assert fit([opus(101)], [first]) == ([opus(96)], {101: 96})
    other = replace(H264, fmtp="packetization-mode=1;profile-level-id=4d001f")
    codecs, types = fit([other, RTX], [first])
    assert [(codec.payload_type, codec.apt) for codec in codecs] == [(96, None), (97, 96)]
    assert types == {101: 96}


def test_payload_types_of_a_new_source_are_translated() -> None:
    theirs = [replace(H264, payload_type=120), replace(RTX, payload_type=121, fmtp="apt=120"), opus(111)]
    assert translate(theirs, [H264, RTX]) == {120: 101}
    assert translate([replace(H264, fmtp="packetization-mode=0")], [H264]) == {}
