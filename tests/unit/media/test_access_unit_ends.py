"""Picture boundaries are ours: exactly one marked packet leaves for each access unit, whatever the camera marks."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.access_unit_ends import CLOSING, DISTRUSTED
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.rtp.h264 import fragment, join_stap_a
from tests.unit.media.test_h264_passthrough import FRAMES, clip, decode

pytestmark = pytest.mark.usefixtures("data_path")

SPS = bytes.fromhex("674d401eda0280bfe5840000030004000003 00f03c58ba80")
PPS = bytes.fromhex("68ee3c80")
SPROP = ",".join(base64.b64encode(nal).decode() for nal in (SPS, PPS))
SEI, AUD = b"\x06\x05\x01\x00\x80", b"\x09\xf0"
IDR, IDR2 = b"\x65\x88" + b"i" * 20, b"\x65\x40" + b"j" * 20  # first_mb_in_slice 0, and not
P, P2 = b"\x41\x9a" + b"p" * 20, b"\x41\x40" + b"q" * 20
FRAME = 3000

Packet = tuple[bytes, bool, int]
"""Payload, marker, timestamp."""


class Receiver:
    """What leaves: each payload with its marker and timestamp."""

    def __init__(self, sprop: str = "", max_payload: int = 100) -> None:
        self.passthrough = H264Passthrough(max_payload, sprop)
        self.sent: list[Packet] = []

    def take(self, *packets: Packet, lost: int = 0) -> list[Packet]:
        """What leaves because these packets come, one by one."""
        before = len(self.sent)
        for payload, marker, timestamp in packets:
            out = self.passthrough.receive_payload(payload, marker, timestamp, lost)
            lost = 0
            self._keep(out)
        return self.sent[before:]

    def wait(self) -> list[Packet]:
        """What leaves because nothing more comes."""
        before = len(self.sent)
        self.passthrough.end_waiting()
        self._keep([])
        return self.sent[before:]

    def _keep(self, out: list[tuple[bytes, bool]]) -> None:
        earlier, self.passthrough.earlier = self.passthrough.earlier, []
        for at, payloads in [*earlier, (self.passthrough.timestamp, out)]:
            self.sent += [(payload, marker, at) for payload, marker in payloads]

    def marks(self) -> list[int]:
        """Timestamps of marked packets."""
        return [at for _, marker, at in self.sent if marker]


def sane() -> list[Packet]:
    """Thirty pictures of two slices, an IDR picture with its sets every ten; only each last packet is marked."""
    packets: list[Packet] = []
    for index in range(30):
        nals = [SPS, PPS, SEI, IDR, IDR2] if index % 10 == 0 else [P, P2]
        packets += [(nal, nal is nals[-1], index * FRAME) for nal in nals]
    return packets


def never(packets: list[Packet]) -> list[Packet]:
    return [(payload, False, at) for payload, _, at in packets]


def each(packets: list[Packet]) -> list[Packet]:
    return [(payload, True, at) for payload, _, at in packets]


def only_before(packets: list[Packet]) -> list[Packet]:
    return [(payload, payload == SEI, at) for payload, _, at in packets]


def each_slice(packets: list[Packet]) -> list[Packet]:
    return [(payload, payload[0] & 0x1F <= 5, at) for payload, _, at in packets]


CAMERAS: dict[str, Callable[[list[Packet]], list[Packet]]] = {
    "sane": list,
    "never": never,
    "each": each,
    "before": only_before,
    "slices": each_slice,
}


@pytest.mark.parametrize("sprop", ["", SPROP], ids=["in band", "out of band"])
@pytest.mark.parametrize("name", list(CAMERAS))
def test_one_marked_packet_for_each_picture_and_it_is_the_last(name: str, sprop: str) -> None:
    packets = CAMERAS[name](sane())
    if sprop:
        packets = [packet for packet in packets if packet[0] not in (SPS, PPS, SEI)]
    receiver = Receiver(sprop)
    receiver.take(*packets)
    receiver.wait()
    pictures = [index * FRAME for index in range(30)]
    # Sets without marks vouch for the marks behind them: such a camera is found out by its first picture.
    known = int(name == "slices" and not sprop)
    assert receiver.marks()[known:] == pictures
    for at in pictures:
        assert [marker for _, marker, stamp in receiver.sent if stamp == at][-1]
    slices = [(payload, at) for payload, _, at in packets if payload[0] & 0x1F <= 5]
    assert [(payload, at) for payload, _, at in receiver.sent if payload[0] & 0x1F <= 5] == slices
    assert receiver.passthrough.frames == 30 + known
    assert receiver.passthrough.keyframes == 3


def test_a_sane_camera_is_cut_through() -> None:
    receiver = Receiver()
    for packet in sane():
        left = receiver.take(packet)
        assert receiver.passthrough.held is None
        if packet[0] in (P, P2):
            assert left == [packet]
    passthrough = receiver.passthrough
    assert (passthrough.unmarked, passthrough.misplaced, passthrough.split) == (0, 0, 0)


def test_a_camera_without_sets_in_band_is_trusted_after_one_picture() -> None:
    receiver = Receiver(SPROP)
    receiver.take((IDR, True, 0))
    assert receiver.passthrough.held == IDR
    assert receiver.take((P, True, FRAME)) == [(IDR, True, 0), (P, True, FRAME)]
    assert receiver.passthrough.held is None


def test_only_the_end_of_a_nal_unit_waits() -> None:
    receiver = Receiver()
    receiver.take(*never(sane()))
    big = fragment(b"\x41\x9a" + b"p" * 400, 100)
    before = receiver.take((big[0], False, 30 * FRAME))
    assert before[-1] == (big[0], False, 30 * FRAME)
    assert [receiver.take((piece, False, 30 * FRAME)) for piece in big[1:-1]] == [
        [(piece, False, 30 * FRAME)] for piece in big[1:-1]
    ]
    assert receiver.take((big[-1], False, 30 * FRAME)) == []
    assert receiver.passthrough.longest_wait == pytest.approx(1 / 30)
    assert receiver.wait() == [(big[-1], True, 30 * FRAME)]
    assert receiver.take((P, False, 31 * FRAME)) == []


def test_a_camera_that_leaves_marks_out_is_believed_when_it_sets_one() -> None:
    receiver = Receiver()
    receiver.take((SPS, False, 0), (PPS, False, 0), (IDR, False, 0))
    assert receiver.take((P, False, FRAME)) == [(CLOSING, True, 0)]
    assert receiver.take((P, True, 2 * FRAME)) == [(P, True, FRAME), (P, True, 2 * FRAME)]
    assert receiver.passthrough.unmarked == 2


def test_marks_on_parameter_sets_are_taken_off_and_forgiven() -> None:
    receiver = Receiver()
    assert receiver.take((SPS, True, 0), (PPS, True, 0), (IDR, True, 0)) == [(join_stap_a([SPS, PPS]), False, 0)]
    for index in range(1, DISTRUSTED + 1):
        receiver.take((P, True, index * FRAME))
    assert receiver.passthrough.held is None
    assert receiver.marks() == [index * FRAME for index in range(DISTRUSTED + 1)]


def test_a_mark_inside_a_fragmented_unit_is_taken_off() -> None:
    receiver = Receiver(SPROP)
    receiver.take((IDR, True, 0))
    pieces = fragment(b"\x41\x9a" + b"p" * 300, 100)
    receiver.take(*[(piece, True, FRAME) for piece in pieces], (P, True, 2 * FRAME))
    assert receiver.marks() == [0, FRAME]


def test_pictures_that_share_a_timestamp_leave_with_their_own() -> None:
    receiver = Receiver(SPROP)
    receiver.take((IDR, True, 0), *[(P, True, FRAME * (index // 2)) for index in range(1, 8)], (P, True, 4 * FRAME))
    receiver.wait()
    marks = receiver.marks()
    assert len(set(marks)) == 9
    assert marks == sorted(marks)
    assert marks[-1] == 4 * FRAME


def test_sets_with_the_time_of_the_picture_before_them_leave_with_their_own() -> None:
    receiver = Receiver()
    receiver.take((SPS, False, 0), (PPS, False, 0), (IDR, True, 0), (P, True, FRAME))
    assert receiver.take((SPS, False, FRAME), (PPS, False, FRAME)) == []
    left = receiver.take((IDR, True, 2 * FRAME))
    assert left == [(SPS, False, 2 * FRAME), (PPS, False, 2 * FRAME), (IDR, True, 2 * FRAME)]


def test_a_picture_that_is_dated_within_a_run_leaves_apart_from_the_one_before_it() -> None:
    passthrough = H264Passthrough(100, SPROP)
    out = passthrough.receive_run([(SEI, False), (IDR, True), (SEI, False), (P, True)], 0, 0)
    (earlier,) = passthrough.earlier
    assert earlier == (0, [(join_stap_a([SPS, PPS]), False), (IDR, True)])
    assert (passthrough.timestamp, out) == (FRAME, [(SEI, False), (P, True)])


def test_a_marked_sei_behind_its_picture_ends_it() -> None:
    receiver = Receiver()
    receiver.take((SPS, False, 0), (PPS, False, 0), (IDR, False, 0))
    assert receiver.take((SEI, True, 0)) == [(SEI, True, 0)]
    assert receiver.take((P, False, FRAME), (SEI, True, FRAME)) == [(P, False, FRAME), (SEI, True, FRAME)]
    assert receiver.passthrough.unmarked == 0


def test_a_slice_with_another_timestamp_stays_in_its_picture() -> None:
    receiver = Receiver()
    receiver.take(
        (SPS, False, 0), (PPS, False, 0), (IDR, False, 0), (IDR2, True, 9), (P, False, 3000), (P2, True, 3009)
    )
    assert receiver.marks() == [0, 3000]
    assert {at for _, _, at in receiver.sent} == {0, 3000}


def test_a_picture_split_by_its_wait_makes_the_next_wait_longer() -> None:
    receiver = Receiver()
    receiver.take(*never(sane()))
    receiver.wait()
    receiver.take((P, False, 30 * FRAME))
    patience = receiver.passthrough.longest_wait
    assert receiver.wait() == [(P, True, 30 * FRAME)]
    receiver.take((P2, False, 30 * FRAME))
    assert (receiver.passthrough.split, receiver.passthrough.longest_wait) == (1, 2 * patience)


def test_filler_data_behind_the_marked_packet_is_left_out() -> None:
    receiver = Receiver()
    receiver.take((SPS, False, 0), (PPS, False, 0), (IDR, True, 0))
    assert receiver.take((b"\x0c\xff\xff\x80", True, 0)) == []
    assert receiver.passthrough.misplaced == 0


def test_a_loss_says_nothing_about_marks() -> None:
    receiver = Receiver()
    receiver.take((SPS, False, 0), (PPS, False, 0), (IDR, False, 0))
    receiver.take((P, True, 2 * FRAME), lost=3)
    assert (receiver.passthrough.unmarked, receiver.passthrough.losses) == (0, 1)
    assert receiver.marks() == []


NALS = st.sampled_from([SPS, PPS, SEI, AUD, IDR, IDR2, P, P2, fragment(b"\x41\x9a" + b"p" * 300, 100)[0]])


@given(st.lists(st.tuples(NALS, st.booleans(), st.integers(0, 1), st.integers(0, 20)), max_size=60))
def test_marks_never_come_twice_for_a_timestamp_once_marks_are_known_to_lie(
    steps: list[tuple[bytes, bool, int, int]],
) -> None:
    receiver = Receiver(SPROP)
    receiver.take(*each(sane()))  # from here on all wait
    receiver.wait()
    at, before = 100 * FRAME, len(receiver.sent)
    for payload, marker, step, lost in steps:
        at += step * FRAME
        receiver.take((payload, marker, at), lost=lost == 20)
    receiver.wait()
    marked = [stamp for _, marker, stamp in receiver.sent[before:] if marker]
    assert len(marked) == len(set(marked))


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("packet_size", [500, 1472])
@pytest.mark.parametrize("name", ["sane", "never", "each"])
def test_every_frame_of_a_real_stream_decodes(name: str, packet_size: int, slices: int) -> None:
    views = clip(packet_size, slices)
    receiver = Receiver(max_payload=1200)
    receiver.take(*CAMERAS[name]([(view.payload, view.marker, view.timestamp) for view in views]))
    receiver.wait()
    assembler = AccessUnitAssembler()
    units = [unit for payload, marker, at in receiver.sent for unit in assembler.receive_payload(payload, marker, at)]
    assert len(units) == len(receiver.marks()) == FRAMES
    assert all(unit.complete for unit in units)
    assert decode(units) == FRAMES
