"""Sound that becomes Opus and leaves within the call that reads it: each condition of `transcoding.c`."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import av
import pytest
from av.audio.frame import AudioFrame

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker import native
from relay_worker.media.opus import OpusTranscoder
from relay_worker.media.sound_clock import INTERVAL
from relay_worker.pipeline import Pipeline
from relay_worker.publish.extensions import HeaderExtensions
from tests.fuzz.sound_streams import HBR, RATE, UNITS, framed, hbr
from tests.unit.native.test_hearing import FRAME, Listener
from tests.unit.native.test_pictures import Pair

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

_INT, _POINTER = ctypes.c_int32, ctypes.c_void_p
ENCODE: Final = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, ctypes.c_int, _POINTER, _INT)
"""Makes a function of Python's one of C's, of the form of `opus_encode_float`."""


class Speaker(Listener):
    """One camera's sound through both paths, decoded and encoded; six units were sent."""

    def __init__(self, pair: Pair, heard: list[int], asked: list[str]) -> None:
        super().__init__(pair, heard)
        self.asked, self.number = asked, 0
        for track_input in self.inputs:
            track_input._transcoder = OpusTranscoder("aac", bytes.fromhex(HBR["config"]))
        for _ in range(6):
            self.say()

    def say(self, unit: bytes | None = None) -> list[str]:
        """A wake with this unit, or the next one; what the Python was asked for."""
        del self.asked[:]
        self.number += 1
        heard = self.hear(hbr(UNITS[self.number % len(UNITS)] if unit is None else unit))
        return self.asked[:] if heard else ["hear"]

    @property
    def chains(self) -> list[Any]:
        return [track_input._transcoder._chain for track_input in self.inputs]

    def change(self, what: Callable[[Any], object], **attributes: object) -> None:
        """Attributes of something of both inputs, as something before has left them."""
        for track_input in self.inputs:
            for name, value in attributes.items():
                assert hasattr(what(track_input), name)
                setattr(what(track_input), name, value)


def transcoder(track_input: Any) -> Any:
    return track_input._transcoder


def chain(track_input: Any) -> Any:
    return track_input._transcoder._chain


def clock(track_input: Any) -> Any:
    return track_input._transcoder.clock


def test_sound_that_follows_on_needs_no_python(speaker: Speaker) -> None:
    sent = speaker.pair.both[1].connections[0]._audio
    assert sent is not None
    before = sent.stats.packets
    assert [speaker.say() for _ in range(40)] == [[]] * 40
    assert sent.stats.packets == before + 40 * FRAME / RATE / 0.02
    assert speaker.pair.both[1].pipeline.last_frame["audio"] == speaker.pair.now


@pytest.mark.parametrize("rate", [8000, 48000])
def test_other_rates(speaker: Speaker, rate: int) -> None:
    clip = audio_clip(AudioSpec(rate=rate))  # type: ignore[arg-type]
    for track_input in speaker.inputs:
        track_input._transcoder = OpusTranscoder("aac", clip.config)
    said = [speaker.say(clip.units[number % len(clip.units)].data) for number in range(8)]
    # Timestamps are those of 16 kHz, so that at these rates sound does not follow on for long.
    assert said[0] == ["hear"]
    assert [] in said


def test_a_camera_in_stereo_is_left_to_the_python(speaker: Speaker) -> None:
    clip = audio_clip(AudioSpec(rate=RATE, channels=2))
    for track_input in speaker.inputs:
        track_input._transcoder = OpusTranscoder("aac", clip.config)
    assert [speaker.say(clip.units[number].data) for number in range(4)] == [["hear"]] + [["decode"]] * 3


@pytest.mark.parametrize(
    ("of", "attributes"),
    [
        (transcoder, {"_hole": True}),
        (transcoder, {"_latest": 1e9}),
        (chain, {"position": None}),
        (chain, {"_cut": 640}),
        (chain, {"position": 0}),
        (clock, {"_error": 0.05}),
        (clock, {"_error": -0.05}),
        (clock, {"_error": 0.03, "_corrected": 0.0}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_what_does_not_follow_on_is_left_to_the_python(
    speaker: Speaker, of: Callable[[Any], Any], attributes: dict[str, object]
) -> None:
    speaker.change(of, **attributes)
    assert speaker.say() == ["decode"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"_error": 0.035, "_corrected": 1000.0},
        {"_error": -0.019, "due_since": 1000.0},
        {"_error": 0.019},
        {"_budget": -5.0},
        {"_budget": 0.2},
        {"_now": float("-inf")},
    ],
    ids=str,
)
def test_an_error_that_is_not_corrected(speaker: Speaker, attributes: dict[str, object]) -> None:
    speaker.change(clock, **attributes)
    assert [speaker.say(), speaker.say()] == [[], []]


def test_a_correction_is_due_after_its_interval(speaker: Speaker) -> None:
    for since, expected in ((INTERVAL - 0.1, []), (INTERVAL + 0.1, ["decode"])):
        speaker.change(clock, _error=0.035, _corrected=speaker.pair.now + FRAME / RATE - since)
        assert speaker.say() == expected


@pytest.mark.parametrize("late", [0.14, 0.16])
def test_a_pause(speaker: Speaker, late: float) -> None:
    """Beyond 150 ms it is filled; up to that it is an error like any other, here one that would be corrected."""
    speaker.timestamp += round(late * RATE)
    speaker.pair.now += late
    speaker.change(clock, _now=speaker.pair.now + FRAME / RATE)
    assert ("decode" in speaker.say()) == (late > 0.15)
    assert (transcoder(speaker.inputs[1]).stats.filled > 0) == (late > 0.15)


def test_a_pause_that_is_none(speaker: Speaker) -> None:
    """Timestamps that jump, of sound that has caught up with them."""
    speaker.change(transcoder, _expected=speaker.pair.now - 10.0)
    assert speaker.say() == []


def test_a_unit_that_cannot_be_decoded(speaker: Speaker) -> None:
    assert speaker.say(b"\xff" * 60) == []
    assert [transcoder(track_input).stats.faults for track_input in speaker.inputs] == [1, 1]
    assert [speaker.say(), speaker.say()] == [["decode"], []]


def frame(samples: int = FRAME, rate: int = RATE, layout: str = "mono", name: str = "fltp") -> AudioFrame:
    made = AudioFrame(format=name, layout=layout, samples=samples)
    for plane in made.planes:
        plane.update(bytes(plane.buffer_size))
    made.sample_rate = rate
    return made


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([frame()], []),
        ([SimpleNamespace(samples=0, sample_rate=RATE, planes=(b"",))], []),
        ([frame(1)], []),
        ([frame(319)], []),
        ([frame(320 * 16)], []),
        ([frame(320 * 16 + 1)], ["encode", "send"]),
        ([], ["encode"]),
        ([frame(), frame()], ["encode", "send"]),
        ([frame(layout="stereo")], ["encode"]),
        ([frame(rate=8000)], ["encode", "send"]),
        ([SimpleNamespace(samples=FRAME, sample_rate=RATE, planes=(b"12",))], ["encode"]),
        ([SimpleNamespace(samples=2, sample_rate=RATE, planes=(bytes(8),))], []),
    ],
    ids=[
        *("as ever", "no sample", "a sample", "no whole packet", "the longest", "longer", "none", "two", "two planes"),
        *("another rate", "less than it says", "no more than it says"),
    ],
)
def test_what_a_decoder_may_give(speaker: Speaker, frames: list[Any], expected: list[str]) -> None:
    decoder = SimpleNamespace(decode=lambda packet: list(frames))
    for way in speaker.pair.both:
        way.pipeline._ear = None
    speaker.change(transcoder, _decoder=decoder)
    said = speaker.say()
    assert [one for one in said if one != "send"] == [one for one in expected if one != "send"]


def test_other_errors_of_a_decoder_are_raised(speaker: Speaker) -> None:
    def decode(packet: object) -> None:
        raise KeyError("what")

    for way in speaker.pair.both:
        way.pipeline._ear = None
    speaker.change(transcoder, _decoder=SimpleNamespace(decode=decode))
    data = speaker.packet(hbr(UNITS[0]))
    for way in speaker.pair.both:
        with pytest.raises(KeyError):
            way.receive(data, speaker.pair.now + FRAME / RATE)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_encoder_that_fails(speaker: Speaker, which: int) -> None:
    """The packets of the unit are lost, and another encoder is made."""
    calls = [0, 0]
    for number, made in enumerate(speaker.chains):
        encode = made._codec._encode

        def failing(*arguments: Any, number: int = number, encode: Any = encode) -> int:
            calls[number] += 1
            return -3 if calls[number] == which + 1 else encode(*arguments)

        made._codec._encode = ENCODE(failing)
    for way in speaker.pair.both:
        way.pipeline._ear = None
    assert speaker.say() == []
    assert calls == [which + 1] * 2
    assert speaker.chains == [None, None]
    assert [speaker.say(), speaker.say()] == [["hear"], []]


@pytest.mark.parametrize("size", [0, 1275])
def test_packets_of_any_size(speaker: Speaker, size: int) -> None:
    for made in speaker.chains:

        def encode(*arguments: Any) -> int:
            ctypes.memset(arguments[3], 0, size)
            return size

        made._codec._encode = ENCODE(encode)
        made._pending[:] = bytes(4 * 319)  # four packets
    for way in speaker.pair.both:
        way.pipeline._ear = None
    assert speaker.say() == []


@pytest.mark.parametrize("samples", [320, 321])
def test_with_a_packet_or_more_waiting_the_python_encodes(speaker: Speaker, samples: int) -> None:
    for made in speaker.chains:
        made._pending[:] = bytes(4 * samples)
    assert speaker.say() == ["decode"]


def nowhere(pipeline: Any) -> None:
    pipeline.output = None


def tapped(pipeline: Any) -> None:
    pipeline.tap = lambda frame: None


def watched(pipeline: Any) -> None:
    pipeline.viewers = pipeline.output


def made_small(pipeline: Any) -> None:
    pipeline.rendition = pipeline.output


def apart(pipeline: Any) -> None:
    pipeline.output.connected = False


def extended(pipeline: Any) -> None:
    pipeline.output._audio.extensions = HeaderExtensions(None, None)


def uneven(pipeline: Any) -> None:
    pipeline.output._pacer._audio_line._threshold = -1.0


def silent(pipeline: Any) -> None:
    pipeline.output._sound = None


@pytest.mark.parametrize("change", [nowhere, tapped, watched, made_small, apart, extended, uneven, silent])
def test_who_else_gets_it_is_told_by_the_python(
    speaker: Speaker, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where it is read: what takes pictures has been asked, and may have been made of other parts.
    take_wake = Pipeline.take_wake
    monkeypatch.setattr(Pipeline, "take_wake", lambda self, *given: take_wake(self, *given[:3], native.NO_VIDEO))
    for way in speaker.pair.both:
        change(way.pipeline)
    assert speaker.say() == ["send"]


def test_a_pipeline_that_captures_gets_packets(speaker: Speaker) -> None:
    for way in speaker.pair.both:
        way.pipeline.capture = lambda batches, now: None
    assert speaker.say() == ["hear"]


def test_another_transcoder_is_noticed(speaker: Speaker) -> None:
    for track_input in speaker.inputs:
        track_input._transcoder = OpusTranscoder("aac", bytes.fromhex(HBR["config"]))
    assert [speaker.say() for _ in range(3)] == [["hear"], [], []]


@pytest.mark.parametrize(
    "attributes",
    [
        {"transcoder": object()},
        {"chain": None},
        {"clock": native.TranscodingParts},
        {"encode": 0},
        {"context": 0},
        {"rate": 0},
        {"stride": 0},
        {"frame_bytes": 0},
        {"frame_bytes": 3844},
        {"frame_bytes": 3841, "stride": 1},
        {"frame_bytes": 1278},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_parts_of_which_nothing_can_be_made(speaker: Speaker, attributes: dict[str, Any]) -> None:
    compiled = native.decide("compiled")
    assert compiled is not None
    parts, _ = speaker.inputs[1].wake_parts()
    assert parts is not None
    compiled.Wake((), native.InputParts(), (), "audio", 2, 3, parts)
    for wrong in (parts._replace(**attributes), parts[:-1]):
        with pytest.raises(ValueError, match="no such"):
            compiled.Wake((), native.InputParts(), (), "audio", 2, 3, wrong)


def test_what_is_held_is_let_go(speaker: Speaker) -> None:
    assert speaker.say() == []
    kept = weakref.ref(speaker.chains[1])
    for way in speaker.pair.both:
        way.pipeline.rebuild("audio")  # type: ignore[arg-type]
    gc.collect()
    assert kept() is None


def test_packets_of_the_decoder_have_room_behind_them() -> None:
    """libavcodec reads on behind what it is given (`media/coded.py`): compiled code makes packets of a size, too."""
    assert OpusTranscoder("aac")._decoder is None
    packet = av.Packet(5)
    packet.update(b"12345")
    assert bytes(packet) == b"12345"


def test_other_channels_are_none_of_it(speaker: Speaker) -> None:
    data = speaker.packet(hbr(UNITS[0])) + framed(9, b"hi")
    assert not speaker.receive(data)
