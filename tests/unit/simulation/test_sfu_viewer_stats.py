"""What the simulated SFU says a browser would decode."""

from __future__ import annotations

import random

from relay_common.simulation.sfu.viewer_stats import ViewerStats
from tests.fixtures.quirks import QUIRKS, Quirk

FRAMES = 60


def packets(quirk: Quirk) -> list[tuple[bool, bytes]]:
    clip = quirk.clip()
    return [
        (packet.marker, packet.payload)
        for n in range(FRAMES)
        for packet in quirk.habit(n, clip[n % len(clip)])
        if packet.own_number
    ]


def decoded(sent: list[tuple[bool, bytes]], order: list[int] | None = None) -> int:
    stats = ViewerStats()
    for index in order if order is not None else range(len(sent)):
        marker, payload = sent[index]
        stats.receive(70_000 + index, marker, payload)
    return stats.frames_decoded


def test_a_sane_stream_is_decoded_in_any_order_of_arrival() -> None:
    sent = packets(QUIRKS["sane"])
    assert decoded(sent) == FRAMES
    order = sorted(range(1, len(sent)), key=lambda index: index + random.Random(index).random() * 8)
    assert decoded(sent, [0, *order]) == FRAMES
    stats = ViewerStats()
    for index, (marker, payload) in enumerate(sent * 2):
        stats.receive(index % len(sent), marker, payload)  # again: what it has
    assert stats.snapshot() == {"framesReceived": FRAMES, "framesDecoded": FRAMES, "keyFramesDecoded": FRAMES // 15}


def test_what_a_browser_shows_nothing_of() -> None:
    assert decoded(packets(QUIRKS["marker never set"])) == 0
    assert decoded(packets(QUIRKS["empty fragment, middle"])) == 0
    assert decoded(packets(QUIRKS["no parameter sets anywhere"])) == 0


def test_a_hole_that_is_not_mended_costs_the_pictures_to_the_next_keyframe() -> None:
    sent = packets(QUIRKS["sane"])
    frame = [index for index, (marker, _) in enumerate(sent) if marker]
    hole = frame[4]  # the end of the fifth picture
    stats = ViewerStats()
    for index, (marker, payload) in enumerate(sent * 8):
        if index != hole:
            stats.receive(index, marker, payload)
    assert stats.frames_decoded < 8 * FRAMES
    assert stats.keyframes_decoded >= 8 * FRAMES // 15 - 1 - 256 // 30
    late = [index for index in range(len(sent)) if index != hole]
    late.insert(hole + 20, hole)
    assert decoded(sent, late) == FRAMES
