"""The bounds of `pictures.c`, `payloads.c` and `sending.c`: what lies on each is taken, what lies beyond it is not.

With these every change by one is found; `tests/fuzz/mutants.py` makes all of them. Where a change would read or write
beyond an object, the sanitizers find it, with which `tests/fuzz/test_native_memory.py` runs these tests as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from relay_worker import native
from tests.unit.native.test_pictures import (
    AUD,
    BODY,
    IDR,
    INTERVAL,
    NEXT_SLICE,
    PPS,
    SEI,
    SLICE,
    SPS,
    START_CODE,
    Pair,
    closing,
    fragments,
    together,
)

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

MOST: Final = 1400
"""Octets of the largest payload that compiled code takes: `MOST_PAYLOAD`."""


@pytest.fixture
def widest() -> Iterator[Pair]:
    """More room than viewers have, for whom it is never cut so."""
    pair = Pair()
    pair.change(max_payload=MOST)
    yield from closing(pair)


SHORTEST: Final = {
    "fragments of an octet": [b"\x7c\x81\x88", b"\x7c\x01a", b"\x7c\x41b"],
    "a slice whose second octet is no more than it has to be": [b"\x61\x80" + BODY[:20]],
    "a keyframe with a start code in it": [SPS, PPS, IDR + START_CODE + IDR],
    "zeros before a unit of 256 octets": [together(SEI + b"\x00\x00", b"\x61\x88" + BODY[:300])],
    "a delimiter alone in a STAP-A": [together(AUD), SLICE],
    "a start code that is none, at the end": [SEI + b"\x00\x00", SLICE],
}


@pytest.mark.parametrize("name", SHORTEST)
def test_what_lies_on_a_bound_is_taken(pair: Pair, name: str) -> None:
    assert [pair.wake(SHORTEST[name]) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    "payloads",
    [
        [b"\x7c\x81\x88abc", b"\x7c\x80\x88abc", b"\x7c\x41abc"],
        [SEI[:1] + START_CODE + SEI, SLICE],
        [together(SEI[:1] + START_CODE + SEI, SLICE)],
    ],
    ids=["a first fragment of nothing amid fragments", "a start code behind the header", "likewise in a STAP-A"],
)
def test_what_lies_beyond_one_is_not(pair: Pair, payloads: list[bytes]) -> None:
    assert pair.wake(payloads) == 0
    pair.wake([SPS, PPS, IDR])
    assert pair.wake([SLICE]) == 1


def test_a_timestamp_of_0_is_like_any_other(pair: Pair) -> None:
    pair.change(_raw=0)
    assert pair.wake([SLICE]) == 1


def test_a_payload_type_of_127_is_no_mark(pair: Pair) -> None:
    for way in pair.both:
        pair.video(way).receiver._payload_type = 127
    marked = pair.framed([SLICE, NEXT_SLICE]).replace(b"\x80\x60", b"\x80\x7f").replace(b"\x80\xe0", b"\x80\xff")
    assert pair.receive(marked) == 1
    assert pair.passthroughs[1].frames == 5


@pytest.mark.parametrize("count", [8, 9])
def test_pictures_of_one_wake(pair: Pair, count: int) -> None:
    pair.now += 90 / 90_000 * count - INTERVAL
    data = b"".join(pair.framed([SLICE], step=90) for _ in range(count))
    assert pair.receive(data) == (count == 8)


# --- packets of the size there is


@pytest.mark.parametrize("sizes", [(61, 61), (62, 62), (62, 61, 62)])
def test_fragments_that_just_fit_go_out_as_they_came(narrow: Pair, sizes: tuple[int, ...]) -> None:
    for piece, mark in zip(pieces := fragments(b"\x61\x88" + BODY[: sum(sizes) + 8], *sizes), "---m", strict=False):
        assert narrow.wake([piece], "m" if piece is pieces[-1] else mark, step=3000 * (piece is pieces[0])) == 1


@pytest.mark.parametrize("sizes", [(62, 63), (63,), (124,), (125,), (100, 23), (100, 24), (100, 25), (100, 24, 62)])
def test_what_is_carried_is_a_packet_at_most(narrow: Pair, sizes: tuple[int, ...]) -> None:
    pieces = fragments(b"\x61\x88" + BODY[: sum(sizes) + 8], *sizes)
    rare = len(sizes) == 2 and sizes[1] > sizes[0] == 62  # a long one behind one that was not cut
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        narrow.now -= INTERVAL if number else 0.0
        taken = narrow.wake([piece], "m" if is_last else "-", step=3000 * (not number))
        assert taken == (not rare or number != 1)
    assert narrow.wake([SLICE]) == 1


@pytest.mark.parametrize("size", [64, 65, 125, 126, 187, 188])
def test_a_unit_is_cut_into_as_few_as_it_takes(narrow: Pair, size: int) -> None:
    assert narrow.wake([(b"\x41\x88" + BODY)[:size]]) == 1
    assert narrow.wake([together(AUD, (b"\x41\x88" + BODY)[: size - 7])]) == 1


def test_the_largest_packets(widest: Pair) -> None:
    assert widest.wake([(b"\x61\x88" + BODY)[:MOST]]) == 1
    pieces = fragments(b"\x61\x88" + BODY * 2, MOST + 800, MOST)
    assert widest.wake(pieces[:1], "-") == 1
    assert widest.wake(pieces[1:], step=0) == 1


@pytest.mark.parametrize("more", [0, 1])
def test_sets_in_one_packet_of_the_largest_size(widest: Pair, more: int) -> None:
    rest = MOST - len(together(SPS, PPS)) - 2 * (2 + 2) + more
    for passthrough in widest.passthroughs:
        for first, part in ((0x5C, 700), (0x7C, rest - 700)):
            assert passthrough.parameter_sets.add(bytes((0x68, first)) + BODY[:part])
    assert widest.wake([IDR]) == 1


def test_how_important_a_set_is_says_its_first_octet(pair: Pair) -> None:
    pair.wake([b"\x27" + SPS[1:], b"\x68\x9c\x80\x80", IDR])
    assert pair.wake([IDR]) == 1


# --- room


@pytest.mark.parametrize("more", [0, 1])
def test_payloads_of_one_wake(narrow: Pair, more: int) -> None:
    slices = [(b"\x61\x88" + BODY)[: 1 + 32 * 62]] + [(b"\x61\x08" + BODY)[: 1 + 32 * 62]] * 3
    assert narrow.wake(slices + [NEXT_SLICE[:10]] * more) == (not more)


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("size", [200, 1197, 1198, 1199])
def test_room_of_payloads_that_are_copied(pair: Pair, size: int, more: int) -> None:
    """Parameter sets that fill it to the last octet."""
    before = together(AUD, SEI, SEI)  # goes out as it came, and is copied when the sets are put
    picture = (b"\x65\x88" + BODY)[: size - len(before) - 2 * (4 + 12)]
    room = size + 2 * (size // 1198 + 2 * 64) + 2048
    rest = room - len(before) - len(picture) - len(SPS) - len(PPS) + more
    for passthrough in pair.passthroughs:
        for first, part in ((0x5C, 700), (0x7C, 800), (0x27, rest - 1500)):
            assert passthrough.parameter_sets.add(bytes((0x68, first)) + BODY[: part - 2])
    assert pair.wake([before, picture]) == (not more)


def test_sets_that_are_put_together_are_as_important_as_the_most_important(pair: Pair) -> None:
    pps = b"\x28" + PPS[1:]
    assert pair.wake([SPS, pps, IDR]) == 0, "a set that is new"
    assert pair.wake([IDR]) == 1
