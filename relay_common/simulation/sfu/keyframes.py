"""Where in an RTP stream decoding can begin: what a viewer is switched at."""

from __future__ import annotations

from relay_common.simulation.sfu.upstream import begins_idr

_SPS = 7
_STAP_A = 24


def begins_keyframe(codec: str, payload: memoryview) -> bool:
    """Whether a keyframe, or the parameter sets before it, begins in this RTP payload.

    H.264 (RFC 6184) and VP8 (RFC 7741); of other codecs nothing is known, and every packet will do.
    """
    if len(payload) == 0:
        return False
    name = codec.upper()
    if name == "H264":
        return (
            payload[0] & 31 == _SPS
            or (payload[0] & 31 == _STAP_A and _first_unit(payload) == _SPS)
            or begins_idr(payload)
        )
    if name == "VP8":
        return _begins_vp8_keyframe(payload)
    return True


def _first_unit(payload: memoryview) -> int:
    return payload[3] & 31 if len(payload) > 3 else 0


def _begins_vp8_keyframe(payload: memoryview) -> bool:
    first, position = payload[0], 1
    if not first & 0x10 or first & 0x07:
        return False
    if first & 0x80:
        if len(payload) < 2:
            return False
        extra, position = payload[1], 2
        if extra & 0x80 and len(payload) > position:
            position += 2 if payload[position] & 0x80 else 1
        position += bool(extra & 0x40) + bool(extra & 0x30)
    return len(payload) > position and not payload[position] & 1
