"""Picture and sound keep the camera's own distance: flashes and beeps, from RTP in to media times out.

Everything runs on a hand-moved clock and the content is decoded, so what is measured is exact to one Opus frame's
encoder delay (6.5 ms).
"""

from __future__ import annotations

import array

import av
import pytest

from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import audio_track, video_track
from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from tests.fixtures.manual_camera import ManualCamera

BAR = 0.045
VIDEO = video_track(VideoSpec(width=64, height=64, seconds=10.0, pattern="flash"))
AUDIO = audio_track(AudioSpec(pattern="beep"))


class Eyes:
    """The pipeline's output, decoded: media times at which flashes and beeps begin."""

    def __init__(self) -> None:
        self.flashes: list[float] = []
        self.beeps: list[float] = []
        self._units = AccessUnitAssembler()
        self._video = av.CodecContext.create("h264", "r")
        self._audio = av.CodecContext.create("libopus", "r")
        self._times: list[float] = []
        self._light, self._quiet = True, 0.0

    def send(self, frame: Frame, now: float) -> None:
        if frame.kind is Kind.VIDEO:
            for payload, marker in frame.payloads:
                for unit in self._units.receive_payload(bytes(payload), marker, round(frame.media_time * 90_000)):
                    self._see(unit.data, frame.media_time)
        else:
            for number, (packet, _) in enumerate(frame.payloads):
                self._hear(bytes(packet), frame.media_time + number * frame.step)

    def _see(self, data: bytes, media_time: float) -> None:
        self._times.append(media_time)
        for picture in self._video.decode(av.Packet(data)):
            at = self._times.pop(0)
            plane = picture.planes[0]
            light = bytes(plane)[16 * plane.line_size + 16] > 128
            if light and not self._light:
                self.flashes.append(at)
            self._light = light

    def _hear(self, data: bytes, media_time: float) -> None:
        for sound in self._audio.decode(av.Packet(data)):
            kind, scale = ("h", 32768.0) if sound.format.name.startswith("s16") else ("f", 1.0)
            samples = array.array(kind, bytes(sound.planes[0]))
            loud = next((i for i, sample in enumerate(samples) if abs(sample) > 0.05 * scale), None)
            if loud is not None:
                at = media_time + loud / len(samples) * sound.samples / sound.sample_rate
                if at - self._quiet > 0.5:
                    self.beeps.append(at)
                self._quiet = media_time + 0.02

    def skews(self, since: float) -> list[float]:
        """Sound behind picture, seconds, for each flash after media time `since`."""
        found = [(min(self.beeps, key=lambda beep: abs(beep - at)), at) for at in self.flashes if at > since]
        return [beep - at for beep, at in found if abs(beep - at) < 0.5]


def playing(**numbers: int) -> tuple[ManualCamera, Eyes]:
    pipeline, eyes = Pipeline(), Eyes()
    pipeline.output = eyes
    camera = ManualCamera(pipeline, VIDEO, AUDIO)
    camera.connect(**numbers)
    return camera, eyes


def in_step(eyes: Eyes, since: float, least: int) -> None:
    skews = eyes.skews(since)
    assert len(skews) >= least, (eyes.flashes, eyes.beeps)
    assert max(map(abs, skews)) <= BAR, skews


def test_from_the_first_second_on_and_by_sender_reports() -> None:
    camera, eyes = playing()
    camera.run(7.0)
    in_step(eyes, 0.0, 5)


@pytest.mark.slow
def test_the_cameras_own_distance_counts_not_that_of_arrival() -> None:
    pipeline, eyes = Pipeline(), Eyes()
    pipeline.output = eyes
    camera = ManualCamera(pipeline, VIDEO, AUDIO)
    camera.sound_late = 0.3
    camera.connect()
    camera.run(12.0)
    in_step(eyes, camera.now - 6.0, 4)
    assert pipeline.skew == pytest.approx(0.3, abs=0.1), "that of arrival is reported"


@pytest.mark.slow
def test_by_arrival_without_sender_reports() -> None:
    pipeline, eyes = Pipeline(), Eyes()
    pipeline.output = eyes
    camera = ManualCamera(pipeline, VIDEO, AUDIO)
    camera.inflict("no_sender_reports")
    camera.connect()
    camera.run(8.0)
    in_step(eyes, 0.0, 6)


@pytest.mark.slow
def test_through_wrap_around() -> None:
    # Timestamps wrap after 2 s of video (4 s of audio), sequence numbers after 100 packets.
    camera, eyes = playing(offset=(1 << 32) - 180_000, sequence=(1 << 16) - 100)
    camera.run(8.0)
    in_step(eyes, 0.0, 6)


@pytest.mark.slow
def test_through_reconnects() -> None:
    camera, eyes = playing()
    for _ in range(3):
        camera.run(3.0)
        camera.now += 1.7
        camera.connect()
    camera.run(3.0)
    in_step(eyes, 0.0, 6)


@pytest.mark.slow
def test_through_a_reconnect_after_which_the_camera_has_another_time_of_day() -> None:
    pipeline, eyes = Pipeline(), Eyes()
    pipeline.output = eyes
    camera = ManualCamera(pipeline, VIDEO, AUDIO)
    camera.sound_late = 0.3
    camera.connect()
    camera.run(6.0)
    camera.now += 20.0
    camera.wall_ahead = -3600.0
    camera.connect()
    camera.run(8.0)
    in_step(eyes, camera.now - 4.0, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("track", "by"), [("both", 3600.0), ("video", -7200.0), ("audio", 3600.0)])
def test_through_jumps_of_the_cameras_clock(track: str, by: float) -> None:
    camera, eyes = playing()
    camera.run(7.0)
    camera.player.jump(by, track)
    camera.run(3.0)
    settled = max(eyes.flashes)
    camera.run(5.0)
    in_step(eyes, 0.0, 8)
    in_step(eyes, settled, 4)


@pytest.mark.slow
def test_in_bursts_and_with_a_clock_that_drifts() -> None:
    camera, eyes = playing()
    camera.inflict("burst")
    camera.inflict("drift", ppm=200.0)
    camera.run(20.0)
    in_step(eyes, 0.0, 16)
