"""What a packet costs on its way through: no log call, no timer, and nothing that stays."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import audio_track, video_track
from relay_worker.media.stream import Frame
from relay_worker.pipeline import Pipeline
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.sender import MediaSender
from tests.fixtures.manual_camera import ManualCamera
from tests.fixtures.pacing import hand_in

pytestmark = pytest.mark.usefixtures("data_path")

VIDEO, AUDIO = make_offer(audio=True).tracks


class Publication:
    """Pacer and sender as the output of a pipeline."""

    def __init__(self, wire: Any) -> None:
        self.pacer = Pacer()
        self.waits = 0
        self._video = OutgoingTrack(AcceptedTrack(VIDEO, 106, 107, "42e01f", True))
        self._audio = OutgoingTrack(AcceptedTrack(AUDIO, 111, None, "", False))
        self._sender = MediaSender(wire.protector, wire.path, [self._video, self._audio], cname="c")
        self._sender.set_clock(1000.0, 1_700_000_000.0, 1000.0)

    def send(self, frame: Frame, now: float) -> None:
        for release in hand_in(self.pacer, frame.kind.value, frame.payloads, frame.media_time, now):
            track = self._video if release.kind == "video" else self._audio
            self._sender.send(track, release.payloads, track.rtp_time(release.media_time), now)
        self.waits += self.pacer.next_deadline() is not None


@pytest.mark.slow
def test_a_minute_of_even_media_leaves_no_line_no_wait_and_no_object(
    wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, output = Pipeline(), Publication(wire)
    pipeline.output = output
    spec = VideoSpec(width=320, height=240, seconds=2.0)
    camera = ManualCamera(pipeline, video_track(spec), audio_track(AudioSpec()))
    camera.connect()
    camera.run(10.0)
    kept = []
    for _ in range(2):
        before, waited = wire.near.sent, output.waits
        caplog.clear()
        gc.collect()
        objects = len(gc.get_objects())
        with caplog.at_level(logging.DEBUG):
            camera.run(60.0)
        sent = wire.near.sent - before
        assert sent > 3000
        # Each sender report of the camera is worth a line when debugging; no packet is.
        lines = [record for record in caplog.records if record.name.startswith("relay")]
        assert len(lines) < 60
        assert output.waits - waited < 60, "no timer but for keyframes"
        gc.collect()
        kept.append((len(gc.get_objects()) - objects) / sent)
    # What packets leave behind, every minute leaves; what else this process still holds from other tests, it does not.
    assert min(kept) < 1 / 20
