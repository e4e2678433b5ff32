"""Finding an account's cameras: at the start, now and again, and whenever somebody asks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.http.events import EventHub
from relay_supervisor.leases.manager import LeaseManager
from relay_supervisor.nest.errors import NestError

log = logging.getLogger(__name__)


class Discovery:
    """Keeps what the registry knows of one account up to date; `account` is its place in the configuration.

    `on_found` is called after each listing.
    """

    def __init__(
        self,
        account: int,
        leases: LeaseManager,
        registry: Registry,
        events: EventHub,
        clock: Clock,
        rng: random.Random,
        on_found: Callable[[], None],
    ) -> None:
        self._account, self._leases, self._registry = account, leases, registry
        self._events, self._clock, self._on_found = events, clock, on_found
        self._backoff = Backoff(2.0, 60.0, rng=rng)
        self._wake = asyncio.Event()
        self.problem = "the cameras have not been listed yet"
        """Why this account's cameras are not known; empty once they have been listed."""

    async def run(self) -> None:
        """List the cameras every `cameras.rediscover` seconds, and more often while that fails, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.refresh()
            except NestError as error:
                delay = self._backoff.next_delay()
                if self.problem:
                    self.problem = f"the cameras cannot be listed: {error}"
                log.error("cameras cannot be listed: %s; trying again in %.0f s", error, delay)
                self._events.publish("account", f"cameras cannot be listed: {error}")
            else:
                delay = self._registry.config.rediscover
            await self._pause(delay)

    async def refresh(self) -> None:
        """List the cameras now (devices.list, five a minute at most); raises NestError."""
        self._registry.discovered(self._account, await self._leases.discover())
        self._backoff.reset()
        self.problem = ""
        for name in self._registry.unknown_names():
            log.warning("the configuration names %r, but no such camera is shared with this project", name)
        self._on_found()

    def wake(self) -> None:
        """Do not wait any longer for the next listing."""
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
