"""Runs the wanted cameras: connects leases, workers and publications, and passes messages between them.

    lease granted ──▶ Play ──▶ worker ──▶ offer ──▶ broker ──▶ answer ──▶ worker ──▶ published ──▶ viewers
    lease extended ─▶ Extended ▶ worker ──▶ source failed ──▶ lease
    lease about to generate for WebRTC ─▶ MakeOffer ▶ worker ──▶ offer ──▶ lease

It takes no decisions about time or budget; each part does that itself.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

from msgspec import structs

from relay_common import protocol
from relay_common.causes import Cause, RestartCause, cause_of
from relay_common.clock import Clock
from relay_common.errors import RelayError, Remedy
from relay_common.ingest_messages import IngestOffer, IngestOfferFailed
from relay_common.patch_messages import PatchSession
from relay_common.protocol import FromWorker, Hello, PublishRequest, WorkerState
from relay_common.tasks import Tasks
from relay_common.worker_stats import WorkerStats
from relay_supervisor.cameras.demand import OnDemand
from relay_supervisor.cameras.offers import IngestOffers
from relay_supervisor.cameras.publications import PublicationRouter
from relay_supervisor.cameras.reconcile import StartCamera, StopCamera, UpdateCamera, reconcile
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.google.leases.account import Account
from relay_supervisor.google.leases.effects import Effect, Granted, Lost, NotExtended, Renewed, TraitsRead
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.models import Device, Listing
from relay_supervisor.sinks.broker import Publication
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.store import SavedWorker, Store
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

NOBODY_WATCHES: Final = "on demand, nobody watches"


class WorkerListener(Protocol):
    """Receiver of workers' events that do not concern streams."""

    def worker_ready(self, camera: Camera) -> None:
        """A worker, new or adopted, is ready."""

    def worker_message(self, camera: Camera, message: FromWorker) -> None:
        """A worker sent a message that the director does not handle."""


class Director:
    """All running cameras. Listens to workers as the fleet's `FleetListener`."""

    def __init__(
        self,
        registry: Registry,
        accounts: list[Account],
        sinks: Sinks,
        fleet: Fleet,
        store: Store,
        events: EventHub,
        spec: Callable[[Camera], WorkerSpec],
        clock: Clock,
    ) -> None:
        self._registry, self._accounts, self._sinks, self._store = registry, accounts, sinks, store
        self._events, self._spec, self._clock = events, spec, clock
        self.fleet = fleet
        self._listeners: list[WorkerListener] = []
        self.demand = OnDemand()
        self.running: dict[str, Camera] = {}
        self.restart_causes: Counter[str] = Counter()
        self.offers = IngestOffers(fleet.send)
        self._survivors: dict[str, SavedWorker] = {}
        self._lost_workers: dict[str, list[str]] = {}
        """Workers that were lost from sight and have no successor yet, by camera."""
        self.instances_left: set[str] = set()
        """The instance ids of the live workers that an earlier supervisor left."""
        self._tasks = Tasks(log, "a camera's task failed")
        self.publications = PublicationRouter(sinks, store, events, fleet.send, self._tasks)
        fleet.listen(self)

    def listen(self, listener: WorkerListener) -> None:
        """Pass workers' events on to `listener`, too."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Read from the store which workers an earlier supervisor left; live ones may speak, and will be adopted.

        Of a worker and its replacement the older one is adopted: it is the one that plays.
        """
        workers = {saved.instance: saved for saved in self._store.workers()}
        living = self.fleet.left({instance: saved.ref for instance, saved in workers.items()})
        self.instances_left.update(living)
        for saved in workers.values():
            self.fleet.inherit(saved.camera, saved.contested_until - self._clock.wall())
        for instance in workers.keys() - self.instances_left:
            self._store.forget_worker(instance)  # it ended unnoticed while no supervisor ran
        for saved in (workers[instance] for instance in reversed(living)):
            self._survivors[saved.camera] = saved
            if saved.key:
                self.fleet.keyring.admit(saved.instance, saved.camera, saved.key)
            else:
                self.fleet.keyring.admit_process(saved.instance, saved.camera, saved.ref)
        self.demand.resumed(self.survivors, self._clock.now())

    @property
    def survivors(self) -> Collection[str]:
        """The cameras (by id) with a live worker of an earlier supervisor that has not been adopted yet."""
        return self._survivors.keys()

    # --- which cameras run -----------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Make what runs match what is wanted; unchanged cameras are not touched."""
        desired = {id_: camera for id_, camera in self._registry.desired().items() if not self.demand.idle(camera)}
        for action in reconcile(desired, self.running):
            log.info("%s", type(action).__name__.removesuffix("Camera").lower(), extra={"camera": action.camera.name})
            match action:
                case StartCamera(camera):
                    self._start(camera)
                case StopCamera(camera, reason):
                    del self.running[camera.id]
                    words = NOBODY_WATCHES if self.demand.idle(camera) else reason
                    self._tasks.spawn(self._stop(camera, words, self.fleet.stop(camera.id, words)))
                case UpdateCamera(camera, restart):
                    self.running[camera.id] = camera
                    self.fleet.start(self._spec(camera))
                    self._want(camera)
                    if restart:
                        self._tasks.spawn(self.fleet.restart(camera.id, "its settings changed"))

    def listed(self, account: int, listing: Listing) -> None:
        """Follow a listing that the registry has applied, and retry parked cameras that it shows."""
        self.reconcile()
        shown = {device.name for device in listing.devices}
        for camera in self.running.values():
            if camera.account == account and camera.device.name in shown:
                self._leases(camera).device_seen(camera.id, camera.device)

    def _start(self, camera: Camera) -> None:
        self.running[camera.id] = camera
        self._events.publish("camera", "started", camera.id)
        spec, left = self._spec(camera), self._survivors.pop(camera.id, None)
        if left is None or not self.fleet.expect(spec, left.instance):
            if left is not None:
                self._store.forget_worker(left.instance)
                self.fleet.keyring.remove(left.instance)
            self.fleet.start(spec)
        self._want(camera)

    def _want(self, camera: Camera) -> None:
        self._leases(camera).want(camera.id, camera.device, on_demand=self.demand.on_demand(camera))

    async def _stop(self, camera: Camera, reason: str, ended: Awaitable[None]) -> None:
        self._events.publish("camera", f"stopped: {reason}", camera.id)
        await ended
        await self._sinks.retire(camera.id)
        running = self.running.get(camera.id)
        if running is None:
            self._sinks.forget(camera.id)
        if running is None or running.account != camera.account:
            if self._registry.get(camera.id) is None:
                self._leases(camera).drop(camera.id)
            else:
                self._leases(camera).unwant(camera.id)  # it may come back, and what is known about it still holds

    def sinks_changed(self, moved: list[Publication]) -> None:
        """Tell all workers where to publish now; publications in `moved` have to be made again."""
        for camera in self.running.values():
            self.publications.tell_sinks(camera)
        self.publications.moved(moved)

    def find(self, camera: str) -> Camera:
        """The running camera with that id; raises UnknownCamera, or a RelayError that says why it does not run."""
        if (running := self.running.get(camera)) is not None:
            return running
        found = self._registry.find(camera)
        why = self._registry.why_not(found) or NOBODY_WATCHES
        raise RelayError(f"{found.name} is not running", hint=why[0].upper() + why[1:], remedy=Remedy.PARK)

    def live_reports(self) -> dict[str, WorkerStats | None]:
        """The newest report of each running camera's worker, by camera; None while it is not live."""
        return {camera: self.fleet.live_stats(camera) for camera in self.running}

    async def restart(self, camera: str) -> None:
        """Replace a camera's worker on request."""
        found = self.find(camera)
        self._events.publish("worker", "restarted on request", camera)
        await self.fleet.restart(found.id, "restarted on request")

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._tasks.aclose()

    def _media_failed(self, camera: Camera, generation: int, reason: str, cause: Cause = Cause.NONE) -> None:
        bereft = self.fleet.lost_lately(camera.id)
        self._leases(camera).media_failed(camera.id, generation, reason, cause, bereft=bereft)

    def _leases(self, camera: Camera) -> LeaseManager:
        return self._accounts[camera.account].leases

    def _contested_until(self, camera: str) -> int:
        """The end of `Fleet.contested` in whole Unix seconds; 0 when nobody contests it."""
        seconds = self.fleet.contested(camera)
        return int(self._clock.wall() + seconds) if seconds > 0 else 0

    # --- messages of workers -----------------------------------------------------------------------------------------

    def worker_started(self, camera: str, instance: str, ref: str) -> None:
        """A worker was started: a later supervisor must find it and know its key, whenever this one dies."""
        key, contested = self.fleet.keyring.key(instance), self._contested_until(camera)
        self._store.save_worker(SavedWorker(instance, camera, ref, key=key, contested_until=contested))
        for lost in self._lost_workers.pop(camera, ()):
            self._store.forget_worker(lost)

    def worker_ready(self, camera: str, hello: Hello) -> None:
        """A worker, new or adopted, is ready: give it the stream to play, and learn what it publishes."""
        found = self.running.get(camera)
        if found is None:
            return
        ref, key = self.fleet.ref(hello.instance), self.fleet.keyring.key(hello.instance)
        worker = SavedWorker(hello.instance, camera, ref, hello.generation, hello.publication, key=key)
        self._store.save_worker(structs.replace(worker, contested_until=self._contested_until(camera)))
        for listener in self._listeners:
            listener.worker_ready(found)
        held = self._leases(found).current(camera)
        if held is not None and hello.generation == held.generation:
            self._renewed(Renewed(camera, held.generation, held.stream, held.expires))
        elif held is not None:
            self._give(found, held)
        self.offers.worker_ready(camera)
        self.publications.worker_ready(found, hello)

    def worker_message(self, camera: str, message: FromWorker) -> None:
        """Handle a worker's message about its stream or its publication."""
        found = self.running.get(camera)
        if found is None:
            return
        match message:
            case PublishRequest():
                self.publications.offered(found, message)
            case PatchSession():
                self.publications.patching(camera, message)
            case protocol.Published():
                self.publications.published(camera, message)
            case protocol.Unpublished():
                self.publications.unpublished(camera, message)
            case protocol.SourceFailed(generation=generation, reason=reason, code=code):
                self._events.publish("source", reason, camera)
                self._media_failed(found, generation, reason, cause_of(code))
            case IngestOffer() | IngestOfferFailed():
                self.offers.answered(camera, message)
            case protocol.StateChanged():
                self._state_changed(found, message)
            case _:
                for listener in self._listeners:
                    listener.worker_message(found, message)

    def _state_changed(self, camera: Camera, message: protocol.StateChanged) -> None:
        words = message.state.value + (f": {message.reason}" if message.reason else "")
        # What is wrong is logged as a verdict (`status/history`): one line, also for many cameras.
        log.log(logging.DEBUG if message.reason else logging.INFO, "%s", words, extra={"camera": camera.name})
        self._events.publish("state", words, camera.id)
        held = self._leases(camera).current(camera.id)
        if message.state is WorkerState.LIVE and held is not None:
            self._leases(camera).media_live(camera.id, held.generation)

    def worker_gone(self, camera: str, instance: str, reason: str, cause: RestartCause) -> None:
        """A worker ended, and its publication with it.

        One that was lost from sight is remembered until its successor is: the next supervisor must know of it as well.
        """
        if contested := self._contested_until(camera):
            self._store.save_worker(SavedWorker(instance, camera, "", contested_until=contested))
            self._lost_workers.setdefault(camera, []).append(instance)
        else:
            self._store.forget_worker(instance)
        if camera in self.running:
            self.restart_causes[cause.value] += 1
            self._events.publish("worker", f"worker {reason}", camera)
        self.publications.worker_gone(camera, reason)

    # --- effects of leases -------------------------------------------------------------------------------------------

    def lease_effect(self, effect: Effect) -> None:
        """Carry out an effect of a lease."""
        match effect:
            case Granted():
                self._events.publish("lease", "stream generated", effect.camera)
                self._granted(effect)
            case Renewed():
                self._renewed(effect)
            case Lost(camera, generation, reason):
                self._lost(camera, generation, reason)
            case NotExtended(camera, until):
                self.demand.not_extendable(camera, until)
                self.reconcile()
                if (found := self.running.get(camera)) is not None:
                    self._want(found)  # it is being watched: continue on demand
            case TraitsRead(camera, device):
                self._traits_read(camera, device)
            case _:
                pass

    def _give(self, camera: Camera, held: Granted) -> None:
        """Give a worker that does not play it the stream held for its camera."""
        if held.stream.protocol is protocol.Protocol.WEB_RTC:
            reason = "a WebRTC session ends with the worker that made its offer"
            self._media_failed(camera, held.generation, reason)
        else:
            self._granted(held, self.fleet.contested(camera.id))

    def _granted(self, granted: Granted, contested: float = 0.0) -> None:
        stream = granted.stream
        if stream.url is None and stream.answer_sdp is None:
            return  # a WebRTC session that an earlier supervisor's worker may still hold
        if stream.url is not None and not self.fleet.permit(granted.camera, stream.port):
            return  # its next worker gets the stream
        self.fleet.send(
            granted.camera,
            protocol.Play(
                generation=granted.generation,
                protocol=stream.protocol,
                url=stream.url.reveal() if stream.url is not None else "",
                expires_at=stream.expires_at,
                answer=stream.answer_sdp.reveal() if stream.answer_sdp is not None else "",
                offer=self.offers.number(granted.camera),
                contested=contested,
            ),
        )

    def _renewed(self, renewed: Renewed) -> None:
        stream = renewed.stream
        url = stream.url.reveal() if stream.url is not None else ""
        self.fleet.send(
            renewed.camera,
            protocol.Extended(generation=renewed.generation, url=url, expires_at=stream.expires_at),
        )

    def _traits_read(self, camera: str, device: Device) -> None:
        """Adopt a camera's new traits: its protocol may have changed; its lease has followed, and its worker will."""
        found = self.running.get(camera)
        if found is None:
            return
        if device.protocol is not found.device.protocol:
            self._events.publish("camera", f"speaks {device.protocol.value} now", camera)
        device = self._registry.seen(found.account, device)
        self._leases(found).remember(self._registry.devices(found.account))
        self.running[camera] = dataclasses.replace(found, device=device)

    def _lost(self, camera: str, generation: int, reason: str) -> None:
        self._events.publish("lease", f"stream lost: {reason}", camera)
        found = self.running.get(camera)
        # Media may keep flowing for a while although the lease is lost: the worker drops the stream when another one
        # arrives, or now if none will.
        if found is None or self._leases(found).lease(camera).state == "parked":
            self.fleet.send(camera, protocol.StreamLost(generation=generation, reason=reason))
