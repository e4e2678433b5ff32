"""Keeping a camera published: a refusal is retried after its time, or at once when a new supervisor comes."""

from __future__ import annotations

import asyncio
import random

from relay_common import protocol
from relay_common.clock import ManualClock
from relay_common.protocol import Stage, TrackOffer
from relay_worker.pipeline import Pipeline
from relay_worker.publication_keeper import PublicationKeeper, PublishRefused
from relay_worker.webrtc.publisher import PublisherSettings


class Refusing:
    """Signalling that refuses every offer for an hour."""

    def __init__(self) -> None:
        self.asked = 0

    async def publish(self, offer: str, tracks: list[TrackOffer]) -> protocol.PublishAnswer:
        self.asked += 1
        raise PublishRefused("no", retry_after=3600.0)


async def until_asked(signaling: Refusing, times: int) -> None:
    """Gathering candidates takes real time, however little."""
    for _ in range(500):
        if signaling.asked == times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"asked {signaling.asked} times, not {times}")


async def test_a_new_supervisor_is_asked_at_once() -> None:
    clock, signaling = ManualClock(), Refusing()
    problems: list[Stage] = []
    keeper = PublicationKeeper(
        "Porch",
        Pipeline(),
        signaling,
        clock,
        PublisherSettings(loopback=True),
        on_live=lambda publication: None,
        on_lost=lambda publication, reason: None,
        on_problem=lambda stage, reason: problems.append(stage),
        on_keyframe_request=lambda: None,
        rng=random.Random(1),
    )
    keeper.start(audio=True, profile_idc=None)
    await until_asked(signaling, 1)
    await clock.advance(3000.0)
    assert signaling.asked == 1
    keeper.hurry()
    await until_asked(signaling, 2)
    await clock.advance(3601.0)
    await until_asked(signaling, 3)
    assert problems == [Stage.PUBLISH] * 3
    await keeper.close()
