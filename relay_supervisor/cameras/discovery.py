"""Discovery of an account's cameras: at the start, periodically, and on request."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.tasks import pause
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.events import EventHub
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.models import Listing

log = logging.getLogger(__name__)

RECHECK: Final = 30.0
"""Longest wait in seconds for the next listing after one that lacked a known camera."""
_REMIND: Final = 600.0
"""Seconds after which a cause that keeps the cameras from being listed is logged again."""


class Discovery:
    """Keeps the registry up to date on one account; `account` is its index in the configuration, `name` what it is
    called where there are several.

    `on_found` is called with the account and each listing, once the registry has it.
    """

    def __init__(
        self,
        account: int,
        leases: LeaseManager,
        registry: Registry,
        events: EventHub,
        clock: Clock,
        rng: random.Random,
        on_found: Callable[[int, Listing], None],
        name: str = "",
    ) -> None:
        self._account, self._leases, self._registry = account, leases, registry
        self._events, self._clock, self._on_found = events, clock, on_found
        self._whose = f" of {name}" if name else ""
        self._backoff = Backoff(2.0, 60.0, rng=rng)
        self._wake = asyncio.Event()
        self._due = clock.now()
        self._last: Listing | None = None
        self._logged: tuple[type[NestError], float] | None = None
        """The cause of failed listings that was logged last, and when; None after a listing that succeeded."""
        self._streamless: tuple[str, ...] = ()
        self._published = ""
        """Why the latest listing failed, as it was published; empty after one that succeeded."""
        self.problem = f"the cameras{self._whose} have not been listed yet"
        """Why this account's cameras are not known; empty once they have been listed."""

    async def run(self) -> None:
        """List the cameras every `cameras.rediscover` seconds, until cancelled.

        More often while that fails, and sooner after a listing that lacked a known camera.
        """
        while True:
            self._wake.clear()
            try:
                await self.refresh()
            except NestError as error:
                self._log(error, self._failed(str(error)))
            except Exception as error:
                delay = self._failed(f"internal error ({type(error).__name__}); see the log")
                log.exception("listing the cameras%s failed unexpectedly; trying again in %.0f s", self._whose, delay)
            await self._pause()

    def _log(self, error: NestError, delay: float) -> None:
        """Log a failed listing; one whose cause has been logged already, at level debug."""
        now, last = self._clock.now(), self._logged
        again = last is not None and last[0] is type(error) and now - last[1] < _REMIND
        if not again:
            self._logged = (type(error), now)
        level = logging.DEBUG if again else logging.ERROR
        log.log(level, "cameras%s cannot be listed: %s; trying again in %.0f s", self._whose, error, delay)

    def _failed(self, why: str) -> float:
        """Record a failed listing; returns seconds until the next."""
        delay = self._backoff.next_delay()
        self._due = self._clock.now() + delay
        self.problem = f"the cameras{self._whose} cannot be listed: {why}" if self.problem else ""
        if why != self._published:  # the text about a revoked token has 900 characters
            self._published = why
            self._events.publish("account", f"cameras{self._whose} cannot be listed: {why}")
        return delay

    async def refresh(self) -> None:
        """List the cameras now (devices.list, five a minute at most); raises NestError."""
        listing = await self._leases.discover()
        if listing is self._last:
            return  # concurrent callers share one listing
        self._last = listing
        absent = self._registry.discovered(self._account, listing)
        self._leases.remember(self._registry.devices(self._account))
        delay = self._registry.config.rediscover
        if absent:
            delay = min(delay, RECHECK)
            names = ", ".join(device.display_name for device in absent)
            log.warning("Google's list of devices lacks %s: asking again in %.0f s", names, delay)
        for which in sorted(set(listing.streamless) - set(self._streamless)):
            log.warning("Google lists %s without a live stream: `relay-supervisor check` says what that means", which)
        self._streamless = listing.streamless
        self._due = self._clock.now() + delay
        self._backoff.reset()
        self._published = ""
        if self._logged is not None:
            self._logged = None
            log.info("the cameras%s can be listed again", self._whose)
        self.problem = ""
        for name in self._registry.unknown_names():
            log.warning("the configuration names %r, but no such camera is shared with this project", name)
        self._on_found(self._account, listing)

    def wake(self) -> None:
        """List the cameras again without further wait."""
        self._wake.set()

    async def _pause(self) -> None:
        while not self._wake.is_set() and (left := self._due - self._clock.now()) > 0:
            # In parts: a listing requested by a person may change when the next one is due.
            await pause(self._clock, min(left, RECHECK), self._wake)
