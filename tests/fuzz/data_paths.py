"""The compiled data path against its specification: the same bytes through both, and every difference is a finding.

`python -m tests.fuzz.data_paths --packets N --seed S`. Streams are made from seeds: pictures in every form that cameras
were seen to send and some that none does, then loss, disorder, repeats, wraps of every number, padding, extensions,
other sources, other channels, messages between frames, garbage; cut where it pleases. Both paths get them wake by wake.
What has to be equal: the frames, the encrypted packets, and all that the parts remember.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from pylibsrtp import Policy, Session

from relay_common.clock import ManualClock
from relay_common.secrets import Secret
from relay_worker import native
from relay_worker.media.inputs import AudioInput
from relay_worker.media.opus import FRAME_SECONDS, OpusTranscoder
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.history import SentRun
from relay_worker.publish.media_out import MediaOut
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.pacer import PacerSettings
from relay_worker.rtp import rtcp
from relay_worker.rtsp.errors import RtspError
from relay_worker.rtsp.session import RtspSession, _Channels
from relay_worker.rtsp.states import RtspState
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.transport import SrtpProtector
from tests.fixtures.attributes import attributes
from tests.fuzz.camera_streams import BODY, Stream
from tests.fuzz.pieces import chunks
from tests.fuzz.seeds import seeds
from tests.fuzz.sound_streams import SOUND, SoundStream

VIDEO, OPUS = make_offer(audio=True).tracks
TRACK: Final = Track(Kind.VIDEO, Format(96, "H264", 90000), "")
_CORPORA: Final = ("rtsp_parser", "rtsp_session", "rtp_receiver", "h264")
whole = 0  # wakes that compiled code took whole, in all comparisons so far


class Difference(Exception):
    """The two paths do not agree."""


class Recorder:
    """A packet path that keeps what would have left."""

    drops = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, packets: Sequence[memoryview]) -> None:
        self.sent += map(bytes, packets)

    def take(self) -> list[bytes]:
        """What has left since the last call."""
        sent, self.sent = self.sent, []
        return sent


class Onlooker:
    """Stands for viewers that the worker answers itself: keeps the frames that came last, and counts all of them."""

    def __init__(self) -> None:
        self.frames: deque[tuple[str, list[tuple[bytes, bool]], float, float]] = deque(maxlen=8)
        self.seen = 0

    def send(self, frame: Frame, now: float) -> None:
        self.seen += 1
        payloads = [(bytes(payload), marker) for payload, marker in frame.payloads]
        self.frames.append((frame.kind.value, payloads, frame.media_time, now))


def look_on(pipeline: Pipeline) -> None:
    """Begin, or end, to look on."""
    pipeline.viewers = None if pipeline.viewers else Onlooker()


class Loopback(UdpPath):
    """A UDP socket, and the far end of it: compiled code sends by system calls of its own."""

    def __init__(self) -> None:
        self._far, near = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._far.bind(("127.0.0.1", 0))
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._far.setblocking(False)
        near.setblocking(False)
        super().__init__(near, self._far.getsockname())

    def take(self) -> list[bytes]:
        """What has arrived since the last call: all that has left, as loopback holds nothing back."""
        came = []
        try:
            while True:
                came.append(self._far.recv(2048))
        except BlockingIOError:
            return came

    def close(self) -> None:
        super().close()
        self._far.close()


class Connection(MediaOut):
    """What leaves for one receiver; packets that wait leave with the next wake, as no loop runs here."""

    def __init__(self, stream: Stream, clock: ManualClock, number: int) -> None:
        super().__init__(clock, PacerSettings())
        self.udp = Loopback() if stream.udp else Recorder()
        profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
        policy = Policy(key=bytes(range(28)), ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        policy.allow_repeat_tx, policy.window_size = True, 1024
        self.protector = SrtpProtector(Session(policy))
        extensions = stream.extensions[number]
        accepted = [
            AcceptedTrack(VIDEO, 106, 107, "42e01f", True, extensions),
            AcceptedTrack(OPUS, 111, None, "", False, extensions),
        ]
        self._begin(self.protector, self.udp, accepted, "c")
        assert self._video is not None
        assert self._audio is not None
        self._audio.sequence, self._audio.timestamp_base = stream.first_number, stream.base
        self._audio.rtx_sequence = 65534
        self.track, self.track.sequence = self._video, stream.first_number
        self.track.timestamp_base, self.track.rtx_sequence = stream.base, 65534
        self.connected = True
        self.set_clock(1000.0, 1_700_000_000.0, 1000.0)

    def _pump(self, now: float) -> None:
        for release in self._pacer.pop(now):
            track = self.track if release.kind == "video" else self._audio
            assert track is not None
            self._send(track, release.payloads, release.media_time, release.step, now)

    def _leave(self, payloads: Any, media_time: float, now: float) -> None:
        self._send(self.track, payloads, media_time, 0.0, now)

    def fill(self, now: float) -> None:
        """Media that is ours: a view of a buffer, and a payload that fits no packet."""
        self._leave([(memoryview(BODY[:300]), False), (BODY[:1401], True), (b"", True)], now - 0.01, now)

    def speak(self, stream: Stream, number: int, now: float) -> None:
        """Sound has been made: of an even source mostly, and now and then what no encoder makes."""
        odd = not stream.even and number % 6 == 1
        size = 80 if stream.even else (0, 80, 160, 1400, 1401)[number % 5]
        payload = memoryview(BODY[:size]) if odd and number % 4 == 3 else BODY[:size]
        media_time = now - 0.01 - (0.2 if odd and number % 8 == 1 else 0.0)
        self.send(Frame(Kind.AUDIO, [(payload, odd)] * (number % 4), media_time, (0.02, 0.0)[odd]), now)

    def hear(self, stream: Stream, count: int, now: float) -> None:
        """The far end asks for packets again, and reports a rate, or none."""
        lost = [(self.track.sequence - 1 - each) & 0xFFFF for each in range(count)]
        self._received(rtcp.pack_nack(0xFA5, self.track.ssrc, lost), True, now)
        if stream.limited:
            self._pacer.ceiling = 400_000.0 + 100_000 * (int(now * 50) % 8)


class Retold(OpusTranscoder):
    """Stands for decoder and encoder, neither of which is compiled: keeps what it was given, and tells it again."""

    def __init__(self) -> None:
        super().__init__("aac")
        self.given: list[tuple[bytes, float | None, float, bool]] = []

    def transcode(
        self, data: bytes, media_time: float | None, now: float, *, lost: bool = False
    ) -> list[tuple[bytes, float]]:
        self.given.append((data, media_time, now, lost))
        begin = now if media_time is None else media_time
        return [(data[number : number + 80], begin + number * FRAME_SECONDS) for number in range(3)]


class DataPath:
    """A worker's way from the bytes of a connection to encrypted packets, by one of the two."""

    def __init__(self, setting: native.Setting, stream: Stream, *, retold: bool = True) -> None:
        native.choose(setting)
        self._wide = setting == "compiled" and stream.wide
        self._stream, self._clock, self._retold = stream, ManualClock(1000.0), retold
        self._session = RtspSession(Secret("rtsp://camera/live"))
        self._session.state = RtspState.PLAYING
        for number, track in enumerate((TRACK, SOUND)):
            self._session._channels.append(_Channels(track, 2 * number, 2 * number + 1))
            self._session.parser.packets |= {2 * number: [], 2 * number + 1: []}
        self._session.parser.channels = self._session.parser.packets
        self._feed = self._session.feed()
        self.pipeline = Pipeline()
        self.connections = [Connection(stream, self._clock, number) for number in range(len(stream.extensions))]
        if stream.repeats:
            self.pipeline.repeat_parameter_sets()
        if stream.watched:
            look_on(self.pipeline)
        outputs = Outputs(self.pipeline)
        self.pipeline.on_playing([TRACK, SOUND], 1000.0)
        self._retell()
        for connection in self.connections:
            outputs.attach(connection, connection, stream.most, 1000.0)
            assert (connection.protector.prepared is None) is (setting == "python")
        self.broken = ""

    def receive(self, data: bytes, now: float) -> None:
        """What one wake brought."""
        if self.broken:
            return
        self._clock._now = now
        assert self._feed is not None
        done = self.pipeline.take_wake(self._feed, data, now) if self._wide else native.NOT_PLAIN
        if done == native.OTHERS_LEFT:
            self.pipeline.take_left(self._feed, now)
        elif done != native.DONE:
            try:
                batches = [one for one in self._session.receive_data(data, now) if isinstance(one, Batch)]
            except RtspError as error:
                self.broken = str(error)
                return
            if batches:
                self.pipeline.on_media(batches, now)
        for connection in self.connections:
            connection._pump(now)

    def speak(self, number: int, now: float) -> None:
        for connection in self.connections:
            connection.speak(self._stream, number, now)

    def hear(self, count: int, now: float) -> None:
        for connection in self.connections:
            connection.hear(self._stream, count, now)

    def fill(self, now: float) -> None:
        for connection in self.connections:
            connection.fill(now)

    def disturb(self, number: int) -> None:
        """What happens to a camera's parts while it plays, now and then."""
        which = number % 40
        if which == 11:
            self.pipeline.fit(self._stream.most - 1)
        elif which == 23:
            self.pipeline.rebuild(Kind.VIDEO)
        elif which == 27:
            self.pipeline.rebuild(Kind.AUDIO)
            self._retell()
        elif which == 31:
            self.pipeline.resync()
        elif which in (5, 9):
            look_on(self.pipeline)

    def _retell(self) -> None:
        audio = self.pipeline.inputs[Kind.AUDIO]
        assert isinstance(audio, AudioInput)
        audio._transcoder = Retold() if self._retold else audio._transcoder

    @property
    def is_between_frames(self) -> bool:
        """Whether what arrives next begins a frame of its own."""
        return not (self.broken or self._session.parser._pending or self._session.parser._lost)

    def take(self) -> list[list[bytes]]:
        """The packets that have left, of each connection."""
        return [connection.udp.take() for connection in self.connections]

    def state(self) -> object:
        """All that the parts remember, but for which of the two they use."""
        return remembered((self._session, self.pipeline, self.connections, self.broken), set())

    def close(self) -> None:
        for connection in self.connections:
            if isinstance(connection.udp, Loopback):
                connection.udp.close()


_APART: Final = frozenset(
    (
        "taken_whole",
        "taken_in",
        "_compiled",
        "wake",
        "_ear",
        "_sound",
        "_released",
        "_writer",
        "_url",
        "udp",
        "_path",
        "protector",
        "_protector",
        "_clock",
    )
)
"""Names of what has no part in it: the choice itself, and what differs between two connections."""

_RUN: Final = SentRun.__struct_fields__

_PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes, bytearray, memoryview))
"""Types of what is its own value. Parts remember long rows of these above all, which are then taken as they are."""


def remembered(value: object, seen: set[int]) -> object:
    """An object's state, and that of all that it refers to, as plain values."""
    if value is None or isinstance(value, int | float | str | bytes | bytearray | memoryview):
        return value
    if isinstance(value, dict):
        # By their order where keys are objects.
        keys = [key if isinstance(key, str | int) else number for number, key in enumerate(value)]
        if _PLAIN.issuperset(map(type, value.values())):
            return dict(zip(keys, value.values(), strict=True))
        return {key: remembered(item, seen) for key, item in zip(keys, value.values(), strict=True)}
    if type(value).__name__ == "Kept":  # the compiled `SentRun`
        return {name: getattr(value, name) for name in _RUN} | {"packets": [list(one) for one in value]}  # type: ignore[attr-defined]
    if isinstance(value, list | tuple | deque | array):
        items: list[object] = list(value)  # type: ignore[call-overload]
        if _PLAIN.issuperset(map(type, items)):
            return items
        return [item if type(item) in _PLAIN else remembered(item, seen) for item in items]
    # By `-m` this module is `__main__`.
    if id(value) in seen or not type(value).__module__.startswith(("relay_", "tests.", "__main__")):
        return type(value).__name__
    seen.add(id(value))
    return {
        name: item if type(item) in _PLAIN else remembered(item, seen)
        for name, item in attributes(value).items()
        if name not in _APART
    }


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
    return compare_stream(Stream(seed), f"seed {seed}", SoundStream(seed) if seed % 4 == 3 else None)


def compare_corpus() -> int:
    """All that is stored for the parsers on the way; the number of inputs. Raises Difference."""
    inputs = [(name, data) for name in _CORPORA for data in seeds(name)]
    for name, data in inputs:
        compare_stream(Stored(data), f"{name} {data.hex()}")
    return len(inputs)


def compare_stream(stream: Stream, name: str, sound: SoundStream | None = None) -> int:
    """A stream through both, with sound that comes by itself; the number of its packets. Raises Difference, with its
    `name`.
    """
    global whole
    retold = sound is None or sound.retold
    reference, compiled = (DataPath(setting, stream, retold=retold) for setting in ("python", "compiled"))
    both, now, carried = (reference, compiled), 1000.0, b""
    try:
        for number, data in enumerate(stream.wakes):
            now = stream.moments[number] if number < len(stream.moments) else now + stream.pause
            for each in both:
                each.receive(carried + data, now)
                if number % 2 and sound is None:
                    each.speak(number, now)
                if number % 5 == 4:
                    each.hear(3, now)
                if number % 7 == 6 and not stream.even:
                    each.fill(now)
                if not stream.even:
                    each.disturb(number)
            heard = sound.wake(now) if sound is not None and reference.is_between_frames else b""
            carried = heard if number % 5 == 3 else b""  # comes with pictures
            for each in both if heard and not carried else ():
                each.receive(heard, now)
            _same(f"{name}, wake {number}: packets", reference.take(), compiled.take())
        _same(f"{name}, at the end", reference.state(), compiled.state())
    finally:
        for each in both:
            each.close()
    whole += compiled.pipeline.taken_whole
    return stream.packets


def _same(what: str, reference: object, compiled: object) -> None:
    if reference == compiled:
        return
    if isinstance(reference, dict) and isinstance(compiled, dict) and reference.keys() == compiled.keys():
        for name, value in reference.items():
            _same(f"{what}.{name}", value, compiled[name])
    elif isinstance(reference, list) and isinstance(compiled, list) and len(reference) == len(compiled):
        for number, value in enumerate(reference):
            _same(f"{what}[{number}]", value, compiled[number])
    raise Difference(f"{what[-300:]}: {reference!r} in Python, {compiled!r} compiled"[:2000])


def main() -> int:
    from tests.fuzz import datagram_paths  # which has most of this module in it

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=10_000_000, help="how many to send through both")
    parser.add_argument("--made", action="store_true", help="only streams that are made: none of what is stored")
    parser.add_argument("--seed", type=int, default=0, help="of the first stream; those of the others follow")
    options = parser.parse_args()
    inputs = 0 if options.made else compare_corpus()
    done, seed, began = 0, options.seed, time.monotonic()
    while done < options.packets:
        done += compare(seed) + datagram_paths.compare(seed)
        seed += 1
    elapsed = time.monotonic() - began
    streams = seed - options.seed
    made = f"{done} packets in {streams} streams from seed {options.seed}"
    all_whole = whole + datagram_paths.whole
    print(f"{inputs} stored inputs and {made}, {all_whole} wakes taken whole, {elapsed:.0f} s: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
