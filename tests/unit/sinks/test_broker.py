"""The broker: who is published where, and whose late answers count for nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from relay_common.clock import ManualClock
from relay_common.cloudflare import ResponseLost, SessionGone, SfuError
from relay_common.errors import Remedy
from relay_common.protocol import PublishAnswer, PublishFailed, PublishRequest, TrackOffer
from relay_supervisor.sinks.broker import HANDOVER, Broker, Change, Publication
from relay_supervisor.sinks.cloudflare import CloudflareSink
from tests.fixtures.scripted_sfu import ScriptedSfu

LOST = ResponseLost("the answer was lost", remedy=Remedy.REGENERATE)


class Rig:
    def __init__(self) -> None:
        self.sfu, self.clock = ScriptedSfu(), ManualClock()
        self.changes: list[tuple[Change, str, str]] = []
        numbers = iter(range(1, 1000))
        self.broker = Broker(
            CloudflareSink(self.sfu.client),
            self.clock,
            new_id=lambda: f"pub{next(numbers)}",
        )
        self.broker.listen(lambda change, publication, reason: self.changes.append((change, publication.id, reason)))

    async def publish(self, number: int = 1, camera: str = "cam") -> PublishAnswer | PublishFailed | None:
        tracks = [TrackOffer(kind="video", mid="0"), TrackOffer(kind="audio", mid="1")]
        return await self.broker.publish(
            camera, "Front Door", PublishRequest(request=number, offer="v=0", tracks=tracks)
        )

    async def live(self, number: int = 1) -> str:
        answer = await self.publish(number)
        assert isinstance(answer, PublishAnswer)
        assert self.broker.mark_live("cam", answer.publication)
        return answer.publication

    async def closings(self) -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        return [argument[0] for name, argument in self.sfu.calls if name == "close"]


async def test_an_offer_gets_its_answer_and_is_live_only_when_packets_left() -> None:
    rig = Rig()
    answer = await rig.publish(7)
    assert answer == PublishAnswer(request=7, publication="pub1", answer="v=0 answer of session1")
    assert rig.broker.locate("cam") is None
    assert rig.broker.mark_live("cam", "pub1")
    found = rig.broker.locate("cam")
    assert found is not None
    assert [(t.name, t.mid, t.kind) for t in found.tracks] == [
        ("front-door-cam-video", "0", "video"),
        ("front-door-cam-audio", "1", "audio"),
    ]
    assert rig.changes == [(Change.LIVE, "pub1", "")]
    assert rig.broker.mark_live("cam", "pub1")  # said twice: nothing new
    assert not rig.broker.mark_live("cam", "another")
    assert not rig.broker.mark_live("unknown", "pub1")
    assert len(rig.changes) == 1


async def test_layers_that_are_named_after_a_hello_are_told_and_so_stored() -> None:
    rig = Rig()
    await rig.live()
    assert rig.broker.mark_live("cam", "pub1", ["a", "b"])
    found = rig.broker.locate("cam")
    assert found is not None
    assert found.rids == ["a", "b"]
    assert rig.changes == [(Change.LIVE, "pub1", "")] * 2
    assert rig.broker.mark_live("cam", "pub1", ["a", "b"])  # nothing new
    assert len(rig.changes) == 2


async def test_a_new_publication_replaces_the_old_when_it_is_live_not_before() -> None:
    rig = Rig()
    await rig.live(1)
    await rig.publish(2)
    found = rig.broker.locate("cam")
    assert found is not None
    assert found.id == "pub1"
    assert await rig.closings() == []
    rig.broker.mark_live("cam", "pub2")
    found = rig.broker.locate("cam")
    assert found is not None
    assert found.id == "pub2"
    await rig.clock.advance(HANDOVER - 1)
    assert await rig.closings() == []  # viewers are moving
    await rig.clock.advance(2)
    assert await rig.closings() == ["session1"]


async def test_a_late_answer_of_a_superseded_request_is_dropped_and_closed() -> None:
    rig = Rig()
    rig.sfu.held = "publish"
    first = asyncio.ensure_future(rig.publish(1))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(rig.publish(2))
    await asyncio.sleep(0.01)
    rig.sfu.release()
    assert await first is None
    answer = await second
    assert isinstance(answer, PublishAnswer)
    assert answer.request == 2
    assert await rig.closings() == ["session1"]
    assert rig.broker.superseded == 1


async def test_a_pending_publication_that_is_overtaken_is_closed() -> None:
    rig = Rig()
    await rig.publish(1)
    await rig.publish(2)
    assert await rig.closings() == ["session1"]
    assert not rig.broker.mark_live("cam", "pub1")


@pytest.mark.parametrize("operation", ["new_session", "publish"])
async def test_failures_are_reported_and_the_pause_between_tries_is_the_workers(operation: str) -> None:
    rig = Rig()
    rig.sfu.fail(operation, *[LOST] * 8)
    for number in range(8):
        failed = await rig.publish(number)
        assert isinstance(failed, PublishFailed)
        assert (failed.request, failed.reason) == (number, "the answer was lost")
        assert failed.retry_after == 0.0
    # A session that may hold tracks is closed; one that was never made is not.
    assert len(await rig.closings()) == (8 if operation == "publish" else 0)
    rig.sfu.fail(operation, SfuError("slow down", status=429, retry_after=7.0, remedy=Remedy.HOLD))
    failed = await rig.publish(9)
    assert isinstance(failed, PublishFailed)
    assert failed.retry_after == 7.0  # what the SFU asks for is passed on


async def test_a_wrong_secret_is_not_tried_every_few_seconds() -> None:
    rig = Rig()
    refused = SfuError("no", status=401, remedy=Remedy.FATAL, hint="Check app_secret")
    rig.sfu.fail("new_session", refused, refused, refused)
    pauses = []
    for _ in range(3):
        failed = await rig.publish()
        assert isinstance(failed, PublishFailed)
        assert "Check app_secret" in failed.reason
        pauses.append(failed.retry_after)
    assert 1.0 <= pauses[0] <= 2.0, "the SFU may have been wrong: it is believed when it refuses the secret twice"
    assert pauses[1:] == [60.0, 60.0]
    assert isinstance(await rig.publish(), PublishAnswer)
    rig.sfu.fail("new_session", refused)
    failed = await rig.publish()
    assert isinstance(failed, PublishFailed)
    assert failed.retry_after == pauses[0], "accepted in between"


async def test_an_application_that_does_not_exist_is_believed_at_once() -> None:
    rig = Rig()
    rig.sfu.fail("new_session", SfuError("no", status=404, code="not_found", remedy=Remedy.FATAL))
    failed = await rig.publish()
    assert isinstance(failed, PublishFailed)
    assert failed.retry_after == 60.0


@pytest.mark.parametrize(
    "tracks",
    [
        [],
        [TrackOffer(kind="video", mid="0"), TrackOffer(kind="video", mid="1")],
        [TrackOffer(kind="video", mid="0"), TrackOffer(kind="audio", mid="0")],
        [TrackOffer(kind="video", mid="")],
        [TrackOffer(kind="data", mid="0")],
    ],
)
async def test_an_offer_that_makes_no_sense_never_reaches_the_sfu(tracks: list[TrackOffer]) -> None:
    rig = Rig()
    result = await rig.broker.publish("cam", "Door", PublishRequest(request=1, offer="v=0", tracks=tracks))
    assert isinstance(result, PublishFailed)
    assert not rig.sfu.calls


async def test_retiring_closes_and_drops_answers_under_way() -> None:
    rig = Rig()
    await rig.live(1)
    rig.sfu.held = "publish"
    under_way = asyncio.ensure_future(rig.publish(2))
    await asyncio.sleep(0.01)
    await rig.broker.retire("cam")
    rig.sfu.release()
    assert await under_way is None
    assert rig.broker.locate("cam") is None
    assert sorted(await rig.closings()) == ["session1", "session2"]
    assert rig.changes[-1] == (Change.RETIRED, "pub1", "stopped")
    await rig.broker.retire("cam")
    await rig.broker.retire("never heard of")


async def test_retiring_takes_no_longer_than_told_and_counts_what_stays_open() -> None:
    rig = Rig()
    await rig.live(1)
    rig.sfu.held = "close"
    await rig.broker.retire("cam", "pub1", within=0.01)
    await rig.broker.aclose(within=0.01)
    await rig.live(2)
    rig.sfu.release()
    rig.sfu.fail("close", LOST)
    await rig.broker.retire("cam")
    assert rig.broker.unclosed == 1


async def test_lost_publications_are_forgotten_at_once() -> None:
    rig = Rig()
    await rig.live(1)
    assert rig.broker.lost("cam", "pub1", "receiver reports stopped")
    assert rig.broker.locate("cam") is None
    assert rig.changes[-1] == (Change.RETIRED, "pub1", "receiver reports stopped")
    assert not rig.broker.lost("cam", "pub1", "again")


async def test_verification_believes_only_a_definite_no() -> None:
    rig = Rig()
    assert await rig.broker.verify("cam")
    await rig.live(1)
    rig.sfu.fail("get_session", SfuError("busy", status=503, remedy=Remedy.RETRY))
    assert await rig.broker.verify("cam")
    rig.sfu.fail("get_session", SessionGone("gone", status=410, remedy=Remedy.REGENERATE))
    assert not await rig.broker.verify("cam")
    assert rig.broker.locate("cam") is None
    assert rig.changes[-1] == (Change.GONE, "pub1", "gone")


async def test_watching_verifies_every_camera_once_per_interval() -> None:
    rig = Rig()
    watching = asyncio.ensure_future(rig.broker.watch(60.0))
    await rig.clock.advance(120)
    for camera in ("a", "b"):
        answer = await rig.publish(camera=camera)
        assert isinstance(answer, PublishAnswer)
        rig.broker.mark_live(camera, answer.publication)
    await rig.clock.advance(300)
    assert 8 <= rig.sfu.names().count("get_session") <= 11
    watching.cancel()


def stand_still(rig: Rig, seconds: float) -> None:
    """The process is paused: time passes, and nothing runs."""
    rig.clock._now += seconds


async def test_a_pause_makes_no_burst_of_checks_and_costs_no_publication_that_is_still_there() -> None:
    rig = Rig()
    for camera in "abcd":
        answer = await rig.publish(camera=camera)
        assert isinstance(answer, PublishAnswer)
        rig.broker.mark_live(camera, answer.publication)
    watching = asyncio.ensure_future(rig.broker.watch(60.0))
    await rig.clock.advance(40.0)
    before = rig.sfu.names().count("get_session")
    rig.sfu.held = "get_session"  # one is under way when the process is paused, and its answer is lost
    rig.sfu.fail("get_session", SfuError("no complete answer", remedy=Remedy.RETRY))
    await rig.clock.advance(10.0)
    stand_still(rig, 180.0)
    rig.sfu.release()
    await rig.clock.advance(0.0)
    assert rig.sfu.names().count("get_session") == before + 1
    await rig.clock.advance(60.0)
    assert 4 <= rig.sfu.names().count("get_session") - before - 1 <= 5, "evenly spread, as ever"
    assert all(rig.broker.locate(camera) for camera in "abcd")
    rig.sfu.fail("get_session", *[SessionGone("gone", status=410, remedy=Remedy.REGENERATE)] * 4)
    await rig.clock.advance(60.0)
    assert not any(rig.broker.locate(camera) for camera in "abcd"), "what the SFU has collected meanwhile is made anew"
    watching.cancel()


@pytest.mark.parametrize("paused", [6.0, 180.0])
async def test_viewers_are_given_their_time_to_move_after_a_pause(paused: float) -> None:
    rig = Rig()
    await rig.live(1)
    await rig.live(2)
    await rig.clock.advance(1.0)
    stand_still(rig, paused)
    await rig.clock.advance(HANDOVER - 1.0)
    assert await rig.closings() == []
    await rig.clock.advance(2.0)
    assert await rig.closings() == ["session1"]


async def test_a_snapshot_brings_back_what_was_published() -> None:
    rig = Rig()
    await rig.live(1)
    await rig.publish(2)
    stored = msgspec.json.encode(rig.broker.snapshot())
    other = Rig()
    other.broker.restore(msgspec.json.decode(stored, type=list[Publication]))
    found = other.broker.locate("cam")
    assert found is not None
    assert found.id == "pub1"
    assert other.broker.mark_live("cam", "pub1")
    assert other.broker.mark_live("cam", "pub2")
    await other.clock.advance(HANDOVER + 1)
    assert await other.closings() == ["session1"]


async def test_a_forgotten_camera_takes_no_late_answer() -> None:
    rig = Rig()
    rig.sfu.held = "publish"
    under_way = asyncio.ensure_future(rig.publish(1))
    await asyncio.sleep(0.01)
    rig.broker.forget("cam")
    rig.sfu.release()
    assert await under_way is None
    assert rig.broker.snapshot() == []
