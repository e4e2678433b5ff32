"""Repeats a small picture that is a keyframe: P pictures in which every macroblock is skipped, six octets each.

Players expect a stream, not a picture every few seconds: Chromium shows such pictures up to a second late, or some not
at all, and where the last packets of one are lost, nobody notices before those of the next one come. With a few repeats
a second the picture is shown in time, and what is missing of it is asked for.

H.264 §7.3.2.1 (sequence parameter set), §7.3.2.2 (picture parameter set), §7.3.3 (slice header), §7.3.4 (slice data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_worker.rtp.bits import BitReader, payload_bits
from relay_worker.rtp.h264 import NAL_PPS, NAL_SPS

EVERY: Final = 0.5
"""Seconds from one to the next."""
_HEADER: Final = bytes((0x41,))
"""A slice that is no IDR, of a picture that the next one refers to."""
_BASELINE: Final = 66
_BY_OUTPUT: Final = 2
"""`pic_order_cnt_type` of pictures that are shown as they are decoded: then nothing of it stands in slices."""


class _NotRepeatable(ValueError):
    """The parameter sets are not of the kind that this file writes slices for."""


class Repeats:
    """The pictures after one keyframe, which begins with its parameter sets."""

    def __init__(self, macroblocks: int, frame_number_bits: int, picture_set: int, *, filter_control: bool) -> None:
        self._macroblocks, self._frame_number_bits = macroblocks, frame_number_bits
        self._picture_set, self._filter_control = picture_set, filter_control
        self._number = 0

    def next(self) -> bytes:
        """The next one, a NAL unit."""
        self._number = (self._number + 1) % (1 << self._frame_number_bits)
        bits = [_ue(0), _ue(0), _ue(self._picture_set)]  # first_mb_in_slice, slice_type P, pic_parameter_set_id
        bits += [f"{self._number:0{self._frame_number_bits}b}"]
        bits += ["1", _ue(0)]  # one reference picture
        bits += ["0", "0"]  # its list as it is, and the oldest one is forgotten
        bits += [_ue(0)]  # slice_qp_delta
        bits += [_ue(1)] if self._filter_control else []  # no deblocking
        bits += [_ue(self._macroblocks), "1"]  # mb_skip_run, rbsp_trailing_bits
        written = "".join(bits)
        written += "0" * (-len(written) % 8)
        return _HEADER + _escaped(int(written, 2).to_bytes(len(written) // 8, "big"))


def repeats_of(nals: Sequence[bytes]) -> Repeats | None:
    """What repeats the keyframe of these NAL units; None where it is not of the kind that libx264 makes for us."""
    sets = {nal[0] & 0x1F: nal for nal in nals if nal}
    try:
        macroblocks, frame_number_bits = _sequence(payload_bits(sets[NAL_SPS], 1, _NotRepeatable))
        picture_set, filter_control = _picture(payload_bits(sets[NAL_PPS], 1, _NotRepeatable))
    except (KeyError, _NotRepeatable):
        return None
    return Repeats(macroblocks, frame_number_bits, picture_set, filter_control=filter_control)


def _sequence(bits: BitReader) -> tuple[int, int]:
    """Macroblocks of a picture, and bits of frame_num."""
    _require(bits.read(8) == _BASELINE)
    bits.read(16)  # constraints and level
    bits.ue()
    frame_number_bits = bits.ue() + 4
    _require(bits.ue() == _BY_OUTPUT)
    _require(bits.ue() >= 1)  # reference frames
    bits.read(1)
    columns, lines = bits.ue() + 1, bits.ue() + 1
    _require(bits.read(1) == 1)  # frames alone
    return columns * lines, frame_number_bits


def _picture(bits: BitReader) -> tuple[int, bool]:
    """Number of the set, and whether slices say how they are deblocked."""
    number = bits.ue()
    bits.ue()
    _require(bits.read(2) == 0)  # CAVLC, and no picture order in slices
    _require(bits.ue() == 0)  # one slice group
    bits.ue()
    bits.ue()
    _require(bits.read(1) == 0)  # no weighted prediction
    bits.read(2)
    for _ in range(3):
        bits.se()
    filter_control = bits.read(1) == 1
    bits.read(1)
    _require(bits.read(1) == 0)  # no redundant pictures
    return number, filter_control


def _require(holds: bool) -> None:
    if not holds:
        raise _NotRepeatable


def _ue(value: int) -> str:
    """The bits of ue(v) (§9.1)."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def _escaped(data: bytes) -> bytes:
    """With emulation prevention (§7.4.1)."""
    out, zeros = bytearray(), 0
    for octet in data:
        if zeros >= 2 and octet <= 3:
            out.append(3)
            zeros = 0
        out.append(octet)
        zeros = zeros + 1 if octet == 0 else 0
    return bytes(out)
