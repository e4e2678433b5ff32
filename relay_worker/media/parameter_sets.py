"""H.264 sequence and picture parameter sets: the fields a relay needs, and a cache (ITU-T H.264 §7.3.2)."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from relay_worker.rtp.bits import BitReader, payload_bits
from relay_worker.rtp.h264 import NAL_PPS, NAL_SPS, split_nal

MAX_SETS: Final = 32
"""Parameter sets of each kind that are kept; an H.264 stream has at most 32 SPS, and a camera a handful of PPS."""
MAX_SIZE: Final = 1024
"""Bytes of the largest accepted parameter set."""

_HIGH_PROFILES: Final = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
_EXTENDED_SAR: Final = 255


class ParameterSetError(ValueError):
    """A parameter set that cannot be parsed."""


class SpsInfo(NamedTuple):
    """The fields of a sequence parameter set that matter for relaying."""

    sps_id: int
    profile_idc: int
    constraint_flags: int
    """constraint_set0..5 flags and two reserved bits, as the octet appears in the SPS."""
    level_idc: int
    """Level times ten: 31 is 3.1."""
    width: int
    height: int
    """Luma samples after cropping."""
    reorder_frames: int | None
    """Frames that may precede another in decoding order and follow it in output order: 0 when there are no B-frames
    that reorder, None when the SPS does not say."""
    frames_only: bool = True
    """Whether no picture is a field."""

    @property
    def profile_level_id(self) -> str:
        """RFC 6184 §8.1 profile-level-id, six hexadecimal digits."""
        return f"{self.profile_idc:02x}{self.constraint_flags:02x}{self.level_idc:02x}"


def parse_sps(nal: bytes) -> SpsInfo:
    """Read an SPS NAL unit (with its header octet); raises ParameterSetError when it is malformed."""
    if len(nal) < 4 or nal[0] & 0x1F != NAL_SPS or len(nal) > MAX_SIZE:
        raise ParameterSetError("not a sequence parameter set")
    profile, flags, level = nal[1], nal[2], nal[3]
    bits = payload_bits(nal, 4, ParameterSetError)
    sps_id = bits.ue()
    chroma = 1
    if profile in _HIGH_PROFILES:
        chroma = _skip_high_profile_fields(bits)
    bits.ue()  # log2_max_frame_num_minus4
    order_type = _skip_picture_order(bits)
    bits.ue()  # max_num_ref_frames
    bits.read(1)  # gaps_in_frame_num_value_allowed_flag
    width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
    frames_only = bits.read(1)
    if not frames_only:
        height *= 2
        bits.read(1)  # mb_adaptive_frame_field_flag
    bits.read(1)  # direct_8x8_inference_flag
    if bits.read(1):  # frame_cropping_flag
        unit_x = 2 if chroma in (1, 2) else 1
        unit_y = (2 if chroma == 1 else 1) * (1 if frames_only else 2)
        width -= unit_x * (bits.ue() + bits.ue())
        height -= unit_y * (bits.ue() + bits.ue())
    if sps_id > 31 or not 0 < width <= 16384 or not 0 < height <= 16384:
        raise ParameterSetError("SPS with an impossible id or picture size")
    reorder: int | None = None
    if order_type == 2 or profile == 66:
        reorder = 0  # output order is decoding order (§7.4.2.1.1), or the profile has no B slices
    else:
        try:
            if bits.read(1):
                reorder = _reorder_frames(bits)
        except ParameterSetError:
            reorder = None  # some cameras truncate the VUI; nothing else is lost with it
    return SpsInfo(sps_id, profile, flags, level, width, height, reorder, bool(frames_only))


def _skip_high_profile_fields(bits: BitReader) -> int:
    chroma = bits.ue()
    if chroma == 3:
        bits.read(1)  # separate_colour_plane_flag
    bits.ue()  # bit_depth_luma_minus8
    bits.ue()  # bit_depth_chroma_minus8
    bits.read(1)  # qpprime_y_zero_transform_bypass_flag
    if bits.read(1):  # seq_scaling_matrix_present_flag
        for index in range(12 if chroma == 3 else 8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) & 0xFF
        last = following or last


def _skip_picture_order(bits: BitReader) -> int:
    order_type = bits.ue()
    if order_type == 0:
        bits.ue()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_type == 1:
        bits.read(1)  # delta_pic_order_always_zero_flag
        bits.se()  # offset_for_non_ref_pic
        bits.se()  # offset_for_top_to_bottom_field
        count = bits.ue()
        if count > 255:
            raise ParameterSetError("SPS with an impossible picture order cycle")
        for _ in range(count):
            bits.se()
    return order_type


def _reorder_frames(bits: BitReader) -> int | None:
    """max_num_reorder_frames from the VUI (§E.1.1), or None when it is not there."""
    if bits.read(1) and bits.read(8) == _EXTENDED_SAR:  # aspect_ratio_info_present_flag
        bits.read(32)
    if bits.read(1):  # overscan_info_present_flag
        bits.read(1)
    if bits.read(1):  # video_signal_type_present_flag
        bits.read(4)
        if bits.read(1):  # colour_description_present_flag
            bits.read(24)
    if bits.read(1):  # chroma_loc_info_present_flag
        bits.ue()
        bits.ue()
    if bits.read(1):  # timing_info_present_flag
        bits.read(65)
    nal_hrd = _skip_hrd(bits)
    vcl_hrd = _skip_hrd(bits)
    if nal_hrd or vcl_hrd:
        bits.read(1)  # low_delay_hrd_flag
    bits.read(1)  # pic_struct_present_flag
    if not bits.read(1):  # bitstream_restriction_flag
        return None
    bits.read(1)  # motion_vectors_over_pic_boundaries_flag
    for _ in range(4):
        bits.ue()
    return bits.ue()


def _skip_hrd(bits: BitReader) -> bool:
    if not bits.read(1):
        return False
    count = bits.ue() + 1
    if count > 32:
        raise ParameterSetError("SPS with an impossible HRD")
    bits.read(8)
    for _ in range(count):
        bits.ue()
        bits.ue()
        bits.read(1)
    bits.read(20)
    return True


class ParameterSets:
    """The latest SPS and PPS of each id."""

    def __init__(self) -> None:
        self._sps: dict[int, bytes] = {}
        self._pps: dict[int, bytes] = {}
        self.info: SpsInfo | None = None
        """The latest SPS that could be parsed."""
        self.changes = 0
        """How often a set's content changed."""
        self.malformed = 0

    def add(self, nal: bytes) -> bool:
        """Keep an SPS or PPS NAL unit (with its header octet); a malformed one is counted and left out: False."""
        kind = nal[0] & 0x1F if nal else 0
        known = self._sps if kind == NAL_SPS else self._pps
        try:
            if kind == NAL_SPS:
                info = parse_sps(nal)
                key = info.sps_id
            elif kind == NAL_PPS and len(nal) <= MAX_SIZE:
                info, key = None, payload_bits(nal[:8], 1, ParameterSetError).ue()
            else:
                raise ParameterSetError("not a parameter set")
        except ParameterSetError:
            self.malformed += 1
            return False
        earlier = known.get(key)
        if earlier == nal:
            return True
        if earlier is None and len(known) >= MAX_SETS:
            self.malformed += 1
            return False
        self.changes += earlier is not None
        known[key] = nal
        self.info = info or self.info
        return True

    def add_sprop(self, sprop_parameter_sets: str) -> None:
        """Keep the sets of an SDP's `sprop-parameter-sets` (base64, comma separated, RFC 6184 §8.1).

        Start codes are stripped.
        """
        for part in sprop_parameter_sets.split(","):
            try:
                for nal in split_nal(base64.b64decode(part.strip() + "=" * (-len(part.strip()) % 4))):
                    self.add(nal)
            except (binascii.Error, ValueError):
                self.malformed += 1

    @property
    def complete(self) -> bool:
        """Whether there is at least one set of each kind."""
        return bool(self._sps and self._pps)

    def nals(self) -> list[bytes]:
        """All sets kept, SPS first."""
        return [*self._sps.values(), *self._pps.values()]

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"changes": self.changes}
