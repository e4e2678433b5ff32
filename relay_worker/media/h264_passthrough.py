"""H.264 from RTP to RTP, packet by packet, without assembling frames (cut-through; RFC 6184).

A payload that fits goes out as it came. One that is too large is fragmented anew: FU-A fragments are re-cut so that
full packets result, with the remainder carried into the next fragment. Parameter sets are cached and put before an
IDR picture that lacks them. After loss nothing goes out until the first slice of the next IDR picture.

Payloads that are not one clean NAL unit are put right: start codes before or inside NAL units, empty fragments, zero
padding. Where pictures end is for `access_unit_ends` to say.
"""

from __future__ import annotations

from relay_worker.media.access_unit_ends import MAX_INTERVAL, Payloads
from relay_worker.media.nal_units import MAX_COLLECTED, NalUnits
from relay_worker.media.stream import VIDEO_CLOCK_RATE
from relay_worker.rtp.h264 import FU_A, FU_END, FU_START, NAL_IDR, NAL_SLICE, STAP_A, split_nal
from relay_worker.rtp.h264_slices import is_first_slice


class H264Passthrough(NalUnits):
    """One H.264 track's way through the relay.

    `max_payload` (bytes, ≥ 64) bounds what leaves. Counters: see `NalUnits` and `AccessUnitEnds`.
    """

    def receive_payload(self, payload: bytes, marker: bool, timestamp: int, lost: int) -> Payloads:
        """The payloads to send for one received payload, all with `self.timestamp`; possibly none.

        Those in `earlier` go first. `lost` is the number of packets missing before this one.
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
        if self._waits or self._undated:
            return self._take()
        out, self._out = self._out, []
        return out

    def receive_run(self, payloads: Payloads, timestamp: int, lost: int) -> Payloads:
        """What `receive` gives for each payload in turn, all with `timestamp`; `lost` packets are missing before."""
        out: Payloads = []
        index = 0
        while index < len(payloads):
            payload, marker = payloads[index]
            end = index
            if timestamp == self._stamp:
                if not lost:
                    end = self._middle(payloads, index)
            elif not lost and self._begins_plainly(payload, marker, timestamp):
                out += self._out
                self._out = []
                index += 1
                continue
            if end == index:
                over = len(self.earlier)
                sent = self.receive_payload(payload, marker, timestamp, lost)
                if len(self.earlier) > over:
                    # What this run has given so far belongs to the access unit that is over now.
                    earlier, rest = self.earlier[over]
                    self.earlier[over], out = (earlier, out + rest), sent
                else:
                    out += sent
                lost, end = 0, index + 1
            elif self._out:
                out += self._out
                self._out = []
            elif self._carry is None:
                out += payloads[index:end]
            index = end
        return out

    def _middle(self, payloads: Payloads, index: int) -> int:
        """The end of the stretch from `index` of fragments that go out as they came, up to the NAL unit's last.

        Most packets of a stream pass here; `receive` would say the same of each.
        """
        if not self._in_fragment:
            return index
        if self._carry is not None:
            return self._recut_middle(payloads, index) if self._collected is None else index
        most = self.max_payload
        if self._compiled is not None:
            trusted = not (self._mistrusted or self._omits or self._distrusted)
            index, end = self._compiled.pass_fragments(payloads, index, most, trusted)
            if end:
                self._end_fragments(end > 1)
            return index
        for payload, marker in payloads[index:]:
            size = len(payload)
            if size < 3 or size > most or payload[0] & 0x1F != FU_A or payload[1] >= FU_START:
                break
            if payload[1] & FU_END:
                if self._mistrusted or self._omits or self._distrusted:
                    break
                index += 1
                self._end_fragments(marker)
                break
            if marker:
                break
            index += 1
        return index

    def _end_fragments(self, marker: bool) -> None:
        """The NAL unit's last fragment has been taken, from a camera whose marks are trusted."""
        self._in_fragment = False
        self._marked = marker
        if marker:
            self._closed = True
            self._count()

    def _recut_middle(self, payloads: Payloads, index: int) -> int:
        """The same for fragments that are re-cut, which it does: what may leave is in `_out`."""
        for payload, marker in payloads[index:]:
            header = payload[1] if len(payload) > 2 and payload[0] & 0x1F == FU_A else FU_START
            if header >= FU_START:
                break
            if header & FU_END:
                if self._mistrusted or self._omits or self._distrusted:
                    break
                self._recut(payload[2:], header)
                index += 1
                self._end_fragments(marker)
                if marker:
                    self._out[-1] = (self._out[-1][0], True)
                break
            if marker:
                break
            self._recut(payload[2:], header)
            index += 1
        return index

    def _begins_plainly(self, payload: bytes, marker: bool, timestamp: int) -> bool:
        """Take the first fragment of a slice that begins a picture, with all as it should be; False for anything else.

        `receive` would do the same.
        """
        if (
            not self._closed
            or self._timed
            or marker
            or self.wants_keyframe
            or self._shift
            or len(payload) < 3
            or payload[0] & 0x1F != FU_A
            or payload[1] != FU_START | NAL_SLICE
            or payload[2] < 0x80
            or self._starts_late
        ):
            return False
        step = (timestamp - self._raw) & 0xFFFFFFFF
        if step < MAX_INTERVAL:
            self._interval = step / VIDEO_CLOCK_RATE / self._sharing
        self.timestamp = self._stamp = self._raw = timestamp
        self._sharing = 1
        self._closed = self._marked = self._key = False
        self._sent = self._in_fragment = True
        self._sets_seen = self._carry_start = 0
        self._header = payload[0] & 0xE0 | NAL_SLICE
        second = payload[2]
        if second >> 4 == 0b1010 or second >> 2 == 0b100111:
            self.b_frames += 1
        if len(payload) <= self.max_payload:
            self._out.append((payload, False))
        else:
            self._carry_start = FU_START
            self._recut(payload[2:], FU_START)
        return True

    def _fragment(self, payload: bytes, marker: bool, timestamp: int) -> None:
        """Handle an FU-A: it starts a NAL unit, or continues one that is being sent, collected or held back."""
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
            # The rest of it can be forwarded directly.
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
        elif self._carry is None and len(payload) <= self.max_payload:
            self._carry_start = 0
            self._out.append((payload, False))
        else:
            self._recut(nal[1:], header)

    def _go_on_with(self, payload: bytes, header: int, marker: bool) -> None:
        if self._carry is not None or len(payload) > self.max_payload:
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
        """Cut full packets from the carried bytes and `data`; carry the rest, or send it when the unit ends."""
        data = (self._carry or b"") + data
        room = self.max_payload - 2
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

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "losses": self.losses,
            "unmarked": self.unmarked,
            "misplaced": self.misplaced,
            "split": self.split,
            "annex_b": self.annex_b,
            "padded": self.padded,
            "set_changes": self.parameter_sets.changes,
        }


def _behind_start_code(data: bytes) -> bytes:
    """What stands behind the start code that `data` begins with, when there is no other; else nothing."""
    position = data.find(b"\x00\x00\x01")
    rest = data[position + 3 :]
    return b"" if position < 0 or any(data[:position]) or b"\x00\x00\x01" in rest else rest


def _is_slice(nal: bytes) -> bool:
    return bool(nal) and 0 < nal[0] & 0x1F <= NAL_IDR
