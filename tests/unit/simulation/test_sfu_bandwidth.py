"""The simulated SFU's estimate of a viewer's line: full, proved, tried out; and the layers that fit it."""

from __future__ import annotations

import struct

import pytest

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.bandwidth import Estimate, Prober
from relay_common.simulation.sfu.bottleneck import Bottleneck
from relay_common.simulation.sfu.feedback import one_byte_extension
from relay_common.simulation.sfu.layers import Demand, allot, next_better
from relay_common.simulation.sfu.options import SfuTimings
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import Section
from relay_common.simulation.sfu.viewer_line import EXTENSION, ViewerLine
from tests.unit.simulation.test_sfu_rtp import H264, Wire, packet


class Line:
    """A line of `capacity` bit/s behind an estimate, with feedback every 100 ms, as Chromium sends it."""

    def __init__(self, capacity: float) -> None:
        self.capacity, self.now, self.number = capacity, 100.0, 0
        self.estimate = Estimate()
        self.prober = Prober(self.estimate)
        self._bottleneck = Bottleneck()
        self._waiting: list[tuple[int, float | None]] = []
        self._told = self.now

    def run(self, seconds: float, media: float, target: float = 0.0) -> None:
        """Send `media` bit/s in packets of 1200 bytes, and what the prober adds to reach its rate."""
        end, debt = self.now + seconds, 0.0
        while self.now < end:
            self.now += 0.01
            if target:
                self.prober.want(target, self.now)
            debt += max(media, self.prober.poll(self.now)) / 8 * 0.01
            while debt > 0:
                debt -= 1200
                self.number += 1
                self.estimate.sent(self.number & 0xFFFF, 1200, self.now)
                waits = self._bottleneck.delay(1200, self.capacity, self.now)
                self._waiting.append((self.number & 0xFFFF, None if waits is None else self.now + waits + 0.02))
            if self.now - self._told >= 0.1:
                arrived = [entry for entry in self._waiting if entry[1] is None or entry[1] <= self.now]
                self._waiting = [entry for entry in self._waiting if entry not in arrived]
                self._told = self.now
                # As the receiver's clock shows it, which is another one.
                self.estimate.feedback([(n, at and at - 5000) for n, at in arrived], self.now)


def test_a_line_that_is_never_full_is_never_judged() -> None:
    line = Line(5e6)
    line.run(20, media=2e6)
    assert line.estimate.available is None
    assert line.estimate.congestions == 0


def test_a_full_line_is_known_within_a_second_and_about_right() -> None:
    line = Line(500e3)
    line.run(1, media=2e6)
    assert line.estimate.available is not None
    assert 300e3 < line.estimate.available < 520e3


def test_more_is_tried_out_again_and_again_until_it_fits() -> None:
    line = Line(500e3)
    line.run(1, media=2e6)
    line.run(20, media=100e3, target=2.3e6)
    assert line.prober.attempts >= 2
    assert line.estimate.available is not None
    assert line.estimate.available < 600e3, "nothing was proved that the line does not carry"
    line.capacity = 5e6
    began = line.now
    while line.estimate.available < 2.3e6:
        line.run(0.1, media=100e3, target=2.3e6)
        assert line.now - began < 15
    assert line.prober.poll(line.now) == 0, "and then it ends"


def test_a_probe_ends_before_it_fills_the_queue() -> None:
    line = Line(500e3)
    line.run(1, media=2e6)
    line.run(10, media=100e3)
    line._bottleneck.overflowed = 0
    worst = 0.0
    for _ in range(100):
        line.run(0.1, media=100e3, target=2.3e6)
        worst = max(worst, line.estimate.queue)
    assert line.prober.attempts >= 1
    assert worst < 0.35


def test_a_viewer_may_report_its_estimate_itself() -> None:
    estimate = Estimate()
    estimate.report(900e3, 1.0)
    assert (estimate.available, estimate.congestions) == (900e3, 0)
    estimate.report(400e3, 2.0)
    assert (estimate.available, estimate.congestions, estimate.congested_at) == (400e3, 1, 2.0)
    body = memoryview(sfu_rtcp.remb(1, 1_234_000, [5])[4:])
    assert sfu_rtcp.remb_bitrate(body) == pytest.approx(1_234_000, rel=0.001)
    assert sfu_rtcp.remb_bitrate(memoryview(bytes(20))) is None


@pytest.mark.parametrize(
    ("chunks", "deltas", "expected"),
    [
        # RFC-style chunks: a run of two received, then a vector of one bit each, then one of two bits.
        ((0x2002,), b"\x04\x08", [(7, 1.001 - 0.232), (8, 1.003 - 0.232)]),
        ((0xA000,), b"\x04", [(7, 0.769)]),
        ((0x8000 | 1 << 12,), b"\x04", [(7, None), (8, 0.769)]),
        ((0xC000 | 2 << 12 | 1 << 8,), b"\xff\xfc\x04", [(7, 0.767), (8, None), (9, 0.768)]),
        ((0x2003,), b"\x04", [(7, 0.769)]),
    ],
)
def test_transport_wide_feedback_is_read(chunks: tuple[int, ...], deltas: bytes, expected: list[object]) -> None:
    count = 3 if chunks == (0x2003,) else len(expected)
    head = struct.pack("!IIHHI", 1, 2, 7, count, 12 << 8 | 9)
    body = head + b"".join(struct.pack("!H", chunk) for chunk in chunks) + deltas
    read = sfu_rtcp.transport_arrivals(memoryview(body))
    assert [number for number, _ in read] == [number for number, _ in expected]  # type: ignore[misc]
    for (_, at), (_, wanted) in zip(read, expected, strict=True):  # type: ignore[misc]
        assert at == (wanted if wanted is None else pytest.approx(wanted))


def test_our_own_feedback_is_read_back() -> None:
    arrivals = {65530 + index: 64.0 + 0.011 * index for index in range(40) if index % 7}
    body = memoryview(sfu_rtcp.transport_feedback(1, 2, 3, arrivals)[4:])
    read = {number: at for number, at in sfu_rtcp.transport_arrivals(body) if at is not None}
    assert read == pytest.approx({number & 0xFFFF: at for number, at in arrivals.items()}, abs=0.0003)


def test_each_packet_is_numbered_in_place_of_the_publishers_extensions() -> None:
    scratch = memoryview(bytearray(4096))
    plain = packet(9, payload=b"\x41abcdef")
    extended = memoryview(b"\x90" + bytes(plain[1:12]) + b"\xbe\xde\x00\x01\x10a\x00\x00" + bytes(plain[12:]))
    line = ViewerLine("transport-cc")
    for number, source in ((1, plain), (2, extended)):
        scratch[: len(source)] = source
        size = line.stamp(scratch, len(source), 1.0)
        sent = memoryview(bytes(scratch[:size]))
        assert one_byte_extension(sent, EXTENSION) == struct.pack("!H", number)
        assert one_byte_extension(sent, 1) is None
        assert bytes(sent[20:]) == b"\x41abcdef"
    assert ViewerLine("remb").stamp(scratch, len(plain), 1.5) == len(plain)
    assert one_byte_extension(scratch, EXTENSION) == (int(1.5 * (1 << 18))).to_bytes(3, "big")


def demand(*rates: float, adaptive: bool = True) -> Demand:
    section = Section("video", "0", codecs=[H264])
    layers = tuple(Publication(Wire(), section, SfuTimings(), rid) for rid, _ in zip("abc", rates, strict=False))
    return Demand(layers, rates, adaptive)


@pytest.mark.parametrize(
    ("available", "expected", "better"),
    [(5e6, "aa", 0.0), (2.5e6, "ab", 4.1e6), (0.3e6, "bb", 2.2e6), (0.05e6, "bb", 2.2e6)],
)
def test_tracks_get_what_fits_in_turn(available: float, expected: str, better: float) -> None:
    demands = [demand(2e6, 0.1e6), demand(2e6, 0.1e6), demand(0.1e6, adaptive=False)]
    chosen = allot(demands, available)
    assert [layer.rid for layer in chosen] == [*expected, "a"]
    assert next_better(demands, chosen) == pytest.approx(better)


def test_a_viewer_that_insists_is_sent_what_does_not_fit() -> None:
    (chosen,) = allot([demand(2e6, adaptive=False)], 100e3)
    assert chosen.rid == "a"
