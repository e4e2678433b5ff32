"""Opus packets: how long they last, and taking them apart (RFC 6716 §3; RTP payload format: RFC 7587)."""

from __future__ import annotations

from typing import Final

MAX_TICKS: Final = 5760
"""120 ms, the longest packet (RFC 6716 §3.2.5), in ticks of 48 kHz, Opus's RTP clock (RFC 7587 §4.1)."""

# Ticks of a frame by the configuration in the TOC octet (RFC 6716 §3.1): SILK, hybrid, CELT.
_FRAME_TICKS: Final = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4


def frame_ticks(packet: bytes) -> int:
    """Ticks that each frame of a packet (not empty) lasts."""
    return _FRAME_TICKS[packet[0] >> 3]


def packet_ticks(packet: bytes) -> int:
    """Ticks that the packet lasts; 0 when it is malformed."""
    if not packet:
        return 0
    ticks, code = _FRAME_TICKS[packet[0] >> 3], packet[0] & 3
    if not code:
        return ticks
    if code < 3:
        return 2 * ticks
    ticks *= packet[1] & 0x3F if len(packet) > 1 else 0
    return ticks if ticks <= MAX_TICKS else 0


def split_frames(packet: bytes) -> list[bytes]:
    """The frames of a packet, without padding; empty when it is malformed."""
    if not packet:
        return []
    code, rest = packet[0] & 3, packet[1:]
    if not code:
        return [rest]
    if code == 1:
        return _equal(rest, 2)
    if code == 2:
        return _measured(rest, 2)
    if not rest or not packet_ticks(packet):
        return []
    flags, rest = rest[0], rest[1:]
    if flags & 0x40:
        padding = 0
        while rest:
            octet, rest = rest[0], rest[1:]
            padding += min(octet, 254)
            if octet != 255:
                break
        if padding > len(rest):
            return []
        rest = rest[: len(rest) - padding]
    count = flags & 0x3F
    return _measured(rest, count) if flags & 0x80 else _equal(rest, count)


def _equal(data: bytes, count: int) -> list[bytes]:
    size, left = divmod(len(data), count)
    return [] if left else [data[index * size : (index + 1) * size] for index in range(count)]


def _measured(data: bytes, count: int) -> list[bytes]:
    """Frames with the sizes of all but the last before them (§3.2.1)."""
    sizes = []
    for _ in range(count - 1):
        if not data or (data[0] >= 252 and len(data) < 2):
            return []
        long = data[0] >= 252
        sizes.append(data[0] + 4 * data[1] if long else data[0])
        data = data[2 if long else 1 :]
    frames = []
    for size in sizes:
        if size > len(data):
            return []
        frames.append(data[:size])
        data = data[size:]
    return [*frames, data]


def join_frames(toc: int, frames: list[bytes]) -> bytes:
    """A packet of these frames (one to 48), with the configuration and channels of `toc`."""
    if len(frames) == 1:
        return bytes((toc & 0xFC,)) + frames[0]
    sizes = b"".join(
        bytes((len(frame),)) if len(frame) < 252 else bytes((252 + (len(frame) & 3), (len(frame) - 252) // 4))
        for frame in frames[:-1]
    )
    return bytes((toc | 3, 0x80 | len(frames))) + sizes + b"".join(frames)
