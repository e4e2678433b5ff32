"""However records are made and a network cuts them: what leaves is what the Python sends of the same pictures."""

from __future__ import annotations

import random
from typing import Any

import pytest

from relay_worker import native
from tests.unit.native.test_pictures import IDR, NEXT_SLICE, PPS, SLICE, SPS, Pair, fragments
from tests.unit.native.test_reading import Reading, begin, reading

__all__ = ["reading"]  # a fixture

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

WAKES = 60


def pictures(rng: random.Random, pair: Pair, count: int) -> bytes:
    """So many of the camera, and now and then something else beside them."""
    data = b""
    for _ in range(count):
        nals = rng.choice(([SLICE], [SLICE, NEXT_SLICE], [SPS, PPS, IDR]))
        data += pair.framed([part for nal in nals for part in fragmented(rng, nal)])
        if rng.randrange(8) == 0:
            data += b"$\x03\x00\x08\x80\xc9\x00\x01" + bytes(4)  # a receiver report of the sound's
    return data


def fragmented(rng: random.Random, nal: bytes) -> list[bytes]:
    sizes = [rng.randrange(2, 40) for _ in range(rng.randrange(3))]
    return fragments(nal, *sizes) if sizes and len(nal) > sum(sizes) + 2 else [nal]


def cut(rng: random.Random, data: bytes, most: int) -> list[bytes]:
    """In parts of up to `most` octets."""
    parts = []
    while data:
        size = rng.randrange(1, most)
        parts.append(data[:size])
        data = data[size:]
    return parts


def media(left: list[list[bytes]]) -> list[list[bytes]]:
    """Without sender reports, which leave behind the first run that finds them due: of a picture, or its beginning."""
    return [[packet for packet in packets if packet[1] != 200] for packets in left]


@pytest.mark.parametrize("seed", range(12))
async def test_what_leaves_is_the_same(reading: Reading, pair: Pair, seed: int) -> None:
    rng, way = random.Random(seed), pair.both[1]
    pipeline: Any = begin(reading, pair)
    reading.session = way._session

    def take(data: bytes, now: float, done: int | None, problem: Exception | None) -> None:
        """As `RtspSource._take`."""
        assert problem is None
        if done != native.DONE:
            done = pipeline.take_wake(way._feed, data, now, done)
        if done == native.OTHERS_LEFT:
            pipeline.take_left(way._feed, now)
        elif done != native.DONE:
            way._wide, wide = False, way._wide
            way.receive(data, now)
            way._wide = wide

    reading.told.take = take  # type: ignore[method-assign]
    reading.connection.read_by(native.decide("compiled"), reading.clock, pipeline, way._session, reading.source, take)  # type: ignore[arg-type]
    records, segments = rng.choice((30, 200, 2000)), rng.choice((10, 60, 400, 4000))
    for _ in range(WAKES):
        count = rng.choice((1, 1, 1, 2, 4))
        pair.now += count / 30
        reading.clock._now = way._clock._now = pair.now
        data = pictures(rng, pair, count)
        pair.both[0].receive(data, pair.now)
        stream = b"".join(reading.server.coded(part) for part in cut(rng, data, records))
        for segment in cut(rng, stream, segments):
            reading.server.sock.sendall(segment)
            reading.connection._reader.read()  # type: ignore[union-attr]
        for connection in way.connections:
            connection._pump(pair.now)
        reference, compiled = (media(each.take()) for each in pair.both)
        assert reference == compiled
    assert pipeline.taken_whole + pipeline.taken_in > WAKES / 2
