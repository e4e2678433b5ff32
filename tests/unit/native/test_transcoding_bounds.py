"""Sound at the bounds of `transcoding.c`: errors of its clock to the last bit, the longest packets, and what raises."""

from __future__ import annotations

import ctypes
import functools
import math
from types import SimpleNamespace
from typing import Any, Final

import pytest

from relay_worker import native, wakes
from relay_worker.media import opus_encoder
from relay_worker.media.opus import OpusTranscoder
from relay_worker.media.sound_clock import AVERAGE, INTERVAL, LIMIT, TOLERANCE, SoundClock
from tests.fuzz.sound_streams import RATE, UNITS, hbr
from tests.unit.native.test_hearing import FRAME
from tests.unit.native.test_transcoding import ENCODE, Speaker, clock, frame, transcoder

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

_WEIGHT: Final = 0.001 / AVERAGE
"""Of an error that comes with no time behind the one before."""


def averaged_to(mean: float, error: float) -> float:
    """The average so far that this error makes exactly `mean`."""
    before = (mean - error * _WEIGHT) / (1.0 - _WEIGHT)
    for _ in range(20):
        before = math.nextafter(before, -math.inf)
    while before + (error - before) * _WEIGHT != mean:
        before = math.nextafter(before, math.inf)
        assert abs(before) < 1.0
    return before


@pytest.mark.parametrize(
    ("mean", "since"), [(TOLERANCE[0], math.inf), (LIMIT, 0.0), (0.03, INTERVAL)], ids=["small", "large", "interval"]
)
def test_an_error_at_a_bound_is_corrected(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch, mean: float, since: float
) -> None:
    correction = SoundClock.correction

    def at_bound(self: Any, error: float, length: float, now: float, is_quiet: Any) -> int:
        if self is clock(speaker.inputs[0]) and not speaker.asked:  # the Python is the first of the two
            speaker.change(clock, _now=now, _corrected=now - since, _error=averaged_to(mean, error))
        return correction(self, error, length, now, is_quiet)

    monkeypatch.setattr(SoundClock, "correction", at_bound)
    assert speaker.say() == ["decode"]


def test_a_unit_at_the_time_of_the_one_before_overlaps_nothing(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcode = OpusTranscoder.transcode

    def again(self: Any, data: bytes, media_time: float, now: float, **given: Any) -> list[tuple[bytes, float]]:
        speaker.change(transcoder, _latest=media_time)
        return transcode(self, data, media_time, now, **given)

    monkeypatch.setattr(OpusTranscoder, "transcode", again)
    assert speaker.say() == []


def test_what_waits_has_to_be_a_bytearray(speaker: Speaker) -> None:
    longer = type("Longer", (bytearray,), {})
    for made in speaker.chains:
        made._pending = longer(made._pending)
    assert speaker.say() == ["decode"]


@pytest.mark.parametrize(("samples", "packets"), [(1, 1), (320 * 16, 16)])
def test_the_longest_packets(speaker: Speaker, samples: int, packets: int) -> None:
    """As many as one unit may become, each as long as libopus makes them: it is told how much room there is."""
    rooms: list[int] = []

    def encode(*arguments: Any) -> int:
        rooms.append(arguments[4])
        ctypes.memset(arguments[3], 0, opus_encoder.MAX_PACKET)
        return opus_encoder.MAX_PACKET

    for way, made in zip(speaker.pair.both, speaker.chains, strict=True):
        made._codec._encode = ENCODE(encode)
        made._pending[:] = bytes(4 * 319)
        way.pipeline._ear = None
    speaker.change(transcoder, _decoder=SimpleNamespace(decode=lambda packet: [frame(samples)]))
    assert "encode" not in speaker.say()
    assert rooms == [opus_encoder.MAX_PACKET] * 2 * packets


@pytest.mark.parametrize(
    "decoded", [object(), SimpleNamespace(sample_rate=RATE, planes=(b"",))], ids=["none", "partly"]
)
def test_frames_that_are_none(speaker: Speaker, decoded: object, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker.change(transcoder, _decoder=SimpleNamespace(decode=lambda packet: [decoded]))
    raises(speaker, AttributeError, monkeypatch)


def test_an_output_that_fails(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(now: float) -> None:
        raise KeyError(now)

    for way in speaker.pair.both:
        sender = way.connections[0]._sender
        sender._say_what_is_due = say  # type: ignore[method-assign]
        sender._next_report = 0.0
    raises(speaker, KeyError, monkeypatch)


@pytest.mark.parametrize("samples", [320, 321])
def test_what_changes_while_it_is_decoded(speaker: Speaker, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours does; compiled code looks again all the same."""
    way = speaker.pair.both[1]
    mine = transcoder(speaker.inputs[1])

    def decode(packet: object) -> list[Any]:
        mine._chain._pending[:] = bytes(4 * samples)
        return [frame()]

    take_slow_calls(monkeypatch)
    way.pipeline._ear, mine._decoder = None, SimpleNamespace(decode=decode)
    with pytest.raises(RuntimeError, match="has changed"):
        way.receive(speaker.packet(hbr(UNITS[0])), speaker.pair.now + FRAME / RATE)


def take_slow_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hears sound is called so that a result with an exception beside it is noticed: by the interpreter's fast
    calls it would pass for a result, and the exception be raised somewhere later.
    """
    prepare_sound = wakes.prepare_sound

    def prepared(*given: Any) -> Any:
        made = prepare_sound(*given)
        return made and SimpleNamespace(hear=functools.partial(made.hear))

    monkeypatch.setattr(wakes, "prepare_sound", prepared)


def raises(speaker: Speaker, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both paths raise it of the next unit, the compiled one by saying so, and have sent the same until then."""
    take_slow_calls(monkeypatch)
    data = speaker.packet(hbr(UNITS[0]))
    for way in speaker.pair.both:
        way.pipeline._ear = None
        with pytest.raises(error):
            way.receive(data, speaker.pair.now + FRAME / RATE)
    reference, compiled = (way.take() for way in speaker.pair.both)
    assert reference == compiled
