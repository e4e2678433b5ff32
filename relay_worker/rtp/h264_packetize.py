"""H.264 access units into RTP payloads (RFC 6184, packetization-mode 1), for filler and tests.

The live path cuts packets through instead (`media/h264_passthrough.py`); this is for media that starts as NAL units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from relay_worker.rtp.h264 import (
    FU_A,
    FU_END,
    FU_START,
    MAX_PAYLOAD,
    NAL_IDR,
    NAL_PPS,
    NAL_SPS,
    STAP_A,
    fragment,
    join_stap_a,
    split_stap_a,
)

Octets: TypeAlias = bytes | bytearray | memoryview


def packetize(nals: Sequence[bytes], max_payload: int = MAX_PAYLOAD) -> list[tuple[bytes, bool]]:
    """RTP payloads of one access unit with their marker bits; the marker is on the last.

    Parameter sets that stand together travel in one STAP-A, larger units as FU-A fragments.
    """
    payloads: list[bytes] = []
    sets: list[bytes] = []
    for nal in nals:
        if nal[0] & 0x1F in (NAL_SPS, NAL_PPS) and sum(map(len, sets)) + len(nal) + 2 * len(sets) + 3 <= max_payload:
            sets.append(nal)
            continue
        payloads += _together(sets)
        sets = []
        payloads += fragment(nal, max_payload)
    payloads += _together(sets)
    return [(payload, index == len(payloads) - 1) for index, payload in enumerate(payloads)]


def _together(sets: list[bytes]) -> list[bytes]:
    return [join_stap_a(sets)] if len(sets) > 1 else sets


def refit(payloads: Sequence[tuple[Octets, bool]], max_payload: int) -> list[tuple[Octets, bool]]:
    """The same NAL units in payloads of at most `max_payload` (≥ 64) bytes: those that fit stay as they are.

    Payloads are well formed: ours, cut for a path with a larger MTU.
    """
    fitting: list[tuple[Octets, bool]] = []
    for payload, marker in payloads:
        if len(payload) <= max_payload:
            fitting.append((payload, marker))
            continue
        payload = bytes(payload)
        kind = payload[0] & 0x1F
        if kind == FU_A:
            pieces = _split_fragment(payload, max_payload)
        elif kind == STAP_A:
            pieces = [piece for nal in split_stap_a(payload) for piece in fragment(nal, max_payload)]
        else:
            pieces = fragment(payload, max_payload)
        fitting += [(piece, False) for piece in pieces[:-1]]
        fitting.append((pieces[-1], marker))
    return fitting


def _split_fragment(payload: bytes, max_payload: int) -> list[bytes]:
    """An FU-A payload as several: the start bit stays with the first, the end bit with the last (RFC 6184 §5.8)."""
    indicator, header, room = payload[0], payload[1], max_payload - 2
    pieces = [payload[start : start + room] for start in range(2, len(payload), room)]
    last = len(pieces) - 1
    bits = [(FU_START if index == 0 else 0) | (FU_END if index == last else 0) for index in range(last + 1)]
    kept = 0xFF ^ FU_START ^ FU_END
    return [bytes((indicator, header & (kept | bit))) + piece for bit, piece in zip(bits, pieces, strict=True)]


def starts_keyframe(payload: Sequence[int]) -> bool:
    """Whether a picture that needs no other begins in this RTP payload (SPS, IDR slice, or its first fragment).

    In an aggregate a delimiter or SEI may precede it.
    """
    if len(payload) < 2:
        return False
    kind = payload[0] & 0x1F
    if kind == FU_A:
        return bool(payload[1] & FU_START) and payload[1] & 0x1F == NAL_IDR
    if kind == STAP_A:
        first = next((one for one in kinds_in(payload) if one == NAL_SPS or 0 < one <= NAL_IDR), 0)
        return first in (NAL_SPS, NAL_IDR)
    return kind in (NAL_SPS, NAL_IDR)


def kinds_in(payload: Sequence[int]) -> Iterator[int]:
    """The types of the NAL units in this RTP payload, fragments excepted, as far as it can be read."""
    if payload and payload[0] & 0x1F != STAP_A:
        yield payload[0] & 0x1F
        return
    at = 1
    while at + 2 < len(payload):
        yield payload[at + 2] & 0x1F
        at += 2 + (payload[at] << 8 | payload[at + 1])


def is_disposable(payloads: Sequence[tuple[Sequence[int], bool]]) -> bool:
    """Whether no other picture needs the one whose RTP payloads begin with these (nal_ref_idc of its slices is 0).

    False as long as no slice is among them.
    """
    for payload, _ in payloads:
        kind = payload[0] & 0x1F if payload else 0
        if kind == FU_A and len(payload) > 1:
            kind = payload[1] & 0x1F
        if 1 <= kind <= NAL_IDR or kind == STAP_A:
            # That of an aggregate is the highest of its units (RFC 6184 §5.3).
            return payload[0] & 0x60 == 0
    return False
