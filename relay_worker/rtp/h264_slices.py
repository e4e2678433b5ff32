"""Predicates on H.264 NAL units: where decoding can start, and what can be dropped (ITU-T H.264 §7.3, §7.4.1)."""

from __future__ import annotations

from typing import Final

from relay_worker.rtp.bits import BitReader
from relay_worker.rtp.h264 import NAL_IDR, NAL_SEI, NAL_SLICE, PayloadError

SEI_RECOVERY_POINT: Final = 6
SLICE_TYPES: Final = "PBIpi"


def is_first_slice(nal: bytes) -> bool:
    """Whether a slice NAL unit is the first of its picture: first_mb_in_slice, ue(v), is 0."""
    return len(nal) > 1 and nal[1] >= 0x80


def starts_idr(nal: bytes) -> bool:
    """Whether the NAL unit is the first slice of an IDR picture."""
    return len(nal) > 1 and nal[0] & 0x1F == NAL_IDR and nal[1] >= 0x80


def is_reference(nal: bytes) -> bool:
    """Whether other pictures may need this NAL unit (nal_ref_idc is not 0)."""
    return bool(nal) and nal[0] & 0x60 != 0


def is_b_slice(nal: bytes) -> bool:
    """Whether a slice NAL unit is the first of a B picture: first_mb_in_slice 0, slice_type 1 or 6 (§7.4.3).

    Looks at one octet of the slice header, so that the first fragment is enough.
    """
    return len(nal) > 1 and (nal[1] >> 4 == 0b1010 or nal[1] >> 2 == 0b100111)


def has_recovery_point(nal: bytes) -> bool:
    """Whether an SEI NAL unit holds a recovery point message (§D.1.8)."""
    if not nal or nal[0] & 0x1F != NAL_SEI:
        return False
    position = 1
    while position + 1 < len(nal) and nal[position:] != b"\x80":
        kind, position = _sei_number(nal, position)
        size, position = _sei_number(nal, position)
        if kind == SEI_RECOVERY_POINT:
            return True
        position += size
    return False


def _sei_number(nal: bytes, position: int) -> tuple[int, int]:
    """A number coded as a run of 0xFF octets and one other (§7.3.2.3.1), and the position after it."""
    value = 0
    while position < len(nal):
        octet = nal[position]
        position += 1
        value += octet
        if octet != 0xFF:
            break
    return value, position


def slice_type(nal: bytes) -> str | None:
    """The slice type (P, B, I, or p and i for SP and SI) of a slice NAL unit, None for anything else."""
    if not nal or nal[0] & 0x1F not in (NAL_SLICE, NAL_IDR):
        return None
    bits = BitReader(nal[1:17].ljust(16, b"\x00"), PayloadError)
    try:
        bits.ue()  # first_mb_in_slice
        value = bits.ue()
    except PayloadError:
        return None
    return SLICE_TYPES[value % 5] if value < 10 else None
