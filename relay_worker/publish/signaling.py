"""How a sink is asked: the worker's offers are carried by its supervisor, which may refuse, be away, or be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from relay_common import protocol
from relay_common.errors import RelayError
from relay_common.protocol import TrackOffer, TurnServer
from relay_worker.publish.publication import PublishTrack


class PublishRefused(RelayError):
    """The sink refused an offer or could not be reached; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SupervisorLost(PublishRefused):
    """The answer was lost with the supervisor, or there is none: what the sink says is not known. `retry_after` is 0
    where there is another supervisor.
    """


class SupervisorSignaling(Protocol):
    """Has a sink answer an offer in a new session; raises PublishRefused."""

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer: ...


@runtime_checkable
class PatchingSignaling(Protocol):
    """Signalling that also tells a sink of a change of an ICE session there; raises PublishRefused."""

    async def patch(self, sink: str, publication: str, fragment: str, *, restart: bool) -> str: ...


class NamedSignaling:
    """Signalling for the publisher; remembers the publication's name, and what came with it."""

    def __init__(self, signaling: SupervisorSignaling, sink: str) -> None:
        self._signaling, self._sink = signaling, sink
        self.publication = ""
        self.ice_servers: list[TurnServer] = []

    async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
        named = [TrackOffer(kind=t.kind, mid=t.mid, rids=list(t.rids)) for t in tracks]
        answer = await self._signaling.publish(offer, named, self._sink)
        self.publication, self.ice_servers = answer.publication, answer.ice_servers
        return answer.answer

    async def patch(self, fragment: str, *, restart: bool) -> str:
        assert isinstance(self._signaling, PatchingSignaling)
        return await self._signaling.patch(self._sink, self.publication, fragment, restart=restart)
