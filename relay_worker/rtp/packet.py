"""RTP packet parsing, RFC 3550 §5.1 (header), §5.3.1 (extension)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

HEADER: Final = struct.Struct("!BBHII")
"""V/P/X/CC octet, marker and payload type octet, sequence number, timestamp, SSRC."""

MIN_SIZE: Final = HEADER.size


class RtpError(ValueError):
    """Not an RTP packet; the message says why."""


class RtpView(NamedTuple):
    """One RTP packet's fields; `payload` is a slice of the packet that was given, of its type."""

    sequence: int
    timestamp: int
    marker: bool
    payload_type: int
    ssrc: int
    payload: bytes
    lost: int = 0
    """Packets missing before this one; set by `RtpReceiver`."""

    def behind(self, lost: int) -> RtpView:
        """The same, with so many missing before it. (`_replace` leaves a tuple on CPython's free list each time, up to
        2000.)
        """
        return RtpView(*self[:6], lost)


def parse_rtp(packet: bytes) -> RtpView:
    """The packet's fields, with extension, CSRC list and padding removed; raises RtpError for anything malformed.

    A padding count of 0 means no padding: some senders set the bit on every packet and pad none.
    """
    if len(packet) < MIN_SIZE:
        raise RtpError("RTP packet shorter than its header")
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(packet)
    if first == 0x80:  # neither padding, extension nor CSRC: nearly every packet
        return RtpView(sequence, timestamp, second > 127, second & 0x7F, ssrc, packet[12:])
    if first >> 6 != 2:
        raise RtpError("RTP version is not 2")
    start, end = MIN_SIZE + 4 * (first & 0x0F), len(packet)
    if first & 0x10:
        if start + 4 > end:
            raise RtpError("RTP header extension truncated")
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    if start > end:
        raise RtpError("RTP header longer than its packet")
    if first & 0x20:
        padding = packet[-1]
        if start == end or padding > end - start:
            raise RtpError("RTP padding longer than its packet")
        end -= padding
    return RtpView(sequence, timestamp, second > 127, second & 0x7F, ssrc, packet[start:end])


def parse_header(packet: bytes) -> RtpView | None:
    """The fixed fields of a packet that `parse_rtp` refuses, with an empty payload; None when it is no RTP at all."""
    if len(packet) < MIN_SIZE or packet[0] >> 6 != 2:
        return None
    _, second, sequence, timestamp, ssrc = HEADER.unpack_from(packet)
    return RtpView(sequence, timestamp, second > 127, second & 0x7F, ssrc, b"")


class RtpRun(msgspec.Struct, gc=False):
    """Packets of one source that follow each other without loss and share a timestamp: a frame, or a part of one."""

    timestamp: int
    ssrc: int
    lost: int
    """Packets missing before the first."""
    payloads: list[tuple[bytes, bool]]
    """Payload and marker bit of each."""


def join_runs(views: Iterable[RtpView]) -> list[RtpRun]:
    """Packets in order as runs."""
    runs: list[RtpRun] = []
    for view in views:
        if runs and not view.lost and (view.timestamp, view.ssrc) == (runs[-1].timestamp, runs[-1].ssrc):
            runs[-1].payloads.append((view.payload, view.marker))
        else:
            runs.append(RtpRun(view.timestamp, view.ssrc, view.lost, [(view.payload, view.marker)]))
    return runs
