"""One viewer's line as the SFU sees it: packets numbered or timed on their way out, feedback, and probes."""

from __future__ import annotations

import struct
from typing import Any, Final, Literal

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.bandwidth import Estimate, Prober
from relay_common.simulation.sfu.downstream import header_size

EXTENSION: Final = 5
"""The header extension's number in every section of the SFU's offers."""
_BYTES: Final = 8


class ViewerLine:
    """Stamps each packet with the one header extension that the estimate needs; replaces the publisher's extensions."""

    def __init__(self, kind: Literal["transport-cc", "remb"]) -> None:
        self._kind = kind
        self.estimate = Estimate()
        self.prober = Prober(self.estimate)
        self._number = 0
        self._debt = 0.0
        self._polled = 0.0
        self._bytes = 0
        self.probed = 0

    def stamp(self, scratch: memoryview, size: int, now: float) -> int:
        """Rewrite the RTP packet in the first `size` bytes; its new size."""
        start, head = 12 + 4 * (scratch[0] & 15), header_size(scratch[:size])
        scratch[start + _BYTES : start + _BYTES + size - head] = bytes(scratch[head:size])
        scratch[0] |= 0x10
        if self._kind == "transport-cc":
            self._number = self._number + 1 & 0xFFFF
            element = struct.pack("!BHx", EXTENSION << 4 | 1, self._number)
        else:
            # abs-send-time: seconds as 6.18 fixed point.
            element = struct.pack("!I", EXTENSION << 28 | 2 << 24 | int(now * (1 << 18)) & 0xFFFFFF)
        scratch[start : start + _BYTES] = b"\xbe\xde\x00\x01" + element
        size += start + _BYTES - head
        self._bytes += size
        if self._kind == "transport-cc":
            self.estimate.sent(self._number, size, now)
        return size

    def feedback(self, kind: int, fmt: int, body: memoryview, now: float) -> None:
        """Take an RTCP feedback packet of the viewer's, if it tells of the line."""
        if kind == sfu_rtcp.RTPFB and fmt == sfu_rtcp.FMT_TRANSPORT_CC:
            self.estimate.feedback(sfu_rtcp.transport_arrivals(body), now)
        elif kind == sfu_rtcp.PSFB and fmt == sfu_rtcp.FMT_APP and (bitrate := sfu_rtcp.remb_bitrate(body)) is not None:
            self.estimate.report(bitrate, now)

    def owed(self, now: float) -> int:
        """How many bytes of probes to send now, so that media and probes together reach the rate that is tried out."""
        elapsed, self._polled = min(0.1, now - self._polled), now
        sent, self._bytes = self._bytes, 0
        rate = self.prober.poll(now)
        self._debt = min(rate / 8 * 0.1, self._debt + elapsed * rate / 8 - sent) if rate else 0.0
        return max(0, int(self._debt))

    def snapshot(self) -> dict[str, Any]:
        """The line as shown by `GET /control/sessions`, rates in bit/s, the queue in seconds."""
        estimate = self.estimate
        return {
            "available": estimate.available,
            "arriving": estimate.rate,
            "queue": estimate.queue,
            "loss": estimate.loss,
            "congestions": estimate.congestions,
            "probes": self.prober.attempts,
            "probed": self.probed,
        }
