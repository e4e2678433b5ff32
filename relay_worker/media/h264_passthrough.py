"""H.264 from RTP to RTP, packet by packet, without assembling frames (cut-through; RFC 6184).

A payload that fits goes out as it came. One that is too large is fragmented anew: FU-A fragments are re-cut so that
full packets result, with the remainder carried into the next fragment. Parameter sets are cached and put before an
IDR picture that lacks them. After loss nothing goes out until the first slice of the next IDR picture.
"""

from __future__ import annotations

from relay_worker.media.parameter_sets import ParameterSets, SpsInfo
from relay_worker.rtp.h264 import (
    FU_A,
    FU_END,
    FU_START,
    NAL_IDR,
    NAL_PPS,
    NAL_SLICE,
    NAL_SPS,
    STAP_A,
    PayloadError,
    fragment,
    join_stap_a,
    split_stap_a,
)
from relay_worker.rtp.h264_slices import is_b_slice, is_first_slice

Payloads = list[tuple[bytes, bool]]
"""Outgoing RTP payloads with their marker bits."""


class H264Passthrough:
    """One H.264 track's way through the relay.

    `max_payload` (bytes, ≥ 64) bounds what `receive` returns. Counters: `frames`, `keyframes` and `b_frames` forwarded,
    `dropped` payloads held back while waiting for an IDR, `losses` (times the stream was broken), `malformed` and
    `ignored` payloads, `empty` ones (bandwidth probes), `unmarked` frames that ended without a marker bit.
    """

    def __init__(self, max_payload: int = 1200, sprop_parameter_sets: str = "") -> None:
        if max_payload < 64:
            raise ValueError(f"max_payload must be at least 64 bytes, not {max_payload}")
        self._max = max_payload
        self.parameter_sets = ParameterSets()
        if sprop_parameter_sets:
            self.parameter_sets.add_sprop(sprop_parameter_sets)
        self.wants_keyframe = True
        """Nothing goes out until an IDR picture comes."""
        self._in_fragment = False  # the NAL unit of the last FU-A went out and is not complete
        self._carry: bytes | None = None  # rest of a fragment that is being re-cut; None when fragments fit
        self._carry_start = 0  # FU_START until the first packet of a re-cut NAL unit has gone out
        self._timestamp = -1
        self._marked = True
        self._sets_seen = 0  # bit 0: SPS, bit 1: PPS went out in this access unit
        self._key = False
        self.frames = self.keyframes = self.b_frames = 0
        self.dropped = self.losses = self.malformed = self.ignored = self.empty = self.unmarked = 0

    @property
    def sps(self) -> SpsInfo | None:
        """The stream's profile, level and size, once an SPS was seen."""
        return self.parameter_sets.info

    def receive(self, payload: bytes, marker: bool, timestamp: int, lost: int) -> Payloads:
        """The payloads to send for one that was received, all with its timestamp; possibly none.

        `lost` is the number of packets missing before this one.
        """
        if lost:
            self._broken()
        if len(payload) < 2:
            self.empty += 1
            return []
        if timestamp != self._timestamp:
            if self._in_fragment or not self._marked:
                self._unfinished()
            self._timestamp = timestamp
            self._sets_seen = 0
        kind = payload[0] & 0x1F
        if kind == FU_A:
            out = self._fragment(payload, marker)
        elif kind == STAP_A:
            out = self._aggregate(payload, marker)
        elif 0 < kind < STAP_A:
            if self._in_fragment:
                self._malformed()
            out = self._single(payload, marker)
        else:
            self.ignored += 1
            return []
        if out and marker:
            self._end_frame()
        return out

    def receive_run(self, payloads: Payloads, timestamp: int, lost: int) -> Payloads:
        """What `receive` gives for each payload in turn, all with `timestamp`; `lost` packets are missing before."""
        out: Payloads = []
        index = 0
        while index < len(payloads):
            end = self._middle(payloads, index) if not lost and timestamp == self._timestamp else index
            if end == index:
                payload, marker = payloads[index]
                out += self.receive(payload, marker, timestamp, lost)
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
            if size < 2 or size > most or payload[0] & 0x1F != FU_A or payload[1] >= FU_START:
                break
            index += 1
            if payload[1] & FU_END:
                self._in_fragment = False
                if marker:
                    self._end_frame()
                break
            if marker:
                self._end_frame()
        return index

    def _unfinished(self) -> None:
        """Another access unit begins, and the one before it had no end."""
        if self._in_fragment:
            self._malformed()
        if not self._marked:
            self.unmarked += 1
            self._end_frame()

    def _end_frame(self) -> None:
        self._marked = True
        self.frames += 1
        self.keyframes += self._key
        self._key = False

    def _broken(self) -> None:
        """The bitstream has a hole here: hold everything back until the next IDR picture."""
        if not self.wants_keyframe:
            self.losses += 1
        self.wants_keyframe = True
        self._in_fragment = False
        self._carry = None
        self._marked = True
        self._key = False

    def _malformed(self) -> None:
        self.malformed += 1
        self._broken()

    def _single(self, nal: bytes, marker: bool) -> Payloads:
        kind = nal[0] & 0x1F
        head = self._admit(nal, kind, nal)
        if head is None:
            return []
        if len(nal) <= self._max:
            head.append((nal, marker))
            return head
        pieces = fragment(nal, self._max)
        return head + [(piece, marker and piece is pieces[-1]) for piece in pieces]

    def _admit(self, nal: bytes, kind: int, start: bytes) -> Payloads | None:
        """What must go out before this NAL unit, or None when the unit is to be held back.

        `nal` is the whole unit as far as it is known, `start` its header octet and the first octets of its body.
        """
        if kind in (NAL_SPS, NAL_PPS):
            self.parameter_sets.add(nal)
            if not self.wants_keyframe:
                self._sets_seen |= 1 if kind == NAL_SPS else 2
        elif kind == NAL_IDR and is_first_slice(start):
            if not self.parameter_sets.complete:
                self.dropped += 1
                return None
            self.wants_keyframe = False
            self._marked = False
            self._key = True
            return self._parameter_sets()
        if self.wants_keyframe:
            self.dropped += 1
            return None
        if kind <= NAL_IDR:
            self._marked = False
            if kind == NAL_SLICE and is_b_slice(start):
                self.b_frames += 1
        return []

    def _parameter_sets(self) -> Payloads:
        """The cached sets as payloads, unless this access unit has had them."""
        if self._sets_seen == 3:
            return []
        self._sets_seen = 3
        nals = self.parameter_sets.nals()
        joined = join_stap_a(nals)
        if len(joined) <= self._max:
            return [(joined, False)]
        return [(piece, False) for nal in nals for piece in fragment(nal, self._max)]

    def _aggregate(self, payload: bytes, marker: bool) -> Payloads:
        """A STAP-A: forwarded whole when nothing in it must be changed, else taken apart."""
        if self._in_fragment:
            self._malformed()
        try:
            nals = split_stap_a(payload)
        except PayloadError:
            self._malformed()
            return []
        waiting = self.wants_keyframe
        out: Payloads = []
        whole = len(payload) <= self._max and not waiting
        for index, nal in enumerate(nals):
            head = self._admit(nal, nal[0] & 0x1F, nal)
            if head is None:
                continue
            whole = whole and not head
            last = marker and index == len(nals) - 1
            pieces = fragment(nal, self._max)
            out += head + [(piece, last and piece is pieces[-1]) for piece in pieces]
        return [(payload, marker)] if whole else out

    def _fragment(self, payload: bytes, marker: bool) -> Payloads:
        """An FU-A that starts a NAL unit, is too large, or belongs to one that is being re-cut or held back."""
        header = payload[1]
        if header & FU_START:
            if self._in_fragment:
                self._malformed()
            nal_header = payload[0] & 0xE0 | header & 0x1F
            head = self._admit(b"", header & 0x1F, bytes((nal_header, *payload[2:3])))
            if head is None:
                return []
            self._in_fragment = True
            self._carry, self._carry_start = None, FU_START
            if header & FU_END:  # forbidden by RFC 6184 §5.8, and sent by some cameras: a whole NAL unit
                self._in_fragment = False
                pieces = fragment(bytes((nal_header,)) + payload[2:], self._max)
                return head + [(piece, marker and piece is pieces[-1]) for piece in pieces]
        elif not self._in_fragment:
            if self.wants_keyframe:
                self.dropped += 1
            else:
                self._malformed()
            return []
        else:
            head = []
        if self._carry is None and len(payload) <= self._max:
            self._carry_start = 0
            self._in_fragment = not header & FU_END
            return [*head, (payload, marker)]
        return head + self._recut(payload, header, marker)

    def _recut(self, payload: bytes, header: int, marker: bool) -> Payloads:
        """Cut full packets from what is carried and this fragment; carry the rest, or send it when the unit ends."""
        data = (self._carry or b"") + payload[2:]
        room = self._max - 2
        indicator, kind = payload[0], header & 0x1F
        out: Payloads = []
        position = 0
        # A full rest is carried too: the end bit must go onto the last packet, and it may come in an empty fragment.
        while len(data) - position > room:
            out.append((bytes((indicator, kind | self._carry_start)) + data[position : position + room], False))
            self._carry_start = 0
            position += room
        if header & FU_END:
            out.append((bytes((indicator, kind | self._carry_start | FU_END)) + data[position:], marker))
            self._carry, self._in_fragment = None, False
        else:
            self._carry = data[position:]
        return out
