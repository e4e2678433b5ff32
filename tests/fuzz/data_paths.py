"""The compiled data path against its specification: the same bytes through both, and every difference is a finding.

`python -m tests.fuzz.data_paths --packets N --seed S`. Streams are made from seeds: pictures in every form that cameras
were seen to send and some that none does, then loss, disorder, repeats, wraps of every number, padding, extensions,
other sources, other channels, messages between frames, garbage; cut where it pleases. Both paths get them wake by wake.
What has to be equal: the frames, the encrypted packets, and all that the parts remember.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from pylibsrtp import Policy, Session

from relay_worker import native
from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.sender import MediaSender
from relay_worker.rtp import rtcp
from relay_worker.rtsp.parser import ParseError, RtspParser
from relay_worker.webrtc.transport import SrtpProtector
from tests.fuzz.pieces import chunks
from tests.fuzz.seeds import seeds

VIDEO: Final = make_offer(audio=True).tracks[0]
TRACK: Final = Track(Kind.VIDEO, Format(96, "H264", 90000), "")
SPS: Final = bytes.fromhex("6742c01fda0140016ec0440000030004000003006a3c58b680")
PPS: Final = bytes.fromhex("68ce3c80")
PICTURES: Final = 40
"""In a stream."""
_CORPORA: Final = ("rtsp_parser", "rtsp_session", "rtp_receiver", "h264")
_ODD_TYPES: Final = (0, 2, 6, 9, 10, 12, 14, 20, 23, 25, 29, 30, 31)
_BODY: Final = bytes(range(256)) * 8


class Difference(Exception):
    """The two paths do not agree."""


class Stream:
    """What a camera sends, made from a seed: `wakes` are the pieces in which it arrives."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.most = rng.choice((64, 90, 200, 1200))
        self.extensions = HeaderExtensions(rng.choice((None, 2)), rng.choice((None, 3)))
        self.first_number = rng.choice((0, 65500, 65535, rng.randrange(65536)))
        self.base = rng.choice((0, 2**32 - 4000, rng.randrange(2**32)))
        self._rate = rng.choice((0.0, 0.0, 0.02, 0.1, 0.4))
        self._fits = rng.random() < 0.7
        self._sequence = rng.choice((0, 65530, 65535, rng.randrange(65536)))
        self._timestamp = rng.choice((0, 2**32 - 6000, rng.randrange(2**32)))
        self._ssrc = rng.randrange(2**32)
        self._packets: list[bytes] = []
        for number in range(PICTURES):
            self._picture(number)
        self._disorder()
        self.packets = len(self._packets)
        self.wakes = self._cut(b"".join(map(self._framed, self._packets)))

    def _odd(self, part: float = 1.0) -> bool:
        return self.rng.random() < self._rate * part

    def _nal(self, kind: int, size: int, *, first: bool) -> bytes:
        start = self.rng.randrange(200)
        body = _BODY[start + 1 : start + size]
        head = b"\x88" if first else b"\x08"
        if self._odd(0.3):
            body = body[: size // 2] + b"\x00\x00\x01" + body[size // 2 :]
        return bytes((self.rng.choice((0x60, 0x40, 0x00)) | kind,)) + head + body

    def _picture(self, number: int) -> None:
        rng = self.rng
        key = number == 0 or rng.random() < 0.15
        payloads: list[bytes] = []
        if key and not self._odd():
            sets = b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in (SPS, PPS))
            payloads += [sets + bytes(2 * self._odd())] if rng.random() < 0.5 else [SPS, PPS]
        if self._odd():
            payloads.append(self._nal(rng.choice(_ODD_TYPES), rng.randrange(2, 40), first=False))
        for piece in range(rng.choice((1, 1, 1, 2))):
            size = rng.choice((8, self.most - 1, rng.randrange(8, 6 * self.most)))
            payloads += self._payloads(self._nal(5 if key else 1, size, first=piece == 0))
        for index, payload in enumerate(payloads):
            self._packet(payload, (index == len(payloads) - 1) ^ self._odd(0.3))
        if not self._odd(0.3):
            step = rng.choice((3000, 3000, 3003, 1, 2**31, 200000, 2**32 - 3000)) if self._odd() else 3000
            self._timestamp = (self._timestamp + step) & 0xFFFFFFFF

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
        self._packets.append(packet[: rng.randrange(14)] if self._odd(0.05) else packet)
        self._sequence = (self._sequence + 1) & 0xFFFF

    def _disorder(self) -> None:
        """Loss, repeats, and packets that come late."""
        packets, rng = self._packets, self.rng
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
                    b"$\x01\x00\x04\x80\xc9\x00\x01",
                    b"x",
                )
            )
        return before + b"$\x00" + len(packet).to_bytes(2, "big") + packet

    def _cut(self, data: bytes) -> list[bytes]:
        rng, wakes, at = self.rng, [], 0
        while at < len(data):
            size = rng.choice((len(data) // PICTURES + 1, len(data) // 10 + 1, rng.randrange(1, 400)))
            wakes.append(data[at : at + size])
            at += size
        return wakes


class Recorder:
    """A packet path that keeps what would have left."""

    drops = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, packets: Sequence[memoryview]) -> None:
        self.sent += map(bytes, packets)


class DataPath:
    """A worker's way from the bytes of a connection to encrypted packets, by one of the two."""

    def __init__(self, setting: native.Setting, stream: Stream) -> None:
        native.choose(setting)
        self.frames: list[tuple[Any, ...]] = []
        path = Recorder()
        self.sent = path.sent
        self._parser = RtspParser()
        self._parser.packets = {0: [], 1: []}
        self._parser.channels = self._parser.packets
        self._pipeline, self._pacer = Pipeline(), Pacer()
        self._pipeline.output = self
        self._pipeline.fit(stream.most)
        self._pipeline.on_playing([TRACK], 1000.0)
        profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
        policy = Policy(key=bytes(range(28)), ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        policy.allow_repeat_tx, policy.window_size = True, 1024
        self._protector = SrtpProtector(Session(policy))
        assert (self._protector.prepared is None) is (setting == "python")
        accepted = AcceptedTrack(VIDEO, 106, 107, "42e01f", True, stream.extensions)
        self._track = OutgoingTrack(accepted, sequence=stream.first_number, timestamp_base=stream.base)
        self._track.rtx_sequence = 65534
        self._sender = MediaSender(self._protector, path, [self._track], cname="c")
        self._sender.set_clock(1000.0, 1_700_000_000.0, 1000.0)
        self.items: list[Any] = []
        self.broken = ""

    def receive(self, data: bytes, now: float) -> None:
        """What one wake brought."""
        if self.broken:
            return
        try:
            self.items += self._parser.receive_data(data)
        except ParseError as error:
            self.broken = str(error)
            return
        packets = self._parser.packets
        batch = Batch(TRACK, packets[0], packets[1])
        packets[0], packets[1] = [], []
        if batch.rtp or batch.rtcp:
            self._pipeline.on_media([batch], now)
        for release in self._pacer.pop(now):
            self._leave(release.payloads, release.media_time, now)

    def send(self, frame: Frame, now: float) -> None:
        """Implements `Output`."""
        self.frames.append((frame.kind, list(frame.payloads), frame.media_time))
        if self._pacer.take_video(frame.payloads, frame.media_time, now):
            self._leave(frame.payloads, frame.media_time, now)

    def _leave(self, payloads: Any, media_time: float, now: float) -> None:
        self._sender.send(self._track, payloads, self._track.rtp_time(media_time), now)

    def fill(self, now: float) -> None:
        """Media that is ours: a view of a buffer, and a payload that fits no packet."""
        self._leave([(memoryview(_BODY[:300]), False), (_BODY[:1401], True), (b"", True)], now - 0.01, now)

    def lose(self, count: int, now: float) -> None:
        """The far end asks for packets again."""
        lost = [(self._track.sequence - 1 - each) & 0xFFFF for each in range(count)]
        self._sender.receive_rtcp(rtcp.pack_nack(0xFA5, self._track.ssrc, lost), now)

    def state(self) -> dict[str, Any]:
        """All that the parts remember, but for which of the two they use."""
        video = self._pipeline.inputs[Kind.VIDEO]
        assert isinstance(video, VideoInput)
        parts = {
            "parser": self._parser,
            "receiver": video.receiver,
            "passthrough": video.passthrough,
            "pacer": self._pacer,
            "sender": self._sender,
            "stats": self._track.stats,
            "feedback": self._sender.feedback,
        }
        remembered = {f"{part}.{name}": value for part, thing in parts.items() for name, value in vars(thing).items()}
        apart = (
            "compiled",
            "parameter_sets",
            "_line",
            "_bitrate",
            "_writer",
            "repair",
            "tracks",
            "_by_ssrc",
            "feedback",
        )
        plain = {name: value for name, value in remembered.items() if not name.endswith(apart)}
        return plain | {"failures": self._protector.failures, "broken": self.broken}


_OBJECTS: Final = ("stats", "estimate", "round_trips", "one_way", "settings")


class Stored(Stream):
    """An input of the other targets' corpus: as the bytes of a connection, and as packets on the video's channel."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        pieces = chunks(data)
        framed = [b"$\x00" + len(piece).to_bytes(2, "big") + piece for piece in pieces]
        payloads = (struct.pack("!BBHII", 0x80, 96, number, 3000, 7) + piece for number, piece in enumerate(pieces))
        fitted = [b"$\x00" + len(packet).to_bytes(2, "big") + packet for packet in payloads]
        self.wakes = [*self.wakes[:20], *framed, *fitted, *pieces, data]
        self.packets = 3 * len(pieces)


def compare(seed: int) -> int:
    """The stream of this seed through both; the number of its packets. Raises Difference."""
    return compare_stream(Stream(seed), f"seed {seed}")


def compare_corpus() -> int:
    """All that is stored for the parsers on the way; the number of inputs. Raises Difference."""
    inputs = [(name, data) for name in _CORPORA for data in seeds(name)]
    for name, data in inputs:
        compare_stream(Stored(data), f"{name} {data.hex()}")
    return len(inputs)


def compare_stream(stream: Stream, name: str) -> int:
    """A stream through both; the number of its packets. Raises Difference, with its `name`."""
    reference, compiled = DataPath("python", stream), DataPath("compiled", stream)
    now = 1000.0
    for number, data in enumerate(stream.wakes):
        now += 0.02
        for each in (reference, compiled):
            each.receive(data, now)
            if number % 5 == 4:
                each.lose(3, now)
            if number % 7 == 6:
                each.fill(now)
        for what, which in (("frame", "frames"), ("item", "items"), ("packet", "sent")):
            ours, theirs = getattr(reference, which), getattr(compiled, which)
            _same(f"{name}, wake {number}: {what}", ours, theirs)
            ours.clear()
            theirs.clear()
    remembered = compiled.state()
    for what, value in reference.state().items():
        if not what.endswith(_OBJECTS) and not callable(value):
            _same(f"{name}, at the end: {what}", value, remembered[what])
    return stream.packets


def _same(what: str, reference: object, compiled: object) -> None:
    # Messages of a camera are compared by their text: their headers have no equality.
    if reference != compiled and repr(reference) != repr(compiled):
        raise Difference(f"{what}: {reference!r} in Python, {compiled!r} compiled"[:2000])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=10_000_000, help="how many to send through both")
    parser.add_argument("--seed", type=int, default=0, help="of the first stream; those of the others follow")
    options = parser.parse_args()
    inputs = compare_corpus()
    done, seed, began = 0, options.seed, time.monotonic()
    while done < options.packets:
        done += compare(seed)
        seed += 1
    elapsed = time.monotonic() - began
    streams = seed - options.seed
    made = f"{done} packets in {streams} streams from seed {options.seed}"
    print(f"{inputs} stored inputs and {made}, {elapsed:.0f} s: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
