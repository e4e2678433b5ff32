"""Which pictures compiled code takes, and which it hands back: each condition of `pictures.c`, beside the Python.

Every wake goes through both paths here, and what leaves and what is remembered must be the same either way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.media.stream import Kind
from tests.fuzz import data_paths
from tests.fuzz.camera_streams import MORE_SETS, PPS, SPS
from tests.fuzz.data_paths import DataPath
from tests.unit.native.test_wake import INTERVAL, Terms

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

BODY: Final = bytes(range(1, 201)) * 12
SLICE: Final = b"\x61\x88" + BODY[:100]
NEXT_SLICE: Final = b"\x61\x08" + BODY[:90]
IDR: Final = b"\x65\x88" + BODY[:110]
SEI: Final = b"\x06\x05\x04abcd\x80"
AUD: Final = b"\x09\xf0"
START_CODE: Final = b"\x00\x00\x01"


def fragments(nal: bytes, *sizes: int) -> list[bytes]:
    """FU-A fragments with so many octets of data each, and the rest."""
    ends = [1, *(1 + sum(sizes[: number + 1]) for number in range(len(sizes))), len(nal)]
    last = len(ends) - 2
    return [
        bytes((nal[0] & 0xE0 | 28, nal[0] & 0x1F | 0x80 * (number == 0) | 0x40 * (number == last)))
        + nal[ends[number] : ends[number + 1]]
        for number in range(last + 1)
    ]


def together(*units: bytes) -> bytes:
    """A STAP-A."""
    return b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


class Pair:
    """One camera's packets, through both paths; the camera has sent a keyframe and three pictures."""

    def __init__(self, most: int = 1200) -> None:
        terms: Any = Terms()
        terms.most = most
        self.both = [DataPath("python", terms), DataPath("compiled", terms)]
        self.now, self.timestamp, self.sequence = 1000.0, 90_000, 100
        self.wake([SPS, PPS, IDR])
        for _ in range(3):
            self.wake(fragments(SLICE, 40))

    @property
    def passthroughs(self) -> list[Any]:
        return [self.video(each).passthrough for each in self.both]

    @staticmethod
    def video(way: DataPath) -> Any:
        return way.pipeline.inputs[Kind.VIDEO]

    def change(self, **attributes: object) -> None:
        """Attributes of both passthroughs, as something before has left them."""
        for passthrough in self.passthroughs:
            for name, value in attributes.items():
                assert hasattr(passthrough, name)
                setattr(passthrough, name, value)

    def framed(self, payloads: Sequence[bytes], marks: str = "", step: int = 3000) -> bytes:
        """Packets, `step` behind those before; the last has the mark, or those that have an m in `marks`."""
        self.timestamp = (self.timestamp + step) & 0xFFFFFFFF
        marks = marks or "-" * (len(payloads) - 1) + "m"
        data = b""
        for payload, mark in zip(payloads, marks, strict=True):
            second = 96 | 0x80 * (mark == "m")
            packet = struct.pack("!BBHII", 0x80, second, self.sequence, self.timestamp, 9) + payload
            data += b"$\x00" + len(packet).to_bytes(2, "big") + packet
            self.sequence = (self.sequence + 1) & 0xFFFF
        return data

    def wake(self, payloads: Sequence[bytes], marks: str = "", step: int = 3000) -> int:
        """One wake with these; whether it was taken."""
        return self.receive(self.framed(payloads, marks, step))

    def receive(self, data: bytes) -> int:
        self.now += INTERVAL
        before = self.both[1].pipeline.taken_whole
        for each in self.both:
            each.receive(data, self.now)
        reference, compiled = ({"packets": each.take(), "state": each.state()} for each in self.both)
        data_paths._same("a wake", reference, compiled)
        return self.both[1].pipeline.taken_whole - before


def closing(pair: Pair) -> Iterator[Pair]:
    yield pair
    for each in pair.both:
        each.close()
    native.choose("python")


PLAIN: Final[dict[str, list[bytes]]] = {
    "a packet": [SLICE],
    "the shortest packet": [b"\x61\x88"],
    "slices in a packet each": [SLICE, NEXT_SLICE, NEXT_SLICE],
    "slices in fragments": fragments(SLICE, 40, 30) + fragments(NEXT_SLICE, 50),
    "slices in either": [*fragments(SLICE, 40), NEXT_SLICE],
    "a slice with a start code in it": [SLICE + START_CODE + SLICE],
    "slices in a STAP-A": [together(SLICE, NEXT_SLICE)],
    "a keyframe in a packet": [SPS, PPS, IDR],
    "a keyframe in fragments": [SPS, PPS, *fragments(IDR, 60)],
    "a keyframe of slices": [SPS, PPS, IDR, b"\x65\x08" + BODY[:50]],
    "sets in a STAP-A": [together(SPS, PPS), IDR],
    "all in a STAP-A": [together(AUD, SPS, PPS, SEI, IDR)],
    "a delimiter and SEI": [AUD, SEI, SLICE],
    "a keyframe without sets": [IDR],
    "a long unit before a keyframe without sets": [b"\x06" + BODY[:100], IDR],
    "a keyframe without an SPS": [PPS, IDR],
    "a keyframe without a PPS": [SPS, IDR],
    "a keyframe without sets in a STAP-A": [together(SEI, IDR)],
    "a B-picture in a packet": [b"\x01\xa0" + BODY[:20]],
    "another B-picture": [b"\x01\x9c" + BODY[:20]],
    "a B-picture in fragments": fragments(b"\x01\xa0" + BODY[:20], 5),
    "a keyframe that looks like a B-picture": [SPS, PPS, b"\x65\xa0" + BODY[:20]],
    "a picture of slices of both kinds": [SLICE, b"\x65\x08" + BODY[:50]],
    "what is no start code": [SEI + b"\x00\x05\x01", SEI + b"\x05\x00\x01", together(SEI + b"\x00\x00\x02", SLICE)],
    "a reserved bit": [b"\x7c\xa1\x88abc", b"\x7c\x61abc"],
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_pictures_are_taken(pair: Pair, name: str) -> None:
    assert [pair.wake(PLAIN[name]) for _ in range(2)] == [1, 1]
    assert pair.wake([SLICE]) == 1, "and so is what follows"


@pytest.mark.parametrize("name", PLAIN)
def test_plain_pictures_are_taken_that_have_to_be_cut(narrow: Pair, name: str) -> None:
    assert [narrow.wake(PLAIN[name]) for _ in range(2)] == [1, 1]
    assert narrow.wake([SLICE]) == 1


WHOLE: Final = [together(SPS, PPS), SEI, *fragments(IDR, 30, 40), b"\x65\x08" + BODY[:50]]


@pytest.mark.parametrize("at", range(1, len(WHOLE)))
def test_a_picture_may_come_in_two_wakes(pair: Pair, narrow: Pair, at: int) -> None:
    for each in (pair, narrow):
        assert each.wake(WHOLE[:at], "-" * at) == 1
        assert each.wake(WHOLE[at:], step=0) == 1
        assert each.wake([SLICE]) == 1


def test_two_pictures_may_come_in_one_wake(pair: Pair) -> None:
    assert pair.receive(pair.framed([SPS, PPS, IDR]) + pair.framed([SLICE, NEXT_SLICE])) == 1


def test_keyframes_are_noted(pair: Pair) -> None:
    for way in pair.both:
        pair.video(way).keyframe_at = 0.0  # none before
    assert pair.wake([SPS, PPS, IDR]) == 1
    video = pair.video(pair.both[1])
    assert (video.keyframe_at, video.keyframe_interval) == (pair.now, 0.0)
    assert pair.wake([SLICE]) == 1
    assert video.keyframe_at == pair.now - INTERVAL
    assert pair.wake(fragments(IDR, 30)) == 1
    assert (video.keyframe_at, video.keyframe_interval) == (pair.now, pytest.approx(2 * INTERVAL))
    assert pair.passthroughs[1].keyframes == 3


def test_sets_are_repeated_where_they_have_to_be(pair: Pair) -> None:
    pair.change(repeats_sets=True)
    assert pair.wake([SPS, PPS, IDR]) == 1
    pair.change(repeats_sets=False)
    assert pair.wake([SPS, PPS, IDR]) == 1


@pytest.mark.parametrize("most", [64, 132, 133, 134, 1200])
def test_many_sets_are_put_in_one_packet_where_they_fit(most: int) -> None:
    for pair in closing(Pair(most)):
        for passthrough in pair.passthroughs:
            for nal in MORE_SETS:
                assert passthrough.parameter_sets.add(nal)
        assert len(together(SPS, PPS, *MORE_SETS)) == 133
        assert pair.wake([IDR]) == 1
        assert pair.wake([together(SEI, IDR)]) == 1


def test_each_of_many_sets_is_known(pair: Pair) -> None:
    for passthrough in pair.passthroughs:
        for nal in MORE_SETS:
            assert passthrough.parameter_sets.add(nal)
    assert pair.wake([SPS, PPS, *MORE_SETS, IDR]) == 1
    assert pair.wake([together(*reversed(MORE_SETS), PPS, SPS), IDR]) == 1


def test_sets_that_are_put_are_as_important_as_the_most_important_of_them(pair: Pair) -> None:
    for passthrough in pair.passthroughs:
        assert passthrough.parameter_sets.add(b"\x08\x5c\x80\x80")
    assert pair.wake([IDR]) == 1


def test_long_sets_are_put_in_fragments(narrow: Pair) -> None:
    for passthrough in narrow.passthroughs:
        assert passthrough.parameter_sets.add(b"\x68\x5c" + BODY[:100])
    assert narrow.wake([IDR]) == 1


@pytest.mark.parametrize("size", [63, 64, 65, 126, 127, 188, 189, 190])
def test_units_are_cut_into_packets_of_the_size_there_is(narrow: Pair, size: int) -> None:
    nal = (b"\x41\x88" + BODY)[:size]
    assert narrow.wake([nal]) == 1
    assert narrow.wake(fragments(nal, 3)) == (size - 4 <= 62), "a long fragment behind one that was not cut is rare"
    assert narrow.wake([together(nal[:30], NEXT_SLICE[: size - 33])]) == 1
    assert narrow.wake([together(nal)]) == 1


@pytest.mark.parametrize("step", [1, 44_999, 45_000, 70_000])
def test_a_long_pause_says_nothing_of_the_interval(pair: Pair, step: int) -> None:
    pair.change(_sharing=2)
    pair.now += step / 90_000 - INTERVAL
    assert pair.wake([SLICE], step=step) == 1


def test_time_that_was_up_ends_a_picture_as_well(pair: Pair) -> None:
    pair.change(_timed=True)
    assert pair.wake([SLICE]) == 1


def test_trust_begins_with_a_unit_before_a_picture_that_is_not_marked(pair: Pair) -> None:
    pair.change(_distrusted=1)
    assert pair.wake([SEI, SLICE]) == 1
    pair.change(_distrusted=1, _warned=True)
    assert pair.wake([SEI, SLICE]) == 0


HANDED_BACK: Final[dict[str, tuple[list[bytes], str]]] = {
    "an empty payload": ([b""], ""),
    "a header octet": ([b"\x61"], ""),
    "a packet amid fragments": ([*fragments(SLICE, 30)[:1], NEXT_SLICE], ""),
    "a packet without a mark amid fragments": ([*fragments(SLICE, 30)[:1], NEXT_SLICE], "--"),
    "fragments amid fragments": ([*fragments(SLICE, 30)[:1], *fragments(NEXT_SLICE, 30)], ""),
    "a STAP-A amid fragments": ([*fragments(SLICE, 30)[:1], together(NEXT_SLICE, NEXT_SLICE)], ""),
    "a header octet behind a slice": ([SLICE, b"\x61"], ""),
    "an empty first fragment behind a slice": ([SLICE, b"\x7c\x81"], "--"),
    "an empty first fragment": ([b"\x7c\x81", b"\x7c\x41\x88abc"], ""),
    "an empty last fragment": ([b"\x7c\x81\x88abc", b"\x7c\x41"], ""),
    "an empty fragment": ([b"\x7c\x81\x88abc", b"\x7c\x01", b"\x7c\x41abc"], ""),
    "a marked first fragment": (fragments(SLICE, 30), "mm"),
    "a marked fragment": (fragments(SLICE, 30, 30), "-mm"),
    "fragments without the first": (fragments(SLICE, 30)[1:], ""),
    "the last fragment alone": ([b"\x7c\x41\x88abc"], "-"),
    "a fragment alone": ([b"\x7c\x01\x88abc"], "-"),
    "a first and last fragment without a mark": ([b"\x7c\xc1\x88abc"], "-"),
    "SEI behind fragments": ([*fragments(SLICE, 30), SEI], ""),
    "a first and last fragment": ([b"\x7c\xc1\x88abc"], ""),
    "two first fragments": ([b"\x7c\x81\x88abc", b"\x7c\x81\x88abc", b"\x7c\x41abc"], ""),
    "fragments of a partition": (fragments(b"\x62\x88" + BODY[:50], 20), ""),
    "fragments of SEI": (fragments(b"\x06\x05" + BODY[:50], 20), ""),
    "fragments of a known set": ([*fragments(SPS, 10), PPS, IDR], ""),
    "fragments of nothing": (fragments(b"\x60\x88" + BODY[:50], 20), ""),
    "a STAP-A with half a size": ([together(SLICE) + b"\x00"], ""),
    "a STAP-A with padding": ([together(SLICE) + b"\x00\x00"], ""),
    "a STAP-A with an octet": ([together(SLICE, b"\x61")], ""),
    "a STAP-A cut short": ([together(SLICE, NEXT_SLICE)[:-1]], ""),
    "a STAP-A with a start code": ([together(SEI, SLICE + START_CODE + NEXT_SLICE)], ""),
    "a STAP-A with a start code at the end of a unit": ([together(SEI + START_CODE, SLICE)], ""),
    "a STAP-A with end of sequence": ([together(SLICE, b"\x0a\x80")], ""),
    "a STAP-A with a STAP-A": ([together(SLICE, together(NEXT_SLICE))], ""),
    "a STAP-A with an unknown set": ([together(SPS, b"\x68\x5c\x80\x80", IDR)], ""),
    "a set with a start code": ([SPS, PPS + START_CODE + SEI, IDR], ""),
    "a start code before SEI": ([START_CODE + SEI, SLICE], ""),
    "nothing": ([b"\x60\x88" + BODY[:20]], ""),
    "a partition": ([b"\x62\x88" + BODY[:20]], ""),
    "end of sequence": ([b"\x0a\x88", SLICE], ""),
    "filler data": ([SLICE, b"\x0c\xff\x80"], ""),
    "a prefix of layers": ([b"\x6e\x88\x80", SLICE], ""),
    "a packet with interleaving": ([b"\x79\x00\x00" + together(SLICE)[1:]], ""),
    "a marked unit before the picture": ([SEI, SLICE], "mm"),
    "a marked delimiter alone": ([AUD], "m"),
    "a marked set": ([SPS, PPS, IDR], "-mm"),
    "a slice behind a marked one": ([SLICE, NEXT_SLICE], "mm"),
    "a first slice behind a marked one": ([SLICE, SLICE], "mm"),
    "a slice that is not the first": ([NEXT_SLICE], ""),
    "fragments of a slice that is not the first": (fragments(NEXT_SLICE, 20), ""),
    "SEI behind a slice": ([SLICE, SEI], ""),
    "SEI amid slices": ([SLICE, SEI, NEXT_SLICE], ""),
    "a set behind a slice": ([SLICE, PPS], "-m"),
    "another SPS": ([SPS[:3] + b"\x20" + SPS[4:], PPS, IDR], ""),
    "a longer SPS": ([SPS + b"\x80", PPS, IDR], ""),
    "another PPS": ([SPS, b"\x68\xce\x3c\x81", IDR], ""),
    "a PPS of another id": ([SPS, b"\x68\x5c\x80\x80", IDR], ""),
    "half a PPS": ([SPS, PPS[:2], IDR], ""),
}


@pytest.mark.parametrize("name", HANDED_BACK)
def test_what_is_not_plain_is_handed_back(pair: Pair, name: str) -> None:
    payloads, marks = HANDED_BACK[name]
    assert pair.wake(payloads, marks) == 0


CHANGED: Final[dict[str, tuple[dict[str, object], list[bytes]]]] = {
    "a first fragment that was empty": ({"_starts_late": True}, [SLICE]),
    "marks that mean nothing": ({"_mistrusted": True}, fragments(SLICE, 30)[:1]),
    "marks that are left out": ({"_omits": True}, fragments(SLICE, 30)[:1]),
    "fields": ({"_fields": True}, [SLICE]),
    "a fragment that is not the last": ({"_in_fragment": True}, [SLICE]),
    "something carried": ({"_carry": b"abc"}, fragments(SLICE, 30)),
    "the beginning": ({"_stage": 0}, [SLICE]),
    "the beginning, before SEI": ({"_stage": 0}, [SEI, SLICE]),
    "a picture that has not ended": ({"_closed": False, "_marked": False}, [SLICE]),
    "pictures that shared a timestamp": ({"_shift": 1500}, [SLICE]),
    "no picture before": ({"_raw": -1}, [SLICE]),
    "marks that were wrong": ({"_distrusted": 3}, [SLICE]),
    "marks that were wrong, before SEI": ({"_distrusted": 3, "_warned": True}, [SEI, SLICE]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_before_may_make_it_not_plain(pair: Pair, name: str) -> None:
    attributes, payloads = CHANGED[name]
    pair.change(**attributes)
    begun = payloads == fragments(SLICE, 30)[:1]
    assert pair.wake(payloads, "-" if begun else "") == 0


def test_nothing_is_taken_while_a_keyframe_is_waited_for(pair: Pair) -> None:
    for way in pair.both:
        way.pipeline.resync()
    assert [pair.wake([SLICE]), pair.wake([SEI], "-"), pair.wake([SPS, PPS, IDR])] == [0, 0, 0]
    assert pair.wake([SLICE]) == 1


def test_a_timestamp_that_was_there_before_the_last_one(pair: Pair) -> None:
    pair.change(_raw=(pair.timestamp + 3000) & 0xFFFFFFFF)
    assert pair.wake([SLICE]) == 0


def test_a_picture_that_goes_on_when_its_time_was_up(pair: Pair) -> None:
    assert pair.wake([SLICE], "-") == 1
    pair.change(_closed=True, _timed=True)
    assert pair.wake([NEXT_SLICE], step=0) == 0


def test_a_picture_that_goes_on_behind_a_mark(pair: Pair) -> None:
    assert pair.wake([SLICE], "-") == 1
    pair.change(_marked=True)
    assert pair.wake([NEXT_SLICE], step=0) == 0


def test_a_picture_whose_last_fragments_have_another_timestamp(pair: Pair) -> None:
    first, last = fragments(SLICE, 30)
    assert pair.wake([first], "-") == 1
    assert pair.wake([last], step=1) == 0


@pytest.mark.parametrize("name", ["_distrusted", "_omits", "_mistrusted"])
def test_the_end_of_fragments_is_handed_back_where_marks_are_not_trusted(pair: Pair, name: str) -> None:
    first, last = fragments(SLICE, 30)
    assert pair.wake([first], "-") == 1
    pair.change(**{name: True})
    assert pair.wake([last], step=0) == 0


def test_a_path_with_more_room_than_packets_have(narrow: Pair) -> None:
    pieces = fragments(b"\x61\x88" + BODY, 500, 50, 40)
    assert narrow.wake(pieces[:2], "--") == 1
    narrow.change(max_payload=2000)
    assert narrow.wake(pieces[2:3], "-", step=0) == 0


def test_fragments_that_have_become_too_long(pair: Pair) -> None:
    pieces = fragments(b"\x61\x88" + BODY, 50, 500, 40)
    assert pair.wake(pieces[:1], "-") == 1
    pair.change(max_payload=300)
    assert pair.wake(pieces[1:2], "-", step=0) == 0


def test_more_is_carried_than_a_packet_has_room_for(pair: Pair) -> None:
    pieces = fragments(b"\x61\x88" + BODY, 1500, 50, 40)
    assert pair.wake(pieces[:1], "-") == 1
    pair.change(max_payload=100)
    assert pair.wake(pieces[1:2], "-", step=0) == 0


def test_sets_of_which_one_kind_is_missing(pair: Pair) -> None:
    for name in ("_sps", "_pps"):
        for passthrough in pair.passthroughs:
            getattr(passthrough.parameter_sets, name).clear()
        assert pair.wake([IDR]) == 0
        pair.wake([SPS, PPS, IDR])
        assert pair.wake([SLICE]) == 1


def test_pictures_that_may_be_fields(pair: Pair) -> None:
    for passthrough in pair.passthroughs:
        sets = passthrough.parameter_sets
        sets.info = sets.info._replace(frames_only=False)
    assert pair.wake([SPS, PPS, IDR]) == 0


def test_more_payloads_than_one_wake_has_room_for(narrow: Pair) -> None:
    assert narrow.wake([b"\x61\x88" + BODY[:2000]] * 3) == 1
    assert narrow.wake([b"\x61\x88" + BODY[:2000]] * 4) == 0


def test_more_sets_than_there_is_room_for(pair: Pair) -> None:
    for passthrough in pair.passthroughs:
        for first in (0x5C, 0x7C, 0x27):
            assert passthrough.parameter_sets.add(bytes((0x68, first)) + BODY[:900])
    assert pair.wake([IDR]) == 0


def test_what_cannot_be_is_left_to_the_python(pair: Pair) -> None:
    pair.change(_sharing=0)
    fails(pair, [SLICE], ZeroDivisionError)


@pytest.mark.parametrize("payloads", [[SPS], [PPS], [IDR]], ids=["SPS", "PPS", "IDR"])
def test_sets_that_are_not_there_are_left_to_the_python(pair: Pair, payloads: list[bytes]) -> None:
    pair.change(parameter_sets=object())
    fails(pair, payloads, AttributeError)


def fails(pair: Pair, payloads: list[bytes], error: type[Exception]) -> None:
    data = pair.framed(payloads)
    for each in pair.both:
        with pytest.raises(error):
            each.receive(data, pair.now + INTERVAL)
