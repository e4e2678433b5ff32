"""A WebRTC camera's packets on their way through the pipeline: order, loss, Opus as it came, and the handover."""

from __future__ import annotations

import itertools
import struct

import pytest

from relay_worker.camera.handover import MAX_HELD_BYTES, KeyframeGate
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.media.track_input import REORDER
from relay_worker.pipeline import Pipeline

SPS, PPS = bytes.fromhex("6742c01e95a0280bfe54"), bytes.fromhex("68ce3c80")
SETS = b"\x78" + b"".join(len(nal).to_bytes(2, "big") + nal for nal in (SPS, PPS))
IDR, SLICE = b"\x65\x88\x84\x00", b"\x41\x9a\x00\x00"


def video() -> Track:
    return Track(Kind.VIDEO, Format(106, "H264", 90000), control="", ordered=False)


def audio() -> Track:
    return Track(Kind.AUDIO, Format(111, "OPUS", 48000), control="", ordered=False)


def packet(
    sequence: int, payload: bytes, timestamp: int, *, marker: bool = True, pt: int = 106, ssrc: int = 1
) -> bytes:
    return struct.pack("!BBHII", 0x80, marker << 7 | pt, sequence & 0xFFFF, timestamp, ssrc) + payload


class Output:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def payloads(self, kind: Kind) -> list[bytes]:
        return [bytes(payload) for frame in self.frames if frame.kind is kind for payload, _ in frame.payloads]


def playing(*tracks: Track) -> tuple[Pipeline, Output]:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    pipeline.on_playing(tracks, 0.0)
    return pipeline, output


def keyframe(first: int, timestamp: int) -> list[bytes]:
    return [packet(first, SETS, timestamp, marker=False), packet(first + 1, IDR, timestamp)]


def test_a_packet_that_comes_late_takes_its_place_and_nothing_waits_for_a_keyframe() -> None:
    track = video()
    pipeline, output = playing(track)
    late = packet(3, SLICE + b"3", 6000)
    arrivals = [*keyframe(1, 3000), packet(4, SLICE + b"4", 9000), late, packet(5, SLICE + b"5", 12000)]
    for index, one in enumerate(arrivals):
        pipeline.on_media([Batch(track, [one], [])], index * 0.01)
    assert output.payloads(Kind.VIDEO)[2:] == [SLICE + b"3", SLICE + b"4", SLICE + b"5"]
    assert not pipeline.waits_for_keyframe
    assert pipeline.track_stats(Kind.VIDEO).lost_in == 0


def test_a_packet_that_never_comes_is_given_up_and_a_keyframe_wanted() -> None:
    track = video()
    pipeline, output = playing(track)
    for one in [*keyframe(1, 3000), packet(4, SLICE, 9000)]:
        pipeline.on_media([Batch(track, [one], [])], 0.0)
    assert len(output.payloads(Kind.VIDEO)) == 2
    patience = REORDER[Kind.VIDEO][1]
    for number in range(1, 20):
        now = number * 0.02 + 0.001
        pipeline.on_media([Batch(track, [packet(4 + number, SLICE, 9000 + number)], [])], now)
        assert pipeline.waits_for_keyframe == (now > patience)
    pipeline.on_media([Batch(track, keyframe(24, 12000), [])], 0.5)
    assert output.payloads(Kind.VIDEO)[2:] == [SETS, IDR]
    assert pipeline.keyframe_at == 0.5


@pytest.mark.parametrize("first", [20000, 50000])
def test_a_source_that_counts_anew_is_followed_at_its_next_keyframe(first: int) -> None:
    """The same SSRC, as when a camera's sender starts again; its numbers go back, or far ahead."""
    track = video()
    pipeline, output = playing(track)
    before = [*keyframe(40000, 3000), packet(40002, SLICE, 6000)]
    again = [packet(first, SLICE, 9000), *keyframe(first + 1, 12000), packet(first + 3, SLICE, 15000)]
    for number, one in enumerate([*before, *again]):
        pipeline.on_media([Batch(track, [one], [])], number * 0.03)
    assert output.payloads(Kind.VIDEO) == [SETS, IDR, SLICE, SETS, IDR, SLICE]


def test_two_payload_types_are_one_video() -> None:
    track = video()
    pipeline, output = playing(track)
    packets = [*keyframe(1, 3000), packet(3, SLICE, 6000, pt=112)]
    pipeline.on_media([Batch(track, packets, [])], 0.0)
    assert output.payloads(Kind.VIDEO) == [SETS, IDR, SLICE]


def test_opus_passes_byte_for_byte_with_the_cameras_own_spacing() -> None:
    track = audio()
    pipeline, output = playing(track)
    frames = [bytes((0xFC, n)) * 20 for n in range(4)]
    for n, frame in enumerate(frames):
        late = 0.013 if n % 2 else 0.0
        pipeline.on_media([Batch(track, [packet(n, frame, 960 * n, pt=111)], [])], n * 0.02 + late)
    pipeline.on_media([Batch(track, [packet(4, b"", 3840, pt=111)], [])], 0.08)
    assert output.payloads(Kind.AUDIO) == frames
    times = [frame.media_time for frame in output.frames]
    assert all(abs(b - a - 0.02) < 1e-6 for a, b in itertools.pairwise(times))
    stats = pipeline.track_stats(Kind.AUDIO)
    assert (stats.codec, stats.frames) == ("OPUS", 4)


def test_an_audition_ends_with_a_whole_keyframe_and_gives_all_that_belongs_to_it() -> None:
    track, sound = video(), audio()
    audition = KeyframeGate()
    assert not audition.receive_batch(Batch(track, [packet(1, SLICE, 1000)], []))
    assert not audition.receive_batch(Batch(track, [packet(2, IDR, 2000)], [])), "an IDR without its parameter sets"
    assert not audition.receive_batch(Batch(sound, [packet(1, b"\xfc\x00", 0, pt=111)], []))
    assert not audition.receive_batch(Batch(sound, [], [b"report"]))
    assert not audition.receive_batch(Batch(track, [packet(3, SETS, 3000, marker=False)], []))
    assert audition.receive_batch(Batch(track, [packet(4, IDR, 3000)], []))
    pipeline, output = playing(track, sound)
    pipeline.on_media([batch for batch in audition.held if batch.rtp], 0.0)
    assert output.payloads(Kind.VIDEO) == [SETS, IDR]
    assert output.payloads(Kind.AUDIO) == []


def test_an_audition_is_bounded() -> None:
    track = video()
    audition = KeyframeGate()
    for n in range(1000):
        assert not audition.receive_batch(Batch(track, [packet(n, SLICE + bytes(1100), 3000 * n)], []))
        assert sum(len(one) for batch in audition.held for one in batch.rtp) <= MAX_HELD_BYTES + 1200
    assert audition.receive_batch(Batch(track, keyframe(1000, 9_000_000), []))
