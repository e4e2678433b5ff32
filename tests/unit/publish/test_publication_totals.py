"""What was sent is counted over all publications of a worker's life."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from relay_common.clock import ManualClock
from relay_common.worker_stats import TrackStats
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.feedback import Estimate
from relay_worker.publish.keeper import PublicationKeeper, add_sent
from relay_worker.publish.outgoing import SentStats as Sent
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.pacer import PacerStats
from relay_worker.publish.publication import PublisherSettings, PublisherStats
from relay_worker.publish.publisher import Publisher
from relay_worker.publish.share import UplinkShare


class Stub:
    """A publisher that has sent a lot: each of its totals is another number, `times` over."""

    ice_restarts = ice_restarts_failed = 0

    def __init__(self, times: int) -> None:
        sent = Sent(packets=1 * times, bytes=2 * times, retransmitted=3 * times, nacks=4 * times, plis=5 * times)
        sent.firs, sent.fraction_lost = 6 * times, 0.1 * times
        self._stats = PublisherStats(
            tracks={"video": sent},
            estimate=Estimate(rtt=0.02 * times),
            pacer=PacerStats(dropped_packets=7 * times, thinned_frames=8 * times, dropped_audio=9 * times),
            ceiling=1e6 * times,
            share=UplinkShare(1e5 * times, 2e5 * times),
            queued_bytes=0,
            drops=10 * times,
        )

    def stats(self) -> PublisherStats:
        return self._stats

    def totals(self, kind: str) -> tuple[int, int, int]:
        stats = self._stats.tracks.get(kind, Sent())
        cut = self._stats.pacer.thinned_frames + self._stats.drops if kind == "video" else 0
        return stats.packets, stats.plis + stats.firs, cut


def publisher(times: int) -> Publisher:
    return cast(Publisher, Stub(times))


def keeper() -> PublicationKeeper:
    nothing: Any = lambda *_: None  # noqa: E731
    return PublicationKeeper(
        "Door",
        Outputs(Pipeline()),
        cast(Any, None),
        ManualClock(),
        PublisherSettings(),
        on_live=nothing,
        on_lost=nothing,
        on_problem=nothing,
        on_keyframe_request=nothing,
    )


def counted(subject: PublicationKeeper, kind: Kind = Kind.VIDEO) -> dict[str, float]:
    stats = TrackStats(packets_in=1000, dropped=100)
    add_sent(stats, subject.sent()[kind])
    known = msgspec.structs.asdict(TrackStats())
    return {name: value for name, value in msgspec.structs.asdict(stats).items() if value != known[name]}


def test_totals_are_of_all_publications_and_shares_of_the_present_one() -> None:
    subject = keeper()
    subject._retire(publisher(1))
    subject._retire(publisher(10))
    subject.publisher = publisher(100)
    assert counted(subject) == {
        "packets_in": 1000,
        "packets_out": 111,
        "bytes_out": 222,
        "retransmitted": 333,
        "nacks": 444,
        "plis": 555,
        "firs": 666,
        "dropped": 877,
        "thinned": 888,
        "send_drops": 1110,
        "loss_out": 10.0,
        "rtt": 2.0,
        "ceiling": 1e8,
        "carried": 1e7,
        "offered": 2e7,
    }


def test_between_two_publications_the_totals_stand_still() -> None:
    subject = keeper()
    subject._retire(publisher(1))
    first = counted(subject)
    assert first == counted(subject)
    assert "rtt" not in first
    assert first["send_drops"] == 10


def test_a_track_that_is_not_published_has_sent_nothing() -> None:
    subject = keeper()
    subject.publisher = publisher(1)
    assert counted(subject, Kind.AUDIO) == {"packets_in": 1000, "dropped": 100}
    assert subject.totals(Kind.AUDIO) == (0, 0, 0)


def test_what_is_asked_every_second_is_what_is_reported() -> None:
    subject = keeper()
    for times in (0, 1, 10):
        subject._retire(publisher(times))
        subject.publisher = publisher(100 * times)
        stats = subject.sent()[Kind.VIDEO]
        expected = (stats.packets_out, stats.plis + stats.firs, stats.thinned + stats.send_drops)
        assert subject.totals(Kind.VIDEO) == expected
