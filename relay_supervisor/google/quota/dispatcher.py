"""The only sender of commands to Google: takes them from their source as the budget allows and runs them concurrently.

A command that hangs until it times out delays no other. Each is in the persisted log before it is sent, so that it
counts even if the supervisor is killed in between.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from relay_common.clock import Clock
from relay_common.protocol import Protocol as StreamProtocol
from relay_common.secrets import Secret
from relay_common.tasks import Tasks, pause
from relay_supervisor.google.api import Turn
from relay_supervisor.google.errors import NestError, NestUnreachable, OfferUnavailable
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb, counted_by

_OFFER_TIMEOUT = 10.0
_LOOK_AGAIN = 1.0  # longest interval in seconds between checks whether a further request of a command may be sent
log = logging.getLogger(__name__)


class Api(Protocol):
    """The part of the SDM API used here (`NestApi`)."""

    async def listing(self, *, turn: Turn) -> Listing: ...

    async def device(self, device: str, *, turn: Turn) -> Device: ...

    async def generate(
        self, device: str, protocol: StreamProtocol, *, offer_sdp: str = "", timeout: float = 30.0
    ) -> LiveStream: ...

    async def extend(
        self, device: str, protocol: StreamProtocol, handle: Secret, *, timeout: float = 30.0
    ) -> Extension: ...

    async def stop(self, device: str, protocol: StreamProtocol, handle: Secret, *, timeout: float = 30.0) -> None: ...


class Source(Protocol):
    """Where commands come from and their results go (`LeaseBook`)."""

    def poll(self, now: float) -> Command | None: ...

    def next_deadline(self, now: float) -> float | None: ...

    def sent(self, command: Command, now: float) -> None: ...

    def sends_again(self, command: Command, now: float) -> float:
        """Count a further request of a command whose last was answered: 0 when it may be sent, else seconds to wait."""
        ...

    def settle(self, command: Command, result: Result, now: float) -> None: ...


class Journal(Protocol):
    """The persisted log of calls."""

    async def sending(self, command: Command) -> None:
        """Return once the command is in the log, or after a bounded wait when it cannot be written.

        Raises NestError when it must not be sent.
        """
        ...

    def settled(self, command: Command, counted_by: float | None) -> None:
        """Record by when Google has counted the command; None: it never reached Google."""
        ...


OfferSource = Callable[[str], Awaitable[str]]
"""Returns the SDP offer of a camera's worker, for a WebRTC stream."""

OnCommand = Callable[[Command, Result, float, float], None]
"""Called after each command with its result, how long it waited and how long it then took, in seconds."""


class Dispatcher:
    """Runs commands until cancelled. `on_change` is called after any change at the source."""

    def __init__(
        self,
        api: Api,
        source: Source,
        clock: Clock,
        *,
        offer: OfferSource | None = None,
        journal: Journal | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_command: OnCommand = lambda *_: None,
    ) -> None:
        self._api, self._source, self._clock = api, source, clock
        self._offer, self._journal, self._on_change, self._on_command = offer, journal, on_change, on_command
        self._wake = asyncio.Event()
        self._running = Tasks(log, "a command to Google failed")

    @property
    def under_way(self) -> int:
        """Number of commands awaiting Google's answer."""
        return len(self._running)

    def wake(self) -> None:
        """Poll the source again: something changed there."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled; commands in flight are then abandoned."""
        try:
            while True:
                self._wake.clear()
                while (command := self._source.poll(self._clock.now())) is not None:
                    self._running.spawn(self._execute(command))
                self._on_change()
                await self._wait(self._source.next_deadline(self._clock.now()))
        except asyncio.CancelledError:  # on any other failure the commands under way continue and are settled
            await self._running.aclose()
            raise

    async def _wait(self, deadline: float | None) -> None:
        if deadline is None:
            await self._wake.wait()
            return
        await pause(self._clock, max(0.001, deadline - self._clock.now()), self._wake)

    async def _execute(self, command: Command) -> None:
        result: Result
        began = self._clock.now()
        waited = command.waited(began)
        try:
            result = await self._call(command)
        except NestError as error:
            result = error
            if not error.account and command.verb is not Verb.LIST:  # those are logged as what they are
                log.info("%s", error, extra={"camera": command.camera})
        except Exception as error:  # an internal error must not leave a lease waiting
            log.exception("%s failed unexpectedly", command.verb.value, extra={"camera": command.camera})
            what = f"{command.verb.value}: internal error ({type(error).__name__}); see the log"
            result = NestUnreachable(what)
        now = self._clock.now()
        if self._journal is not None:
            self._journal.settled(command, counted_by(command, result, now))
        self._source.settle(command, result, now)
        self._wake.set()
        self._on_change()
        self._on_command(command, result, waited, now - began)

    async def _call(self, command: Command) -> Result:
        offer = await self._offer_for(command)
        if self._journal is not None:
            await self._journal.sending(command)
        self._source.sent(command, self._clock.now())
        device, protocol, handle = command.device, command.protocol, command.handle
        match command.verb:
            case Verb.GENERATE:
                return await self._api.generate(device, protocol, offer_sdp=offer, timeout=command.timeout)
            case Verb.EXTEND:
                return await self._api.extend(device, protocol, handle, timeout=command.timeout)
            case Verb.STOP:
                await self._api.stop(device, protocol, handle, timeout=command.timeout)
                return None
            case Verb.GET:
                return await self._api.device(device, turn=functools.partial(self._turn, command))
            case Verb.LIST:
                return await self._api.listing(turn=functools.partial(self._turn, command))

    async def _turn(self, command: Command) -> None:
        """Return when `command` may send a further request (a page, or the same with a fresh token)."""
        while (wait := self._source.sends_again(command, self._clock.now())) > 0:
            await self._clock.sleep(min(wait, _LOOK_AGAIN))
        if self._journal is not None:
            self._journal.settled(command, self._clock.now())
            await self._journal.sending(command)

    async def _offer_for(self, command: Command) -> str:
        if command.verb is not Verb.GENERATE or command.protocol is not StreamProtocol.WEB_RTC:
            return ""
        if self._offer is None:
            raise OfferUnavailable(f"{command.camera}: streams over WebRTC cannot be received here")
        try:
            return await asyncio.wait_for(self._offer(command.camera), _OFFER_TIMEOUT)
        except TimeoutError:
            raise OfferUnavailable(f"{command.camera}: its worker gave no WebRTC offer in time") from None
