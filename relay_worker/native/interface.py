"""What compiled code has, as the Python sees it: the types of the extension module, and what they are made of.

The order of a tuple's fields is that of the compiled code's (`native/wake.h`, `native/state.h`, `native/reader.h`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Slots(Protocol):
    """Packets in the slots of a buffer: written, encrypted in place, and sent, a run with each call."""

    def put(
        self,
        payloads: list[tuple[bytes, bool]],
        index: int,
        slot: int,
        payload_type: int,
        sequence: int,
        timestamp: int,
        step: int,
        ssrc: int,
        time_id: int,
        send_time: int,
        number_id: int,
        number: int,
        /,
    ) -> tuple[int, int, int]:
        """Write payloads from `index` on into slots from `slot` on, until those are full or a payload is not plain.

        Returns where both stopped, and how many packets libsrtp refused: those take no slot.
        """
        ...

    def packet(self, slot: int, /) -> tuple[int, int]:
        """Bytes and transport-wide number of the packet in a slot that was filled."""
        ...

    def send(self, fd: int, address: bytes, first: int, end: int, /) -> tuple[int, int, int, int]:
        """Send the slots from `first` to `end`, packets of equal size with one call (UDP GSO).

        Returns the slot behind the last that was sent, the one behind the last that was tried, the calls made, and the
        errno that ended it, or 0.
        """
        ...


class InputParts(NamedTuple):
    """The parts of one track that compiled code reads and writes, in its order; None for what the track has not."""

    session: Any = None
    parser: Any = None
    pipeline: Any = None
    input: Any = None
    receiver: Any = None
    track: Any = None
    """Of the timeline."""
    passthrough: Any = None
    units: Any = None
    """What finds the access units of sound; None for Opus."""
    reorder: Any = None
    """What restores the order of datagrams, with its clock."""
    wait_clock: Any = None


class OutputParts(NamedTuple):
    """The parts of one output that compiled code reads and writes, in its order. Which attributes: `wake.h`."""

    pacer: Any
    line: Any
    meter: Any
    pacer_stats: Any
    sender: Any
    stream: Any
    stream_stats: Any
    writer: Any
    history: Any
    """None where nothing is kept."""
    repair: Any
    uplink: Any
    path: Any
    """A `UdpPath`; None where packets leave by another, which the writer knows."""
    protector: Any
    feedback: Any
    delay: Any
    """None where it is not measured."""
    now: Callable[[], float]
    """The clock that delays are measured by."""
    prepared: Any
    slots: Slots
    sent_at: Any
    sent_size: Any
    time_id: int
    number_id: int
    """Ids of the header extensions, 0 for those that were not agreed."""


class TranscodingParts(NamedTuple):
    """What makes Opus of one camera's AAC, in the order of compiled code. Which attributes: `state.h`."""

    transcoder: Any
    chain: Any
    """Of the transcoder."""
    clock: Any
    """Of both."""
    encoder: Any
    """Keeps what the next two addresses are of: libopus's function, and its encoder."""
    encode: int
    context: int
    packet: Any
    """What coded data is decoded from is made by it, of a size."""
    decode: Callable[[Any], list[Any]]
    refusals: tuple[type[Exception], ...]
    """What these two raise of a unit that cannot be decoded."""
    rate: int
    """Samples a second."""
    stride: int
    """Bytes of each, of all channels."""
    frame_bytes: int
    """Of the samples of one packet."""
    decoder: object | None = None
    """What is asked instead of `decode` (`Compiled.find_decoder`), whose object keeps it."""


StillSo = tuple[object, str, object]
"""An object, an attribute of it, and the very object that its value must be."""


class Wake(Protocol):
    """One camera's parts, made into what takes a whole wake with one call."""

    def take(self, data: bytes, now: float, /) -> int:
        """Take what one wake brought. `NOT_PLAIN`: nothing has happened. `CHANGED`: likewise, and what had to stay so
        did not. `DONE`. `OTHERS_LEFT`: done, and packets of other channels are in the parser's lists. `NO_VIDEO`: only
        such have come, and nothing has happened.
        """
        ...

    def hear(self, data: bytes, now: float, /) -> tuple[bytes, float] | int:
        """Take a wake that brought one access unit of sound and nothing else: `DONE` where it has become packets that
        were sent, else the unit, and its media time. Of other wakes `NOT_PLAIN` or `CHANGED`. Opus is passed on.
        """
        ...

    def send(self, payloads: Sequence[tuple[object, bool]], media_time: float, step: float, now: float, /) -> int:
        """Send sound that has been made, as `take` sends pictures: `NOT_PLAIN`, `CHANGED` or `DONE`."""
        ...

    def release(self, payloads: Sequence[tuple[object, bool]], media_time: float, step: float, now: float, /) -> int:
        """The same for what the pacer has let through: it is not asked."""
        ...


class ReaderParts(NamedTuple):
    """What a `Reader` calls and looks at, in its order. Without TLS the last eight are None."""

    buffer: bytearray
    """What is read into; the bytes in it are gone at the next wake."""
    now: Callable[[], float]
    sink: Any
    """Its `wake` is asked at each wake."""
    session: Any
    """Of the connection: a `Wake` of another is left alone."""
    source: Any
    """Its `_report_due` is when the Python has something to send."""
    ended: Callable[[int], None]
    """Called at the connection's end, with the errno or 0."""
    go_on: Callable[[bytes, ssl.SSLError | None], None]
    """Called with the records so far where there is more to do, and with what `read` raised, if it did."""
    take: Callable[[bytes, float, int | None, Exception | None], None]
    """Called with what the wake brought, `now`, and what `Wake.take` said, or raised."""
    incoming: ssl.MemoryBIO | None = None
    outgoing: ssl.MemoryBIO | None = None
    read: Callable[[int], bytes] | None = None
    write: Callable[[memoryview], int] | None = None
    """Of `incoming`."""
    record: int | None = None
    """Bytes of the longest record."""
    refusal: type[ssl.SSLError] | None = None
    """What `read` raises."""
    wanting: type[ssl.SSLError] | None = None
    """What it raises where the rest of a record has not come."""
    tls: object | None = None
    """OpenSSL's connection (`Compiled.watch_tls`), where it is known: `read` keeps it, and only says what is wrong."""


class Reader(Protocol):
    """Reads a connection, a wake with one call, and has plain ones taken whole."""

    def read(self) -> None:
        """Read what has arrived: the callback of the event loop."""
        ...

    def wakes(self) -> int:
        """How many have brought something."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class Datagrams(Protocol):
    """Reads a socket that media comes to as datagrams, and decrypts it: a wake with one call."""

    def know(self, streams: list[tuple[int, int, int]], /) -> None:
        """From now on packets of these SSRCs and payload types are of these channels, and others of channel 255. Raises
        ValueError for more than eight, and for what is none.
        """
        ...

    def read(self, datagram: bytes, /) -> bytes | tuple[bytes, int, bytes, bytes] | None:
        """The packets in a datagram and in what has arrived behind it, each behind `$`, its channel and its size (RFC
        2326 §10.12).

        With a tuple also how many were refused by libsrtp, and the first datagram that is no RTP, which is not read
        beyond, with its sender as a `sockaddr`; both are empty where there is none. None where `datagram` itself is
        none: nothing has been read.
        """
        ...


class ArrivalCalls(NamedTuple):
    """What `Arrivals` calls, in its order."""

    now: Callable[[], float]
    alone: Callable[[bytes, float, Exception | None], None]
    """Called with frames, as `Datagrams.read` gives them, where nothing else has come; and with what was raised
    while they were taken.
    """
    left: Callable[[tuple[bytes, int, bytes, bytes], float], None]
    """Called with the same, what was refused, and what is no RTP."""


class Arrivals(Protocol):
    """Reads a socket as `Datagrams` does, and has media taken where it is plain."""

    def read(self) -> None:
        """Read what has arrived: the callback of the event loop."""
        ...

    def listen(self, sink: object, session: object, source: object, /) -> None:
        """From now on pictures, and sound that comes alone, are taken as the sink's `Wake`s of this session do it,
        until the source's `_report_due` and while the video waits for no keyframe; None for each: by nobody. The source
        is told when the last picture came (`_alive_at`), and the number of its last packet (`_unlooked`).
        """
        ...


class Compiled(Protocol):
    """What the extension module has: see `runs.c`."""

    def split_frames(self, buffer: bytes, position: int, packets: dict[int, list[bytes]], /) -> int:
        """Append whole interleaved frames from `position` on to their channels' lists; returns where that stopped."""
        ...

    def take_plain(
        self,
        packets: list[bytes],
        index: int,
        sequence: int,
        timestamp: int,
        ssrc: int,
        payload_type: int,
        payloads: list[tuple[bytes, bool]],
        /,
    ) -> tuple[int, int]:
        """Append to `payloads` what goes on with a run at `sequence`; returns where that stopped, and bytes taken.

        `payload_type` is -1 where any will do.
        """
        ...

    def pass_fragments(
        self, payloads: list[tuple[bytes, bool]], index: int, most: int, ends: bool, /
    ) -> tuple[int, int]:
        """The end of the FU-A fragments that go out as they came, each at most `most` bytes.

        Second: 0 while the NAL unit goes on, 1 behind its last fragment (only if `ends`), 2 when that one was marked.
        """
        ...

    def measure(self, payloads: Sequence[tuple[object, bool]], most: int, /) -> int:
        """Bytes of all payloads; -1 when one is longer than `most`, or they are not plain bytes in a list."""
        ...

    def kept(self, run: Any, /) -> Any:
        """A `SentRun` whose payloads are copied out of the heap; itself where they are not plain bytes in a list."""
        ...

    def Slots(
        self, buffer: bytearray, slot_size: int, trailer: int, protect: int, context: int, owner: object, /
    ) -> Slots:
        """Slots of a buffer; `protect` and `context` are addresses of libsrtp's, which `owner` keeps alive."""
        ...

    def Wake(
        self,
        guards: tuple[StillSo, ...],
        parts: InputParts,
        outputs: tuple[OutputParts, ...],
        kind: str,
        channel: int,
        rtcp_channel: int,
        transcoding: TranscodingParts | None = None,
        /,
    ) -> Wake:
        """Of a track's parts and up to 8 outputs; without any, pictures are only taken in. `transcoding` is for sound.

        `channel` and `rtcp_channel` are the track's, `kind` is its key in the pipeline's dicts. Raises ValueError for
        parts of which none can be made.
        """
        ...

    def Datagrams(self, incoming: object, unprotect: int, context: int, owner: object, most: int, /) -> Datagrams:
        """Of a socket that does not block, for `most` datagrams a wake; `unprotect` and `context` are addresses of
        libsrtp's, which `owner` keeps alive.
        """
        ...

    def Arrivals(self, datagrams: object, calls: ArrivalCalls, /) -> Arrivals:
        """Of the socket of these `Datagrams`. Raises ValueError for what is none."""
        ...

    def watch_tls(self, file: str, wrap: Callable[[], T], /) -> tuple[T, object | None]:
        """What `wrap` returns, and the connection that it has made with the OpenSSL of an extension module, of which
        that is the file. None where OpenSSL is no library that can be called, or made none.
        """
        ...

    def find_decoder(self, file: str, decoder: object, /) -> object | None:
        """By what this open audio decoder of PyAV's is asked with the libavcodec of an extension module, of which that
        is the file. None where that is no library that can be called, or not as expected.
        """
        ...

    def Reader(self, fd: int, parts: ReaderParts, /) -> Reader:
        """Of a socket that does not block. Raises ValueError for parts of which none can be made."""
        ...
