"""What one wake reads with one call: a whole record whose packets are plain, and what the Python gets of all else."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.secrets import Secret
from relay_common.simulation.camera.certs import make_server_context
from relay_worker import native
from relay_worker.media.opus import OpusTranscoder
from relay_worker.rtsp import transport
from relay_worker.rtsp.source import RtspSource
from relay_worker.rtsp.states import RtspState
from relay_worker.rtsp.transport import Connection, client_context, plain_read, wrapped
from tests.fuzz.sound_streams import HBR, UNITS, framed, hbr
from tests.unit.native.test_pictures import SLICE, Pair, fragments

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

PICTURE = fragments(SLICE, 40)


class Server:
    """The far end of a connection: by TLS, or none."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLObject | None, out: ssl.MemoryBIO, into: ssl.MemoryBIO) -> None:
        self.sock, self.tls, self.out, self.into = sock, tls, out, into

    def coded(self, data: bytes) -> bytes:
        """As one record."""
        if self.tls is None:
            return data
        self.tls.write(data)
        return self.out.read()


class Told:
    """What the Python was told, and the source that it stands for."""

    _report_due = 2000.0

    def __init__(self) -> None:
        self.took: list[tuple[bytes, float, int | None, Exception | None]] = []
        self.closed: list[Exception | None] = []
        self.sink: Any = self
        self.wake: Any = None

    def take(self, data: bytes, now: float, done: int | None, problem: Exception | None) -> None:
        self.took.append((data, now, done, problem))


class Reading:
    """A connection that compiled code reads, and both its ends."""

    def __init__(self, folder: Path, secret: bool, *, directly: bool = True) -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        bios = [ssl.MemoryBIO() for _ in range(4)]
        tls = server = known = None
        if secret:
            context, ca_file = make_server_context(folder)
            compiled = native.decide("compiled" if directly else "python")
            tls, known = wrapped(compiled, client_context(str(ca_file)), bios[0], bios[1], "127.0.0.1")
            assert (known is not None) == directly
            server = context.wrap_bio(bios[2], bios[3], server_side=True)
            for _ in range(4):
                for end, out, into in ((tls, bios[1], bios[2]), (server, bios[3], bios[0])):
                    try:
                        end.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    into.write(out.read())
            try:
                tls.read()  # what the server says of sessions
            except ssl.SSLWantReadError:
                pass
        self.server, self.told, self.clock = Server(far, server, bios[3], bios[2]), Told(), ManualClock(1001.0)
        self.connection = Connection(near, tls, bios[0], bios[1], known)
        self.connection.start(lambda data: None, self.told.closed.append)
        self.session: object = None
        self.source: Any = self.told

    def begin(self, sink: Any = None, session: object = None) -> None:
        compiled = native.decide("compiled")
        assert compiled is not None
        self.told.sink = sink or self.told
        self.connection.read_by(compiled, self.clock, self.told.sink, session, self.source, self.told.take)

    def read(self, data: bytes = b"") -> list[tuple[bytes, float, int | None, Exception | None]]:
        """What the Python is told when these bytes have arrived."""
        if data:
            self.server.sock.sendall(data)
        reader, self.told.took = self.connection._reader, []
        assert reader is not None
        reader.read()
        return self.told.took

    def receive(self, data: bytes) -> list[tuple[bytes, float, int | None, Exception | None]]:
        """The same of a record."""
        return self.read(self.server.coded(data))


@pytest.fixture(params=["TLS", "TLS by its read", "plain"])
async def reading(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reading]:
    made = Reading(tmp_path, request.param != "plain", directly=request.param == "TLS")
    yield made
    made.connection.close()
    made.server.sock.close()


@pytest.fixture(params=[True, False], ids=["directly", "by its read"])
async def secret(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reading]:
    made = Reading(tmp_path, True, directly=request.param)
    made.begin()
    yield made
    made.connection.close()
    made.server.sock.close()


def begin(reading: Reading, pair: Pair) -> Any:
    """Have the compiled one of a pair read; its pipeline."""
    way = pair.both[1]
    assert pair.wake(PICTURE) == 1
    reading.begin(way.pipeline, way._session)
    reading.clock._now = way._clock._now = pair.now + 0.03
    return way.pipeline


async def test_a_plain_wake_is_taken_and_nobody_told(reading: Reading, pair: Pair) -> None:
    pipeline = begin(reading, pair)
    before = pipeline.taken_whole
    for number in range(3):
        assert reading.receive(pair.framed(PICTURE)) == []
        assert pipeline.taken_whole == before + number + 1
        assert pipeline.last_media["video"] == reading.clock.now()
        reading.clock._now += 0.033
    assert len(pair.both[1].take()[0]) == 3 * len(PICTURE)
    assert reading.connection._reader is not None
    assert reading.connection._reader.wakes() == 3


async def test_without_a_wake_the_python_gets_it(reading: Reading) -> None:
    reading.begin()
    assert reading.receive(b"RTSP/1.0 200 OK\r\n\r\n") == [(b"RTSP/1.0 200 OK\r\n\r\n", 1001.0, None, None)]
    reading.told.wake = object()
    assert reading.receive(b"$") == [(b"$", 1001.0, None, None)]


async def test_one_of_another_session_is_left_alone(reading: Reading, pair: Pair) -> None:
    pipeline = begin(reading, pair)
    reading.begin(pipeline, object())
    before, data = pair.both[1].state(), pair.framed(PICTURE)
    assert reading.receive(data) == [(data, reading.clock.now(), None, None)]
    assert pair.both[1].state() == before


@pytest.mark.parametrize("in_memory", [False, True])
async def test_what_is_due_is_done_behind_it(reading: Reading, pair: Pair, in_memory: bool) -> None:
    if in_memory:  # as it is where the source is the relay's own
        reading.source = RtspSource(Secret("rtsp://camera/live"), reading.told.sink, reading.clock)
    begin(reading, pair)
    reading.source._report_due = reading.clock.now()
    data = pair.framed(PICTURE)
    assert reading.receive(data) == [(data, reading.clock.now(), native.DONE, None)]
    reading.source._report_due = reading.clock.now() + 0.001
    assert reading.receive(pair.framed(PICTURE)) == []


@pytest.mark.parametrize("said", [native.NOT_PLAIN, native.OTHERS_LEFT, native.NO_VIDEO, native.CHANGED])
async def test_what_else_it_says_is_passed_on(reading: Reading, pair: Pair, said: int) -> None:
    pipeline = begin(reading, pair)
    other = b"$\x02\x00\x04\x80\x61\x00\x01"
    if said == native.CHANGED:
        pair.both[1]._session.state = RtspState.CLOSED
    data = {
        native.NOT_PLAIN: b"RTSP/1.0 200 OK\r\n\r\n",
        native.OTHERS_LEFT: pair.framed(PICTURE) + other,
        native.NO_VIDEO: other,
    }.get(said) or pair.framed(PICTURE)
    before = pipeline.taken_whole
    assert reading.receive(data) == [(data, reading.clock.now(), said, None)]
    assert pipeline.taken_whole == before + (said == native.OTHERS_LEFT)


@pytest.mark.parametrize("due", [False, True])
async def test_sound_that_comes_alone_is_heard_without_a_detour(reading: Reading, pair: Pair, due: bool) -> None:
    pipeline = begin(reading, pair)
    sound: list[bytes] = []
    for number in range(4):
        header = struct.pack("!BBHII", 0x80, 0xE1, 65 + number, 700_000 + 1024 * number, 5)
        sound.append(framed(2, header + hbr(UNITS[number])))
    feed = pair.both[1]._feed
    assert feed is not None
    told = []
    for data in sound:
        reading.clock._now = pair.both[1]._clock._now = reading.clock.now() + 0.064
        reading.told._report_due = reading.clock.now() + (0.0 if due else 0.001)
        told.append([entry[2] for entry in reading.receive(data)])
        for _, now, done, _ in reading.told.took:
            if done == native.NO_VIDEO and pipeline.take_wake(feed, data, now, done) != native.DONE:
                pair.both[1].receive(data, now)
    assert told[-1] == ([native.DONE] if due else [])
    assert [unit for unit, *_ in pipeline.inputs["audio"]._transcoder.given] == list(UNITS[:4])
    assert pipeline.last_media["audio"] == pipeline._now == reading.clock.now()


async def test_sound_is_sent_with_no_python_between(
    reading: Reading, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = begin(reading, pair)
    pipeline.inputs["audio"]._transcoder = OpusTranscoder("aac", bytes.fromhex(HBR["config"]))
    for name in ("_heard", "_encoded"):
        monkeypatch.setattr(pipeline, name, Told().take)  # which takes other arguments
    feed, sent = pair.both[1]._feed, 0
    assert feed is not None
    for number in range(8):
        header = struct.pack("!BBHII", 0x80, 0xE1, 65 + number, 700_000 + 1024 * number, 5)
        data = framed(2, header + hbr(UNITS[number]))
        reading.clock._now = pair.both[1]._clock._now = reading.clock.now() + 0.064
        told = reading.receive(data)
        if number < 2:  # a clock, and an encoder: each is there from one wake on
            assert [entry[2] for entry in told] == [native.NO_VIDEO]
            if pipeline.take_wake(feed, data, reading.clock.now(), native.NO_VIDEO) != native.DONE:
                pair.both[1].receive(data, reading.clock.now())
        else:
            assert told == []
        sent = len(pair.both[1].take()[0])
    assert sent in (3, 4)


async def test_sound_of_another_form_is_the_pythons(reading: Reading, pair: Pair) -> None:
    pipeline = begin(reading, pair)
    other = b"$\x02\x00\x04\x80\x61\x00\x01"
    for ear in (None, object(), pipeline.wake):  # which hears no sound
        pipeline._ear = ear
        assert reading.receive(other) == [(other, reading.clock.now(), native.NO_VIDEO, None)]


async def test_what_sound_raises_is_passed_on(reading: Reading, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await test_sound_that_comes_alone_is_heard_without_a_detour(reading, pair, due=False)
    pipeline, data = pair.both[1].pipeline, struct.pack("!BBHII", 0x80, 0xE1, 69, 704_096, 5) + hbr(UNITS[0])
    monkeypatch.setattr(pipeline, "_heard", Told().take)  # which takes other arguments
    ((_, _, done, problem),) = reading.receive(framed(2, data))
    assert done is None
    assert isinstance(problem, TypeError)


async def test_what_it_raises_is_passed_on(reading: Reading, pair: Pair) -> None:
    pipeline = begin(reading, pair)
    pipeline.last_media = MappingProxyType({})
    ((_, _, done, problem),) = reading.receive(pair.framed(PICTURE))
    assert done is None
    assert isinstance(problem, TypeError)


async def test_what_the_python_raises_goes_on(reading: Reading) -> None:
    def take(*_: object) -> None:
        raise LookupError

    reading.told.take = take  # type: ignore[method-assign]
    reading.begin()
    with pytest.raises(LookupError):
        reading.receive(b"$")
    reading.told.sink = None
    reading.begin(sink=object())
    with pytest.raises(AttributeError):
        reading.receive(b"$")


async def test_a_time_that_is_none(reading: Reading, pair: Pair) -> None:
    begin(reading, pair)
    reading.told._report_due = "soon"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        reading.receive(pair.framed(PICTURE))


async def test_nothing_has_arrived(reading: Reading) -> None:
    reading.begin()
    assert reading.read() == []
    assert reading.told.closed == []


async def test_the_end_in_order(reading: Reading) -> None:
    reading.begin()
    assert reading.read() == [], "there is nothing yet, of which `errno` says so"
    reading.server.sock.close()
    assert reading.read() == []
    assert reading.told.closed == [None]


async def test_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    closed: list[Exception | None] = []
    connection = Connection(near, None, ssl.MemoryBIO(), ssl.MemoryBIO())
    connection.start(lambda data: None, closed.append)
    compiled, told = native.decide("compiled"), Told()
    assert compiled is not None
    connection.read_by(compiled, ManualClock(1.0), told, None, told, told.take)  # type: ignore[arg-type]
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert connection._reader is not None
    connection._reader.read()
    assert [type(error) for error in closed] == [ConnectionResetError]


async def test_records_that_came_together(secret: Reading) -> None:
    data = secret.server.coded(b"one") + secret.server.coded(b"two") + secret.server.coded(b"three")
    assert secret.read(data) == [(b"onetwothree", 1001.0, None, None)]


async def test_a_picture_in_several_records_is_taken_and_nobody_told(secret: Reading, pair: Pair) -> None:
    pipeline = begin(secret, pair)
    before, data = pipeline.taken_whole, pair.framed(PICTURE)
    assert secret.read(b"".join(secret.server.coded(data[at : at + 50]) for at in range(0, len(data), 50))) == []
    assert pipeline.taken_whole == before + 1
    assert len(pair.both[1].take()[0]) == len(PICTURE)


async def test_records_and_a_part_of_another(secret: Reading) -> None:
    data = secret.server.coded(b"one") + secret.server.coded(b"two") + secret.server.coded(b"three")
    assert secret.read(data[:-1]) == [(b"onetwo", 1001.0, None, None)]
    assert secret.read(data[-1:]) == [(b"three", 1001.0, None, None)]


async def test_something_to_be_said_behind_records(secret: Reading) -> None:
    """A key update is answered at the next write, which the Python sends."""
    secret.connection._outgoing.write(b"an answer")
    assert secret.read(secret.server.coded(b"one") + secret.server.coded(b"two")) == [(b"onetwo", 1001.0, None, None)]
    assert secret.server.sock.recv(100) == b"an answer"


async def test_a_record_in_two_parts(secret: Reading) -> None:
    data = secret.server.coded(b"one") + secret.server.coded(b"two")
    assert secret.read(data[:10]) == []
    assert secret.read(data[10:30]) == [(b"one", 1001.0, None, None)]
    assert secret.read(data[30:]) == [(b"two", 1001.0, None, None)]
    assert secret.told.closed == []


async def test_the_end_of_tls_behind_the_last_record(secret: Reading) -> None:
    assert secret.server.tls is not None
    data = secret.server.coded(b"last")
    try:
        secret.server.tls.unwrap()
    except ssl.SSLWantReadError:
        pass
    assert secret.read(data + secret.server.out.read()) == [(b"last", 1001.0, None, None)]
    assert secret.told.closed == [None]


async def test_the_end_of_tls_alone(secret: Reading) -> None:
    assert secret.server.tls is not None
    try:
        secret.server.tls.unwrap()
    except ssl.SSLWantReadError:
        pass
    assert secret.read(secret.server.out.read()) == []
    assert secret.told.closed == [None]


async def test_what_is_no_record(secret: Reading) -> None:
    assert secret.read(b"\x17\x03\x03\x00\x20" + bytes(32)) == []
    (error,) = secret.told.closed
    assert isinstance(error, ssl.SSLError)
    assert "BAD_RECORD_MAC" in str(error) or "DECRYPTION_FAILED" in str(error)
    alert = secret.server.sock.recv(100)
    assert alert[0] in (0x15, 0x17), "the server is told, by an alert"


async def test_a_closed_connection_is_not_read(reading: Reading) -> None:
    reading.begin()
    reader = reading.connection._reader
    assert reader is not None
    reading.server.sock.sendall(b"late")
    reading.connection.close()
    reader.read()
    assert reading.told.took == []
    assert reading.told.closed == []
    reading.connection.read_by(native.decide("compiled"), reading.clock, None, None, None, reading.told.take)  # type: ignore[arg-type]
    assert reading.connection._reader is None


async def test_the_look_reads_only_where_nothing_has_come(reading: Reading) -> None:
    reading.begin()
    reading.receive(b"a")
    reading.server.sock.sendall(reading.server.coded(b"b"))
    reading.told.took = []
    reading.connection.look()
    assert reading.told.took == []
    reading.connection.look()
    assert reading.told.took == [(b"b", 1001.0, None, None)]


async def test_the_event_loop_calls_it(reading: Reading) -> None:
    reading.begin()
    reading.server.sock.sendall(reading.server.coded(b"a"))
    for _ in range(200):
        if reading.told.took:
            break
        await asyncio.sleep(0.01)
    assert reading.told.took == [(b"a", 1001.0, None, None)]


async def test_it_keeps_nothing_alive(tmp_path: Path) -> None:
    made = Reading(tmp_path, True)
    made.begin()
    kept = weakref.ref(made.connection)
    made.connection.close()
    made.server.sock.close()
    del made
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("bio", ["incoming", "outgoing"])
async def test_a_bio_that_does_not_say_whether_it_is_empty(secret: Reading, bio: str) -> None:
    compiled, parts = native.decide("compiled"), _parts(secret)._replace(**{bio: object()})
    assert compiled is not None
    reader = compiled.Reader(secret.connection._sock.fileno(), parts)
    secret.server.sock.sendall(b"a record")
    with pytest.raises(AttributeError):
        reader.read()
    assert secret.told.took == []


async def test_what_was_closed_reads_nothing_else(secret: Reading) -> None:
    compiled, ended, buffer = native.decide("compiled"), list[int](), bytearray(100)
    assert compiled is not None
    before = sys.getrefcount(buffer)
    parts = _parts(secret)._replace(ended=ended.append, buffer=buffer)
    reader = compiled.Reader(secret.connection._sock.fileno(), parts)
    secret.server.sock.close()
    reader.close()
    reader.read()
    assert ended == []
    del parts, reader
    assert sys.getrefcount(buffer) == before


def _parts(reading: Reading) -> native.ReaderParts:
    told = reading.told
    parts = native.ReaderParts(bytearray(100), float, told, None, told, int, lambda *_: None, told.take)  # type: ignore[arg-type]
    empty = ssl.MemoryBIO()
    return parts._replace(incoming=empty, outgoing=empty, read=bytes, write=len, record=5, refusal=ssl.SSLError)


def test_what_is_no_reader() -> None:
    compiled: Any = native.decide("compiled")
    parts = native.ReaderParts(bytearray(8), float, None, None, None, float, float, float)  # type: ignore[arg-type]
    for fd, given in ((-1, parts), (3, parts[:-1]), (3, (*parts, None))):
        with pytest.raises(ValueError, match="no such parts"):
            compiled.Reader(fd, given)
    with pytest.raises(BufferError):
        compiled.Reader(3, parts._replace(buffer=bytes(8)))
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        compiled.Reader(3, parts._replace(tls=5))
    with pytest.raises(TypeError):
        compiled.Reader(3, list(parts))
    with pytest.raises(TypeError):
        compiled.Reader(3, parts, fd=3)


async def test_the_standard_library_is_as_it_was(secret: Reading) -> None:
    """`plain_read` goes past one function of `ssl`; where that is another, it is not gone past."""
    tls = secret.connection._tls
    assert tls is not None
    assert type(plain_read(tls)).__name__ == "builtin_function_or_method"
    assert plain_read(_Other()) == _Other.read  # type: ignore[arg-type]
    assert len(transport._buffer) == transport.BUFFER_SIZE


class _Other:
    @staticmethod
    def read(size: int) -> bytes:
        return b""
