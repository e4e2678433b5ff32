"""Whole NAL units of an H.264 track: what goes out, what is held back, what is put before it (RFC 6184 §5.6, §5.7).

Units that are not one clean NAL unit are put right: start codes before or inside them, zero padding behind aggregates.
"""

from __future__ import annotations

from typing import Final

from relay_worker import native
from relay_worker.media.access_unit_ends import TRAILERS, AccessUnitEnds
from relay_worker.media.parameter_sets import ParameterSets, SpsInfo
from relay_worker.rtp.h264 import (
    MAX_PAYLOAD,
    NAL_IDR,
    NAL_PPS,
    NAL_SLICE,
    NAL_SPS,
    STAP_A,
    PayloadError,
    fragment,
    join_stap_a,
    split_nal,
    split_stap_a,
)
from relay_worker.rtp.h264_slices import is_b_slice, is_first_slice

MAX_COLLECTED: Final = 1024 * 1024
"""Bytes of fragments that are collected because several NAL units may be in them."""


class NalUnits(AccessUnitEnds):
    """Admits and sends whole NAL units. The base of `H264Passthrough`, which adds fragments.

    Counters, besides those of `AccessUnitEnds`: `b_frames` forwarded, `dropped` payloads held back while waiting for an
    IDR, `losses` (times the stream was broken), `malformed` and `ignored` payloads, `empty` ones (bandwidth probes, and
    fragments without data), `annex_b` payloads with start codes in them, `padded` aggregates.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD, sprop_parameter_sets: str = "") -> None:
        super().__init__()
        if max_payload < 64:
            raise ValueError(f"max_payload must be at least 64 bytes, not {max_payload}")
        self.max_payload = max_payload
        """Bytes of the largest payload that leaves; may change at any time."""
        self.parameter_sets = ParameterSets()
        if sprop_parameter_sets:
            self.parameter_sets.add_sprop(sprop_parameter_sets)
        self.wants_keyframe = True
        """Nothing is sent until the next IDR picture."""
        self._compiled = native.compiled()
        self.repeats_sets = False
        """Whether the cached parameter sets are sent before every IDR picture, even where the camera has sent them."""
        self._in_fragment = False  # the NAL unit of the last FU-A is not complete, and goes out or is collected
        self._starts_late = False  # the fragment that began it was empty: the next begins it
        self._carry: bytes | None = None  # rest of a fragment that is being re-cut; None when fragments fit
        self._carry_start = 0  # FU_START until the first packet of a re-cut NAL unit has gone out
        self._header = 0  # of the NAL unit that is being re-cut
        self._collected: bytearray | None = None  # a fragmented NAL unit that may be several
        self.b_frames = 0
        self.dropped = self.losses = self.malformed = self.ignored = self.empty = 0
        self.annex_b = self.padded = 0

    @property
    def sps(self) -> SpsInfo | None:
        """The stream's profile, level and size, once an SPS was seen."""
        return self.parameter_sets.info

    def hold_until_keyframe(self) -> None:
        """Send nothing until the next IDR picture; the rest of an incomplete NAL unit is dropped, too."""
        self.wants_keyframe = True
        self._in_fragment = self._starts_late = False
        self._carry = self._collected = None
        self._abandon()

    def _broken(self) -> None:
        """The bitstream has a gap here: hold everything back until the next IDR picture."""
        if not self.wants_keyframe:
            self.losses += 1
        self.hold_until_keyframe()

    def _malformed(self) -> None:
        self.malformed += 1
        self._broken()

    def _single(self, payload: bytes, kind: int, marker: bool, timestamp: int) -> None:
        if self._in_fragment:
            self._malformed()
        if 0 < kind <= NAL_IDR:
            self._whole(payload, marker, timestamp)  # a start code in it is harmless: decoders parse Annex B
            return
        nals = split_nal(payload)
        if len(nals) != 1 or nals[0] is not payload:
            self.annex_b += 1
        for index, nal in enumerate(nals):
            self._whole(nal, marker and index == len(nals) - 1, timestamp)

    def _whole(self, nal: bytes, marker: bool, timestamp: int) -> None:
        kind = nal[0] & 0x1F
        if not 0 < kind < STAP_A or self._is_late(kind):
            self.ignored += 1
            return
        self._begin_nal(kind, is_first_slice(nal), timestamp, marker)
        sent = self._admit(nal, kind, nal)
        if sent:
            self._put(nal)
        self._end_nal(marker, sent)

    def _put(self, nal: bytes) -> None:
        if len(nal) <= self.max_payload:
            self._out.append((nal, False))
        else:
            self._out += [(piece, False) for piece in fragment(nal, self.max_payload)]

    def _admit(self, nal: bytes, kind: int, start: bytes) -> bool:
        """Put out what must go before this NAL unit; False when the unit is to be held back.

        `nal` is the whole unit as far as it is known, `start` its header octet and the first octets of its body.
        """
        if kind in (NAL_SPS, NAL_PPS):
            if not self.parameter_sets.add(nal):
                return False  # decoders would take it for one, and lose the stream over it
            info = self.parameter_sets.info
            self._fields = info is not None and not info.frames_only
            if not self.wants_keyframe:
                self._sets_seen |= 1 if kind == NAL_SPS else 2
        elif kind == NAL_IDR and is_first_slice(start):
            if not self.parameter_sets.complete:
                self.dropped += 1
                return False
            self.wants_keyframe = False
            self._key = True
            self._put_parameter_sets()
        if self.wants_keyframe:
            self.dropped += 1
            return False
        if kind <= NAL_IDR:
            self._sent = True
            if kind == NAL_SLICE and is_b_slice(start):
                self.b_frames += 1
        return True

    def _put_parameter_sets(self) -> None:
        """Put out the cached sets, unless this access unit has had them and they need not be repeated."""
        if self._sets_seen == 3 and not self.repeats_sets:
            return
        self._sets_seen = 3
        nals = self.parameter_sets.nals()
        joined = join_stap_a(nals)
        for payload in [joined] if len(joined) <= self.max_payload else nals:
            self._put(payload)

    def _aggregate(self, payload: bytes, marker: bool, timestamp: int) -> None:
        """Handle a STAP-A: forwarded whole when nothing in it must be changed, else split."""
        if self._in_fragment:
            self._malformed()
        try:
            units = split_stap_a(payload)
        except PayloadError:
            self._malformed()
            return
        nals = [nal for unit in units for nal in split_nal(unit)]
        padded = 1 + sum(2 + len(unit) for unit in units) != len(payload)
        self.padded += padded
        self.annex_b += nals != units
        whole = len(payload) <= self.max_payload and not self.wants_keyframe and not padded and nals == units
        start = over = -1
        sent = False
        for nal in nals:
            kind = nal[0] & 0x1F
            if not 0 < kind < STAP_A or self._is_late(kind):
                self.ignored += 1
                whole = False
                continue
            self._begin_nal(kind, is_first_slice(nal), timestamp, marker)
            if over < 0:
                start, over = len(self._out), len(self.earlier)
            before = len(self._out)
            sent = self._admit(nal, kind, nal)
            whole = whole and len(self._out) == before and len(self.earlier) == over
            if sent:
                self._put(nal)
        if whole:
            self._out[start:] = [(payload, False)]
        self._end_nal(marker, sent)

    def _is_late(self, kind: int) -> bool:
        """Whether this NAL unit belongs to a picture whose end was sent, or is held: no decoder misses it."""
        return kind in TRAILERS and self._is_over
