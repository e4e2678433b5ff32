"""Which of a camera's pictures a view receives, and how that changes."""

from __future__ import annotations

import asyncio
import random

from relay_common.clock import ManualClock
from relay_common.cloudflare import PoliciesRefused, SimulcastChoice
from relay_common.protocol import PublishAnswer, PublishRequest, TrackOffer
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.cloudflare import CloudflareSink
from relay_supervisor.viewing.view import KEPT_WARM
from relay_supervisor.viewing.viewers import Viewers
from relay_supervisor.viewing.views import ViewAnswer
from tests.fixtures.scripted_sfu import ScriptedSfu

LAYERS = ["a", "b"]


def layer(rid: str) -> SimulcastChoice:
    return SimulcastChoice(preferred_rid=rid, priority_ordering="asciibetical", rid_not_available="asciibetical")


class Rig:
    def __init__(self) -> None:
        self.sfu, self.clock = ScriptedSfu(), ManualClock()
        self.broker = Broker(CloudflareSink(self.sfu.client), self.clock)
        self.small_when_asked: list[dict[str, int]] = []
        """Whose small picture was needed each time that qualities were asked for, before the SFU was told."""
        self.viewers = Viewers(
            self.sfu.client,
            self.broker,
            self.clock,
            rng=random.Random(2),
            on_qualities=lambda: self.small_when_asked.append(dict(self.viewers.having_small())),
        )

    async def camera(self, name: str, rids: list[str]) -> None:
        tracks = [TrackOffer(kind="video", mid="0", rids=rids), TrackOffer(kind="audio", mid="1")]
        answer = await self.broker.publish(name, name, PublishRequest(request=1, offer="v=0", tracks=tracks))
        assert isinstance(answer, PublishAnswer)
        assert self.broker.mark_live(name, answer.publication, rids)

    async def opened(self, *cameras: str, **qualities: str) -> ViewAnswer:
        answer = await self.viewers.open(cameras, True, qualities)
        await self.viewers.answer(answer.view, "v=0 answer")
        return answer


def qualities(answer: ViewAnswer) -> dict[tuple[str, str], str]:
    return {(track.camera, track.kind): track.quality for track in answer.tracks}


def mid_of(answer: ViewAnswer, camera: str) -> str:
    return next(track.mid for track in answer.tracks if (track.camera, track.kind) == (camera, "video"))


async def test_a_pull_whose_layers_are_refused_beside_an_offer_is_made_in_another_session() -> None:
    rig = Rig()
    await rig.camera("door", LAYERS)
    rig.sfu.fail("pull", PoliciesRefused(), None, PoliciesRefused())
    opening = asyncio.ensure_future(rig.opened("door", door="small"))
    await rig.clock.advance(5.0)
    answer = await asyncio.wait_for(opening, 5)
    assert qualities(answer)["door", "video"] == "small"
    names = rig.sfu.names()
    assert names[-5:] == ["new_session", "pull", "new_session", "pull", "renegotiate"]
    await rig.camera("yard", LAYERS)
    assert (await rig.viewers.update(answer.view, ["door", "yard"])).action == "reopen", "what plays cannot be kept"


async def test_a_view_receives_the_layer_it_asks_for_and_the_original_otherwise() -> None:
    rig = Rig()
    await rig.camera("door", LAYERS)
    await rig.camera("yard", LAYERS)
    await rig.camera("plain", [])
    answer = await rig.opened("door", "yard", "plain", door="small", plain="small", unknown="small")
    shown = qualities(answer)
    assert (shown["door", "video"], shown["yard", "video"], shown["plain", "video"]) == ("small", "full", "")
    assert {quality for (_, kind), quality in shown.items() if kind == "audio"} == {""}
    assert rig.sfu.layers[mid_of(answer, "door")] == layer("b")
    assert rig.sfu.layers[mid_of(answer, "yard")] == layer("a")
    assert [choice for choice in rig.sfu.layers.values() if choice is not None] == [layer("b"), layer("a")]
    assert rig.viewers.having_small() == {"door": 1}


async def test_enlarging_changes_the_layer_by_an_update_without_an_offer() -> None:
    rig = Rig()
    await rig.camera("door", LAYERS)
    await rig.camera("yard", LAYERS)
    before = await rig.opened("door", "yard", door="small", yard="small")
    after = await rig.viewers.update(before.view, None, (), {"door": "full"})
    assert (after.action, after.offer) == ("none", "")
    assert rig.sfu.calls[-1] == ("update", [mid_of(before, "door")])
    assert rig.sfu.layers[mid_of(before, "door")] == layer("a")
    assert qualities(after)["door", "video"] == "full"
    assert qualities(after)["yard", "video"] == "small", "a camera that is not named keeps its quality"
    await rig.clock.advance(KEPT_WARM)
    assert rig.viewers.having_small() == {"yard": 1}
    assert (rig.viewers.outcomes["requalified"], rig.viewers.outcomes["repointed"]) == (1, 0)
    calls = len(rig.sfu.calls)
    await rig.viewers.update(before.view, None, (), {"door": "full"})
    assert len(rig.sfu.calls) == calls, "what is as wanted costs no call"
    await rig.viewers.close(before.view)
    assert rig.viewers.having_small() == {}


async def test_a_small_picture_is_made_from_the_moment_it_is_asked_for_and_for_a_while_after_the_full_one() -> None:
    """A page that tries whether its line carries the full picture is back soon where it does not, and cannot wait."""
    rig = Rig()
    await rig.camera("door", LAYERS)
    await rig.camera("plain", [])
    view = await rig.opened("door", "plain", door="small", plain="small")
    assert rig.small_when_asked == [{"door": 1, "plain": 1}], "before anything is known of what the SFU has"
    assert rig.viewers.having_small() == {"door": 1}
    await rig.viewers.update(view.view, None, (), {"door": "full"})
    await rig.clock.advance(KEPT_WARM - 1)
    assert rig.viewers.having_small() == {"door": 1}
    await rig.clock.advance(1)
    assert rig.viewers.having_small() == {}
    await rig.viewers.update(view.view, None, (), {"door": "small"})
    assert rig.small_when_asked[-1] == {"door": 1}
    await rig.viewers.update(view.view, None, (), {"door": "full"})
    await rig.viewers.close(view.view)
    assert rig.viewers.having_small() == {}, "of whoever has gone nothing is kept"


async def test_a_camera_that_is_published_anew_keeps_its_quality_and_follows_what_there_is() -> None:
    rig = Rig()
    await rig.camera("door", LAYERS)
    before = await rig.opened("door", door="small")
    mid = mid_of(before, "door")
    await rig.camera("door", LAYERS)
    again = await rig.viewers.update(before.view)
    assert (mid_of(again, "door"), qualities(again)["door", "video"]) == (mid, "small")
    assert rig.sfu.layers[mid] == layer("b")
    await rig.camera("door", [])
    plain = await rig.viewers.update(before.view)
    assert (mid_of(plain, "door"), qualities(plain)["door", "video"]) == (mid, "")
    assert rig.sfu.layers[mid] is None
    await rig.camera("door", LAYERS)
    small = await rig.viewers.update(before.view)
    assert qualities(small)["door", "video"] == "small"
    assert rig.viewers.outcomes["repointed"] == 3


async def test_a_layer_that_the_sfu_does_not_change_stays_and_costs_no_picture() -> None:
    rig = Rig()
    await rig.camera("door", LAYERS)
    before = await rig.opened("door", door="small")
    rig.sfu.update_refused = True
    after = await rig.viewers.update(before.view, None, (), {"door": "full"})
    assert after.action == "none"
    assert after.tracks == before.tracks
    calls = len(rig.sfu.calls)
    await rig.viewers.update(before.view)
    assert len(rig.sfu.calls) == calls, "it is not asked for again by itself"
    rig.sfu.update_refused = False
    assert qualities(await rig.viewers.update(before.view, None, (), {"door": "full"}))["door", "video"] == "full"


async def test_layers_that_become_known_only_later_are_received_as_wanted() -> None:
    rig = Rig()
    await rig.camera("door", [])
    before = await rig.opened("door", door="small")
    live = rig.broker.locate("door")
    assert live is not None
    assert rig.broker.mark_live("door", live.id), "a hello, which names no layers"
    assert not live.has_small
    assert rig.broker.mark_live("door", live.id, LAYERS)
    rig.sfu.update_refused = True
    refused = await rig.viewers.update(before.view)
    assert qualities(refused)["door", "video"] == "full", "which is what one without a choice receives"
    rig.sfu.update_refused = False
    assert qualities(await rig.viewers.update(before.view, None, (), {"door": "small"}))["door", "video"] == "small"
