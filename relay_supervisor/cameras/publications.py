"""Passes what concerns publications between workers and the brokers of their sinks, and keeps it in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay_common import protocol
from relay_common.patch_messages import PatchSession
from relay_common.protocol import FromSupervisor, Hello, PublishFailed, PublishRequest
from relay_common.tasks import Tasks
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.events import EventHub
from relay_supervisor.sinks.broker import Change, Publication
from relay_supervisor.sinks.patching import patch_session
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.store import SavedPublication, Store

_GONE: Final = 5.0
"""Seconds after which a worker may offer again to a sink that is no more; that it is no more it has heard meanwhile."""


class PublicationRouter:
    """`send` reaches a camera's worker and returns False when it has none."""

    def __init__(
        self,
        sinks: Sinks,
        store: Store,
        events: EventHub,
        send: Callable[[str, FromSupervisor], bool],
        tasks: Tasks,
    ) -> None:
        self._sinks, self._store, self._events, self._send, self._tasks = sinks, store, events, send, tasks
        sinks.listen(self.publication_changed)

    def worker_ready(self, camera: Camera, hello: Hello) -> None:
        """A worker, new or adopted, is ready: learn what it publishes, and tell it where to."""
        self.tell_sinks(camera)
        for sink, publication in {"": hello.publication, **hello.publications}.items():
            broker = self._sinks.find(sink)
            if publication and broker is not None and not broker.mark_live(camera.id, publication):
                self._republish(camera.id, publication, "this supervisor does not know the publication")

    def tell_sinks(self, camera: Camera) -> None:
        """Tell a camera's worker where to publish."""
        self._send(camera.id, protocol.SetSinks(sinks=self._sinks.targets(camera.name, camera.device.id)))

    def moved(self, publications: list[Publication]) -> None:
        """Their sinks are found elsewhere now: have their workers publish there."""
        for publication in publications:
            self._republish(publication.camera, publication.id, "the sink's settings changed")

    def offered(self, camera: Camera, request: PublishRequest) -> None:
        """Have the sink of a worker's offer answer it."""
        self._tasks.spawn(self._publish(camera, request))

    async def _publish(self, camera: Camera, request: PublishRequest) -> None:
        broker = self._sinks.find(request.sink)
        answer: protocol.PublishAnswer | PublishFailed | None
        if broker is None:
            reason = f"there is no sink {request.sink} any more"
            answer = PublishFailed(request=request.request, reason=reason, retry_after=_GONE)
        else:
            answer = await broker.publish(camera.id, camera.name, request)
        if answer is not None:
            self._send(camera.id, answer)

    def patching(self, camera: str, message: PatchSession) -> None:
        """Tell a sink what a worker has to say of its ICE session there."""
        self._tasks.spawn(self._patch(camera, message))

    async def _patch(self, camera: str, message: PatchSession) -> None:
        self._send(camera, await patch_session(self._sinks.find(message.sink), camera, message))

    def published(self, camera: str, message: protocol.Published) -> None:
        """Packets of every track have been sent."""
        broker = self._sinks.find(message.sink)
        if broker is None or not broker.mark_live(camera, message.publication, message.rids):
            self._republish(camera, message.publication, "it was superseded")

    def unpublished(self, camera: str, message: protocol.Unpublished) -> None:
        """The transport of a publication is gone."""
        if (broker := self._sinks.find(message.sink)) is not None:
            broker.lost(camera, message.publication, message.reason)

    def worker_gone(self, camera: str, reason: str) -> None:
        """A worker ended, and its publications with it."""
        for broker in self._sinks:
            if (live := broker.locate(camera)) is not None:
                broker.lost(camera, live.id, f"its worker {reason}")

    def _republish(self, camera: str, publication: str, reason: str) -> None:
        self._send(camera, protocol.Republish(publication=publication, reason=reason))

    def publication_changed(self, change: Change, publication: Publication, reason: str) -> None:
        """Handle a change of a camera's publication."""
        where = f" at {publication.sink}" if publication.sink else ""
        words = f"publication{where} {change.value}" + (f": {reason}" if reason else "")
        self._events.publish("publication", words, publication.camera)
        match change:
            case Change.LIVE:
                self._store.save_publication(
                    SavedPublication(
                        publication.camera,
                        publication.id,
                        publication.session,
                        {track.mid: f"{track.kind} {track.name}" for track in publication.tracks},
                        publication.created_at,
                        publication.sink,
                        publication.rids,
                    )
                )
            case Change.GONE:
                self._store.forget_publication(publication.camera, publication.sink)
                self._republish(publication.camera, publication.id, reason)
            case Change.RETIRED:
                self._store.forget_publication(publication.camera, publication.sink)
