"""Views: what a page is told, how it follows publications, and when a view ends."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from relay_common.clock import ManualClock
from relay_common.cloudflare import SessionGone, SfuError
from relay_common.errors import Remedy
from relay_common.protocol import PublishAnswer, PublishRequest, TrackOffer
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.cloudflare import CloudflareSink
from relay_supervisor.sinks.ice_servers import IceServers
from relay_supervisor.viewing.bounds import MAX_VIEWS
from relay_supervisor.viewing.decoding import PageState, Received
from relay_supervisor.viewing.viewers import ANSWER_WITHIN, IDLE_AFTER, Viewers
from relay_supervisor.viewing.views import Audience, ViewAnswer, ViewError, Visitor
from tests.fixtures.scripted_sfu import ScriptedSfu

GONE = SessionGone("session1 is gone", status=410, remedy=Remedy.REGENERATE)


class Rig:
    def __init__(self, bound: int = 8) -> None:
        self.sfu, self.clock = ScriptedSfu(), ManualClock()
        self.broker = Broker(CloudflareSink(self.sfu.client), self.clock)
        self.revoked: set[str] = set()
        self.viewers = Viewers(
            self.sfu.client,
            self.broker,
            self.clock,
            link_revoked=self.revoked.__contains__,
            rng=random.Random(2),
            ice=IceServers(["stun:127.0.0.1:1"], None, self.clock),
            bound=bound,
        )

    async def camera(self, name: str, *, audio: bool = True) -> None:
        tracks = [TrackOffer(kind="video", mid="0")] + [TrackOffer(kind="audio", mid="1")] * audio
        answer = await self.broker.publish(name, name, PublishRequest(request=1, offer="v=0", tracks=tracks))
        assert isinstance(answer, PublishAnswer)
        self.broker.mark_live(name, answer.publication)

    async def opened(self, *cameras: str) -> ViewAnswer:
        answer = await self.viewers.open(cameras)
        await self.viewers.answer(answer.view, "v=0 answer")
        return answer

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def shown(answer: ViewAnswer) -> set[tuple[str, str]]:
    return {(track.camera, track.kind) for track in answer.tracks}


async def test_one_call_pulls_all_cameras_and_the_page_learns_only_mids() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b", audio=False)
    answer = await rig.viewers.open(["a", "b", "a", "c"])
    assert shown(answer) == {("a", "video"), ("a", "audio"), ("b", "video")}
    assert [(u.camera, u.reason) for u in answer.unavailable] == [("c", "The camera is not live")]
    assert (answer.action, answer.offer) == ("answer", "v=0 offer")
    assert answer.ice_servers == [{"urls": ["stun:127.0.0.1:1"]}]
    assert rig.sfu.names().count("pull") == 1
    told = msgspec.json.encode(answer).decode()
    assert "session" not in told
    assert "a-a-video" not in told
    await rig.viewers.answer(answer.view, "v=0 answer")
    assert rig.viewers.outcomes["answered"] == 1
    without = await rig.viewers.open(["a"], audio=False)
    assert shown(without) == {("a", "video")}


async def test_nothing_live_costs_no_session() -> None:
    rig = Rig()
    answer = await rig.viewers.open(["a"])
    assert (answer.view, answer.action, len(answer.unavailable)) == ("", "none", 1)
    assert not rig.sfu.calls
    assert len(rig.viewers) == 0


async def test_a_first_pull_that_comes_too_early_is_repeated_on_a_fresh_session() -> None:
    rig = Rig()
    await rig.camera("a")
    rig.sfu.missing = {"a-a-video", "a-a-audio"}
    opening = asyncio.ensure_future(rig.viewers.open(["a"]))
    await rig.clock.advance(0.01)
    rig.sfu.missing = set()
    await rig.clock.advance(3)
    answer = await opening
    assert answer.action == "answer"
    assert [argument for name, argument in rig.sfu.calls if name == "new_session"] == ["a", "view", "view"]


async def test_a_pull_that_never_comes_is_told_with_its_reason() -> None:
    rig = Rig()
    await rig.camera("a")
    rig.sfu.missing = {"a-a-video", "a-a-audio"}
    opening = asyncio.ensure_future(rig.viewers.open(["a"]))
    await rig.clock.advance(30)
    answer = await opening
    assert (answer.view, answer.action) == ("", "none")
    assert answer.unavailable[0].reason == "The SFU has no packets of this camera yet"
    assert rig.sfu.names().count("pull") == 4


async def test_a_camera_that_was_missing_is_added_by_another_offer() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    rig.sfu.missing = {"b-b-video", "b-b-audio"}
    answer = await rig.opened("a", "b")
    assert shown(answer) == {("a", "video"), ("a", "audio")}
    rig.sfu.missing = set()
    answer = await rig.viewers.update(answer.view)
    assert answer.action == "answer"
    assert shown(answer) == {(c, k) for c in "ab" for k in ("video", "audio")}
    assert rig.sfu.calls[-1] == ("pull", ["b-b-video", "b-b-audio"])
    waiting = await rig.viewers.update(answer.view)
    assert waiting.action == "none"  # its offer is not answered yet
    await rig.viewers.answer(answer.view, "v=0 answer")
    assert (await rig.viewers.update(answer.view)).action == "none"


async def test_a_camera_that_is_published_anew_is_repointed_in_place() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    before = await rig.opened("a", "b")
    await rig.camera("a")
    after = await rig.viewers.update(before.view)
    assert after.action == "none"
    assert [t.mid for t in after.tracks] == [t.mid for t in before.tracks]
    changed = {t.camera for t, old in zip(after.tracks, before.tracks, strict=True) if t.publication != old.publication}
    assert changed == {"a"}
    assert rig.sfu.names().count("update") == 1


async def test_where_the_sfu_does_not_repoint_only_that_camera_is_pulled_anew() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    before = await rig.opened("a", "b")
    await rig.camera("a")
    rig.sfu.update_refused = True
    after = await rig.viewers.update(before.view)
    assert after.action == "answer"
    kept = {t.mid for t in before.tracks if t.camera == "b"}
    assert kept == {t.mid for t in after.tracks if t.camera == "b"}
    assert not {t.mid for t in before.tracks if t.camera == "a"} & {t.mid for t in after.tracks}
    assert rig.sfu.calls[-1] == ("pull", ["a-a-video", "a-a-audio"])


async def test_a_camera_that_lost_or_gained_its_sound_is_pulled_anew() -> None:
    rig = Rig()
    await rig.camera("a")
    answer = await rig.opened("a")
    for audio in (False, True):
        await rig.camera("a", audio=audio)
        answer = await rig.viewers.update(answer.view)
        assert answer.action == "answer"
        assert shown(answer) == {("a", "video")} | ({("a", "audio")} if audio else set())
        await rig.viewers.answer(answer.view, "v=0 answer")


async def test_one_that_only_partly_comes_is_not_asked_for_again_and_again() -> None:
    rig = Rig()
    await rig.camera("a")
    rig.sfu.missing = {"a-a-audio"}
    answer = await rig.opened("a")
    assert shown(answer) == {("a", "video")}
    pulls = rig.sfu.names().count("pull")
    for _ in range(5):
        assert (await rig.viewers.update(answer.view)).action == "none"
    assert rig.sfu.names().count("pull") == pulls


async def test_a_picture_that_was_refused_beside_its_sound_is_asked_for_again_and_the_sound_stays() -> None:
    rig = Rig()
    await rig.camera("a")
    rig.sfu.missing = {"a-a-video"}
    before = await rig.opened("a")
    assert shown(before) == {("a", "audio")}
    assert [(one.camera, one.reason) for one in before.unavailable] == [
        ("a", "The SFU has no packets of this camera yet")
    ]
    assert (await rig.viewers.update(before.view)).unavailable, "it is still missing"
    rig.sfu.missing = set()
    after = await rig.viewers.update(before.view)
    assert (after.action, shown(after), after.unavailable) == ("answer", {("a", "video"), ("a", "audio")}, [])
    assert rig.sfu.calls[-1] == ("pull", ["a-a-video"])
    assert before.tracks[0] in after.tracks, "its sound plays on"
    assert "close" not in rig.sfu.names()


async def test_a_picture_that_stands_still_is_pulled_anew() -> None:
    rig = Rig()
    await rig.camera("a")
    before = await rig.opened("a")
    after = await rig.viewers.update(before.view, stale=["a"])
    assert after.action == "answer"
    assert rig.sfu.names()[-2:] == ["close", "pull"]


async def test_the_page_may_change_what_it_watches() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    answer = await rig.opened("a")
    answer = await rig.viewers.update(answer.view, ["b"])
    assert (answer.action, {t.camera for t in answer.tracks}) == ("answer", {"b"})


@pytest.mark.parametrize("operation", ["pull", "update"])
async def test_a_session_that_is_gone_means_a_fresh_view(operation: str) -> None:
    rig = Rig()
    await rig.camera("a")
    answer = await rig.opened("a", "b")
    await rig.camera("a" if operation == "update" else "b")
    rig.sfu.fail(operation, GONE)
    answer = await rig.viewers.update(answer.view)
    assert answer.action == "reopen"
    with pytest.raises(ViewError) as caught:
        await rig.viewers.update(answer.view)
    assert (caught.value.code, caught.value.status) == ("view_gone", 410)


async def test_offers_on_one_session_are_bounded() -> None:
    rig = Rig()
    await rig.camera("a")
    answer = await rig.opened("a")
    for _ in range(20):
        answer = await rig.viewers.update(answer.view, stale=["a"])
        if answer.action == "reopen":
            break
        await rig.viewers.answer(answer.view, "v=0 answer")
    assert answer.action == "reopen"
    assert rig.sfu.names().count("pull") == 8


async def test_an_answer_that_is_not_taken_ends_the_view_without_naming_the_session() -> None:
    rig = Rig()
    await rig.camera("a")
    answer = await rig.viewers.open(["a"])
    rig.sfu.fail("renegotiate", GONE)
    with pytest.raises(ViewError) as caught:
        await rig.viewers.answer(answer.view, "v=0 answer")
    assert caught.value.code == "view_gone"
    assert "session1" not in str(caught.value)
    await rig.settled()
    assert rig.sfu.names()[-1] == "close"


async def test_answers_are_checked() -> None:
    rig = Rig()
    await rig.camera("a")
    answer = await rig.opened("a")
    for sdp, code in (("v=0 again", "no_offer"), ("junk", "bad_sdp"), ("v=0" + "x" * 600_000, "bad_sdp")):
        with pytest.raises(ViewError) as caught:
            await rig.viewers.answer(answer.view, sdp)
        assert caught.value.code == code


async def test_views_end_without_an_answer_and_without_a_page() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.viewers.open(["a"])
    quiet = await rig.opened("a")
    busy = await rig.opened("a")
    watching = asyncio.ensure_future(rig.viewers.watch())
    await rig.clock.advance(ANSWER_WITHIN + 5)
    assert (len(rig.viewers), rig.viewers.outcomes["unanswered"]) == (2, 1)
    for _ in range(10):
        await rig.clock.advance(IDLE_AFTER / 8)
        await rig.viewers.update(busy.view)
    assert (len(rig.viewers), rig.viewers.outcomes["idle"]) == (1, 1)
    assert rig.sfu.names().count("close") == 2
    await rig.viewers.close(busy.view)
    await rig.viewers.close(busy.view)
    await rig.viewers.close(quiet.view)
    assert rig.viewers.outcomes["closed"] == 1
    watching.cancel()


async def test_views_are_bounded() -> None:
    rig = Rig(bound=2)
    await rig.camera("a")
    for _ in range(2):
        await rig.opened("a")
    with pytest.raises(ViewError) as caught:
        await rig.viewers.open(["a"])
    assert (caught.value.code, caught.value.status) == ("too_many_views", 503)
    await rig.viewers.aclose()
    assert len(rig.viewers) == 0
    await rig.opened("a")
    with pytest.raises(ViewError, match="1 to 32"):
        await rig.viewers.open([str(n) for n in range(33)])


async def test_an_sfu_that_fails_is_told_without_its_words() -> None:
    rig = Rig()
    await rig.camera("a")
    rig.sfu.fail(
        "new_session", SfuError("track a-a-video of session1", code="backend_error", status=500, remedy=Remedy.RETRY)
    )
    with pytest.raises(ViewError) as caught:
        await rig.viewers.open(["a"])
    assert caught.value.status == 502
    assert str(caught.value) == "Cloudflare refuses viewers: 500"
    assert len(rig.viewers) == 0


async def test_what_is_asked_for_and_watched_is_told() -> None:
    rig = Rig()
    asked: list[list[str]] = []
    rig.viewers._on_asked = asked.append
    await rig.camera("a")
    opening = asyncio.ensure_future(rig.viewers.open(["a", "idle"]))
    await asyncio.sleep(0)
    assert rig.viewers.watched() == {"a", "idle"}, "while it is being opened already"
    answer = await opening
    assert rig.viewers.watched() == {"a", "idle"}
    await rig.viewers.update(answer.view, ["a"])
    assert asked == [["a", "idle"], ["a"]]
    assert rig.viewers.watched() == {"a"}
    await rig.viewers.close(answer.view)
    assert rig.viewers.watched() == set()


async def test_who_may_see_one_camera_gets_no_other_and_touches_no_other_view() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    everything = await rig.opened("a", "b")
    one = Audience(cameras=frozenset({"a"}))
    for cameras in (["b"], ["a", "b"], ["none"]):
        with pytest.raises(ViewError) as caught:
            await rig.viewers.open(cameras, audience=one)
        assert (caught.value.code, caught.value.status) == ("not_allowed", 403)
    own = await rig.viewers.open(["a"], audience=one)
    assert {track.camera for track in own.tracks} == {"a"}
    await rig.viewers.answer(own.view, "v=0 answer", audience=one)
    with pytest.raises(ViewError) as caught:
        await rig.viewers.update(own.view, ["a", "b"], audience=one)
    assert caught.value.code == "not_allowed"
    # Knowing the name of somebody else's view does not help.
    for call in (
        rig.viewers.update(everything.view, ["a"], audience=one),
        rig.viewers.answer(everything.view, "v=0 answer", audience=one),
    ):
        with pytest.raises(ViewError) as caught:
            await call
        assert caught.value.code == "view_gone"
    await rig.viewers.close(everything.view, audience=one)
    assert len(rig.viewers) == 2
    # Whoever sees all may end any.
    await rig.viewers.close(own.view)
    assert len(rig.viewers) == 1


async def test_a_view_ends_with_the_right_to_it() -> None:
    rig = Rig()
    await rig.camera("a")
    until = rig.clock.wall() + 20
    answer = await rig.viewers.open(["a"], audience=Audience(cameras=frozenset({"a"}), until=until))
    await rig.viewers.answer(answer.view, "v=0 answer")
    rig.clock.step_wall(19)
    rig.viewers.sweep(rig.clock.now())
    assert len(rig.viewers) == 1
    rig.clock.step_wall(1)
    rig.viewers.sweep(rig.clock.now())
    assert (len(rig.viewers), rig.viewers.outcomes["expired"]) == (0, 1)
    await rig.settled()
    assert rig.sfu.names()[-1] == "close"


async def test_the_views_of_a_revoked_link_end_at_once_and_those_being_opened_at_the_next_sweep() -> None:
    rig = Rig()
    await rig.camera("a")
    answers = []
    for link in ("one", "one", "other"):
        visitor = Visitor(operator=False, address="192.0.2.1", link=link)
        answers.append(await rig.viewers.open(["a"], visitor=visitor))
        await rig.viewers.answer(answers[-1].view, "v=0 answer")
    assert (rig.viewers.of_link("one"), rig.viewers.of_link("other")) == (2, 1)
    rig.viewers.end_link("one")
    assert (len(rig.viewers), rig.viewers.outcomes["revoked"]) == (1, 2)
    rig.revoked.add("other")
    rig.viewers.sweep(rig.clock.now())
    assert (len(rig.viewers), rig.viewers.outcomes["revoked"]) == (0, 3)
    with pytest.raises(ViewError, match="over"):
        await rig.viewers.update(answers[0].view)


async def test_a_view_that_is_replaced_plays_on_until_its_page_closes_it() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    answer = await rig.opened("a", "b")
    for _ in range(20):
        answer = await rig.viewers.update(answer.view, stale=["a"])
        if answer.action == "reopen":
            break
        await rig.viewers.answer(answer.view, "v=0 answer")
    assert {track.camera for track in answer.tracks} == {"b"}
    assert len(rig.viewers) == 1
    await rig.viewers.close(answer.view)
    assert len(rig.viewers) == 0


async def test_pages_that_nobody_could_hear_are_not_taken_for_idle() -> None:
    """The supervisor stood still for longer than a view may be idle: it has to hear the pages first."""
    rig = Rig()
    await rig.camera("a")
    answered, offered = await rig.opened("a"), await rig.viewers.open(["a"])
    watching = asyncio.ensure_future(rig.viewers.watch())
    await rig.clock.advance(6.0)
    rig.clock._now += 2 * IDLE_AFTER  # no sleeper wakes meanwhile, as when the process is stopped
    await rig.clock.advance(1.0)
    assert len(rig.viewers) == 2
    await rig.viewers.update(answered.view)
    await rig.clock.advance(ANSWER_WITHIN)
    assert rig.viewers.outcomes["unanswered"] == 1
    assert offered.view != answered.view
    await rig.clock.advance(IDLE_AFTER + 10.0)
    assert len(rig.viewers) == 0
    watching.cancel()


# --- bounds ---------------------------------------------------------------------------------------------------------


async def refused(rig: Rig, visitor: Visitor) -> str:
    with pytest.raises(ViewError) as caught:
        await rig.viewers.open(["a"], visitor=visitor)
    assert caught.value.code == "too_many_views"
    return f"{caught.value.status} {caught.value.message}"


async def test_one_link_opens_eight_views_and_the_operator_still_gets_in() -> None:
    rig = Rig(bound=MAX_VIEWS)
    await rig.camera("a")
    guests = [Visitor(operator=False, address=f"192.0.2.{n}", link="a.1") for n in range(9)]
    views = [await rig.viewers.open(["a"], visitor=guest) for guest in guests[:8]]
    assert "429 This link has 8 views open" in await refused(rig, guests[8])
    await rig.viewers.open(["a"], visitor=Visitor(operator=False, address="192.0.2.9", link="a.2"))
    await rig.viewers.open(["a"])
    await rig.viewers.close(views[0].view)
    await rig.viewers.open(["a"], visitor=guests[8])


async def test_one_address_opens_32_views_with_any_number_of_links() -> None:
    rig = Rig(bound=MAX_VIEWS)
    await rig.camera("a")
    for number in range(32):
        await rig.viewers.open(["a"], visitor=Visitor(operator=False, address="192.0.2.1", link=f"a.{number}"))
    assert "429 32 views are open from your address" in await refused(rig, Visitor(operator=False, address="192.0.2.1"))
    await rig.viewers.open(["a"], visitor=Visitor(operator=False, address="192.0.2.2"))


async def test_guests_leave_a_quarter_to_the_operator() -> None:
    rig = Rig(bound=MAX_VIEWS)
    await rig.camera("a")
    for number in range(96):
        await rig.viewers.open(["a"], visitor=Visitor(operator=False, address=f"192.0.2.{number}"))
    assert "503 96 views of guests" in await refused(rig, Visitor(operator=False, address="198.51.100.1"))
    for _ in range(32):
        await rig.viewers.open(["a"])
    assert "503 128 views are open" in await refused(rig, Visitor(operator=True))
    assert rig.viewers.outcomes["refused"] == 2


async def test_views_that_are_being_opened_count() -> None:
    rig = Rig(bound=MAX_VIEWS)
    await rig.camera("a")
    rig.sfu.missing = {"a-a-video", "a-a-audio"}
    guest = Visitor(operator=False, address="192.0.2.1", link="a.1")
    opening = [asyncio.ensure_future(rig.viewers.open(["a"], visitor=guest)) for _ in range(8)]
    await rig.settled()
    assert "429" in await refused(rig, guest)
    await rig.clock.advance(30)
    assert {(await view).action for view in opening} == {"none"}
    assert len(rig.viewers) == 0


async def test_what_a_page_receives_counts_for_cameras_of_its_own_view_until_that_ends() -> None:
    rig = Rig()
    await rig.camera("a")
    await rig.camera("b")
    answer = await rig.opened("a")
    told = [Received(camera=camera, bytes=1000, frames=30) for camera in ("a", "b")]
    assert rig.viewers.received(answer.view, told) == {}
    sights = [rig.viewers.decoding.page_state(answer.view, camera, rig.clock.now()) for camera in ("a", "b")]
    assert sights == [PageState.DECODING, PageState.UNKNOWN]
    with pytest.raises(ViewError) as gone:
        rig.viewers.received(answer.view, told, audience=Audience(cameras=frozenset({"b"})))
    assert gone.value.status == 410
    await rig.viewers.close(answer.view)
    assert rig.viewers.decoding.page_state(answer.view, "a", rig.clock.now()) is PageState.UNKNOWN
    with pytest.raises(ViewError):
        rig.viewers.received(answer.view, told)
