"""The publisher's state table, and what it says when signalling fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from relay_common.errors import RemoteError
from relay_common.fsm import IllegalTransition, Machine
from relay_common.protocol import Stage
from relay_worker.webrtc.publisher import (
    PUBLISHER_TABLE,
    Publisher,
    PublisherEvent,
    PublishError,
    PublisherSettings,
    PublisherState,
    PublishTrack,
)


class Answering:
    def __init__(self, answer: str | Exception, delay: float = 0.0) -> None:
        self._answer, self._delay = answer, delay
        self.offers: list[tuple[str, list[PublishTrack]]] = []

    async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
        self.offers.append((offer, list(tracks)))
        await asyncio.sleep(self._delay)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


SETTINGS = PublisherSettings(loopback=True, signaling_timeout=0.05)


def test_every_edge_of_the_table() -> None:
    edges = list(PUBLISHER_TABLE.edges())
    for source, event, target in edges:
        assert Machine(PUBLISHER_TABLE, source).fire(event) is target
    legal = {(source, event) for source, event, _ in edges}
    for source in PublisherState:
        for event in PublisherEvent:
            if (source, event) not in legal:
                machine = Machine(PUBLISHER_TABLE, source)
                with pytest.raises(IllegalTransition):
                    machine.fire(event)
                assert machine.state is source
    # Every state is left for closed in one step, and closed is the end.
    assert all(
        PUBLISHER_TABLE.target(s, PublisherEvent.CLOSE) for s in PublisherState if s is not PublisherState.CLOSED
    )


async def test_signalling_is_given_the_offer_and_its_tracks() -> None:
    signaling = Answering("nonsense")
    publisher = Publisher("porch", signaling, settings=SETTINGS)
    with pytest.raises(PublishError, match="porch: the answer is not SDP") as failure:
        await publisher.start()
    assert failure.value.stage is Stage.PUBLISH
    ((offer, tracks),) = signaling.offers
    assert tracks == [PublishTrack("0", "video"), PublishTrack("1", "audio")]
    assert "127.0.0.1" in offer
    assert publisher.state is PublisherState.FAILED
    await publisher.close()
    assert publisher.state is PublisherState.CLOSED


async def test_an_error_of_signalling_passes_unchanged() -> None:
    error = RemoteError("the SFU refuses", hint="wait")
    publisher = Publisher("porch", Answering(error), settings=SETTINGS)
    with pytest.raises(RemoteError) as failure:
        await publisher.start()
    assert failure.value is error
    await publisher.close()


async def test_silence_of_signalling_is_an_error() -> None:
    publisher = Publisher("porch", Answering("", delay=10), settings=SETTINGS)
    with pytest.raises(PublishError, match=r"porch: no SDP answer within 0\.05 s"):
        await publisher.start()
    await publisher.close()


async def test_closing_while_publishing_ends_it() -> None:
    publisher = Publisher("porch", Answering("x", delay=0.02), settings=SETTINGS)
    start = asyncio.create_task(publisher.start())
    await asyncio.sleep(0.01)
    await publisher.close()
    with pytest.raises(PublishError, match="closed while it was being published"):
        await start
    assert publisher.state is PublisherState.CLOSED


async def test_media_before_the_connection_is_counted_not_kept() -> None:
    publisher = Publisher("porch", Answering(""), settings=SETTINGS)
    publisher.send_video([(b"\x65x", True)], 1.0, 1.0)
    publisher.send_audio([(b"opus", False)], 1.0, 0.02, 1.0)
    assert publisher.stats().not_connected == 2
    assert publisher.stats().queued_bytes == 0
    assert not publisher.check(1.0)
    await publisher.close()
    await publisher.close()
