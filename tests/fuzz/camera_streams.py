"""What cameras send, made from seeds: for the comparison of both data paths (`data_paths.py`)."""

from __future__ import annotations

import random
import struct
from typing import Final

from relay_worker.publish.extensions import HeaderExtensions

SPS: Final = bytes.fromhex("6742c01fda0140016ec0440000030004000003006a3c58b680")
PPS: Final = bytes.fromhex("68ce3c80")
MORE_SETS: Final = tuple(bytes((0x68, first)) + bytes(range(1, 30)) for first in (0x5C, 0x7C, 0x27))
"""Of other ids: with them the sets are too many for one small packet."""
PICTURES: Final = 40
"""In a stream."""
_ODD_TYPES: Final = (0, 2, 6, 9, 10, 12, 14, 20, 23, 25, 29, 30, 31)
_FORMS: Final = ("fragments", "packets", "slices")
BODY: Final = bytes(range(256)) * 8


class Stream:
    """What a camera sends, made from a seed: `wakes` are the pieces in which it arrives."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.most = rng.choice((64, 90, 200, 1200))
        self.extensions = [
            HeaderExtensions(rng.choice((None, 2)), rng.choice((None, 3))) for _ in range(rng.choice((1, 1, 1, 2, 3)))
        ]
        """Of each connection."""
        self.udp = rng.random() < 0.3
        self.wide = rng.random() < 0.8
        """Whether whole wakes are offered to compiled code, and not only runs."""
        self.even, self.limited = rng.random() < 0.6, rng.random() < 0.2
        self.pause = rng.choice((1 / 30, 1 / 30, 1 / 30, 0.02, 0.1))
        self.first_number = rng.choice((0, 65500, 65535, rng.randrange(65536)))
        self.base = rng.choice((0, 2**32 - 4000, rng.randrange(2**32)))
        self._rate = rng.choice((0.0, 0.0, 0.005, 0.02, 0.1, 0.4))
        self._camera = rng.random() < 0.6  # its pictures are of one form, and come one by one
        self._fits = rng.random() < 0.7
        self.repeats = rng.random() < 0.1
        """Whether parameter sets are put before every keyframe."""
        self._form = rng.choice((*_FORMS, "any")) if self._camera else ""
        self._sets = [SPS, PPS, *(MORE_SETS if rng.random() < 0.2 else ())]
        self._omits, self._delimits = rng.random() < 0.2, rng.random() < 0.2
        self._sequence = rng.choice((0, 65530, 65535, rng.randrange(65536)))
        self._timestamp = rng.choice((0, 2**32 - 6000, rng.randrange(2**32)))
        self._first, self._ssrc = self._timestamp, rng.randrange(2**32)
        self.watched = seed % 8 == 6
        """Whether somebody beside the connections looks on."""
        self._slow = 20 if seed % 8 == 5 else 1  # so many times as long from picture to picture: seconds are forgotten
        self.packets_sent: list[bytes] = []
        for number in range(PICTURES):
            self._picture(number)
        self._disorder()
        self.packets = len(self.packets_sent)
        self.moments: list[float] = []
        """When the wakes are, where those of a camera are its pictures; the others are `pause` apart."""
        framed = [self._framed(packet) for packet in self.packets_sent]
        self.wakes = self._as_sent(framed) if self._camera else self._cut(b"".join(framed))

    def _odd(self, part: float = 1.0) -> bool:
        return self.rng.random() < self._rate * part

    def _nal(self, kind: int, size: int, *, first: bool) -> bytes:
        start = self.rng.randrange(200)
        body = BODY[start + 1 : start + size]
        head = self.rng.choice((b"\x88", b"\x88", b"\xa0", b"\x9c")) if first else b"\x08"  # also of B-pictures
        if self._odd(0.3):
            body = body[: size // 2] + b"\x00\x00\x01" + body[size // 2 :]
        return bytes((self.rng.choice((0x60, 0x40, 0x00)) | kind,)) + head + body

    def _picture(self, number: int) -> None:
        rng = self.rng
        key = number == 0 or rng.random() < 0.15
        before, slices = self._before(number, key=key), self._slices(key=key)
        payloads: list[bytes] = []
        if before and sum(map(len, slices)) < self.most and rng.random() < 0.3:
            payloads.append(_together([*before, *slices]))
            slices = []
        elif before:
            payloads += [_together(before) + bytes(2 * self._odd())] if rng.random() < 0.5 else before
        elif len(slices) > 1 and rng.random() < 0.1:
            payloads.append(_together(slices))
            slices = []
        if self._odd():
            payloads.append(self._nal(rng.choice(_ODD_TYPES), rng.randrange(2, 40), first=False))
        for nal in slices:
            payloads += self._payloads(nal)
        for index, payload in enumerate(payloads):
            self._packet(payload, (index == len(payloads) - 1) ^ self._odd(0.3))
        if not self._odd(0.3):
            step = rng.choice((3000, 3000, 3003, 1, 2**31, 200000, 2**32 - 3000)) if self._odd() else 3000 * self._slow
            self._timestamp = (self._timestamp + step) & 0xFFFFFFFF

    def _before(self, number: int, *, key: bool) -> list[bytes]:
        """What stands before a picture: a delimiter, parameter sets, SEI."""
        rng = self.rng
        units = [b"\x09\xf0"] if self._delimits else []
        if key and not self._odd() and not (self._omits and number):
            if rng.random() < 0.05:
                self._sets[0] = SPS[:3] + bytes((rng.choice((0x1F, 0x20)),)) + SPS[4:]  # another level
            units += self._sets
        if rng.random() < (0.3 if key else 0.05):
            units.append(self._nal(6, rng.randrange(3, 30), first=False))
        return units

    def _slices(self, *, key: bool) -> list[bytes]:
        rng, most = self.rng, self.most
        form = rng.choice(_FORMS) if self._form == "any" else self._form
        count = rng.choice((2, 3, 4)) if form == "slices" else 1 if self._camera else rng.choice((1, 1, 1, 2))
        slices = []
        for index in range(count):
            size = rng.choice((8, most - 1, rng.randrange(8, 6 * most)))
            if form == "packets":
                size = rng.randrange(8, most + 1)
            elif form == "slices":
                size = rng.randrange(8, 2 * most)
            elif form == "fragments" and rng.random() < 0.9:
                size = rng.randrange(most + 300, 7 * most + 400)
            slices.append(self._nal(5 if key else 1, size, first=index == 0))
        return slices

    def _payloads(self, nal: bytes) -> list[bytes]:
        room = self.most if self._fits else self.most + self.rng.randrange(1, 200)
        if len(nal) <= room and self.rng.random() < 0.8:
            return [nal]
        pieces = [nal[at : at + room - 2] for at in range(1, len(nal), room - 2)]
        payloads = []
        for index, piece in enumerate(pieces):
            bits = 0x80 * (index == 0) | 0x40 * (index == len(pieces) - 1)
            if self._odd(0.5):
                bits = self.rng.choice((0, 0x40, 0x80, 0xC0, 0x20))
            payloads.append(bytes((nal[0] & 0xE0 | 28, bits | nal[0] & 0x1F)) + (b"" if self._odd(0.3) else piece))
        return payloads

    def _packet(self, payload: bytes, marker: bool) -> None:
        rng = self.rng
        first, second, sequence, timestamp, ssrc = 0x80, 96 | 0x80 * marker, self._sequence, self._timestamp, self._ssrc
        middle = end = b""
        if self._odd(0.5):
            which = rng.randrange(9)
            if which == 0:
                first |= 0x20
                end = bytes(count := rng.randrange(5)) + bytes((rng.choice((count + 1, 0, 255)),))
            elif which == 1:
                first |= 0x10
                words = rng.randrange(3)
                middle = struct.pack("!HH", 0xBEDE, rng.choice((words, 9999))) + bytes(4 * words)
            elif which == 2:
                first |= (count := rng.randrange(16))
                middle = bytes(4 * count)
            elif which == 3:
                second = rng.choice((72, 97, 0, 200))
            elif which == 4:
                ssrc = rng.randrange(2**32)
            elif which == 5:
                first = rng.randrange(256)
            elif which == 6:
                self._ssrc = rng.randrange(2**32)
            elif which == 7:
                self._sequence = (self._sequence + rng.choice((1, 2, 5, 2999, 3000, 40000, 65000))) & 0xFFFF
            else:
                payload = payload[: rng.randrange(3)]
        packet = struct.pack("!BBHII", first, second, sequence, timestamp, ssrc) + middle + payload + end
        self.packets_sent.append(packet[: rng.randrange(14)] if self._odd(0.05) else packet)
        self._sequence = (self._sequence + 1) & 0xFFFF

    def _disorder(self) -> None:
        """Loss, repeats, and packets that come late."""
        packets, rng = self.packets_sent, self.rng
        for _ in range(len(packets)):
            if not self._odd(0.5):
                continue
            at = rng.randrange(len(packets))
            which = rng.randrange(3)
            if which == 0 and len(packets) > 1:
                del packets[at]
            elif which == 1:
                packets.insert(at, packets[at])
            else:
                packets.insert(rng.randrange(len(packets)), packets.pop(at))

    def _framed(self, packet: bytes) -> bytes:
        before = b""
        if self._odd(0.2):
            before = self.rng.choice(
                (
                    b"\r\n",
                    b"RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\n",
                    b"$\x09\x00\x02hi",
                    b"$\x02\x00\x0e" + BODY[:14],
                    b"$\x01\x00\x04\x80\xc9\x00\x01",
                    b"x",
                )
            )
        return before + b"$\x00" + len(packet).to_bytes(2, "big") + packet

    def _as_sent(self, framed: list[bytes]) -> list[bytes]:
        """A wake a picture, mostly; now and then one breaks off, or comes with the next."""
        rng = self.rng
        wakes, rest, pictures = [], b"", 0
        for packet, frame in zip(self.packets_sent, framed, strict=True):
            if rng.random() < 0.02 and len(packet) >= 12:
                rest += self._report(packet)
            pictures += len(packet) > 1 and packet[1] > 127
            rest += frame + (b"$\x02\x00\x0e" + BODY[:14]) * (rng.random() < 0.03)
            if rng.random() < (0.95 if len(packet) > 1 and packet[1] > 127 else 0.03):
                at = len(rest) if rng.random() < 0.9 else rng.randrange(len(rest))
                wakes.append(rest[:at])
                rest = rest[at:]
                self.moments.append(max([*self.moments[-1:], 1000.0 + pictures * self._slow / 30 + rng.random() / 200]))
        return [*wakes, rest]

    def _report(self, packet: bytes) -> bytes:
        """A sender report of the camera, whose clock is not quite even."""
        timestamp, ssrc = struct.unpack_from("!II", packet, 4)
        seconds = (
            3_900_000_000
            + ((timestamp - self._first) & 0xFFFFFFFF) / 90000
            + self.rng.choice((0.01, 0.5)) * self.rng.uniform(-1, 1)
        )
        report = struct.pack("!BBHIQIII", 0x80, 200, 6, ssrc, int(seconds * 2**32), timestamp, 0, 0)
        return b"$\x01" + len(report).to_bytes(2, "big") + report

    def _cut(self, data: bytes) -> list[bytes]:
        rng, wakes, at = self.rng, [], 0
        while at < len(data):
            size = rng.choice((len(data) // PICTURES + 1, len(data) // 10 + 1, rng.randrange(1, 400)))
            wakes.append(data[at : at + size])
            at += size
        return wakes


def _together(units: list[bytes]) -> bytes:
    """A STAP-A."""
    return b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
