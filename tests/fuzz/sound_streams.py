"""The sound that cameras send, made from seeds: for the comparison of both data paths (`data_paths.py`)."""

from __future__ import annotations

import random
import struct
from typing import Final

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.stream import Format, Kind, Track

RATE: Final = 16_000
HBR: Final = {"mode": "AAC-hbr", "config": "1408", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}
SOUND: Final = Track(Kind.AUDIO, Format(97, "MPEG4-GENERIC", RATE, parameters=HBR), "")
_FRAME: Final = 1024
UNITS: Final = tuple(unit.data for unit in audio_clip(AudioSpec(rate=RATE)).units)


def hbr(*units: bytes) -> bytes:
    """A payload of whole access units (RFC 3640 §3.3.6)."""
    headers = b"".join(struct.pack("!H", len(unit) << 3) for unit in units)
    return struct.pack("!H", 16 * len(units)) + headers + b"".join(units)


def framed(channel: int, packet: bytes) -> bytes:
    """An interleaved frame."""
    return b"$" + struct.pack("!BH", channel, len(packet)) + packet


class SoundStream:
    """AAC in RTP on channel 2, an access unit every 64 ms, and what goes wrong with it."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self._rate = rng.choice((0.0, 0.0, 0.05, 0.3))
        self._sequence = rng.choice((0, 65530, rng.randrange(65536)))
        self._first = self._timestamp = rng.choice((0, 2**32 - 5000, rng.randrange(2**32)))
        self._ssrc, self._sent = rng.randrange(2**32), 0
        self.retold = seed % 8 == 3
        """Whether what is decoded and encoded stands for itself, so that each unit is compared, and not its sound."""

    def wake(self, now: float) -> bytes:
        """What arrives by itself at `now`, 1000 s being the beginning; nothing where it is not time for any."""
        data = b""
        while 1000.0 + self._sent * _FRAME / RATE <= now:
            data += self._unit()
        if data and self._rng.random() < 0.03:
            data += self._report()
        return data

    def _odd(self) -> bool:
        return self._rng.random() < self._rate

    def _unit(self) -> bytes:
        rng = self._rng
        unit = UNITS[self._sent % len(UNITS)]
        self._sent += 1
        payload, first, second = hbr(unit), 0x80, 97 | 0x80
        if self._odd():
            payload = rng.choice(
                (
                    hbr(unit, UNITS[0]),
                    hbr(unit)[: rng.randrange(len(payload))],
                    hbr(unit) + bytes(rng.randrange(1, 9)),
                    hbr(unit)[:3] + bytes((payload[3] | rng.randrange(8),)) + unit,
                    hbr(b""),
                    hbr(rng.randbytes(rng.randrange(1, 90))),
                    hbr(bytes(rng.randrange(1, 4))),
                    b"\x00\x10\xff\xf8" + unit,
                    b"\x00\x0f" + payload[2:],
                    b"",
                )
            )
        if self._odd():
            which = rng.randrange(8)
            if which == 0:
                self._sequence += rng.choice((1, 2, 3000, 65535))
            elif which == 1:
                self._timestamp += rng.choice((1024, -1024, 512, 160000, -2048, 2**31))
            elif which == 2:
                self._timestamp -= _FRAME  # stands still
            elif which == 3:
                self._ssrc = rng.randrange(2**32)
            elif which == 4:
                second = rng.choice((97, 96, 72, 255))
            elif which == 5:
                first = rng.choice((0x90, 0xA0, 0x81, 0x40))
            elif which == 6:
                self._sent += rng.randrange(30)  # a pause, after which all comes at once
            else:
                return b""
        header = (first, second, self._sequence & 0xFFFF, self._timestamp & 0xFFFFFFFF, self._ssrc)
        packet = struct.pack("!BBHII", *header) + payload
        self._sequence += 1
        self._timestamp += _FRAME
        return framed(2, packet[: rng.randrange(13)] if self._odd() and self._odd() else packet)

    def _report(self) -> bytes:
        """A sender report, by a clock that is not quite that of the video."""
        seconds = 3_900_000_000.05 + ((self._timestamp - self._first) & 0xFFFFFFFF) / RATE
        report = (0x80, 200, 6, self._ssrc, int(seconds * 2**32), self._timestamp & 0xFFFFFFFF, 0, 0)
        return framed(3, struct.pack("!BBHIQIII", *report))
