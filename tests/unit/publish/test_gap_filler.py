"""Filler in place of a camera that is away: when it begins, what it is, and that it never mixes with live pictures."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.publish.filler import SILENCE_100MS, slate
from relay_worker.publish.gap_filler import FILL_AFTER, GapFiller

SPS, PPS = bytes.fromhex("6742c01e95a0280bfe54"), bytes.fromhex("68ce3c80")
SETS = b"\x78" + b"".join(len(nal).to_bytes(2, "big") + nal for nal in (SPS, PPS))
IDR, SLICE, OPUS = b"\x65\x88\x84\x00", b"\x41\x9a\x00\x00", b"\xfc\x01"


class Sent(NamedTuple):
    at: float
    kind: Kind
    payload: bytes
    media_time: float


class World:
    """A camera, a pipeline with its filler, and what goes out; time and timers are moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent: list[Sent] = []
        self.timer: tuple[float, Callable[[], None]] | None = None
        self.pipeline = Pipeline()
        self.pipeline.output = self
        self.filler = GapFiller("Porch", self.pipeline, lambda: self.now, self.call_at)
        self.video = Track(Kind.VIDEO, Format(106, "H264", 90000), control="")
        self.audio = Track(Kind.AUDIO, Format(111, "OPUS", 48000), control="")
        self._sequence = {Kind.VIDEO: 0, Kind.AUDIO: 0}
        self.pipeline.on_playing([self.video, self.audio], self.now)

    def send(self, frame: Frame, now: float) -> None:
        self.sent += [Sent(now, frame.kind, bytes(payload), frame.media_time) for payload, _ in frame.payloads]

    def call_at(self, when: float, callback: Callable[[], None]) -> SimpleNamespace:
        """The loop's timer."""
        self.timer = when, callback
        return SimpleNamespace(cancel=lambda: setattr(self, "timer", None))

    def camera(self, *payloads: bytes, track: Track | None = None, late: float = 0.0) -> None:
        """Packets of one picture come, `late` by so many seconds."""
        track = track or self.video
        rate = 90_000 if track.kind is Kind.VIDEO else 48_000
        for index, payload in enumerate(payloads):
            self._sequence[track.kind] += 1
            second = (index == len(payloads) - 1) << 7 | track.format.payload_type
            head = struct.pack("!BBHII", 0x80, second, self._sequence[track.kind], round((self.now - late) * rate), 7)
            self.pipeline.on_media([Batch(track, [head + payload], [])], self.now)

    def sound(self) -> None:
        self.camera(OPUS, track=self.audio)

    def wait(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Time passes: timers fire, and the relay judges, and `each` happens, ten times a second."""
        for _ in range(round(seconds * 10)):
            until = self.now + 0.1
            while self.timer is not None and self.timer[0] <= until:
                self.now, callback = max(self.now, self.timer[0]), self.timer[1]
                self.timer = None
                callback()
            self.now = until
            each()
            self.filler.check(self.now)

    def since(self, at: float, kind: Kind = Kind.VIDEO) -> list[Sent]:
        return [sent for sent in self.sent if sent.at > at and sent.kind is kind]


@pytest.fixture
def world() -> World:
    made = World()
    made.camera(SETS, IDR)
    made.sound()
    return made


def test_it_begins_two_seconds_after_the_last_picture_and_holds_both_tracks(world: World) -> None:
    left = world.now
    world.wait(12.0)
    pictures, sounds = world.since(left), world.since(left, Kind.AUDIO)
    assert FILL_AFTER == 2.0
    assert FILL_AFTER <= pictures[0].at - left <= FILL_AFTER + 0.1
    assert FILL_AFTER <= sounds[0].at - left <= FILL_AFTER + 0.1
    size = world.pipeline.track_stats(Kind.VIDEO)
    whole = [bytes(payload) for payload, _ in slate("Porch", size.width, size.height).payloads]
    count = len(pictures) // len(whole)
    assert [sent.payload for sent in pictures] == whole * count
    assert count == pytest.approx(10, abs=1), "a picture a second"
    assert {sent.payload for sent in sounds} == {SILENCE_100MS}
    assert len(sounds) == pytest.approx(100, abs=2)
    assert world.filler.gaps == 1


def test_a_camera_that_plays_is_left_alone(world: World) -> None:
    left = world.now
    world.wait(10.0, each=lambda: world.camera(SLICE))
    assert {sent.payload for sent in world.since(left)} == {SLICE}
    assert world.filler.gaps == 0


def test_the_camera_comes_back_with_its_first_keyframe_and_nothing_is_mixed(world: World) -> None:
    world.wait(3.0)
    away = world.now
    world.wait(2.0, each=lambda: world.camera(SLICE))
    assert SLICE not in {sent.payload for sent in world.since(away)}, "it would refer to the slate"
    assert world.pipeline.filling
    world.now += 0.01
    world.sound()
    world.camera(SETS, IDR)
    back = world.now
    assert [sent.payload for sent in world.sent[-2:]] == [SETS, IDR]
    assert not world.pipeline.filling
    world.wait(1.5, each=lambda: world.camera(SLICE))
    assert {sent.payload for sent in world.since(back)} == {SLICE}, "no slate among live pictures"
    assert world.since(back, Kind.AUDIO) == [], "no silence either"
    times = [sent.media_time for sent in world.sent if sent.kind is Kind.VIDEO]
    assert times == sorted(times)


def test_what_a_stall_held_back_follows_the_filler(world: World) -> None:
    """The network gives it all at once; by the camera's clock it would belong before the slates."""
    world.wait(6.0)
    filled = max(sent.media_time for sent in world.sent)
    assert filled > world.now - 1.1
    for late in range(4, 0, -1):
        world.camera(*((SETS, IDR) if late == 4 else (SLICE,)), late=late)
        world.camera(OPUS, track=world.audio, late=late)
    world.wait(4.0, each=lambda: world.camera(SLICE))
    for kind in Kind:
        times = [sent.media_time for sent in world.sent if sent.kind is kind]
        assert times == sorted(times)
    assert world.now - world.since(0.0)[-1].media_time < 0.15, "what was late is not kept as delay"


def test_sound_that_goes_on_is_not_covered_by_silence(world: World) -> None:
    left = world.now
    world.wait(6.0, each=world.sound)
    assert world.since(left), "a slate for the picture"
    assert (world.filler.gaps, world.pipeline.filling) == (1, True), "sound alone does not end it"
    assert {sent.payload for sent in world.since(left, Kind.AUDIO)} == {OPUS}


def test_silence_stands_in_for_sound_that_stops_while_the_picture_goes_on(world: World) -> None:
    left = world.now
    world.wait(6.0, each=lambda: world.camera(SLICE))
    sounds = world.since(left, Kind.AUDIO)
    assert {sent.payload for sent in sounds} == {SILENCE_100MS}
    assert FILL_AFTER <= sounds[0].at - left <= FILL_AFTER + 0.2
    assert len(sounds) == pytest.approx(40, abs=2)
    assert {sent.payload for sent in world.since(left)} == {SLICE}, "the picture is left alone"
    assert (world.filler.gaps, world.filler.silences) == (0, 1)

    def both() -> None:
        world.camera(SLICE)
        world.sound()

    back = world.now + 0.1
    world.wait(3.0, each=both)
    assert {sent.payload for sent in world.since(back, Kind.AUDIO)} == {OPUS}
    assert world.timer is None, "no timer is left"
    times = [sent.media_time for sent in world.sent if sent.kind is Kind.AUDIO]
    assert times == sorted(times)


def test_without_a_publication_or_before_the_first_picture_there_is_nothing_to_hold() -> None:
    world = World()
    world.wait(5.0)
    world.camera(SETS, IDR)
    world.pipeline.output = None
    world.wait(5.0)
    assert world.filler.gaps == 0


def test_closing_ends_it(world: World) -> None:
    world.wait(3.0)
    world.filler.close()
    assert (world.pipeline.filling, world.timer) == (False, None)


def test_a_session_without_sound_costs_a_packet_in_ten_seconds_and_no_timer(world: World) -> None:
    world.wait(3.0)
    world.pipeline.on_playing([world.video], world.now)
    world.camera(SETS, IDR)
    left = world.now
    world.wait(65.0, each=lambda: world.camera(SLICE))
    sounds = world.since(left, Kind.AUDIO)
    assert len(sounds) == 6
    assert {sent.payload for sent in sounds} == {SILENCE_100MS}
    assert world.timer is None
    world.pipeline.on_playing([world.video, world.audio], world.now)
    back = world.now
    world.camera(SETS, IDR)
    world.sound()
    assert [sent.payload for sent in world.since(back - 0.001, Kind.AUDIO)] == [OPUS]
    times = [sent.media_time for sent in world.sent if sent.kind is Kind.AUDIO]
    assert times == sorted(times)


def test_a_viewer_of_a_camera_that_has_sent_nothing_yet_sees_a_slate() -> None:
    """As one that was woken for it: only where somebody watches already."""
    world = World()
    world.pipeline.output, world.pipeline.viewers = None, world
    world.filler.check(world.now)
    assert world.sent == []
    world.filler.check(world.now, watched=True)
    assert [sent.kind for sent in world.sent] == [Kind.VIDEO] * len(slate("Porch").payloads)
    world.camera(SETS, IDR)
    assert not world.pipeline.filling
    assert world.sent[-1].payload == IDR
