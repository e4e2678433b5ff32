"""Payloads that are not one clean NAL unit: split at start codes, strip, skip, and go on."""

from __future__ import annotations

import base64

import pytest

from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.parameter_sets import ParameterSets
from relay_worker.rtp.h264 import fragment, join_stap_a, split_nal, split_stap_a

pytestmark = pytest.mark.usefixtures("data_path")

SPS = bytes.fromhex("674d401eda0280bfe5840000030004000003 00f03c58ba80")
PPS = bytes.fromhex("68ee3c80")
SEI = b"\x06\x05\x01\x00\x80"
IDR = b"\x65\x88" + b"i" * 300
P = b"\x41\x9a" + b"p" * 300
LONG, SHORT = b"\x00\x00\x00\x01", b"\x00\x00\x01"
SETS = join_stap_a([SPS, PPS])


class Receiver:
    """Takes the relay's payloads apart, as a viewer does: NAL units of each access unit."""

    def __init__(self, sprop: str = "") -> None:
        self.passthrough = H264Passthrough(100, sprop)
        self.units: list[list[bytes]] = []
        self._assembler = AccessUnitAssembler()

    def take(self, *payloads: bytes, at: int = 0, marker: bool = True) -> None:
        """One access unit in these payloads; the last is marked."""
        for index, payload in enumerate(payloads):
            last = index == len(payloads) - 1
            out = self.passthrough.receive_payload(payload, marker and last, at, 0)
            earlier, self.passthrough.earlier = self.passthrough.earlier, []
            for stamp, items in [*earlier, (self.passthrough.timestamp, out)]:
                for item, mark in items:
                    assert 2 < len(item) <= 100
                    for unit in self._assembler.receive_payload(item, mark, stamp):
                        assert unit.complete
                        self.units.append([nal for nal in unit.data.split(LONG) if nal])
        self.passthrough.end_waiting()
        earlier, self.passthrough.earlier = self.passthrough.earlier, []
        for stamp, items in earlier:
            for item, mark in items:
                self.units += [
                    [nal for nal in unit.data.split(LONG) if nal]
                    for unit in self._assembler.receive_payload(item, mark, stamp)
                ]


def bare_fragments(data: bytes, size: int = 60) -> list[bytes]:
    """`data` in FU-A fragments by a packetizer that takes it for one NAL unit."""
    pieces = fragment(data, size)
    assert len(pieces) > 2
    return pieces


STREAM = LONG + SPS + SHORT + PPS + LONG + IDR


@pytest.mark.parametrize(
    "payloads",
    [
        [STREAM],
        [STREAM[4:]],
        bare_fragments(STREAM),
        bare_fragments(STREAM[4:]),
        [LONG + SPS, SHORT + PPS, LONG + IDR],
        [LONG + SPS, LONG + PPS, *bare_fragments(LONG + IDR)],
        [SPS + LONG + PPS, *bare_fragments(SHORT + IDR)],
        [SPS, PPS + SHORT + IDR],
        [join_stap_a([LONG + SPS, PPS]), *bare_fragments(IDR)],
        [join_stap_a([SPS + LONG + PPS, IDR])],
    ],
    ids=str,
)
def test_start_codes_separate_nal_units(payloads: list[bytes]) -> None:
    receiver = Receiver()
    receiver.take(*payloads)
    receiver.take(P, at=3000)
    assert receiver.units == [[SPS, PPS, IDR], [P]]
    assert receiver.passthrough.annex_b >= 1
    assert (receiver.passthrough.malformed, receiver.passthrough.losses) == (0, 0)


def test_a_slice_behind_a_start_code_is_cut_through() -> None:
    receiver = Receiver()
    receiver.take(SPS, PPS, marker=False)
    pieces = bare_fragments(LONG + IDR, 90)
    gone = [receiver.passthrough.receive_payload(piece, piece is pieces[-1], 0, 0) for piece in pieces]
    assert all(gone[1:])
    assert [len(payload) for payload, _ in gone[1]] == [100]


def test_start_codes_in_the_description_are_stripped() -> None:
    for sprop in (
        base64.b64encode(LONG + SPS + LONG + PPS).decode(),
        ",".join(base64.b64encode(LONG + nal).decode() for nal in (SPS, PPS)),
    ):
        sets = ParameterSets()
        sets.add_sprop(sprop)
        assert (sets.nals(), sets.malformed) == ([SPS, PPS], 0)
        receiver = Receiver(sprop)
        receiver.take(IDR)
        assert receiver.units == [[SPS, PPS, IDR]]


@pytest.mark.parametrize("padding", [b"\x00", b"\x00\x00", bytes(9)])
def test_zeros_behind_the_last_unit_of_an_aggregate_are_padding(padding: bytes) -> None:
    assert split_stap_a(SETS + padding) == [SPS, PPS]
    receiver = Receiver()
    receiver.take(SETS + padding, IDR)
    assert receiver.units == [[SPS, PPS, IDR]]
    receiver.take(SETS + padding, IDR, at=3000)
    assert receiver.units[1] == [SPS, PPS, IDR]
    assert (receiver.passthrough.padded, receiver.passthrough.malformed) == (2, 0)


def test_an_empty_fragment_is_left_out() -> None:
    first, *rest = bare_fragments(IDR, 90)
    empty = first[:1] + b"\x05"
    receiver = Receiver()
    receiver.take(SPS, PPS, first, empty, *rest[:-1], empty, rest[-1])
    receiver.take(P, at=3000)
    assert receiver.units == [[SPS, PPS, IDR], [P]]
    assert (receiver.passthrough.empty, receiver.passthrough.malformed) == (2, 0)


@pytest.mark.parametrize("size", [90, 130])
def test_an_empty_first_fragment_leaves_the_start_to_the_next(size: int) -> None:
    first, *rest = bare_fragments(IDR, size)
    plain = first[:1] + b"\x05" + first[2:]
    receiver = Receiver()
    receiver.take(SPS, PPS, first[:2], plain, *rest)
    assert receiver.units == [[SPS, PPS, IDR]]


@pytest.mark.parametrize("size", [90, 130])
def test_an_empty_last_fragment_ends_the_unit(size: int) -> None:
    pieces = bare_fragments(IDR, size)
    pieces[-1] = pieces[-1][:1] + b"\x05" + pieces[-1][2:]
    receiver = Receiver()
    receiver.take(SPS, PPS, *pieces, pieces[0][:1] + b"\x45")
    receiver.take(P, at=3000)
    assert [[nal.rstrip(b"\x00") for nal in unit] for unit in receiver.units] == [[SPS, PPS, IDR], [P]]
    assert receiver.passthrough.frames == 2


def test_a_fragment_with_another_timestamp_stays_in_its_unit() -> None:
    passthrough = H264Passthrough(100)
    passthrough.receive_payload(SETS, False, 0, 0)
    pieces = fragment(IDR, 90)
    for index, piece in enumerate(pieces):
        assert passthrough.receive_payload(piece, piece is pieces[-1], index, 0)
    assert (passthrough.timestamp, passthrough.frames, passthrough.malformed) == (0, 1, 0)


def test_what_was_under_way_when_a_keyframe_was_asked_for_is_not_sent() -> None:
    receiver = Receiver()
    receiver.take(SETS, IDR)
    passthrough = receiver.passthrough
    first, *rest = fragment(P, 90)
    assert passthrough.receive_payload(first, False, 3000, 0)
    passthrough.hold_until_keyframe()
    assert [passthrough.receive_payload(piece, piece is rest[-1], 3000, 0) for piece in rest] == [[]] * len(rest)
    assert passthrough.receive_payload(SETS, False, 6000, 0) == []
    assert passthrough.receive_payload(IDR[:50], True, 6000, 0) == [(SETS, False), (IDR[:50], True)]
    assert (passthrough.losses, passthrough.frames) == (0, 2)


def test_split_nal() -> None:
    assert split_nal(IDR) == [IDR]
    assert split_nal(STREAM) == split_nal(STREAM[4:]) == [SPS, PPS, IDR]
    assert split_nal(LONG) == split_nal(SHORT * 3) == []


@pytest.mark.parametrize("damaged", [b"\x67\x42", b"\x68"])
def test_a_parameter_set_that_cannot_be_read_is_left_out(damaged: bytes) -> None:
    receiver = Receiver()
    receiver.take(SETS, IDR)
    receiver.take(damaged, P, at=3000)
    receiver.take(SETS, IDR, at=6000)
    assert all(damaged not in unit for unit in receiver.units)
    assert [unit[-1] for unit in receiver.units] == [IDR, P, IDR]
