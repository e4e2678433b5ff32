"""RTP payload format for H.264, RFC 6184: single NAL unit packets, STAP-A (§5.7.1) and FU-A (§5.8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

NAL_SLICE: Final = 1
NAL_IDR: Final = 5
NAL_SEI: Final = 6
NAL_SPS: Final = 7
NAL_PPS: Final = 8
NAL_AUD: Final = 9
STAP_A: Final = 24
FU_A: Final = 28

FU_START: Final = 0x80
FU_END: Final = 0x40

MAX_PAYLOAD: Final = 1200
"""Largest RTP payload sent: leaves room for SRTP, RTX, IPv6 and TURN below any sane MTU."""

_START_CODE: Final = re.compile(rb"\x00\x00\x01")


class PayloadError(ValueError):
    """An RTP payload that breaks its format; the message says how."""


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (ITU-T H.264 Annex B), without start codes and trailing zeros."""
    starts = [match.end() for match in _START_CODE.finditer(data)]
    ends = [start - 3 for start in starts[1:]] + [len(data)]
    units = (data[start:end].rstrip(b"\x00") for start, end in zip(starts, ends, strict=False))
    return [unit for unit in units if unit]


def split_nal(nal: bytes) -> list[bytes]:
    """The NAL units in what should be one: where start codes stand before or inside it, they separate units.

    No NAL unit has a start code inside (emulation prevention, H.264 §7.4.1).
    """
    position = nal.find(b"\x00\x00\x01")
    if position < 0:
        return [nal]
    return split_annex_b(nal if not any(nal[:position]) else b"\x00\x00\x01" + nal)


def split_stap_a(payload: bytes) -> list[bytes]:
    """The NAL units of a STAP-A payload; empty ones (zero padding) are left out.

    Raises PayloadError when a size field is wrong, or when there is no unit.
    """
    nals = []
    position, end = 1, len(payload)
    while position < end:
        size = int.from_bytes(payload[position : position + 2], "big")
        position += 2
        if position + size > end and size:
            raise PayloadError("STAP-A unit longer than its packet")
        if size:
            nals.append(payload[position : position + size])
        position += size
    if not nals:
        raise PayloadError("empty STAP-A packet")
    return nals


def join_stap_a(nals: Sequence[bytes]) -> bytes:
    """A STAP-A payload of `nals`, each under 64 KiB; its NRI is the highest of theirs (§5.3)."""
    nri = max(nal[0] & 0x60 for nal in nals)
    return bytes((nri | STAP_A,)) + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals)


def fragment(nal: bytes, max_payload: int) -> list[bytes]:
    """`nal` as RTP payloads of at most `max_payload` bytes: itself when it fits, else FU-A fragments."""
    if len(nal) <= max_payload:
        return [nal]
    indicator, kind = nal[0] & 0xE0 | FU_A, nal[0] & 0x1F
    room = max_payload - 2
    last = (len(nal) - 2) // room
    return [
        bytes((indicator, kind | (FU_START if index == 0 else 0) | (FU_END if index == last else 0)))
        + nal[1 + index * room : 1 + (index + 1) * room]
        for index in range(last + 1)
    ]
