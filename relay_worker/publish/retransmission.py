"""Sends packets again: when the receiver asks (NACK), as a precaution, and to probe the uplink.

By RTX where that was negotiated (RFC 4588), otherwise the very same packet. All but probes come out of one budget of
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_worker.native.states import RepairState
from relay_worker.publish.congestion import QUEUE_LIMIT
from relay_worker.publish.feedback import Estimate
from relay_worker.publish.history import SentPacket
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.packet_writer import PacketWriter

RESEND_INTERVAL: Final = (0.01, 0.6)
"""Bounds of the time during which a repeated NACK is ignored; between them it is about one round trip."""
UNKNOWN_RTT: Final = 0.1
RESEND_BURST: Final = 256 * 1024
RESEND_RATE: Final = 256 * 1024
"""Retransmission budget: burst in bytes, and bytes per second while the uplink is not the limit."""


class Retransmitter(RepairState):
    """Repairs the tracks of one publication. What it does is counted in the tracks' stats."""

    def __init__(self, writer: PacketWriter, estimate: Estimate) -> None:
        self._writer, self._estimate = writer, estimate
        self.rate: float = RESEND_RATE
        """Bytes per second available for retransmission; the burst is one second's worth."""
        self.repairs_twice = self.repeats_twice = self.tails_twice = False
        """Whether a first request gets two copies, or one for a packet whose repair was lost as well, and whether a
        picture's last packet is sent twice; `uplink` decides.
        """
        self._budget, self._budget_at = float(RESEND_BURST), 0.0

    def answer(self, track: OutgoingTrack, sequences: Sequence[int], now: float) -> None:
        """Send the requested packets again, as far as they are kept, the budget lasts and a repeat is not under way."""
        history, stats = track.history, track.stats
        assert history is not None
        lowest, highest = RESEND_INTERVAL
        interval = min(highest, max(lowest, self._repeat_after()))
        self._refill_budget(now)
        stats.nacks += len(sequences)
        copies = []
        for sequence in sequences:
            packet, repaired = history.get(sequence), history.repaired
            if packet is None:
                stats.nacks_too_late += 1
            elif self._budget < len(packet.payload):
                stats.nacks_over_budget += 1
            elif not history.resend(sequence, now, interval):
                stats.nacks_suppressed += 1
            else:
                self._budget -= len(packet.payload)
                self._put_again(track, sequence, packet, now)
                first = history.repaired > repaired
                if self.repairs_twice if first else self.repeats_twice:
                    copies.append(sequence)
        for sequence in copies:
            self._put_copy(track, sequence, now)
        self._writer.flush()

    def copy(self, track: OutgoingTrack, sequence: int, now: float) -> None:
        """Send a just-sent packet a second time, as a precaution."""
        self._refill_budget(now)
        self._put_copy(track, sequence, now)
        self._writer.flush()

    def probe(self, track: OutgoingTrack, size: int, now: float) -> int:
        """Send the newest packets again by RTX, up to `size` bytes; returns the bytes sent.

        The receiver discards what it already has and gains what it lost, which makes this better padding than padded
        media, which not every receiver accepts. Nothing is sent where RTX was not negotiated.
        """
        if track.history is None or track.rtx_ssrc is None or track.rtx_payload_type is None:
            return 0
        sent = 0
        sequence = track.sequence
        while (packet := track.history.get(sequence := (sequence - 1) & 0xFFFF)) is not None:
            if sent + len(packet.payload) > size:
                break
            self._put_rtx(track, track.rtx_ssrc, track.rtx_payload_type, sequence, packet, now)
            sent += len(packet.payload)
            track.stats.probes += 1
        track.stats.probe_bytes += sent
        self._writer.flush()
        return sent

    def _refill_budget(self, now: float) -> None:
        elapsed, self._budget_at = now - self._budget_at, now
        burst = min(RESEND_BURST, self.rate)
        self._budget = min(burst, self._budget + elapsed * self.rate)

    def _repeat_after(self) -> float:
        """Seconds after a retransmission from which another NACK for the packet means that the repeat was lost, too.

        Based on the minimum round trip: repeating what is still in flight costs a packet, waiting costs a viewer a
        freeze. But once a queue has built up, repeating feeds it.
        """
        estimate = self._estimate
        if estimate.lowest_rtt is None:
            return UNKNOWN_RTT
        if self.repairs_twice:  # whoever asks again so early gets a third, at another time than the two
            return 0.5 * estimate.lowest_rtt
        return 0.9 * estimate.lowest_rtt + (estimate.queue_delay if estimate.queue_delay > QUEUE_LIMIT else 0.0)

    def _put_copy(self, track: OutgoingTrack, sequence: int, now: float) -> None:
        """A copy nobody requested: half of the budget is left for requested packets."""
        assert track.history is not None
        packet = track.history.get(sequence)
        if packet is not None and self._budget >= RESEND_BURST / 2 + len(packet.payload):
            self._budget -= len(packet.payload)
            self._put_again(track, sequence, packet, now)

    def _put_again(self, track: OutgoingTrack, sequence: int, packet: SentPacket, now: float) -> None:
        track.stats.retransmitted += 1
        track.stats.retransmitted_bytes += len(packet.payload)
        if track.rtx_ssrc is not None and track.rtx_payload_type is not None:
            self._put_rtx(track, track.rtx_ssrc, track.rtx_payload_type, sequence, packet, now)
            return
        payload, number, stamp = (packet.payload, packet.marker), packet.transport_sequence, packet.sent
        put = self._writer.put
        put(track, track.ssrc, track.payload_type, sequence, packet.timestamp, [payload], number, stamp, now)

    def _put_rtx(
        self, track: OutgoingTrack, ssrc: int, payload_type: int, sequence: int, packet: SentPacket, now: float
    ) -> None:
        # RFC 4588 §4: the original sequence number stands before the original payload.
        payload = (sequence.to_bytes(2, "big") + packet.payload, packet.marker)
        number = self._writer.take_numbers(track, 1)
        put = self._writer.put
        put(track, ssrc, payload_type, track.rtx_sequence, packet.timestamp, [payload], number, now, now)
        track.rtx_sequence = (track.rtx_sequence + 1) & 0xFFFF
