"""What the camera of the rehearsal plays is what a relay can use: every step of the way is taken."""

from __future__ import annotations

import itertools

from relay_worker.media.opus import OpusTranscoder
from relay_worker.process.rehearsal_camera import Recording

CONFIG = bytes.fromhex("140856e500")


def test_its_sound_is_decoded() -> None:
    written = itertools.takewhile(lambda one: one[0] < 1.0, Recording().writes())
    # Behind "$", channel and length (RFC 2326), the header of RTP and that of the access unit (RFC 3640).
    units = [(at, data[4 + 12 + 4 :]) for at, data in written if data[1] == 2]
    transcoder = OpusTranscoder("aac", CONFIG)
    packets = [packet for at, unit in units for packet in transcoder.transcode(unit, 1.0 + at, 1.0 + at)]
    assert transcoder.counters()["faults"] == 0
    assert len(units) >= 15
    assert len(packets) >= 3 * len(units)
