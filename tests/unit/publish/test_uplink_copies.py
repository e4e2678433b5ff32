"""What the way to the SFU makes of repairs: copies where the next request would come too late, and there is room."""

from __future__ import annotations

from typing import Any

import pytest

from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.offer import make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.uplink import FAR, Uplink

pytestmark = pytest.mark.usefixtures("data_path")

(VIDEO,) = make_offer(audio=False).tracks


@pytest.mark.parametrize(
    ("round_trip", "queue", "lost", "repairs", "repeats", "tails"),
    [
        (FAR / 2, 0.0, 0.05, False, True, False),  # asking twice is quick enough, three times is not
        (FAR / 2, 0.2, 0.05, False, False, False),
        (FAR / 2, 0.0, 0.30, False, False, False),
        (FAR * 2, 0.0, 0.0, True, False, False),
        (FAR * 2, 0.0, 0.05, True, False, True),
        (FAR * 2, 0.2, 0.05, False, False, False),  # a queue: more would lengthen it
        (FAR * 2, 0.0, 0.30, False, False, False),  # a ceiling
    ],
)
def test_copies_where_they_help(
    wire: Any, round_trip: float, queue: float, lost: float, repairs: bool, repeats: bool, tails: bool
) -> None:
    track = OutgoingTrack(AcceptedTrack(VIDEO, 106, 107, "42e01f", True))
    pacer, sender = Pacer(), MediaSender(wire.protector, wire.path, [track], cname="c")
    uplink, estimate = Uplink(pacer, sender, track), sender.estimate
    for second in range(1, 6):
        now = float(second)
        pacer.take_video([(bytes(1200), True)] * 100, now, now)
        estimate.lowest_rtt, estimate.queue_delay, estimate.delivered_bitrate = round_trip, queue, 1e6
        track.stats.fraction_lost, track.reported = lost, (now, 0, 0, 0)
        uplink.heard(now)
    repair = sender.repair
    assert (repair.repairs_twice, repair.repeats_twice, repair.tails_twice) == (repairs, repeats, tails)
