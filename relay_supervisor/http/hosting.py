"""What the supervisor of one account serves where several run in one process: nothing by itself, all in one place.

`accounts.py` answers at the addresses, and has each account answer what is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from relay_supervisor.http.replies import ApiError
from relay_supervisor.status.health import Health

_CHANGES_WITHIN: Final = 3.0
"""Seconds that a request waits while its account changes from standing by to being commanded, or back."""
_ANSWERED_WITHIN: Final = 1.0
"""Seconds that requests under way are given to be answered before what answers them ends."""


class Served(NamedTuple):
    """What is served of an account now."""

    guarded: ASGIApp
    """Answers clients by what they may do."""
    local: ASGIApp
    """Answers operators."""
    collector: Collector
    """The metrics."""
    health: Callable[[], Health]
    on_stop: Callable[[], None]
    """Ends answers that would not end by themselves."""


class Hosting:
    """The place where the account `name` is served, whether this process commands it or stands by for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.served: Served | None = None
        """None for moments, while that changes."""
        self.problem = ""
        """Why this process cannot stand by for it, in words; "" when it can."""
        self._begins, self._idle, self._under_way = asyncio.Event(), asyncio.Event(), 0

    def begin(self, served: Served) -> None:
        """Serve that."""
        self.served, self.problem = served, ""
        self._begins.set()

    async def end(self) -> None:
        """Serve nothing until the next `begin`; requests under way are answered first, unless they take too long."""
        if self.served is None:
            return
        on_stop, self.served = self.served.on_stop, None
        self._begins.clear()
        on_stop()
        self._idle.clear()
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _ANSWERED_WITHIN)

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, operator: bool) -> None:
        """Have a request answered; raises ApiError when nothing answers it."""
        if not self.problem:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._begins.wait(), _CHANGES_WITHIN)
        if self.served is None:
            words = self.problem or "it changes hands"
            raise ApiError(503, "account_away", f"The account {self.name} cannot be asked here: {words}", "Try again")
        self._under_way += 1
        try:
            await (self.served.local if operator else self.served.guarded)(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
