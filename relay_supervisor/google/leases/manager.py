"""The running control plane of one Google account: book, dispatcher and store, connected to callbacks.

One task runs `LeaseManager.run()`. Everything else is called from the same event loop and returns at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from relay_common.causes import Cause
from relay_common.clock import Clock
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Effect, Granted, Listed, Lost, Renewed
from relay_supervisor.google.leases.lease import LeaseSettings
from relay_supervisor.google.leases.states import ALIVE, LeaseState
from relay_supervisor.google.leases.status import budget_status, lease_status
from relay_supervisor.google.models import Device, Listing
from relay_supervisor.google.quota.dispatcher import Api, Dispatcher, OfferSource, OnCommand
from relay_supervisor.google.quota.limits import Limits
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import BudgetStatus, LeaseStatus

log = logging.getLogger(__name__)


class LeaseManager:
    """Keeps streams of the wanted cameras alive at Google, within the quota.

    `on_effect` receives `Granted`, `Renewed`, `Lost`, `NotExtended` and `TraitsRead`. `offer` returns a worker's SDP
    offer for cameras that speak WebRTC. `on_command` is called after every command. With a `store`, leases and the
    quota log of an earlier process are taken over, and `devices` are those it knew.
    """

    def __init__(
        self,
        *,
        account: str,
        api: Api,
        limits: Limits,
        clock: Clock,
        on_effect: Callable[[Effect], None],
        offer: OfferSource | None = None,
        store: Store | None = None,
        rng: random.Random | None = None,
        settings: LeaseSettings | None = None,
        on_command: OnCommand = lambda *_: None,
    ) -> None:
        self.account = account
        self._clock, self._store, self._on_effect = clock, store, on_effect
        self.book = LeaseBook(limits, rng=rng, settings=settings, first_generation=int(clock.wall()))
        self._saved: dict[str, SavedLease] = {}
        self._saved_stops: set[str] = set()
        """Handles of the abandoned streams that the store holds."""
        self.devices: list[Device] = []
        journal = None
        if store is not None:
            self.book.budget.restore(store.calls(account))
            self._saved = {saved.camera: saved for saved in store.leases(account)}
            self.devices = store.devices(account)
            for stop in store.abandoned(account):
                self.book.abandoned.add(stop)
                self._saved_stops.add(stop.handle.reveal())
            journal = store.journal(account)
        self._dispatcher = Dispatcher(
            api,
            self.book,
            clock,
            offer=offer,
            journal=journal,
            on_change=self._carry_out_effects,
            on_command=on_command,
        )
        self._listing: asyncio.Future[Listing] | None = None

    async def run(self) -> None:
        """Serve the leases until cancelled."""
        await self._dispatcher.run()

    def want(self, camera: str, device: Device, *, on_demand: bool = False) -> None:
        """Keep a stream of `camera` alive; a stream left by an earlier process is taken over without a command."""
        now = self._clock.now()
        saved = self._saved.pop(camera, None)
        if saved is not None and saved.device == device.id and saved.expires > now and camera not in self.book.leases:
            self.book.resume(
                camera, device, saved.stream, saved.generation, now, granted=saved.granted, on_demand=on_demand
            )
        else:
            self.book.want(camera, device, now, on_demand=on_demand)
        self._changed()

    def unwant(self, camera: str, *, stop: bool = True) -> None:
        """Release `camera`; with `stop` its stream is also ended at Google when the budget allows it."""
        self.book.unwant(camera, self._clock.now(), stop=stop)
        if self._store is not None:
            self._store.forget_lease(self.account, camera)
        self._changed()

    def drop(self, camera: str) -> None:
        """Forget `camera`: it is no longer configured."""
        self.unwant(camera)
        self.book.drop(camera, self._clock.now())

    def device_seen(self, camera: str, device: Device) -> None:
        """Rediscovery found the camera's device; one that was parked is tried again."""
        self.book.device_seen(camera, device, self._clock.now())
        self._changed()

    def media_live(self, camera: str, generation: int) -> None:
        """A worker reports that media of `generation` is flowing."""
        self.book.media_live(camera, generation, self._clock.now())

    def media_failed(
        self, camera: str, generation: int, why: str, cause: Cause = Cause.NONE, *, bereft: bool = False
    ) -> None:
        """A worker has given up on the stream of `generation` after its free retries; `bereft` is the book's."""
        self.book.media_failed(camera, generation, why, self._clock.now(), cause, bereft=bereft)
        self._changed()

    def resume_account(self) -> None:
        """The account was authorised again or its configuration fixed: resume immediately."""
        self.book.resume_account(self._clock.now())
        self._changed()

    def current(self, camera: str) -> Granted | None:
        """The stream that `camera` holds now, for a restarted worker; None when it has none."""
        lease = self.book.leases.get(camera)
        if lease is None or lease.state not in ALIVE or lease.stream is None:
            return None
        return Granted(camera, lease.generation, lease.stream, lease.expires)

    async def discover(self) -> Listing:
        """devices.list within the budget; concurrent callers share one. Raises NestError."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.get_running_loop().create_future()
            self.book.list_devices(self._clock.now())
            self._dispatcher.wake()
        return await asyncio.shield(self._listing)

    def remember(self, devices: Sequence[Device]) -> None:
        """Save the account's known devices for the next process, which then need not list them first."""
        if self._store is not None:
            self._store.save_devices(self.account, devices)

    async def release_all(self, within: float) -> None:
        """Stop every stream at Google, as far as the budget allows it in `within` seconds (graceful shutdown)."""
        for camera in list(self.book.leases):
            self.unwant(camera)
        end = self._clock.now() + within
        while self._clock.now() < end and (self.book.queue.depth(self._clock.now()) or self._dispatcher.under_way):
            await self._clock.sleep(0.05)

    def lease(self, camera: str) -> LeaseStatus:
        """The state of one camera's lease."""
        return lease_status(self.book, camera, self._clock.now(), self._clock.wall())

    def budget(self) -> BudgetStatus:
        """The state of the budget and the queue."""
        return budget_status(self.book, self.account, self._clock.now(), self._clock.wall())

    def _changed(self) -> None:
        self._carry_out_effects()
        self._dispatcher.wake()

    def _save_stops(self) -> None:
        """Have the store hold the streams that are still to be stopped, and no others."""
        if self._store is None:
            return
        pending = {stop.handle.reveal(): stop for stop in self.book.abandoned.pending(self._clock.now())}
        for handle in pending.keys() - self._saved_stops:
            self._store.save_abandoned(self.account, pending[handle])
        for handle in self._saved_stops - pending.keys():
            self._store.forget_abandoned(self.account, handle)
        self._saved_stops = set(pending)

    def _carry_out_effects(self) -> None:
        self._save_stops()  # before the lease that held the stream is forgotten
        effects, self.book.effects = self.book.effects, []
        for effect in effects:
            if isinstance(effect, Listed):
                self._listed(effect)
                continue
            self._save(effect)
            try:
                self._on_effect(effect)
            except Exception:
                words = "internal error while carrying out %s"
                log.exception(words, type(effect).__name__, extra={"camera": effect.camera})

    def _listed(self, effect: Listed) -> None:
        if self._listing is None or self._listing.done():
            return
        if isinstance(effect.result, NestError):
            self._listing.set_exception(effect.result)
            self._listing.exception()  # marked as retrieved: the caller may be gone
        else:
            self._listing.set_result(effect.result)

    def _save(self, effect: Effect) -> None:
        if self._store is None:
            return
        if isinstance(effect, (Granted, Renewed)):
            lease = self.book.leases.get(effect.camera)
            if lease is None or lease.state is LeaseState.RELEASED:
                return
            saved = SavedLease(
                effect.camera, lease.device.id, effect.generation, lease.granted_at, effect.expires, effect.stream
            )
            self._store.save_lease(self.account, saved)
        elif isinstance(effect, Lost):
            self._store.forget_lease(self.account, effect.camera)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self.book.counters()
