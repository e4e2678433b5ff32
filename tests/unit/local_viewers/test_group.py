"""The group of pictures that late joiners get: whole, bounded, and pressed to the present."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from relay_worker.local.group import MAX_BYTES, OF_FRAME, OF_PAYLOAD, PRESSED, HeldGroup
from relay_worker.media.stream import Frame, Kind
from relay_worker.rtp.h264 import join_stap_a

IDR, SLICE, SPS, PPS = b"\x65" + bytes(400), b"\x41" + bytes(100), b"\x67\x42", b"\x68\xce"
DELIMITER = b"\x09\x10"


def frame(time: float, *payloads: bytes) -> Frame:
    return Frame(Kind.VIDEO, [(payload, place == len(payloads) - 1) for place, payload in enumerate(payloads)], time)


def filled(pictures: int) -> HeldGroup:
    group = HeldGroup(from_start=True)
    for number in range(pictures):
        group.add(frame(10.0 + number / 30, SPS, IDR) if not number else frame(10.0 + number / 30, SLICE))
    return group


def test_a_group_begins_with_its_keyframe_and_ends_with_the_newest_picture() -> None:
    group = filled(90)
    pictures = group.pressed()
    assert len(pictures) == 90
    assert pictures[0].payloads == [(SPS, False), (IDR, True)]
    octets = sum(len(payload) for picture in pictures for payload, _ in picture.payloads)
    assert group.bytes == octets + 90 * OF_FRAME + 91 * OF_PAYLOAD


def test_a_player_that_keeps_the_distances_shows_the_newest_picture_at_once() -> None:
    group = filled(90)
    times = [picture.media_time for picture in group.pressed()]
    assert times[-1] == 10.0 + 89 / 30, "the newest is where sound and what follows expect it"
    assert times[-1] - times[0] <= PRESSED
    assert all(later - earlier > 1 / 90_000 for earlier, later in itertools.pairwise(times))


def test_a_short_group_keeps_its_times() -> None:
    group = HeldGroup(from_start=True)
    group.add(frame(10.0, SPS, IDR))
    group.add(frame(10.01, SLICE))
    assert [picture.media_time for picture in group.pressed()] == [10.0, 10.01]


def test_parts_of_one_picture_stay_one_picture() -> None:
    group = filled(30)
    group.add(frame(11.0, SLICE))
    group.add(frame(11.0, SLICE))
    times = [picture.media_time for picture in group.pressed()]
    assert times[-2:] == [11.0, 11.0]


def test_a_later_slice_of_a_keyframe_begins_no_group() -> None:
    group = HeldGroup()
    group.add(frame(1.0, IDR))  # the first picture seen: what came before of it is not known
    assert group.pressed() == []
    group.add(frame(2.0, DELIMITER))  # which may come by itself
    group.add(frame(2.0, SPS, IDR))
    assert group.begins
    group.add(frame(2.0, IDR))
    assert not group.begins
    assert len(group.pressed()) == 2


@pytest.mark.parametrize(
    ("first", "begins"),
    [
        ((DELIMITER, SPS, PPS), [True, False]),
        ((DELIMITER,), [False, True]),
        ((DELIMITER, SLICE), [False, False]),
        ((DELIMITER, IDR), [True, False]),
    ],
)
def test_what_an_aggregate_holds_decides(first: tuple[bytes, ...], begins: list[bool]) -> None:
    """Cameras may send their delimiter in one packet with the parameter sets, in a wake of its own."""
    group = filled(2)
    found = []
    for payload in (join_stap_a(first), IDR):
        group.add(frame(2.0, payload))
        found.append(group.begins)
    assert found == begins


def test_a_keyframe_that_comes_packet_by_packet_is_held_with_its_parameter_sets() -> None:
    group = filled(2)
    for parts in ((DELIMITER,), (SPS,), (PPS,), (IDR,), (IDR,)):
        group.add(frame(2.0, *parts))
    assert [payload for part in group.pressed() for payload, _ in part.payloads] == [SPS, PPS, IDR, IDR]


def test_a_group_that_is_too_long_is_let_go_and_the_next_is_held() -> None:
    group = filled(1)
    number = 0
    while group.bytes:
        number += 1
        group.add(frame(10.0 + number / 30, b"\x41" + bytes(60_000)))
        assert group.bytes <= MAX_BYTES
    assert group.too_long == 1
    group.add(frame(99.0, SLICE))
    assert group.pressed() == [], "nothing without its keyframe"
    group.add(frame(100.0, SPS, IDR))
    assert len(group.pressed()) == 1


@pytest.mark.parametrize(("size", "payloads"), [(1200, 8), (1200, 1), (20, 30), (2, 1)])
def test_it_takes_no_more_memory_than_its_bound_however_small_the_payloads_are(size: int, payloads: int) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        group, most, counted = HeldGroup(from_start=True), 0, 0
        for number in itertools.count():
            octets = bytearray((IDR if not number else SLICE)[:1] + bytes(size - 1))
            group.add(Frame(Kind.VIDEO, [(memoryview(octets), False)] * payloads, 10.0 + number / 30))
            if group.too_long:
                break
            most, counted = tracemalloc.get_traced_memory()[0] - before, group.bytes
    finally:
        tracemalloc.stop()
    assert most <= 1.05 * MAX_BYTES
    assert counted >= 0.95 * MAX_BYTES, "and it is used"
    assert group.bytes == 0


def test_what_is_held_is_nobody_elses_buffer() -> None:
    buffer = bytearray(b"\x65" + bytes(50))
    group = HeldGroup(from_start=True)
    kept = group.add(Frame(Kind.VIDEO, [(memoryview(buffer), True)], 1.0))
    buffer[1:] = b"x" * 50
    assert kept.payloads == [(b"\x65" + bytes(50), True)] == group.pressed()[0].payloads
