"""A relay whose workers move packets by compiled code: the same pictures, the same counts."""

from __future__ import annotations

import pytest

from relay_worker import native
from tests.fixtures.running_relay import running_relay

pytestmark = pytest.mark.media


@pytest.mark.skipif(bool(native.missing()), reason=native.missing())
async def test_a_compiled_worker_goes_live_says_so_and_loses_nothing() -> None:
    sections = {"workers": {"data_path": "compiled"}}
    # Pictures of several packets each, as of cameras.
    options = ("--bitrate", "1500000")
    async with running_relay(1, size="640x360", options=options, sections=sections) as relay:
        await relay.until_live()

        def flowing() -> bool:
            (camera,) = relay.supervisor.status().cameras
            return camera.video.packets_out > 300 and camera.video.frames > 60 and camera.audio.packets_out > 50

        await relay.until(flowing, 30.0, "media has passed through")
        (camera,) = relay.supervisor.status().cameras
        assert camera.worker.data_path == "compiled"

        def whole() -> bool:
            (camera,) = relay.supervisor.status().cameras
            return camera.counters.get("pipeline.taken_whole", 0) > 20

        await relay.until(whole, 30.0, "pictures have been taken with one call each")
        assert (camera.video.lost_in, camera.video.send_drops, camera.video.loss_out) == (0, 0, 0.0)
        assert camera.video.packets_in <= camera.video.packets_out + 100, "what came has left, with parameter sets"
