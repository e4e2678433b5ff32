"""The rest of a picture is waited for, within the call that found its beginning: one wake instead of one a packet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.rtsp import transport
from tests.unit.native.test_pictures import SLICE, Pair, fragments
from tests.unit.native.test_reading import PICTURE, Reading, begin, reading, secret

__all__ = ["reading", "secret"]  # fixtures

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

PATIENCE: Final = 0.0005
"""Seconds, as in `reading.c`."""
MOST_WAITS, MOST_VAIN, RARELY = 3, 4, 64
VIDEO, SOUND = 0, 2


def frame(channel: int, payload: bytes) -> bytes:
    return b"$" + bytes([channel]) + len(payload).to_bytes(2, "big") + payload


OPEN, MARKED = frame(VIDEO, b"\x80\x60rest"), frame(VIDEO, b"\x80\xe0rest")
HEARD = frame(SOUND, b"\x80\x61rest")


def took(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def waits(reading: Reading, data: bytes) -> bool:
    """Whether more is waited for behind this: any of ten wakes that is quicker did not."""
    brief = False
    for _ in range(10):
        reading.connection._reader = None
        begin_again(reading)
        brief |= took(lambda: reading.receive(data)) < PATIENCE
    return not brief


def begin_again(reading: Reading) -> None:
    """With all its patience."""
    reading.connection.read_by(
        *(native.decide("compiled"), reading.clock, reading.told.sink),  # type: ignore[arg-type]
        *(reading.session, reading.source, reading.told.take),
    )


@pytest.fixture
def playing(reading: Reading, pair: Pair) -> Reading:
    """A connection whose pictures compiled code takes."""
    begin(reading, pair)
    reading.session = pair.both[1]._session
    return reading


@pytest.mark.parametrize(
    ("data", "waited"),
    [
        (OPEN, True),
        (MARKED, False),
        (OPEN + MARKED, False),
        (MARKED + OPEN, True),
        (HEARD, False),
        (OPEN + HEARD, True),
        (MARKED + HEARD, False),
        (MARKED + HEARD[:-1], True),
        (MARKED + HEARD[:4], True),
        (MARKED + b"$\x02\x00", True),
        (MARKED + b"$", True),
        (OPEN + b"RTSP", False),
        (b"RTSP/1.0 200 OK\r\n\r\n", False),
        (frame(VIDEO, b""), False),
        (frame(VIDEO, b"\x80"), False),
        (frame(VIDEO, b"\x80\x00"), True),
        (frame(VIDEO, b"\x80\x7f"), True),
        (frame(VIDEO, b"\x80\x80"), False),
        (OPEN + frame(VIDEO, b"\x80"), True),
        (frame(VIDEO, b"\x80\xe0" + bytes(300)), False),
        (frame(VIDEO, b"\x80\xe0" + bytes(300))[:-1], True),
    ],
)
async def test_what_is_waited_for(playing: Reading, data: bytes, waited: bool) -> None:
    assert waits(playing, data) == waited


@pytest.mark.parametrize("kept", range(1, len(OPEN) - 1))
async def test_a_frame_that_began_before_counts(playing: Reading, pair: Pair, kept: int) -> None:
    parser = pair.both[1]._session._parser
    for whole, waited in ((OPEN, True), (MARKED, False)):
        parser._pending = whole[:kept]
        assert waits(playing, whole[kept:]) == waited
    assert waits(playing, MARKED[kept:-1])


async def test_nobody_waits_for_what_the_python_takes(reading: Reading, pair: Pair) -> None:
    pipeline = begin(reading, pair)
    reading.told.sink, reading.session = pipeline, object()
    assert not waits(reading, OPEN)
    pipeline._wake = None
    assert not waits(reading, OPEN)
    reading.told.sink, reading.session = reading.told, None
    assert not waits(reading, OPEN)


async def test_what_comes_while_it_is_waited_for_is_taken_with_the_rest(
    reading: Reading, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, payloads = begin(reading, pair), fragments(SLICE, 30, 30)
    before, data = pipeline.taken_whole, reading.server.coded(pair.framed(payloads))
    monkeypatch.setattr(transport, "_buffer", bytearray(-(-len(data) // 3)))  # of which three are received, not one
    reading.session = pair.both[1]._session
    begin_again(reading)
    assert reading.read(data) == []
    assert pipeline.taken_whole == before + 1
    assert len(pair.both[1].take()[0]) == len(payloads)
    assert reading.connection._reader is not None
    assert reading.connection._reader.wakes() == 1


async def test_no_more_than_three_times_in_a_wake(
    playing: Reading, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_buffer", bytearray(1))
    begin(playing, pair)
    playing.read(playing.server.coded(OPEN))
    left = playing.server.sock  # its other end has what has not been received
    assert left is not None
    assert len(playing.connection._sock.recv(1000)) == len(playing.server.coded(OPEN)) - 1 - MOST_WAITS


async def test_it_is_waited_for_less_than_a_viewer_could_notice(playing: Reading) -> None:
    seconds = []
    for _ in range(3):
        begin_again(playing)
        seconds.append(took(lambda: playing.receive(OPEN)))
    assert PATIENCE <= min(seconds) < 0.1


async def test_waiting_in_vain_is_given_up_for_a_while(playing: Reading) -> None:
    begin_again(playing)
    for _ in range(MOST_VAIN):
        assert took(lambda: playing.receive(OPEN)) >= PATIENCE
    quick = [took(lambda: playing.receive(OPEN)) < PATIENCE for _ in range(4 * RARELY)]
    assert any(quick)
    assert not all(quick), "now and then it is tried"
    slow = [number for number, one in enumerate(quick, MOST_VAIN) if not one]
    assert {number for number in range(MOST_VAIN, len(quick)) if not number % RARELY} <= set(slow)


async def test_waiting_that_brings_something_is_gone_on_with(
    playing: Reading, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST_VAIN):
        playing.receive(OPEN)
    data = playing.server.coded(OPEN + OPEN)
    playing.read(data)
    monkeypatch.setattr(transport, "_buffer", bytearray(len(data) - 1))
    begin_again(playing)
    for _ in range(3 * MOST_VAIN):
        assert took(lambda: playing.receive(OPEN + OPEN)) >= PATIENCE
    for _ in range(MOST_VAIN - 1):  # the last wait of the wake before brought nothing, and counts anew
        assert took(lambda: playing.receive(OPEN)) >= PATIENCE


async def test_the_end_behind_a_part_is_told(playing: Reading) -> None:
    begin_again(playing)
    data = playing.server.coded(OPEN)
    playing.server.sock.sendall(data)
    playing.server.sock.close()
    assert playing.read() == [(OPEN, playing.clock.now(), native.NOT_PLAIN, None)]
    assert playing.told.closed == [None]


async def test_the_end_behind_a_part_is_not_told_where_the_python_has_closed(playing: Reading) -> None:
    def close(*_: object) -> None:
        playing.connection.close()

    playing.told.take = close  # type: ignore[method-assign]
    begin_again(playing)
    playing.server.sock.sendall(playing.server.coded(OPEN))
    playing.server.sock.close()
    playing.connection._reader.read()  # type: ignore[union-attr]
    assert playing.told.closed == []


async def test_a_record_in_parts_is_taken_and_nobody_told(secret: Reading, pair: Pair) -> None:
    pipeline = begin(secret, pair)
    first, second = (secret.server.coded(pair.framed(PICTURE)) for _ in range(2))
    before, wakes = pipeline.taken_whole, 0
    reader = secret.connection._reader
    assert reader is not None
    for data, brought in ((first[:3], 0), (first[3:40], 0), (first[40:] + second[:20], 1), (second[20:], 1)):
        assert secret.read(data) == []
        wakes += brought
        assert (reader.wakes(), pipeline.taken_whole - before) == (wakes, wakes)
        secret.clock._now += 0.033 * brought
    assert len(pair.both[1].take()[0]) == 2 * len(PICTURE)
    assert secret.told.closed == []


async def test_the_rest_of_a_record_is_waited_for(secret: Reading, pair: Pair) -> None:
    begin(secret, pair)
    secret.session = pair.both[1]._session
    data = secret.server.coded(MARKED)
    begin_again(secret)
    assert took(lambda: secret.read(data[:20])) >= PATIENCE
    assert min(took(secret.read) for _ in range(10)) < PATIENCE, "only where something has come"
    assert secret.read(data[20:]) == [(MARKED, secret.clock.now(), native.NOT_PLAIN, None)]


async def test_an_answer_that_tls_has_is_sent_also_within_a_record(secret: Reading) -> None:
    secret.connection._outgoing.write(b"an answer")
    data = secret.server.coded(b"one") + secret.server.coded(b"two")
    assert secret.read(data[:-1]) == [(b"one", 1001.0, None, None)]
    assert secret.server.sock.recv(100) == b"an answer"
    assert secret.read(data[-1:]) == [(b"two", 1001.0, None, None)]
