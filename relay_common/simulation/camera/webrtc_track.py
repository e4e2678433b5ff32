"""One RTP stream of a WebRTC camera: its numbering, and its history for retransmission."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Protocol

from relay_common.simulation.camera.player import sender_report
from relay_common.simulation.camera.webrtc_sdp import SentTrack

_HISTORY: Final = 2048
"""Packets kept for NACK; a power of two."""


@dataclass(frozen=True)
class Packet:
    """One RTP packet before protection; `padding` bytes follow the payload (RFC 3550 5.1)."""

    second_byte: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    padding: int = 0


class Output(Protocol):
    """A connected session that packets are sent to."""

    def send_rtp(self, packet: Packet) -> None:
        """Protect and send."""
        ...

    def send_rtcp(self, compound: bytes) -> None:
        """Protect and send."""
        ...

    def send_noise(self, datagram: bytes) -> None:
        """Send bytes that are not a packet."""
        ...


class OutgoingTrack:
    """Sequence numbers, timestamps and history of one track. Media positions are seconds since the epoch."""

    def __init__(self, agreed: SentTrack, clock_rate: int, rng: random.Random, position: float) -> None:
        self.agreed, self.clock_rate = agreed, clock_rate
        self.packets = self.octets = 0
        self.next_report = 0.0
        self._sequence = rng.getrandbits(16)
        self._rtx_sequence = rng.getrandbits(16)
        self._offset = rng.getrandbits(32)
        self._origin = int(position)
        self._history: list[Packet | None] = [None] * _HISTORY

    def timestamp(self, position: float) -> int:
        """RTP timestamp of a media position."""
        return (self._offset + round((position - self._origin) * self.clock_rate)) & 0xFFFFFFFF

    def jump(self, seconds: float) -> None:
        """Move all later timestamps."""
        self._offset += round(seconds * self.clock_rate)

    def packet(self, timestamp: int, payload: bytes, *, marker: bool = False, padding: int = 0) -> Packet:
        """The next packet."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        second_byte = self.agreed.payload_type | (0x80 if marker else 0)
        packet = Packet(second_byte, self._sequence, timestamp, self.agreed.ssrc, payload, padding)
        self._history[self._sequence % _HISTORY] = packet
        self.packets += 1
        self.octets += len(payload)
        return packet

    def again(self, sequence: int) -> Packet | None:
        """The answer to a NACK for `sequence`: RTX (RFC 4588 4), the packet itself, or None if it is not kept."""
        packet = self._history[sequence % _HISTORY]
        if packet is None or packet.sequence != sequence:
            return None
        if self.agreed.rtx_type is None:
            return packet if self.agreed.nack else None
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        second_byte = self.agreed.rtx_type | packet.second_byte & 0x80
        payload = sequence.to_bytes(2, "big") + packet.payload
        return Packet(second_byte, self._rtx_sequence, packet.timestamp, self.agreed.rtx_ssrc, payload)

    def report(self, position: float, wall: float) -> bytes:
        """SR and SDES for a media position at a wall clock time."""
        return sender_report(self.agreed.ssrc, wall, self.timestamp(position), self.packets, self.octets)
