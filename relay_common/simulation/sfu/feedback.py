"""Arrival times of packets that carry a transport-wide sequence number (transport-cc), and their feedback."""

from __future__ import annotations

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.downstream import header_size

_LIMIT = 1000


class TransportFeedback:
    """Collects arrival times for one session; `report` empties the collection."""

    def __init__(self, extension: int) -> None:
        self._extension = extension
        self._arrivals: dict[int, float] = {}
        self._highest = -1
        self._number = 0

    def receive(self, packet: memoryview, now: float) -> None:
        """Note the arrival of a plain RTP packet."""
        value = one_byte_extension(packet, self._extension)
        if value is None or len(value) != 2 or len(self._arrivals) >= _LIMIT:
            return
        sequence = value[0] << 8 | value[1]
        if self._highest < 0:
            self._highest = sequence + 0x10000
        delta = (sequence - self._highest + 0x8000 & 0xFFFF) - 0x8000
        self._arrivals[self._highest + delta] = now
        self._highest = max(self._highest, self._highest + delta)

    def report(self, sender: int, media: int) -> bytes | None:
        """The feedback packet for everything since the last one, None when there is nothing."""
        if not self._arrivals:
            return None
        floor = self._highest - 4 * _LIMIT
        arrivals = {sequence: at for sequence, at in self._arrivals.items() if sequence > floor}
        self._arrivals = {}
        self._number += 1
        return sfu_rtcp.transport_feedback(sender, media, self._number, arrivals)


def one_byte_extension(packet: memoryview, wanted: int) -> bytes | None:
    """The value of a one-byte header extension element (RFC 8285 4.2), or None if it is absent."""
    if not packet[0] & 0x10:
        return None
    position = 12 + 4 * (packet[0] & 15)
    if bytes(packet[position : position + 2]) != b"\xbe\xde":
        return None
    end = min(header_size(packet), len(packet))
    position += 4
    while position + 1 < end:
        number, length = packet[position] >> 4, (packet[position] & 15) + 1
        if packet[position] == 0:
            position += 1
        elif number == wanted and position + 1 + length <= end:
            return bytes(packet[position + 1 : position + 1 + length])
        else:
            position += 1 + length
    return None
