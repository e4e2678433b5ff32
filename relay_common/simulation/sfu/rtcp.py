"""RTCP as the simulated SFU reads and writes it (RFC 3550, 4585, 5104, draft-alvestrand-rmcat-remb)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

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
FMT_APP: Final = 15

NTP_EPOCH: Final = 2_208_988_800


def packets(compound: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(type, count or format, body after the first four bytes) of each packet; stops at the first malformed one."""
    position = 0
    while position + 4 <= len(compound):
        first, kind, words = struct.unpack_from("!BBH", compound, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2 or end > len(compound):
            return
        yield kind, first & 31, compound[position + 4 : end]
        position = end


def nacked(body: memoryview) -> list[int]:
    """Sequence numbers requested by a generic NACK body (RFC 4585 6.2.1)."""
    wanted = []
    for position in range(8, len(body) - 3, 4):
        pid, mask = struct.unpack_from("!HH", body, position)
        wanted.append(pid)
        wanted += [(pid + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1]
    return wanted


def transport_arrivals(body: memoryview) -> list[tuple[int, float | None]]:
    """(16-bit sequence number, arrival in seconds or None) of each packet that transport-wide feedback tells of."""
    if len(body) < 16:
        return []
    base, count, reference = struct.unpack_from("!HHI", body, 8)
    symbols: list[int] = []
    position = 16
    while len(symbols) < count and position + 2 <= len(body):
        (chunk,) = struct.unpack_from("!H", body, position)
        position += 2
        if not chunk & 0x8000:
            symbols += [chunk >> 13 & 3] * (chunk & 0x1FFF)
        elif chunk & 0x4000:
            symbols += [chunk >> 12 - 2 * index & 3 for index in range(7)]
        else:
            symbols += [chunk >> 13 - index & 1 for index in range(14)]
    ticks, arrivals = (reference >> 8) * 256, list[tuple[int, float | None]]()
    for index, symbol in enumerate(symbols[:count]):
        size = (0, 1, 2, 0)[symbol]
        if position + size > len(body):
            break
        if size:
            ticks += int.from_bytes(body[position : position + size], "big", signed=size == 2)
            position += size
        arrivals.append((base + index & 0xFFFF, ticks * 0.00025 if size else None))
    return arrivals


def remb_bitrate(body: memoryview) -> float | None:
    """Bits a second that a REMB tells of, None if the packet is another one."""
    if len(body) < 16 or bytes(body[8:12]) != b"REMB":
        return None
    (packed,) = struct.unpack_from("!I", body, 12)
    return float((packed & 0x3FFFF) << (packed >> 18 & 63))


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def receiver_report(sender: int, blocks: list[bytes]) -> bytes:
    """RR with up to 31 report blocks."""
    return _packet(RR, len(blocks), struct.pack("!I", sender) + b"".join(blocks))


def report_block(ssrc: int, fraction: int, lost: int, highest: int, jitter: int, lsr: int, dlsr: int) -> bytes:
    """One report block; `lost` is clamped to 24 signed bits, `highest` is the extended sequence number."""
    lost = max(-0x800000, min(0x7FFFFF, lost)) & 0xFFFFFF
    return struct.pack(
        "!IIIIII", ssrc, fraction << 24 | lost, highest & 0xFFFFFFFF, jitter & 0xFFFFFFFF, lsr, dlsr & 0xFFFFFFFF
    )


def sender_report(ssrc: int, ntp: int, rtp: int, packet_count: int, octets: int) -> bytes:
    """SR without report blocks; `ntp` is the 64-bit timestamp."""
    body = struct.pack("!IQIII", ssrc, ntp, rtp & 0xFFFFFFFF, packet_count & 0xFFFFFFFF, octets & 0xFFFFFFFF)
    return _packet(SR, 0, body)


def source_description(ssrc: int, cname: str) -> bytes:
    """SDES with the CNAME alone."""
    item = struct.pack("!IBB", ssrc, 1, len(cname)) + cname.encode()
    return _packet(SDES, 1, item + bytes(4 - len(item) % 4))


def nack(sender: int, media: int, sequences: Iterable[int]) -> bytes:
    """Generic NACK for `sequences` (shortest in ascending order)."""
    entries: list[list[int]] = []
    for sequence in sequences:
        distance = (sequence - entries[-1][0]) & 0xFFFF if entries else 0
        if entries and 0 < distance <= 16:
            entries[-1][1] |= 1 << (distance - 1)
        else:
            entries.append([sequence, 0])
    body = struct.pack("!II", sender, media) + b"".join(struct.pack("!HH", *entry) for entry in entries)
    return _packet(RTPFB, FMT_NACK, body)


def picture_loss(sender: int, media: int) -> bytes:
    """PLI (RFC 4585 6.3.1)."""
    return _packet(PSFB, FMT_PLI, struct.pack("!II", sender, media))


def full_intra_request(sender: int, media: int, number: int) -> bytes:
    """FIR (RFC 5104 4.3.1); `number` is its command sequence number."""
    return _packet(PSFB, FMT_FIR, struct.pack("!IIIB3x", sender, 0, media, number & 0xFF))


def remb(sender: int, bitrate: int, ssrcs: list[int]) -> bytes:
    """Receiver estimated maximum bitrate, in bits per second."""
    exponent = max(0, bitrate.bit_length() - 18)
    packed = len(ssrcs) << 24 | exponent << 18 | bitrate >> exponent
    body = struct.pack("!II4sI", sender, 0, b"REMB", packed) + b"".join(struct.pack("!I", s) for s in ssrcs)
    return _packet(PSFB, FMT_APP, body)


def transport_feedback(sender: int, media: int, number: int, arrivals: dict[int, float]) -> bytes:
    """Transport-wide feedback for `arrivals` (unwrapped sequence → seconds), not empty and spanning < 2^16.

    Every packet gets a two-bit status, seven to a chunk, and a 250 µs delta: longer than necessary, but always correct.
    """
    base, last = min(arrivals), max(arrivals)
    reference = int(min(arrivals.values()) / 0.064)
    previous = reference * 256
    symbols, deltas = [], b""
    for sequence in range(base, last + 1):
        if (arrival := arrivals.get(sequence)) is None:
            symbols.append(0)
            continue
        ticks = round(arrival / 0.00025)
        delta = max(-0x8000, min(0x7FFF, ticks - previous))
        previous += delta
        small = 0 <= delta <= 255
        symbols.append(1 if small else 2)
        deltas += struct.pack("!B" if small else "!h", delta)
    chunks = b""
    for start in range(0, len(symbols), 7):
        chunk = 0xC000
        for index, symbol in enumerate(symbols[start : start + 7]):
            chunk |= symbol << (12 - 2 * index)
        chunks += struct.pack("!H", chunk)
    head = struct.pack(
        "!IIHHI", sender, media, base & 0xFFFF, len(symbols), (reference & 0xFFFFFF) << 8 | number & 0xFF
    )
    body = head + chunks + deltas
    return _packet(RTPFB, FMT_TRANSPORT_CC, body + bytes(-len(body) % 4))
