"""Holds back a camera's new session until its video can start, so that the old session continues until then."""

from __future__ import annotations

from typing import Final

from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.stream import Batch, Kind
from relay_worker.rtp.packet import RtpError, parse_rtp

MAX_HELD_BYTES: Final = 512 * 1024
"""Bytes held before a keyframe; beyond it everything is discarded and the wait starts anew."""


class KeyframeGate:
    """Give it what arrives; when `receive` is True, `held` is what a pipeline needs to begin with a whole keyframe.

    Audio is not held: it would come all at once, and a viewer hears the old session's until then.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._probe = H264Passthrough()
        self.held: list[Batch] = []
        self._bytes = 0

    def receive_batch(self, batch: Batch) -> bool:
        """Process what arrived for one track; True once a keyframe with its parameter sets has started."""
        packets = batch.rtp if batch.track.kind is Kind.VIDEO else []
        if not packets and not batch.rtcp:
            return False
        self._bytes += sum(map(len, packets)) + sum(map(len, batch.rtcp))
        if self._bytes > MAX_HELD_BYTES:
            self._begin()
        self.held.append(Batch(batch.track, packets, batch.rtcp))
        begun = False
        for packet in packets:
            begun = self._begins(packet) or begun
        return begun

    def _begins(self, packet: bytes) -> bool:
        try:
            view = parse_rtp(packet)
        except RtpError:
            return False
        return bool(self._probe.receive_payload(view.payload, view.marker, view.timestamp, 0))
