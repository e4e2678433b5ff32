"""A relay whose workers move packets as they do without a setting: the same pictures, the same counts."""

from __future__ import annotations

import pytest

from relay_worker import native
from tests.fixtures.running_relay import running_relay

pytestmark = pytest.mark.media


@pytest.mark.parametrize(("protocol", "wakes"), [((), 20), (("--webrtc", "1"), 200)], ids=["RTSP", "WebRTC"])
async def test_a_worker_goes_live_says_what_moves_its_packets_and_loses_nothing(
    protocol: tuple[str, ...], wakes: int
) -> None:
    """By compiled code where it is there, and the suite was not started with another choice in the environment."""
    # Pictures of several packets each, as of cameras.
    options = ("--bitrate", "1500000", *protocol)
    async with running_relay(1, size="640x360", options=options) as relay:
        await relay.until_live()

        def flowing() -> bool:
            (camera,) = relay.supervisor.status().cameras
            return camera.video.packets_out > 300 and camera.video.frames > 60 and camera.audio.packets_out > 50

        await relay.until(flowing, 30.0, "media has passed through")
        (camera,) = relay.supervisor.status().cameras
        assert camera.worker.data_path == native.words()

        def whole() -> bool:
            (camera,) = relay.supervisor.status().cameras
            return camera.counters.get("pipeline.taken_whole", 0) > wakes

        if native.words() == "compiled":
            await relay.until(whole, 30.0, "wakes have been taken with one call each")
        else:
            assert not whole()
        (camera,) = relay.supervisor.status().cameras
        assert (camera.video.lost_in, camera.video.send_drops, camera.video.loss_out) == (0, 0, 0.0)
        assert camera.video.packets_in <= camera.video.packets_out + 100, "what came has left, with parameter sets"
