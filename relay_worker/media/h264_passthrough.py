"""H.264 from RTP to RTP, packet by packet, without assembling frames (cut-through; RFC 6184).

A payload that fits goes out as it came. One that is too large is fragmented anew: FU-A fragments are re-cut so that
full packets result, with the remainder carried into the next fragment. Parameter sets are cached and put before an
IDR picture that lacks them. After loss nothing goes out until the first slice of the next IDR picture.

Payloads that are not one clean NAL unit are put right: start codes before or inside NAL units, empty fragments, zero
padding. Where pictures end is for `access_unit_ends` to say.
"""

from __future__ import annotations

from typing import Final

from relay_worker.media.access_unit_ends import TRAILERS, AccessUnitEnds, Payloads
from relay_worker.media.parameter_sets import ParameterSets, SpsInfo
from relay_worker.rtp.h264 import (
    FU_A,
    FU_END,
    FU_START,
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


class H264Passthrough(AccessUnitEnds):
    """One H.264 track's way through the relay.

    `max_payload` (bytes, ≥ 64) bounds what leaves. Counters, besides those of `AccessUnitEnds`: `b_frames` forwarded,
    `dropped` payloads held back while waiting for an IDR, `losses` (times the stream was broken), `malformed` and
    `ignored` payloads, `empty` ones (bandwidth probes, and fragments without data), `annex_b` payloads with start codes
    in them, `padded` aggregates.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD, sprop_parameter_sets: str = "") -> None:
        super().__init__()
        if max_payload < 64:
            raise ValueError(f"max_payload must be at least 64 bytes, not {max_payload}")
        self._max = max_payload
        self.parameter_sets = ParameterSets()
        if sprop_parameter_sets:
            self.parameter_sets.add_sprop(sprop_parameter_sets)
        self.wants_keyframe = True
        """Nothing goes out until an IDR picture comes."""
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

    def receive(self, payload: bytes, marker: bool, timestamp: int, lost: int) -> Payloads:
        """The payloads to send for one that was received, all with `self.timestamp`; possibly none.

        What is in `earlier` goes before them. `lost` is the number of packets missing before this one.
        """
        if lost:
            self._broken()
        if len(payload) < 2:
            self.empty += 1
            return []
        kind = payload[0] & 0x1F
        if kind == FU_A:
            self._fragment(payload, marker, timestamp)
        elif kind == STAP_A:
            self._aggregate(payload, marker, timestamp)
        elif kind < STAP_A:
            self._single(payload, kind, marker, timestamp)
        else:
            self.ignored += 1
        return self._take() if self._out else []

    def receive_run(self, payloads: Payloads, timestamp: int, lost: int) -> Payloads:
        """What `receive` gives for each payload in turn, all with `timestamp`; `lost` packets are missing before."""
        out: Payloads = []
        index = 0
        while index < len(payloads):
            end = self._middle(payloads, index) if not lost and timestamp == self._stamp else index
            if end == index:
                payload, marker = payloads[index]
                over = len(self.earlier)
                sent = self.receive(payload, marker, timestamp, lost)
                if len(self.earlier) > over:
                    # What this run has given so far belongs to the access unit that is over now.
                    earlier, rest = self.earlier[over]
                    self.earlier[over], out = (earlier, out + rest), sent
                else:
                    out += sent
                lost, end = 0, index + 1
            else:
                out += payloads[index:end]
            index = end
        return out

    def _middle(self, payloads: Payloads, index: int) -> int:
        """The end of the stretch from `index` of fragments that go out as they came, up to the NAL unit's last.

        Most packets of a stream pass here; `receive` would say the same of each.
        """
        if not self._in_fragment or self._carry is not None:
            return index
        most = self._max
        for payload, marker in payloads[index:]:
            size = len(payload)
            if size < 3 or size > most or payload[0] & 0x1F != FU_A or payload[1] >= FU_START:
                break
            if payload[1] & FU_END:
                if self._mistrusted or self._omits or self._probation:
                    break
                index += 1
                self._in_fragment = False
                self._marked = marker
                if marker:
                    self._closed = True
                    self._count()
                break
            if marker:
                break
            index += 1
        return index

    def hold_until_keyframe(self) -> None:
        """Send nothing until the next IDR picture; the rest of a NAL unit that is under way is not sent, either."""
        self.wants_keyframe = True
        self._in_fragment = self._starts_late = False
        self._carry = self._collected = None
        self._abandon()

    def _broken(self) -> None:
        """The bitstream has a hole here: hold everything back until the next IDR picture."""
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
            self._whole(payload, marker, timestamp)  # a start code in it does no harm: decoders read Annex B
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
        if len(nal) <= self._max:
            self._out.append((nal, False))
        else:
            self._out += [(piece, False) for piece in fragment(nal, self._max)]

    def _admit(self, nal: bytes, kind: int, start: bytes) -> bool:
        """Put out what must go before this NAL unit; False when the unit is to be held back.

        `nal` is the whole unit as far as it is known, `start` its header octet and the first octets of its body.
        """
        if kind in (NAL_SPS, NAL_PPS):
            self.parameter_sets.add(nal)
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
        """Put out the cached sets, unless this access unit has had them."""
        if self._sets_seen == 3:
            return
        self._sets_seen = 3
        nals = self.parameter_sets.nals()
        joined = join_stap_a(nals)
        for payload in [joined] if len(joined) <= self._max else nals:
            self._put(payload)

    def _aggregate(self, payload: bytes, marker: bool, timestamp: int) -> None:
        """A STAP-A: forwarded whole when nothing in it must be changed, else taken apart."""
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
        whole = len(payload) <= self._max and not self.wants_keyframe and not padded and nals == units
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
        """Whether this NAL unit belongs to a picture whose end has left, or waits to: no decoder misses it."""
        return kind in TRAILERS and self._is_over

    def _fragment(self, payload: bytes, marker: bool, timestamp: int) -> None:
        """An FU-A: begins a NAL unit, or goes on with one that is sent, collected or held back."""
        header = payload[1]
        if self._starts_late and not header & FU_START:
            header |= FU_START
            payload = bytes((payload[0], header)) + payload[2:]
        if header & FU_START:
            if self._in_fragment:
                self._malformed()
            self._starts_late = len(payload) == 2 and not header & FU_END
            if self._starts_late:
                self.empty += 1
                return
            self._begin_fragments(payload, header, marker, timestamp)
            return
        self._stamp = timestamp
        if marker and not header & FU_END:
            self._misplaced()
            marker = False
        if not self._in_fragment:
            if not self.wants_keyframe:
                self._malformed()
                return
            self.dropped += 1
            if header & FU_END:
                self._end_nal(marker, sent=False)
        elif len(payload) == 2 and not header & FU_END:
            self.empty += 1
        elif self._collected is not None:
            self._collect(payload[2:], header, marker, timestamp)
        else:
            self._go_on_with(payload, header, marker)

    def _begin_fragments(self, payload: bytes, header: int, marker: bool, timestamp: int) -> None:
        nal = bytes((payload[0] & 0xE0 | header & 0x1F,)) + payload[2:]
        kind = header & 0x1F
        self._carry, self._carry_start = None, FU_START
        if not kind and _is_slice(rest := _behind_start_code(nal)):
            # The rest of it can be cut through.
            self.annex_b += 1
            nal, kind, self._carry = rest, rest[0] & 0x1F, b""
        if not 0 < kind <= NAL_IDR:
            self._in_fragment, self._collected, self._carry = True, bytearray(), b""
            self._collect(nal, header, marker, timestamp)
            return
        self._begin_nal(kind, is_first_slice(nal), timestamp, marker=False)
        if not self._admit(b"", kind, nal):
            if header & FU_END:
                self._end_nal(marker, sent=False)
            self._carry = None
            return
        self._header = nal[0]
        self._in_fragment = True
        if header & FU_END:  # forbidden by RFC 6184 §5.8, and sent by some cameras: a whole NAL unit
            self._in_fragment, self._carry = False, None
            self._put(nal)
            self._end_nal(marker, sent=True)
        elif self._carry is None and len(payload) <= self._max:
            self._carry_start = 0
            self._out.append((payload, False))
        else:
            self._recut(nal[1:], header)

    def _go_on_with(self, payload: bytes, header: int, marker: bool) -> None:
        if self._carry is not None or len(payload) > self._max:
            self._recut(payload[2:], header)
        elif len(payload) == 2:
            # The end bit has nothing to stand on. A zero behind a NAL unit is legal in Annex B (§B.1.1), an empty
            # fragment is nothing that receivers expect.
            self.empty += 1
            self._out.append((payload + b"\x00", False))
        else:
            self._out.append((payload, False))
        if header & FU_END:
            self._in_fragment = False
            self._end_nal(marker, sent=True)

    def _recut(self, data: bytes, header: int) -> None:
        """Cut full packets from what is carried and `data`; carry the rest, or send it when the unit ends."""
        data = (self._carry or b"") + data
        room = self._max - 2
        indicator, kind = self._header & 0xE0 | FU_A, self._header & 0x1F
        position = 0
        # A full rest is carried too: the end bit must go onto the last packet, and it may come in an empty fragment.
        while len(data) - position > room:
            self._out.append((bytes((indicator, kind | self._carry_start)) + data[position : position + room], False))
            self._carry_start = 0
            position += room
        if header & FU_END:
            rest = data[position:] or b"\x00"
            self._out.append((bytes((indicator, kind | self._carry_start | FU_END)) + rest, False))
            self._carry = None
        else:
            self._carry = data[position:]

    def _collect(self, data: bytes, header: int, marker: bool, timestamp: int) -> None:
        """Keep a fragmented unit that is no slice, or not even a NAL unit, and take it apart when it is whole."""
        collected = self._collected
        assert collected is not None
        collected += data
        if len(collected) > MAX_COLLECTED:
            self._malformed()
        elif not header & FU_END:
            self.dropped += self.wants_keyframe
        else:
            self._in_fragment, self._collected, self._carry = False, None, None
            nals = split_nal(bytes(collected))
            self.annex_b += len(nals) > 1
            for index, nal in enumerate(nals):
                self._whole(nal, marker and index == len(nals) - 1, timestamp)


def _behind_start_code(data: bytes) -> bytes:
    """What stands behind the start code that `data` begins with, when there is no other; else nothing."""
    position = data.find(b"\x00\x00\x01")
    rest = data[position + 3 :]
    return b"" if position < 0 or any(data[:position]) or b"\x00\x00\x01" in rest else rest


def _is_slice(nal: bytes) -> bool:
    return bool(nal) and 0 < nal[0] & 0x1F <= NAL_IDR
