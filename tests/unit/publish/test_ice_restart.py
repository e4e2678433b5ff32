"""When a publication looks for another way to a WHIP server, and when it has failed."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from relay_common.errors import RelayError
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish import publisher as publishing
from relay_worker.publish.answer import Answer
from relay_worker.publish.publisher import Publisher
from relay_worker.publish.signaling import PublishRefused
from relay_worker.webrtc.sdp_fragment import read_restart, write_patch
from tests.fixtures.two_ends import TwoEnds, remote
from tests.unit.publish.test_publisher import connected


class _Server(TwoEnds):
    """The far end, which takes a restart, or answers it with `refusal`, or never while that is a TimeoutError."""

    refusal: Exception | None = None

    async def patch(self, fragment: str, *, restart: bool) -> str:
        assert restart
        if isinstance(self.refusal, TimeoutError):
            await asyncio.Event().wait()
        if self.refusal is not None:
            raise self.refusal
        local = await self.peer.gather_again()
        assert self.peer._next is not None
        self.peer._next._connection.ice_controlling = False
        theirs = read_restart(fragment, dataclasses.replace(remote(local, "server"), ice_ufrag="none", ice_pwd=""))
        self._reconnecting = asyncio.create_task(self.peer.reconnect(theirs))
        return write_patch(local, "video", ["0", "1"])

    async def publish(self, wire: Any, lost: list[str]) -> Publisher:
        """A publication that is connected to it."""
        here, there = await self.ours.gather(), await self.peer.gather()
        to, back = remote(there, "client"), remote(here, "server")
        await asyncio.gather(self.ours.connect(to), self.peer.connect(back))
        made, video, _ = connected(wire, on_lost=lambda error: lost.append(error.message), patch=self.patch)
        made._transport, made.answer = self.ours, Answer(to, (), ())
        video.highest = 7  # something was acknowledged
        return made


async def restarted(publisher: Publisher) -> None:
    assert publisher._restart is not None
    async with asyncio.timeout(30):
        await publisher._restart


async def test_a_way_that_is_found_keeps_the_publication_once_for_each_acknowledgement(wire: Any) -> None:
    lost: list[str] = []
    server = _Server()
    publisher = await server.publish(wire, lost)
    try:
        publisher._unanswered()
        assert publisher.connected, "media goes on by the old way meanwhile"
        publisher._unanswered()
        await restarted(publisher)
        assert (publisher.ice_restarts, publisher.ice_restarts_failed, lost) == (1, 0, [])
        await server.report(8)
        publisher._unanswered()
        assert lost == ["porch: the SFU answers no connectivity check"], "nothing was acknowledged since"
        assert not publisher.connected
    finally:
        await publisher.close()
        await server.close()


async def test_silence_of_all_tracks_looks_for_a_way_first(wire: Any) -> None:
    lost: list[str] = []
    server = _Server()
    publisher = await server.publish(wire, lost)
    try:
        assert publisher._video is not None
        publisher._video.acknowledged = True
        for now in (1000.0, 1008.0):
            publisher.send(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], now), now)
        assert publisher.check(1008.0)
        assert publisher.check(1009.0), "not judged while it looks"
        await restarted(publisher)
        assert (publisher.ice_restarts, lost) == (1, [])
    finally:
        await publisher.close()
        await server.close()


@pytest.mark.parametrize("refusal", [PublishRefused("it answered 412", 0.0), RelayError("odd"), TimeoutError()])
async def test_without_a_way_it_has_failed_for_the_reason_of_before(
    wire: Any, refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "RESTART_WITHIN", 0.2)
    lost: list[str] = []
    server = _Server()
    server.refusal = refusal
    publisher = await server.publish(wire, lost)
    try:
        publisher._unanswered()
        await restarted(publisher)
        assert (publisher.ice_restarts, publisher.ice_restarts_failed) == (0, 1)
        assert lost == ["porch: the SFU answers no connectivity check"]
    finally:
        await publisher.close()
        await server.close()
