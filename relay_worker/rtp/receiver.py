"""RTP reception: order, loss and jitter of one source, RFC 3550 appendices A.1, A.3 and A.8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_worker import native
from relay_worker.native.states import ReceiverState
from relay_worker.rtp.packet import HEADER, MIN_SIZE, RtpError, RtpRun, RtpView, parse_header, parse_rtp
from relay_worker.rtp.rtcp import ReportBlock

MAX_DROPOUT: Final = 3000
"""Largest forward step of the sequence number that still counts as loss (A.1)."""
MAX_MISORDER: Final = 100
"""Largest backward step that still counts as a late packet (A.1)."""
MAX_MISORDER_REPAIRED: Final = 512
"""The same where lost packets are sent again: behind a pause, or within a large keyframe, a repair comes that late."""
MAX_PAUSE: Final = 5.0
"""Seconds by which timestamps may advance across a restart of the sequence for it to count as the same stream."""

# Results of `_accept` other than a number of lost packets.
_ON_PROBATION: Final = -2
_RESTARTED: Final = -3


class RtpReceiver(ReceiverState):
    """Receives one track's packets.

    A packet with an unknown SSRC, or a sequence number far from the expected one, is held until the next packet
    follows it (so a stray packet cannot restart the stream). Then both are returned; the first has `lost` 1 unless
    nothing can be missing: over a stream transport, when the timestamps go on.

    With `in_order` (a stream transport) late packets are dropped; without it they are returned with `lost` 0, and
    `rtp.reorder` restores the order. Packets of another payload type than `payload_type` are counted in statistics and
    `unexpected`, and not returned. A malformed packet of this source counts as arrived and is returned empty, so that
    it does not look like loss.
    """

    def __init__(self, clock_rate: int, payload_type: int | None = None, *, in_order: bool = True) -> None:
        self._clock_rate, self._payload_type, self._in_order = clock_rate, payload_type, in_order
        self._misorder = MAX_MISORDER if in_order else MAX_MISORDER_REPAIRED
        self.packets = 0
        self.bytes = 0
        self.lost = 0
        """Sequence numbers skipped, less those that came late."""
        self.duplicates = 0
        self.reordered = 0
        self.malformed = 0
        self.unexpected = 0
        self.restarts = 0
        self.ssrc: int | None = None
        self._candidate: RtpView | None = None  # first packet of a source, or of a sequence, on probation
        self._candidate_size = 0
        self._carried = 0  # loss before a packet that was not returned
        self._compiled = native.compiled()
        self._reset(0)

    def _reset(self, sequence: int) -> None:
        self._base = self._highest = sequence
        self._cycles = 0
        self._missing: dict[int, None] = {}  # sequence numbers skipped lately, oldest first
        self._before = self.packets
        self._reported_expected = self._reported_received = 0
        self._transit: float | None = None
        self._last_timestamp = -1
        self._jitter = 0.0
        self._lsr, self._lsr_arrival = 0, 0.0

    @property
    def newest(self) -> int | None:
        """The newest sequence number; None before the first."""
        return self._highest if self.ssrc is not None else None

    @property
    def jitter(self) -> float:
        """Interarrival jitter in seconds."""
        return self._jitter / self._clock_rate

    def receive_packet(self, packet: bytes, now: float) -> list[RtpView]:
        """Count a packet that arrived at `now` (seconds); return what can be used: nothing, it, or two at a restart."""
        try:
            view = parse_rtp(packet)
        except RtpError:
            self.malformed += 1
            found = parse_header(packet)
            if found is None or found.ssrc != self.ssrc:
                return []
            view = found
        size = len(packet)
        lost = self._accept(view.sequence, view.timestamp, view.ssrc, view.payload_type, size, now)
        if lost is None:
            return []
        if lost == _RESTARTED:
            return self._restart(view, size, now)
        if lost == _ON_PROBATION:
            self._candidate, self._candidate_size = view, size
            return []
        return [view if lost <= 0 else view.behind(lost)]

    def _restart(self, view: RtpView, size: int, now: float) -> list[RtpView]:
        """`view` follows the packet on probation: restart with that one."""
        first = self._candidate
        assert first is not None
        ahead = (first.timestamp - self._last_timestamp) & 0xFFFFFFFF
        # A stream transport loses nothing: where time simply continues, only the numbering was restarted.
        whole = self._in_order and first.ssrc == self.ssrc and ahead <= MAX_PAUSE * self._clock_rate
        self._candidate = None
        self.ssrc = first.ssrc
        self.restarts += 1
        timestamp = self._last_timestamp
        self._reset(first.sequence)
        self._highest -= 1  # neither of the two is counted yet
        self._last_timestamp = timestamp if whole else -1
        views: list[RtpView] = []
        for packet, length in ((first, self._candidate_size), (view, size)):
            lost = self._accept(packet.sequence, packet.timestamp, packet.ssrc, packet.payload_type, length, now)
            if lost is not None:
                views.append(packet.behind(lost if whole or views else lost + 1))
        return views

    def _accept(self, sequence: int, timestamp: int, ssrc: int, payload_type: int, size: int, now: float) -> int | None:
        """Count a packet; the packets lost before it, -1 for a late one to pass on, None for one of no use.

        Or `_ON_PROBATION` or `_RESTARTED`, and it is not counted yet.
        """
        step = (sequence - self._highest) & 0xFFFF
        lost = 0
        if step != 1 or ssrc != self.ssrc:
            found = self._out_of_line(sequence, timestamp, ssrc, payload_type, step)
            if found is None or found < 0:
                return found
            lost = found
        if sequence < self._highest:
            self._cycles += 0x10000
        self._highest = sequence
        self.packets += 1
        self.bytes += size
        if timestamp != self._last_timestamp:
            # Packets of one frame share a timestamp: only the first is meaningful for jitter.
            self._last_timestamp = timestamp
            transit = now * self._clock_rate - timestamp
            if self._transit is not None:
                deviation = abs(transit - self._transit)
                # Timestamps wrap and jump; a deviation of more than ten seconds is not jitter.
                if deviation < 10 * self._clock_rate:
                    self._jitter += (deviation - self._jitter) / 16
            self._transit = transit
        if self._payload_type is not None and payload_type != self._payload_type:
            self.unexpected += 1
            self._carried += lost
            return None
        if self._carried:
            lost += self._carried
            self._carried = 0
        return lost

    def receive_all(self, packets: Sequence[bytes], now: float) -> list[RtpRun]:
        """Count all that one wake brought, at `now`; return what can be used, in order. Only with `in_order`.

        What `receive` does for each. A plain packet that follows the one before it within its frame, as nearly all do,
        is spared its questions.
        """
        runs: list[RtpRun] = []
        run: RtpRun | None = None
        if self._compiled is not None:
            self._receive_compiled(self._compiled, packets, now, runs)
            return runs
        unpack, wanted = HEADER.unpack_from, self._payload_type
        for packet in packets:
            size = len(packet)
            if size < MIN_SIZE or packet[0] != 0x80:  # padding, extension, CSRC: or no RTP at all
                run = _append(runs, self.receive_packet(packet, now))
                continue
            _, second, sequence, timestamp, ssrc = unpack(packet)
            if (
                run is not None
                and sequence == self._highest + 1
                and timestamp == run.timestamp
                and ssrc == run.ssrc
                and (wanted is None or second & 0x7F == wanted)
            ):
                self._highest = sequence
                self.packets += 1
                self.bytes += size
                run.payloads.append((packet[12:], second > 127))
                continue
            run = self._begin_run(packet, now, runs)
        return runs

    def _begin_run(self, packet: bytes, now: float, runs: list[RtpRun]) -> RtpRun | None:
        """Take a packet without padding, extension and CSRC that does not go on with a run; returns that which does."""
        size = len(packet)
        _, second, sequence, timestamp, ssrc = HEADER.unpack_from(packet)
        lost = self._accept(sequence, timestamp, ssrc, second & 0x7F, size, now)
        if lost is None:
            return None
        if lost < 0:
            view = RtpView(sequence, timestamp, second > 127, second & 0x7F, ssrc, packet[12:])
            if lost == _ON_PROBATION:
                self._candidate, self._candidate_size = view, size
                return None
            return _append(runs, self._restart(view, size, now))
        run = RtpRun(timestamp, ssrc, lost, [(packet[12:], second > 127)])
        runs.append(run)
        return run

    def _receive_compiled(
        self, compiled: native.Compiled, packets: Sequence[bytes], now: float, runs: list[RtpRun]
    ) -> None:
        """What `receive_all` does for each packet, with one call for those that go on with a run."""
        packets = packets if isinstance(packets, list) else list(packets)
        wanted = -1 if self._payload_type is None else self._payload_type
        run: RtpRun | None = None
        index = 0
        while index < len(packets):
            if run is not None:
                start, following = index, self._highest + 1
                index, size = compiled.take_plain(
                    packets, index, following, run.timestamp, run.ssrc, wanted, run.payloads
                )
                if index > start:
                    self._highest += index - start
                    self.packets += index - start
                    self.bytes += size
                    continue
            packet = packets[index]
            if len(packet) < MIN_SIZE or packet[0] != 0x80:
                run = _append(runs, self.receive_packet(packet, now))
            else:
                run = self._begin_run(packet, now, runs)
            index += 1

    def _out_of_line(self, sequence: int, timestamp: int, ssrc: int, payload_type: int, step: int) -> int | None:
        """Result of `_accept` for a packet that is not the next one."""
        if ssrc != self.ssrc and not self._is_media(payload_type):
            self.unexpected += 1
            return None
        if self.ssrc is None:
            self.ssrc = ssrc
            self._reset(sequence)
            return 0
        if ssrc != self.ssrc or MAX_DROPOUT <= step <= 0x10000 - self._misorder or self._starts_anew(timestamp, step):
            first = self._candidate
            if first is not None and (first.ssrc, (first.sequence + 1) & 0xFFFF) == (ssrc, sequence):
                return _RESTARTED
            self.unexpected += 1
            return _ON_PROBATION
        if 0 < step < MAX_DROPOUT:
            for missing in range(sequence - min(step - 1, self._misorder), sequence):
                self._missing[missing & 0xFFFF] = None
            while len(self._missing) > self._misorder:
                del self._missing[next(iter(self._missing))]
            self.lost += step - 1
            return step - 1
        if sequence not in self._missing:
            self.duplicates += 1
            return None
        del self._missing[sequence]
        self.reordered += 1
        self.lost -= 1
        self.packets += 1
        return None if self._in_order else -1

    def _is_media(self, payload_type: int) -> bool:
        """Whether a packet may begin a stream: RTCP on the RTP channel has payload types 72 to 76 (RFC 5761 §4)."""
        return payload_type == self._payload_type if self._payload_type is not None else not 72 <= payload_type <= 76

    def _starts_anew(self, timestamp: int, step: int) -> bool:
        """Whether a packet that seems to be late over a stream transport has a later timestamp than all before it."""
        if not self._in_order or step < MAX_DROPOUT or self._last_timestamp < 0:
            return False
        return 0 < (timestamp - self._last_timestamp) & 0xFFFFFFFF <= MAX_PAUSE * self._clock_rate

    def sender_report(self, ntp: int, now: float) -> None:
        """Remember the sender report (64-bit NTP time) that arrived at `now`, for LSR and DLSR."""
        self._lsr, self._lsr_arrival = ntp >> 16 & 0xFFFFFFFF, now

    def receiver_report(self, now: float) -> ReportBlock | None:
        """The report block on this source since the last call (A.3), or None before its first packet."""
        if self.ssrc is None:
            return None
        highest = self._cycles + self._highest
        expected, received = highest - self._base + 1, self.packets - self._before
        interval, got = expected - self._reported_expected, received - self._reported_received
        self._reported_expected, self._reported_received = expected, received
        fraction = min(255, max(0, interval - got) * 256 // interval) if interval > 0 else 0
        dlsr = int((now - self._lsr_arrival) * 65536) if self._lsr else 0
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=fraction,
            lost=expected - received,
            highest_sequence=highest & 0xFFFFFFFF,
            jitter=min(int(self._jitter), 0xFFFFFFFF),
            lsr=self._lsr,
            dlsr=min(max(0, dlsr), 0xFFFFFFFF),
        )

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"unexpected": self.unexpected, "reordered": self.reordered}


def _append(runs: list[RtpRun], views: Sequence[RtpView]) -> RtpRun | None:
    """Add out-of-sequence packets as runs of their own; returns the last run."""
    runs += [RtpRun(view.timestamp, view.ssrc, view.lost, [(view.payload, view.marker)]) for view in views]
    return runs[-1] if views else None
