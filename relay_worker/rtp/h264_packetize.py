"""H.264 access units into RTP payloads (RFC 6184, packetization-mode 1), for filler and tests.

The live path cuts packets through instead (`media/h264_passthrough.py`); this is for media that starts as NAL units.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MAX_PAYLOAD: Final = 1200

NAL_IDR: Final = 5
NAL_SEI: Final = 6
NAL_SPS: Final = 7
NAL_PPS: Final = 8
NAL_STAP_A: Final = 24
NAL_FU_A: Final = 28

_START_CODE: Final = re.compile(rb"\x00\x00\x01")


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (ITU-T H.264 Annex B), without start codes and trailing zeros."""
    starts = [match.end() for match in _START_CODE.finditer(data)]
    ends = [start - 3 for start in starts[1:]] + [len(data)]
    units = (data[start:end].rstrip(b"\x00") for start, end in zip(starts, ends, strict=False))
    return [unit for unit in units if unit]


def packetize(nals: Sequence[bytes], max_payload: int = MAX_PAYLOAD) -> list[tuple[bytes, bool]]:
    """RTP payloads of one access unit with their marker bits; the marker is on the last.

    Parameter sets that stand together travel in one STAP-A, larger units as FU-A fragments of equal size.
    """
    payloads: list[bytes] = []
    sets: list[bytes] = []
    for nal in nals:
        if nal[0] & 0x1F in (NAL_SPS, NAL_PPS) and sum(map(len, sets)) + len(nal) + 2 * len(sets) + 3 <= max_payload:
            sets.append(nal)
            continue
        payloads += _aggregate(sets)
        sets = []
        payloads += [nal] if len(nal) <= max_payload else _fragment(nal, max_payload)
    payloads += _aggregate(sets)
    return [(payload, index == len(payloads) - 1) for index, payload in enumerate(payloads)]


def _aggregate(nals: Sequence[bytes]) -> list[bytes]:
    if len(nals) < 2:
        return list(nals)
    indicator = max(nal[0] & 0x60 for nal in nals) | NAL_STAP_A
    return [bytes((indicator,)) + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals)]


def _fragment(nal: bytes, max_payload: int) -> list[bytes]:
    indicator, kind = nal[0] & 0xE0 | NAL_FU_A, nal[0] & 0x1F
    room = max_payload - 2
    fragments = []
    for start in range(1, len(nal), room):
        first, last = start == 1, start + room >= len(nal)
        fragments.append(bytes((indicator, first << 7 | last << 6 | kind)) + nal[start : start + room])
    return fragments


def starts_keyframe(payload: Sequence[int]) -> bool:
    """Whether a picture that needs no other begins in this RTP payload (SPS, IDR slice, or its first fragment)."""
    if len(payload) < 2:
        return False
    kind = payload[0] & 0x1F
    if kind == NAL_FU_A:
        return bool(payload[1] & 0x80) and payload[1] & 0x1F == NAL_IDR
    if kind == NAL_STAP_A:
        return len(payload) > 3 and payload[3] & 0x1F in (NAL_SPS, NAL_IDR)
    return kind in (NAL_SPS, NAL_IDR)


def is_disposable(payloads: Sequence[tuple[Sequence[int], bool]]) -> bool:
    """Whether no other picture needs the one whose RTP payloads begin with these (nal_ref_idc of its slices is 0).

    False as long as no slice is among them.
    """
    for payload, _ in payloads:
        kind = payload[0] & 0x1F if payload else 0
        if kind == NAL_FU_A and len(payload) > 1:
            kind = payload[1] & 0x1F
        if 1 <= kind <= NAL_IDR or kind == NAL_STAP_A:
            # That of an aggregate is the highest of its units (RFC 6184 §5.3).
            return payload[0] & 0x60 == 0
    return False
