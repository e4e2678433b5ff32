"""Cameras whose timestamps do not say how far pictures are apart: their arrival does."""

from __future__ import annotations

import itertools
import struct

import pytest

from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import VIDEO_CLOCK_RATE, Format, Frame, Kind, Track
from relay_worker.rtp.timeline import Timeline
from tests.unit.media.test_access_unit_ends import IDR, SPROP, P


@pytest.mark.parametrize("fps", [5, 15, 30])
@pytest.mark.parametrize("clump", [1, 3])
def test_pictures_whose_time_stands_still_leave_as_far_apart_as_they_come(fps: int, clump: int) -> None:
    described = Format(96, "H264", VIDEO_CLOCK_RATE, parameters={"sprop-parameter-sets": SPROP})
    track = Track(Kind.VIDEO, described, "")
    video, frames = VideoInput(track, Timeline()), list[Frame]()
    for n in range(60 * fps):
        now = 1000.0 + n // clump * clump / fps
        packet = struct.pack("!BBHII", 0x80, 0xE0, n & 0xFFFF, 12345, 7) + (P if n % fps else IDR)
        video.receive_packets([packet], now, frames.append)
    times = [frame.media_time for frame in frames if frame.payloads[-1][1]]
    tail = times[-10 * fps :]
    steps = [b - a for a, b in itertools.pairwise(tail)]
    assert sum(steps) / len(steps) == pytest.approx(1 / fps, rel=0.05)
    assert max(abs(step - 1 / fps) for step in steps) < 0.5 / fps
