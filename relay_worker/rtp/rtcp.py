"""RTCP packet codec: RFC 3550 §6, RFC 4585 feedback, RFC 5104 FIR, REMB, and transport-wide feedback.

`parse_compound` turns bytes into value objects, `pack_*` turn values into one RTCP packet each; a compound packet is
their concatenation. Unknown packet types come back as `Unknown`. NTP times are 64-bit fixed point (32.32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from relay_worker.rtp.transport_cc import TransportFeedback, parse_transport_feedback

SR: Final = 200
RR: Final = 201
SDES: Final = 202
BYE: Final = 203
RTPFB: Final = 205
PSFB: Final = 206

FMT_NACK: Final = 1
FMT_TRANSPORT_CC: Final = 15
FMT_PLI: Final = 1
FMT_FIR: Final = 4
FMT_APPLICATION: Final = 15

SDES_CNAME: Final = 1

NTP_EPOCH_OFFSET: Final = 2_208_988_800
"""Seconds from the NTP epoch (1900) to the Unix epoch (1970)."""

_HEADER: Final = struct.Struct("!BBH")
_REPORT_BLOCK: Final = struct.Struct("!IIIIII")
_SENDER_INFO: Final = struct.Struct("!IQIII")
_TWO_SSRC: Final = struct.Struct("!II")
_MAX_COUNT: Final = 31


class ReportBlock(NamedTuple):
    """Reception report block, RFC 3550 §6.4.1."""

    ssrc: int
    """Source that the report is about."""
    fraction_lost: int
    """Loss since the last report, in 1/256 (0..255)."""
    lost: int
    """Cumulative packets lost, signed 24 bits (duplicates decrease it)."""
    highest_sequence: int
    """Extended highest sequence number received."""
    jitter: int
    """Interarrival jitter in RTP timestamp units."""
    lsr: int
    """Middle 32 bits of the last SR's NTP time, 0 when none came."""
    dlsr: int
    """Delay since that SR in 1/65536 s."""


class SenderReport(NamedTuple):
    ssrc: int
    ntp: int
    rtp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()


class ReceiverReport(NamedTuple):
    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


class SourceDescription(NamedTuple):
    chunks: tuple[tuple[int, str], ...]
    """(SSRC, CNAME) of each chunk; the CNAME is empty where the chunk has none."""


class Bye(NamedTuple):
    ssrcs: tuple[int, ...]


class Nack(NamedTuple):
    """Generic NACK, RFC 4585 §6.2.1."""

    sender_ssrc: int
    media_ssrc: int
    sequences: tuple[int, ...]
    """Missing sequence numbers in the order the feedback lists them."""


class Pli(NamedTuple):
    """Picture loss indication, RFC 4585 §6.3.1."""

    sender_ssrc: int
    media_ssrc: int


class Fir(NamedTuple):
    """Full intra request, RFC 5104 §4.3.1."""

    sender_ssrc: int
    requests: tuple[tuple[int, int], ...]
    """(media SSRC, command sequence number) of each entry."""


class Remb(NamedTuple):
    """Receiver estimated maximum bitrate, draft-alvestrand-rmcat-remb §2.2."""

    sender_ssrc: int
    bitrate: int
    """Bits per second."""
    ssrcs: tuple[int, ...]


class Unknown(NamedTuple):
    packet_type: int
    fmt: int
    """The five bits of the header: report count or feedback message type."""
    body: bytes


RtcpPacket: TypeAlias = (
    SenderReport | ReceiverReport | SourceDescription | Bye | Nack | Pli | Fir | Remb | TransportFeedback | Unknown
)


class RtcpError(ValueError):
    """A malformed RTCP packet; `packets` holds what stood before and after it in the compound."""

    def __init__(self, message: str, packets: list[RtcpPacket]) -> None:
        super().__init__(message)
        self.packets = packets


def is_rtcp(data: bytes | bytearray | memoryview) -> bool:
    """Whether a datagram on a shared port is RTCP rather than RTP (RFC 5761 §4)."""
    return len(data) >= 2 and 192 <= data[1] <= 223


def parse_compound(data: bytes | bytearray | memoryview) -> list[RtcpPacket]:
    """The packets of a compound RTCP packet, in order.

    Raises RtcpError for malformed input; whatever could be read is in its `packets`.
    """
    data = bytes(data)
    packets: list[RtcpPacket] = []
    problem = "" if data else "empty RTCP packet"
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            problem = "RTCP header truncated"
            break
        first, packet_type, words = _HEADER.unpack_from(data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            problem = "RTCP version is not 2" if first >> 6 != 2 else "RTCP packet longer than its datagram"
            break
        body = data[position + 4 : end]
        try:
            if first & 0x20:
                body = _without_padding(body)
            packets.append(_parse_body(packet_type, first & 0x1F, body))
        except (ValueError, struct.error, IndexError) as error:
            problem = f"RTCP packet type {packet_type} malformed: {error}"
        position = end
    if problem:
        raise RtcpError(problem, packets)
    return packets


def _without_padding(body: bytes) -> bytes:
    if not body or not 0 < body[-1] <= len(body):
        raise ValueError("bad padding")
    return body[: -body[-1]]


def _parse_body(packet_type: int, count: int, body: bytes) -> RtcpPacket:
    if packet_type == SR:
        ssrc, ntp, rtp, packets, octets = _SENDER_INFO.unpack_from(body)
        return SenderReport(ssrc, ntp, rtp, packets, octets, _parse_report_blocks(body, 24, count))
    if packet_type == RR:
        return ReceiverReport(int.from_bytes(_exactly(body, 0, 4), "big"), _parse_report_blocks(body, 4, count))
    if packet_type == SDES:
        return _parse_sdes(body, count)
    if packet_type == BYE:
        return Bye(struct.unpack_from(f"!{count}I", body))
    if packet_type == RTPFB:
        return _parse_transport_layer_feedback(count, body)
    if packet_type == PSFB:
        return _parse_payload_feedback(count, body)
    return Unknown(packet_type, count, body)


def _exactly(data: bytes, start: int, size: int) -> bytes:
    part = data[start : start + size]
    if len(part) != size:
        raise ValueError("truncated")
    return part


def _parse_report_blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for index in range(count):
        ssrc, loss, highest, jitter, lsr, dlsr = _REPORT_BLOCK.unpack_from(body, start + 24 * index)
        lost = loss & 0xFFFFFF
        blocks.append(
            ReportBlock(ssrc, loss >> 24, lost - (1 << 24) if lost >> 23 else lost, highest, jitter, lsr, dlsr)
        )
    return tuple(blocks)


def _parse_sdes(body: bytes, count: int) -> SourceDescription:
    chunks = []
    position = 0
    for _ in range(count):
        ssrc = int.from_bytes(_exactly(body, position, 4), "big")
        position += 4
        cname = ""
        while (item := body[position]) != 0:
            length = body[position + 1]
            text = _exactly(body, position + 2, length)
            if item == SDES_CNAME:
                cname = text.decode("utf-8", "replace")
            position += 2 + length
        # The list ends with one to four zero octets, up to the next 32-bit boundary.
        position = (position // 4 + 1) * 4
        chunks.append((ssrc, cname))
    return SourceDescription(tuple(chunks))


def _parse_transport_layer_feedback(fmt: int, body: bytes) -> RtcpPacket:
    sender, media = _TWO_SSRC.unpack_from(body)
    if fmt == FMT_TRANSPORT_CC:
        return parse_transport_feedback(body)
    if fmt != FMT_NACK:
        return Unknown(RTPFB, fmt, body)
    sequences: list[int] = []
    for position in range(8, len(body) - 3, 4):
        pid, mask = struct.unpack_from("!HH", body, position)
        sequences.append(pid)
        while mask:
            bit = mask & -mask
            sequences.append((pid + bit.bit_length()) & 0xFFFF)
            mask ^= bit
    return Nack(sender, media, tuple(sequences))


def _parse_payload_feedback(fmt: int, body: bytes) -> RtcpPacket:
    sender, media = _TWO_SSRC.unpack_from(body)
    if fmt == FMT_PLI:
        return Pli(sender, media)
    if fmt == FMT_FIR:
        entries = (struct.unpack_from("!IB", body, position) for position in range(8, len(body) - 7, 8))
        return Fir(sender, tuple((ssrc, number) for ssrc, number in entries))
    if fmt == FMT_APPLICATION and body[8:12] == b"REMB":
        count, rate = body[12], int.from_bytes(_exactly(body, 13, 3), "big")
        ssrcs = struct.unpack_from(f"!{count}I", body, 16)
        return Remb(sender, (rate & 0x3FFFF) << (rate >> 18), ssrcs)
    return Unknown(PSFB, fmt, body)


def _pack(packet_type: int, count: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, packet_type, len(body) // 4) + body


def _pack_report_blocks(reports: Sequence[ReportBlock]) -> bytes:
    if len(reports) > _MAX_COUNT:
        raise ValueError("an RTCP report holds at most 31 blocks")
    return b"".join(
        _REPORT_BLOCK.pack(
            r.ssrc,
            r.fraction_lost << 24 | max(-0x800000, min(0x7FFFFF, r.lost)) & 0xFFFFFF,
            r.highest_sequence,
            r.jitter,
            r.lsr,
            r.dlsr,
        )
        for r in reports
    )


def pack_sender_report(
    ssrc: int, ntp: int, rtp: int, packets: int, octets: int, reports: Sequence[ReportBlock] = ()
) -> bytes:
    """SR. `ntp` is 64-bit NTP time, `rtp` the media timestamp of that same instant; counters are taken modulo 2^32."""
    info = _SENDER_INFO.pack(ssrc, ntp, rtp & 0xFFFFFFFF, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF)
    return _pack(SR, len(reports), info + _pack_report_blocks(reports))


def pack_receiver_report(ssrc: int, reports: Sequence[ReportBlock] = ()) -> bytes:
    """RR with up to 31 report blocks."""
    return _pack(RR, len(reports), ssrc.to_bytes(4, "big") + _pack_report_blocks(reports))


def pack_sdes(ssrc: int, cname: str) -> bytes:
    """SDES with one chunk and its CNAME (at most 255 bytes of UTF-8)."""
    text = cname.encode()
    if len(text) > 255:
        raise ValueError("a CNAME holds at most 255 bytes")
    chunk = ssrc.to_bytes(4, "big") + bytes((SDES_CNAME, len(text))) + text
    return _pack(SDES, 1, chunk + bytes(4 - len(chunk) % 4))


def pack_bye(*ssrcs: int) -> bytes:
    """BYE of up to 31 sources."""
    return _pack(BYE, len(ssrcs), struct.pack(f"!{len(ssrcs)}I", *ssrcs))


def pack_nack(sender_ssrc: int, media_ssrc: int, sequences: Iterable[int]) -> bytes:
    """Generic NACK; sequence numbers in rising order (modulo 2^16) share entries of 17."""
    entries: list[list[int]] = []
    for sequence in sequences:
        distance = (sequence - entries[-1][0]) & 0xFFFF if entries else 0
        if entries and 1 <= distance <= 16:
            entries[-1][1] |= 1 << (distance - 1)
        elif not entries or distance:
            entries.append([sequence, 0])
    fields = b"".join(struct.pack("!HH", pid, mask) for pid, mask in entries)
    return _pack(RTPFB, FMT_NACK, _TWO_SSRC.pack(sender_ssrc, media_ssrc) + fields)


def pack_pli(sender_ssrc: int, media_ssrc: int) -> bytes:
    """Picture loss indication."""
    return _pack(PSFB, FMT_PLI, _TWO_SSRC.pack(sender_ssrc, media_ssrc))


def pack_fir(sender_ssrc: int, media_ssrc: int, number: int) -> bytes:
    """Full intra request; `number` (modulo 256) must rise with every new request."""
    return _pack(PSFB, FMT_FIR, _TWO_SSRC.pack(sender_ssrc, 0) + struct.pack("!IB3x", media_ssrc, number & 0xFF))


def pack_remb(sender_ssrc: int, bitrate: int, ssrcs: Sequence[int]) -> bytes:
    """REMB; `bitrate` in bit/s is rounded down to 18 significant bits."""
    exponent = max(0, bitrate.bit_length() - 18)
    rate = len(ssrcs) << 24 | exponent << 18 | bitrate >> exponent
    body = _TWO_SSRC.pack(sender_ssrc, 0) + b"REMB" + struct.pack(f"!I{len(ssrcs)}I", rate, *ssrcs)
    return _pack(PSFB, FMT_APPLICATION, body)


def ntp_time(unix_seconds: float) -> int:
    """64-bit NTP time of a Unix time."""
    return int((unix_seconds + NTP_EPOCH_OFFSET) * 4294967296.0) & 0xFFFFFFFFFFFFFFFF


def unix_time(ntp: int) -> float:
    """Unix seconds of a 64-bit NTP time of era 0."""
    return ntp / 4294967296.0 - NTP_EPOCH_OFFSET
