"""Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

Part of the RTCP codec; `rtcp.parse_compound` calls `parse_transport_feedback`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_FIXED: Final = struct.Struct("!IIHHI")
_DELTA_SECONDS: Final = 250e-6
_REFERENCE_SECONDS: Final = 64e-3


class TransportFeedback(NamedTuple):
    """Which transport-wide sequence numbers arrived, and when."""

    sender_ssrc: int
    media_ssrc: int
    base_sequence: int
    """Transport-wide sequence number of the first packet reported on."""
    packet_count: int
    """Packets reported on, received or not."""
    feedback_count: int
    """Feedback packet counter (modulo 256)."""
    received: tuple[tuple[int, float], ...]
    """(transport-wide sequence number, arrival in seconds on the receiver's clock) of each packet that arrived."""


def parse_transport_feedback(body: bytes) -> TransportFeedback:
    """Read the feedback that follows the RTCP header. Raises ValueError or struct.error when malformed."""
    sender, media, base, count, word = _FIXED.unpack_from(body)
    position = _FIXED.size
    statuses: list[tuple[int, int]] = []  # (offset, symbol) of what arrived; a run of losses takes no room
    offset = 0
    while offset < count:
        (chunk,) = struct.unpack_from("!H", body, position)
        position += 2
        offset = _read_chunk(chunk, offset, count, len(body) - position, statuses)
    reference = word >> 8
    arrival = (reference - (1 << 24) if reference >> 23 else reference) * _REFERENCE_SECONDS
    received = []
    for status_offset, symbol in statuses:
        size = 1 if symbol == 1 else 2
        (delta,) = struct.unpack_from("!B" if size == 1 else "!h", body, position)
        position += size
        arrival += delta * _DELTA_SECONDS
        received.append(((base + status_offset) & 0xFFFF, arrival))
    return TransportFeedback(sender, media, base, count, word & 0xFF, tuple(received))


def _read_chunk(chunk: int, offset: int, count: int, room: int, statuses: list[tuple[int, int]]) -> int:
    """Add the packets of one status chunk that arrived; return the offset after it."""
    if not chunk >> 15:
        symbol, run = chunk >> 13 & 3, min(chunk & 0x1FFF, count - offset)
        if not chunk & 0x1FFF:
            raise ValueError("empty run length chunk")
        if symbol == 3 or (symbol and len(statuses) + run > room):
            raise ValueError("more packets than receive deltas")
        if symbol:
            statuses.extend((offset + index, symbol) for index in range(run))
        return offset + run
    width = 2 if chunk >> 14 & 1 else 1
    for index in range(min(14 // width, count - offset)):
        symbol = chunk >> (14 - width * (index + 1)) & (3 if width == 2 else 1)
        if symbol == 3:
            raise ValueError("reserved packet status")
        if symbol:
            statuses.append((offset + index, symbol))
    return min(count, offset + 14 // width)


def pack_transport_feedback(
    sender_ssrc: int, media_ssrc: int, feedback_count: int, received: list[tuple[int, float]]
) -> bytes:
    """Body and header of a feedback packet for `received`: (transport-wide sequence, arrival seconds), in order.

    Arrivals must lie within 8 s of their neighbours; ValueError otherwise or when `received` is empty.
    """
    if not received:
        raise ValueError("transport feedback needs at least one packet")
    base = received[0][0]
    count = ((received[-1][0] - base) & 0xFFFF) + 1
    reference = int(received[0][1] // _REFERENCE_SECONDS)
    clock = reference * round(_REFERENCE_SECONDS / _DELTA_SECONDS)
    symbols, deltas = bytearray(count), bytearray()
    for sequence, arrival in received:
        ticks = round(arrival / _DELTA_SECONDS)
        delta, clock = ticks - clock, ticks
        if not -32768 <= delta <= 32767:
            raise ValueError("arrivals too far apart for one feedback packet")
        small = 0 <= delta <= 255
        symbols[(sequence - base) & 0xFFFF] = 1 if small else 2
        deltas += struct.pack("!B" if small else "!h", delta)
    chunks = b"".join(_vector_chunk(symbols[start : start + 7]) for start in range(0, count, 7))
    word = (reference & 0xFFFFFF) << 8 | feedback_count & 0xFF
    body = _FIXED.pack(sender_ssrc, media_ssrc, base, count, word) + chunks + deltas
    body += bytes(-len(body) % 4)
    return struct.pack("!BBH", 0x80 | 15, 205, len(body) // 4) + body


def _vector_chunk(symbols: bytearray) -> bytes:
    chunk = 0b11 << 14
    for index, symbol in enumerate(symbols):
        chunk |= symbol << (12 - 2 * index)
    return chunk.to_bytes(2, "big")
