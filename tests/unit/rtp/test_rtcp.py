"""The codec against aiortc's (an independent one) and against any bytes."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from aiortc import rtp as peer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import TransportFeedback, pack_transport_feedback

BLOCK = rtcp.ReportBlock(7, 12, -3, 0x1FFFF, 44, 55, 66)


def test_reports_as_aiortc_reads_them() -> None:
    data = rtcp.pack_sender_report(1, 2 << 32, 3, 4, 5, [BLOCK]) + rtcp.pack_receiver_report(1, [BLOCK])
    sender, receiver = peer.RtcpPacket.parse(data)
    assert isinstance(sender, peer.RtcpSrPacket)
    assert isinstance(receiver, peer.RtcpRrPacket)
    info, block = sender.sender_info, receiver.reports[0]
    assert (sender.ssrc, info.ntp_timestamp, info.rtp_timestamp) == (1, 2 << 32, 3)
    assert (info.packet_count, info.octet_count) == (4, 5)
    assert (block.ssrc, block.fraction_lost, block.packets_lost) == (7, 12, -3)
    assert (block.highest_sequence, block.jitter, block.lsr, block.dlsr) == (0x1FFFF, 44, 55, 66)
    assert rtcp.parse_compound(data) == [
        rtcp.SenderReport(1, 2 << 32, 3, 4, 5, (BLOCK,)),
        rtcp.ReceiverReport(1, (BLOCK,)),
    ]


@pytest.mark.parametrize("cname", ["", "a", "ab", "abc", "abcd", "relay@camera"])
def test_source_description_as_aiortc_reads_it(cname: str) -> None:
    data = rtcp.pack_sdes(9, cname)
    (packet,) = peer.RtcpPacket.parse(data)
    assert isinstance(packet, peer.RtcpSdesPacket)
    assert [(chunk.ssrc, chunk.items) for chunk in packet.chunks] == [(9, [(1, cname.encode())])]
    assert rtcp.parse_compound(data) == [rtcp.SourceDescription(((9, cname),))]


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=50))
def test_nack_as_aiortc_reads_it(sequences: list[int]) -> None:
    data = rtcp.pack_nack(1, 2, sequences)
    (packet,) = peer.RtcpPacket.parse(data)
    assert isinstance(packet, peer.RtcpRtpfbPacket)
    # aiortc counts on beyond 65535 (rtp.py, RtcpRtpfbPacket.parse); RFC 4585 §6.2.1 means modulo 2^16.
    assert {number & 0xFFFF for number in packet.lost} == set(sequences)
    (ours,) = rtcp.parse_compound(data)
    assert isinstance(ours, rtcp.Nack)
    assert set(ours.sequences) == set(sequences)


def test_nack_shares_entries() -> None:
    assert len(rtcp.pack_nack(1, 2, [65530, 65535, 0, 10])) == 16


def test_payload_feedback_as_aiortc_reads_it() -> None:
    data = rtcp.pack_pli(1, 2) + rtcp.pack_fir(1, 2, 258) + rtcp.pack_remb(1, 4_000_000, [2, 3]) + rtcp.pack_bye(1)
    pli, fir, remb, bye = peer.RtcpPacket.parse(data)
    assert isinstance(pli, peer.RtcpPsfbPacket)
    assert isinstance(fir, peer.RtcpPsfbPacket)
    assert isinstance(remb, peer.RtcpPsfbPacket)
    assert isinstance(bye, peer.RtcpByePacket)
    assert (pli.fmt, pli.ssrc, pli.media_ssrc) == (1, 1, 2)
    assert (fir.fmt, fir.fci) == (4, bytes((0, 0, 0, 2, 2, 0, 0, 0)))
    assert peer.unpack_remb_fci(remb.fci) == (4_000_000, [2, 3])
    assert bye.sources == [1]
    assert rtcp.parse_compound(data) == [
        rtcp.Pli(1, 2),
        rtcp.Fir(1, ((2, 2),)),
        rtcp.Remb(1, 4_000_000, (2, 3)),
        rtcp.Bye((1,)),
    ]


@given(st.integers(0, 1 << 60))
def test_remb_rounds_down_a_little(bitrate: int) -> None:
    (packet,) = rtcp.parse_compound(rtcp.pack_remb(1, bitrate, [2]))
    assert isinstance(packet, rtcp.Remb)
    assert bitrate * (1 - 2**-17) - 1 <= packet.bitrate <= bitrate


def test_transport_feedback_of_known_bytes() -> None:
    # Run of 2 small deltas; vector of 14 one-bit symbols (first and third arrived); reference time -1 (64 ms units).
    body = struct.pack("!IIHHI", 1, 2, 0xFFFF, 5, 0xFFFFFF << 8 | 9) + bytes((0x20, 2, 0b10101000, 0, 4, 8, 12, 16))
    data = struct.pack("!BBH", 0x8F, 205, len(body) // 4) + body
    (packet,) = rtcp.parse_compound(data)
    assert isinstance(packet, TransportFeedback)
    assert (packet.base_sequence, packet.packet_count, packet.feedback_count) == (0xFFFF, 5, 9)
    assert [sequence for sequence, _ in packet.received] == [0xFFFF, 0, 1, 3]
    assert [round(arrival * 1000, 3) for _, arrival in packet.received] == [-63.0, -61.0, -58.0, -54.0]


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(1, 30), st.integers(-100, 30_000)), min_size=1, max_size=40),
)
def test_transport_feedback_round_trip(base: int, steps: list[tuple[int, int]]) -> None:
    received, sequence, ticks = [], base, 1_000_000
    for gap, delta in steps:
        received.append((sequence & 0xFFFF, ticks * 250e-6))
        sequence, ticks = sequence + gap, ticks + delta
    (packet,) = rtcp.parse_compound(pack_transport_feedback(1, 2, 300, received))
    assert isinstance(packet, TransportFeedback)
    assert packet.feedback_count == 44
    assert [s for s, _ in packet.received] == [s for s, _ in received]
    assert all(abs(a - b) < 1e-6 for (_, a), (_, b) in zip(packet.received, received, strict=True))


def test_good_packets_survive_a_bad_one() -> None:
    bad = struct.pack("!BBH", 0x81, 200, 1) + b"\0\0\0\1"
    with pytest.raises(rtcp.RtcpError) as caught:
        rtcp.parse_compound(rtcp.pack_pli(1, 2) + bad + rtcp.pack_bye(3) + b"\x80")
    assert caught.value.packets == [rtcp.Pli(1, 2), rtcp.Bye((3,))]


def test_unknown_types_come_back_as_they_are() -> None:
    data = struct.pack("!BBH", 0x85, 204, 2) + b"abcdefgh"
    assert rtcp.parse_compound(data) == [rtcp.Unknown(204, 5, b"abcdefgh")]


def test_padding_is_taken_off() -> None:
    data = struct.pack("!BBH", 0xA1, 203, 2) + b"\0\0\0\7" + b"\0\0\0\4"
    assert rtcp.parse_compound(data) == [rtcp.Bye((7,))]


def test_ntp() -> None:
    assert rtcp.ntp_time(0.5) == (2_208_988_800 << 32) + (1 << 31)
    assert abs(rtcp.unix_time(rtcp.ntp_time(1_700_000_000.25)) - 1_700_000_000.25) < 1e-6


VALID = [
    rtcp.pack_sender_report(1, 2, 3, 4, 5, [BLOCK]),
    rtcp.pack_sdes(1, "abc"),
    rtcp.pack_remb(1, 1000, [2]),
    rtcp.pack_nack(1, 2, [3, 4]),
    pack_transport_feedback(1, 2, 3, [(1, 0.5), (9, 0.6)]),
]


@given(st.sampled_from(VALID), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6), st.binary())
def test_takes_any_bytes(data: bytes, changes: list[tuple[int, int]], tail: bytes) -> None:
    mutated = bytearray(data)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    for candidate in (bytes(mutated) + tail, tail):
        try:
            rtcp.parse_compound(candidate)
        except rtcp.RtcpError:
            pass


@pytest.mark.slow
@settings(max_examples=300)
@example(1, rtcp.SDES, [bytes(4)])
@given(st.integers(0, 31), st.integers(200, 206), st.lists(st.binary(min_size=4, max_size=4), max_size=12))
def test_takes_any_body(count: int, kind: int, words: list[bytes]) -> None:
    try:
        rtcp.parse_compound(struct.pack("!BBH", 0x80 | count, kind, len(words)) + b"".join(words))
    except rtcp.RtcpError:
        pass


def test_a_small_packet_cannot_ask_for_much_memory() -> None:
    body = struct.pack("!IIHHI", 1, 2, 0, 0xFFFF, 0) + b"\x3f\xff" * 8
    tracemalloc.start()
    try:
        with pytest.raises(rtcp.RtcpError):
            rtcp.parse_compound(struct.pack("!BBH", 0x8F, 205, len(body) // 4) + body)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
