"""State of one outgoing RTP stream: numbers, counters, history."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from relay_common.rendition_messages import SMALL_RID
from relay_worker.media.stream import AUDIO_CLOCK_RATE, VIDEO_CLOCK_RATE
from relay_worker.native.states import StreamState, StreamStatsState, in_memory
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.history import SentHistory
from relay_worker.publish.simulcast import LayerExtensions


@in_memory
@dataclass
class SentStats(StreamStatsState):
    """Totals since the track began; `bytes` are payload bytes."""

    packets: int = 0
    bytes: int = 0
    retransmitted: int = 0
    """Packets sent again, on request or as a precaution."""
    retransmitted_bytes: int = 0
    nacks: int = 0
    """Sequence numbers requested again."""
    nacks_suppressed: int = 0
    """Of those, requested again within one round trip."""
    nacks_over_budget: int = 0
    """Of those, not answered because the retransmission budget was spent."""
    nacks_too_late: int = 0
    """Of those, no longer (or never) in the history."""
    probes: int = 0
    """Packets sent again to probe whether the uplink carries more than its ceiling."""
    probe_bytes: int = 0
    """Payload bytes of these."""
    plis: int = 0
    firs: int = 0
    oversized: int = 0
    """Payloads that did not fit a packet and were not sent."""
    acknowledged_bytes: float = 0.0
    """Bytes, with headers, that receiver reports say have arrived; repairs and probes left out."""
    fraction_lost: float = 0.0
    """From the last receiver report, 0..1."""
    lost: int = 0
    """Cumulative packets lost, from the last receiver report."""
    jitter: float = 0.0
    """Seconds, from the last receiver report."""


class OutgoingTrack(StreamState):
    """One negotiated stream. `sequence` and `timestamp_base` may be given to continue an earlier session's."""

    def __init__(
        self,
        accepted: AcceptedTrack,
        *,
        sequence: int | None = None,
        timestamp_base: int | None = None,
        history: SentHistory | None = None,
    ) -> None:
        offered = accepted.offered
        self.kind, self.ssrc, self.payload_type = offered.kind, offered.ssrc, accepted.payload_type
        self.rtx_ssrc = offered.rtx_ssrc if accepted.rtx_payload_type is not None else None
        self.rtx_payload_type = accepted.rtx_payload_type
        self.rid = offered.rid
        """Of a simulcast track: the layer that this is."""
        self.is_small = offered.rid == SMALL_RID
        self.plain_extensions = accepted.extensions
        self.extensions: HeaderExtensions | LayerExtensions = accepted.extensions
        self.rtx_extensions: HeaderExtensions | LayerExtensions = accepted.extensions
        if accepted.layer_ids is not None:
            # Until a report shows that the receiver knows the stream (as libwebrtc does).
            self.extensions = accepted.layer_ids.media(accepted.extensions, offered.mid, offered.rid)
            self.rtx_extensions = accepted.layer_ids.repairs(accepted.extensions, offered.mid, offered.rid)
        self.remb = accepted.remb
        self.clock_rate = VIDEO_CLOCK_RATE if offered.kind == "video" else AUDIO_CLOCK_RATE
        # Half the range, so that libsrtp never sees the first packets wrap (RFC 3711 §3.3.1, as libwebrtc does).
        self.sequence = secrets.randbelow(0x8000) if sequence is None else sequence
        self.rtx_sequence = secrets.randbelow(0x8000)
        self.timestamp_base = secrets.randbits(32) if timestamp_base is None else timestamp_base
        # Audio asks for no NACK in our offer, and a lost 20 ms is concealed.
        self.history = (history or SentHistory()) if accepted.nack else None
        self.stats = SentStats()
        self.last_sent = 0.0
        """When the latest packet was sent (monotonic seconds)."""
        self.acknowledged = False
        """Whether a receiver report has ever covered its packets."""
        self.owed_since: float | None = None
        """When the first packet after the last such report was sent; None when there is none."""
        self.highest = 0
        """The highest extended sequence number that was acknowledged."""
        self.reported: tuple[float, int, int, int] | None = None
        """When the last receiver report arrived, its highest sequence number, and how many packets and bytes of probes
        had been resent by then.
        """

    def rtp_time(self, media_time: float) -> int:
        """RTP timestamp of a media time in seconds."""
        return (self.timestamp_base + round(media_time * self.clock_rate)) & 0xFFFFFFFF
