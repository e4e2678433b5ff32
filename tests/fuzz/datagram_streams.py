"""What WebRTC cameras send, made from seeds: for the comparison of both data paths (`datagram_paths.py`)."""

from __future__ import annotations

import random
import struct
from typing import Final

from tests.fuzz.camera_streams import BODY, Stream

VIDEO_TYPE: Final = 96
RTX_TYPE: Final = 99
OPUS_TYPE: Final = 111
OPUS_CLOCK: Final = 48_000
_FRAME_TICKS: Final = 960
REPAIR_SSRC: Final = 0xE7A1
"""Of the video's retransmissions."""


class OpusStream:
    """Opus in RTP, a packet every 20 ms, and what goes wrong with it."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self.rate = rng.choice((0.0, 0.0, 0.05, 0.3))
        self._sequence = rng.choice((0, 65530, rng.randrange(65536)))
        self._first = self._timestamp = rng.choice((0, 2**32 - 5000, rng.randrange(2**32)))
        self._ssrc, self._sent = rng.randrange(2**32), 0
        self._drift = rng.choice((0.0, 0.0, 0.002, -0.002))

    @property
    def next_at(self) -> float:
        """When the next packet comes, 1000 s being the beginning."""
        return 1000.0 + self._sent * 0.02 * (1.0 + self._drift)

    def wake(self, now: float) -> list[bytes]:
        """What has come up to `now`."""
        packets: list[bytes] = []
        while self.next_at <= now:
            packets += self._packet()
        if packets and self._rng.random() < 0.02:
            packets.append(self._report())
        if len(packets) > 1 and self._odd():
            self._rng.shuffle(packets)
        return packets

    def _odd(self) -> bool:
        return self._rng.random() < self.rate

    def _packet(self) -> list[bytes]:
        rng = self._rng
        self._sent += 1
        payload, first, second, times = b"\x78" + BODY[self._sent % 97 :][: rng.randrange(3, 90)], 0x80, OPUS_TYPE, 1
        if self._odd():
            payload = rng.choice(
                (b"", b"\x78", b"\x03", b"\x7b\x3f" + payload, b"\x7a" + payload, BODY[:1401], payload[:1])
            )
        if self._odd():
            payload = bytes((rng.randrange(256),)) + payload[1:]
        if self._odd():
            which = rng.randrange(8)
            if which == 0:
                self._sequence += rng.choice((1, 2, 3000, 65535))
            elif which == 1:
                self._timestamp += rng.choice((_FRAME_TICKS, -_FRAME_TICKS, 480, 300_000, 2**31))
            elif which == 2:
                self._timestamp -= _FRAME_TICKS  # stands still
            elif which == 3:
                self._ssrc = rng.randrange(2**32)
            elif which == 4:
                second = rng.choice((OPUS_TYPE, OPUS_TYPE | 0x80, 110, 72))
            elif which == 5:
                first = rng.choice((0x90, 0xA0, 0x81, 0x40))
            elif which == 6:
                self._sent += rng.randrange(30)  # a pause, after which all comes at once
            else:
                times = rng.choice((0, 2))
        packet = struct.pack("!BBHII", first, second, self._sequence & 0xFFFF, self._timestamp & 0xFFFFFFFF, self._ssrc)
        self._sequence += 1
        self._timestamp += _FRAME_TICKS
        return [packet + payload] * times

    def _report(self) -> bytes:
        seconds = 3_900_000_000.05 + ((self._timestamp - self._first) & 0xFFFFFFFF) / OPUS_CLOCK
        report = (0x80, 200, 6, self._ssrc, int(seconds * 2**32), self._timestamp & 0xFFFFFFFF, 0, 0)
        return struct.pack("!BBHIQIII", *report)


class DatagramStream:
    """A camera's pictures (`Stream`) and its sound, as packets: `wakes`, each with its moment."""

    def __init__(self, seed: int) -> None:
        self.stream, rng = Stream(seed), random.Random(seed ^ 0x5EED)
        self.sound = sound = OpusStream(seed) if seed % 4 else None
        self.nack = rng.random() < 0.8
        self.wakes: list[tuple[float, list[bytes]]] = []
        packets, now = list(self.stream.packets_sent), 1000.0
        repaired = rng.random() < 0.3
        while packets:
            count = rng.choice((1, 1, 2, 3, 8))
            come, packets = packets[:count], packets[count:]
            if repaired and rng.random() < 0.2:
                come.insert(rng.randrange(len(come) + 1), self._repair(rng, come[0]))
            if rng.random() < 0.03:
                come.insert(rng.randrange(len(come) + 1), self._report(come[0]))
            if sound is not None and rng.random() < 0.3:
                at = rng.randrange(len(come) + 1)
                come[at:at] = sound.wake(now)
            self.wakes.append((now, come))
            now += self.stream.pause * rng.choice((1.0, 1.0, 1.0, 0.2, 3.0))
            while sound is not None and sound.next_at < now and rng.random() < 0.9:  # by itself, as mostly
                self.wakes.append((sound.next_at, sound.wake(sound.next_at)))
        self.wakes = [wake for wake in self.wakes if wake[1]]
        self.packets = sum(len(packets) for _, packets in self.wakes)

    @staticmethod
    def _repair(rng: random.Random, packet: bytes) -> bytes:
        """A retransmission (RFC 4588 §4) of one of the packets before this one, mostly one that is not missing."""
        sequence = (int.from_bytes(packet[2:4], "big") - rng.randrange(1, 4)) & 0xFFFF
        header = struct.pack("!BBHII", 0x80, RTX_TYPE, rng.randrange(65536), rng.randrange(2**32), REPAIR_SSRC)
        return header + sequence.to_bytes(2, "big") + packet[12:]

    @staticmethod
    def _report(packet: bytes) -> bytes:
        timestamp, ssrc = packet[4:8].ljust(4, b"\0"), packet[8:12].ljust(4, b"\0")
        ntp = struct.pack("!Q", 3_900_000_000 << 32 | int.from_bytes(timestamp, "big"))
        return b"\x80\xc8\x00\x06" + ssrc + ntp + timestamp + bytes(8)
