"""Serialises changes to each SFU session and keeps to Cloudflare's request rate."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from relay_common.clock import Clock

REQUESTS_PER_SECOND: Final = 50
"""Per session; there is no limit per application (platform limits page)."""


class _Turnstile:
    __slots__ = ("lock", "sent", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.sent: deque[float] = deque(maxlen=REQUESTS_PER_SECOND)
        self.users = 0


class Gate:
    """Serialises the changes of each session: overlapping negotiations are answered with 406.

    At most `bound` idle sessions are remembered; the least recently used is forgotten first (`forgotten` counts).
    """

    def __init__(self, clock: Clock, bound: int = 4096) -> None:
        self._clock, self._bound = clock, bound
        self._sessions: OrderedDict[str, _Turnstile] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def turn(self, session: str, *, exclusive: bool = True) -> AsyncIterator[None]:
        """Wait for a turn to use `session`; reads need not be `exclusive`."""
        turnstile = self._sessions.setdefault(session, _Turnstile())
        self._sessions.move_to_end(session)
        turnstile.users += 1
        try:
            if exclusive:
                async with turnstile.lock:
                    yield
            else:
                yield
        finally:
            turnstile.users -= 1
            self._trim()

    async def pace(self, session: str) -> None:
        """Wait until another request for `session` stays within the rate; call it before each request."""
        sent = self._sessions[session].sent
        while len(sent) == REQUESTS_PER_SECOND and (wait := sent[0] + 1.0 - self._clock.now()) > 0:
            await self._clock.sleep(wait)
        sent.append(self._clock.now())

    def forget(self, session: str) -> None:
        """Forget a session that has ended, unless a caller still waits for it."""
        turnstile = self._sessions.get(session)
        if turnstile is not None and not turnstile.users:
            del self._sessions[session]

    def _trim(self) -> None:
        if len(self._sessions) <= self._bound:
            return
        for session, turnstile in list(self._sessions.items()):
            if not turnstile.users:
                del self._sessions[session]
                self.forgotten += 1
                if len(self._sessions) <= self._bound:
                    return

    def counters(self) -> dict[str, int]:
        """Counters since construction, by name."""
        return {"forgotten": self.forgotten}
