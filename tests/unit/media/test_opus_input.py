"""Opus passes with even steps: RTP time advances by what packets hold, whatever the clock and the network do."""

from __future__ import annotations

import functools
import itertools
import math
import random
import struct
from typing import NamedTuple

import pytest

from relay_worker.media.opus_encoder import NativeEncoder, OpusSettings
from relay_worker.media.opus_input import OpusInput
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.publish.filler import SILENCE_20MS as OPUS_SILENCE
from relay_worker.rtp.opus import frame_ticks, packet_ticks
from relay_worker.rtp.rtcp import pack_sender_report

WALL = 3_900_000_000
CLOCK = 48_000


class Sent(NamedTuple):
    now: float
    ticks: int
    payload: bytes


@functools.cache
def tone() -> list[bytes]:
    """A second of 440 Hz, half of full scale, in Opus packets of 20 ms."""
    samples = struct.pack("<48000f", *(0.5 * math.sin(2 * math.pi * 440 * n / CLOCK) for n in range(CLOCK)))
    return NativeEncoder("flt", CLOCK, OpusSettings()).encode(samples)


class Camera:
    """One Opus track of a WebRTC camera on a hand-moved clock; `ppm` is how fast its clock runs."""

    def __init__(self, *, ppm: float = 0.0, jitter: float = 0.0, seed: int = 1, ordered: bool = False) -> None:
        self.pipeline = Pipeline()
        self.pipeline.attach(self, 1000.0)
        self.track = Track(Kind.AUDIO, Format(111, "OPUS", CLOCK), control="", ordered=ordered)
        self.pipeline.on_playing([self.track], 1000.0)
        self._speed, self._jitter, self._rng = 1 + ppm * 1e-6, jitter, random.Random(seed)
        self._origin, self._sequence = self._rng.getrandbits(32), self._rng.getrandbits(16)
        self._arrived = 1000.0
        self.sent: list[Sent] = []
        self.time = 0
        """Ticks of the camera's clock."""

    def send(self, frame: Frame, now: float) -> None:
        ticks = round(frame.media_time * CLOCK)
        assert frame.media_time == ticks / CLOCK
        self.sent += [Sent(now, ticks, bytes(payload)) for payload, _ in frame.payloads]

    def play(self, payload: bytes, *, stamp: int | None = None, lost: int = 0) -> None:
        """One packet is captured, and arrives."""
        ticks = packet_ticks(payload)
        captured = 1000.0 + self.time / CLOCK / self._speed
        self._arrived = max(self._arrived, captured + self._rng.random() * self._jitter)
        stamp = self.time if stamp is None else stamp
        self._sequence += 1 + lost
        head = (0x80, 111, self._sequence & 0xFFFF, (self._origin + stamp) & 0xFFFFFFFF, 7)
        self.pipeline.on_media([Batch(self.track, [struct.pack("!BBHII", *head) + payload], [])], self._arrived)
        self.time += ticks

    def report(self) -> None:
        ntp = int((WALL + self.time / CLOCK) * 2**32)
        packet = pack_sender_report(7, ntp, (self._origin + self.time) & 0xFFFFFFFF, 0, 0)
        self.pipeline.on_media([Batch(self.track, [], [packet])], self._arrived)

    @property
    def input(self) -> OpusInput:
        found = self.pipeline.inputs[Kind.AUDIO]
        assert isinstance(found, OpusInput)
        return found

    def steps(self, since: int = 0) -> list[tuple[float, int]]:
        """When, and by how many ticks more than the packet before it holds, each packet that breaks the rule leaves."""
        pairs = zip(self.sent[since:], self.sent[since + 1 :], strict=False)
        return [
            (b.now, b.ticks - a.ticks - packet_ticks(a.payload))
            for a, b in pairs
            if b.ticks - a.ticks != packet_ticks(a.payload)
        ]

    def lateness(self) -> float:
        """Seconds by which the last packet leaves later on the media clock than the even clock of this test says."""
        return self.sent[-1].ticks / CLOCK - (
            1000.0 + (self.time - packet_ticks(self.sent[-1].payload)) / CLOCK / self._speed
        )


@pytest.mark.slow
@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("ppm", [-100, 100])
def test_an_hour_without_one_odd_step(ppm: float, reports: bool) -> None:
    camera = Camera(ppm=ppm, jitter=0.03)
    sound, clock = tone(), camera.input.clock
    moved: list[tuple[float, bool]] = []
    worst = 0.0
    for index in range(3600 * 50):
        quiet = index % 1000 >= 900  # two seconds of silence in twenty
        if reports and index % 250 == 0:
            camera.report()
        before = clock.inserted + clock.removed
        camera.play(OPUS_SILENCE if quiet else sound[index % 50])
        if clock.inserted + clock.removed > before:
            moved.append((camera.sent[-1].now, quiet))
        if index > 50 * 60:
            worst = max(worst, abs(camera.lateness()))
    assert camera.steps() == []
    assert camera.input.clock is clock
    assert clock.moved == 0
    times = [at for at, _ in moved]
    assert 15 <= len(moved) <= 22, "0.36 s of drift in frames of 20 ms, and the first packet's luck"
    assert min(b - a for a, b in itertools.pairwise(times)) >= 30
    # Silence is there every 18 s, and is waited for for 10 s.
    assert sum(quiet for _, quiet in moved) >= len(moved) / 3
    assert worst < 0.045
    tolerated = camera.pipeline.track_stats(Kind.AUDIO).tolerated
    assert tolerated["sound_frame_inserted" if ppm < 0 else "sound_frame_removed"] >= 15


@pytest.mark.slow
def test_a_correction_waits_for_silence_and_not_for_longer_than_ten_seconds() -> None:
    for silent_after, expected in ((4.0, True), (60.0, False)):
        camera = Camera(ppm=-100)
        for index in range(50 * 260):
            due = camera.input.clock.due_since
            quiet = due is not None and camera.sent[-1].now - due >= silent_after
            before = camera.input.clock.inserted
            camera.play(OPUS_SILENCE if quiet else tone()[index % 50])
            if camera.input.clock.inserted > before:
                assert due is not None
                assert camera.sent[-1].now - due == pytest.approx(silent_after if expected else 10.0, abs=0.1)
                assert quiet is expected
                break
        else:
            pytest.fail("no correction")


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(480,), (1920,), (2880,), (960, 2880, 480), (120,)], ids=str)
def test_packets_of_other_lengths_keep_their_own(sizes: tuple[int, ...]) -> None:
    toc = {120: 28 << 3, 480: 30 << 3, 960: 31 << 3, 1920: 2 << 3, 2880: 3 << 3}
    camera = Camera(ppm=100, jitter=0.03)
    for index in range(20_000):
        camera.play(bytes((toc[sizes[index % len(sizes)]],)) + b"\x01" * 40)
    assert camera.steps() == []
    assert abs(camera.lateness()) < 0.045 + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 6])
def test_several_frames_in_a_packet_keep_their_length_and_lose_or_gain_one(count: int) -> None:
    packet = bytes(((31 << 3) | 3, count)) + b"\x07" * 40 * count
    for ppm in (-100, 100):
        camera = Camera(ppm=ppm)
        for _ in range(20_000 // count):
            camera.play(packet)
        assert camera.steps() == []
        odd = [sent.payload for sent in camera.sent if packet_ticks(sent.payload) != 960 * count]
        clock = camera.input.clock
        assert len(odd) == clock.inserted + clock.removed >= 1
        assert {packet_ticks(payload) for payload in odd} == {960 if ppm < 0 else 960 * (count - 1)}
        assert {frame_ticks(payload) for payload in odd} == {960}


def test_discontinuous_transmission_keeps_its_pauses_to_the_tick() -> None:
    camera = Camera(jitter=0.03)
    pauses = []
    for index in range(5000):
        camera.play(tone()[index % 50])
        if index % 100 == 99:
            pause = 960 * (1 + index // 100 % 20)
            camera.time += pause
            pauses.append(pause)
    assert [step for _, step in camera.steps()] == pauses[:-1]
    assert camera.input.clock.moved == 0


def test_a_loss_leaves_its_place() -> None:
    camera = Camera()
    for index in range(300):
        lost = 2 if index == 200 else 0
        camera.time += 960 * lost
        camera.play(tone()[index % 50], lost=lost)
    for _ in range(20):
        camera.pipeline.flush(camera.sent[-1].now + 1.0)
    assert [step for _, step in camera.steps()] == [1920]


def test_uneven_timestamps_do_not_reach_the_viewer() -> None:
    camera, rng = Camera(), random.Random(4)
    for index in range(5000):
        camera.play(tone()[index % 50], stamp=camera.time + rng.randint(-300, 300))
    assert camera.steps() == []


def test_a_frozen_timestamp_plays_on() -> None:
    camera = Camera()
    for index in range(5000):
        camera.play(tone()[index % 50], stamp=min(camera.time, 960 * 100))
    assert camera.steps() == []
    assert len(camera.sent) == 5000


def test_a_jump_of_the_cameras_clock_is_bridged_by_elapsed_time() -> None:
    camera = Camera()
    for index in range(1000):
        camera.play(tone()[index % 50], stamp=camera.time + (10**9 if index >= 500 else 0))
    assert all(abs(step) <= 960 for _, step in camera.steps())
    assert abs(camera.lateness()) < 0.045


def test_what_comes_back_after_filler_follows_it() -> None:
    camera = Camera()
    for index in range(100):
        camera.play(tone()[index % 50])
    camera.time += CLOCK * 5
    camera.pipeline.timeline.filled(Kind.AUDIO, 1000.0 + 6.9)
    for index in range(100):
        camera.play(tone()[index % 50])
    assert camera.sent[100].ticks >= 1006.9 * CLOCK
    assert len(camera.steps()) == 1


def test_malformed_packets_are_counted_and_left_out() -> None:
    camera = Camera(ordered=True)
    camera.play(tone()[0])
    camera.play(b"\x7b\x00")
    camera.play(tone()[1])
    assert len(camera.sent) == 2
    assert camera.pipeline.malformed == 1
