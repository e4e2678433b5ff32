"""The STUN and TURN servers that viewers and workers are given, and the life of their credentials.

With a TURN key of Cloudflare's each view gets a credential of its own. It ends with the audience's time at the latest,
is revoked when the view ends, and a view that outlasts it is opened afresh. What stands in `cloudflare.ice_servers` has
no end, so guests get it only where the configuration says so.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from relay_common.clock import Clock
from relay_common.cloudflare import TurnError, TurnKey
from relay_common.config import IceServer
from relay_common.protocol import TurnServer, UseTurn
from relay_common.tasks import Tasks

log = logging.getLogger(__name__)

VIEW_LIFE: Final = 12 * 3600.0
"""Seconds for which a view's credential is issued, if its audience's time does not end sooner."""
RELAY_LIFE: Final = 48 * 3600.0
"""The same for the relay's own: the longest there is, because a publication that uses it is replaced at its end."""
RENEW: Final = 600.0
"""Seconds before the end of a credential at which what uses it is renewed."""
_AFTER_FAILURE: Final = 30.0
"""Seconds after a failure during which views are opened without asking again; also between attempts for the relay."""


class Lent(msgspec.Struct, frozen=True, kw_only=True):
    """What one view was given."""

    servers: list[dict[str, Any]]
    """As RTCPeerConnection takes them; holds a secret."""
    username: str = ""
    """Of the credential to revoke at the end; empty: none."""
    ends_at: float = math.inf
    """When the view has to be opened afresh, in Unix seconds."""


class IceServers:
    """Lends servers to views, and keeps workers supplied through `send`."""

    def __init__(self, configured: list[str | IceServer], key: TurnKey | None, clock: Clock) -> None:
        self._servers = [turn_server(one) for one in configured]
        self._for_guests = [turn_server(one) for one in configured if _harmless(one)]
        self._key, self._clock = key, clock
        self._tasks = Tasks(log, "a TURN credential could not be revoked")
        self._not_before = -math.inf
        self._failing = False
        """Whether the latest call for a credential failed, which has been logged."""
        self._counts = Counter({"issued": 0, "failed": 0, "revoked": 0, "unrevoked": 0})
        self._listeners: list[Callable[[UseTurn], None]] = []
        relays = [server for server in self._servers if server.credential]
        self.for_workers: UseTurn | None = UseTurn(servers=relays) if relays else None
        """What workers are told; None: nothing."""

    def listen(self, listener: Callable[[UseTurn], None]) -> None:
        """Call `listener` whenever workers have to be told."""
        self._listeners.append(listener)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return dict(self._counts)

    # --- views -----------------------------------------------------------------------------------------------------

    async def lend(self, *, guest: bool, until: float | None) -> Lent:
        """Servers for a view that ends at `until` (Unix seconds; None: open). Without TURN when Cloudflare fails."""
        own = self._for_guests if guest else self._servers
        wall = self._clock.wall()
        end = min(wall + VIEW_LIFE, until or math.inf)
        issued = await self._issue(end - wall) if self._key is not None and end > wall else []
        return Lent(
            servers=[_as_browsers_take_it(server) for server in [*own, *issued]],
            username=next((server.username for server in issued if server.username), ""),
            ends_at=end - RENEW if issued and end != until else math.inf,
        )

    def plain(self, *, guest: bool) -> list[dict[str, Any]]:
        """Servers without a credential, for an answer that opens no view."""
        own = self._for_guests if guest else self._servers
        return [_as_browsers_take_it(server) for server in own if not server.credential]

    def take_back(self, lent: Lent) -> None:
        """The view is over: revoke its credential."""
        if lent.username:
            self._tasks.spawn(self._revoke(lent.username))

    async def _revoke(self, username: str) -> None:
        assert self._key is not None
        try:
            await self._key.revoke(username)
        except TurnError as error:
            self._counts["unrevoked"] += 1
            log.debug("a TURN credential lives until its end: %s", error.message)
        else:
            self._counts["revoked"] += 1

    async def _issue(self, ttl: float) -> list[TurnServer]:
        assert self._key is not None
        if self._clock.now() < self._not_before:
            return []
        try:
            servers = await self._key.issue(ttl)
        except TurnError as error:
            self._counts["failed"] += 1
            self._not_before = self._clock.now() + _AFTER_FAILURE
            if not self._failing:
                self._failing = True
                log.warning("no TURN credentials: %s", error)
            return []
        self._counts["issued"] += 1
        if self._failing:
            self._failing = False
            log.warning("TURN credentials are issued again")
        return servers

    # --- workers ---------------------------------------------------------------------------------------------------

    async def keep_workers(self) -> None:
        """Keep workers supplied with a credential that does not end; runs until cancelled."""
        while True:
            wait = _AFTER_FAILURE
            if self._key is None:
                wait = RELAY_LIFE
            elif issued := [server for server in await self._issue(RELAY_LIFE) if server.credential]:
                own = [server for server in self._servers if server.credential]
                self.for_workers = UseTurn(servers=[*issued, *own], ends_at=self._clock.wall() + RELAY_LIFE)
                for listener in self._listeners:
                    listener(self.for_workers)
                wait = RELAY_LIFE / 2
            await self._clock.sleep(wait)

    async def aclose(self, *, within: float = 1.0) -> None:
        """Wait at most `within` seconds for revocations under way, then close the connections to Cloudflare."""
        await self._tasks.aclose(within=within)
        if self._key is not None:
            await self._key.aclose()


def turn_server(one: str | IceServer) -> TurnServer:
    """A configured server as the bus carries it."""
    if isinstance(one, str):
        return TurnServer(urls=[one])
    return TurnServer(urls=one.addresses, username=one.username, credential=one.credential.reveal())


def _harmless(one: str | IceServer) -> bool:
    return isinstance(one, str) or not one.credential or one.share_with_guests


def _as_browsers_take_it(server: TurnServer) -> dict[str, Any]:
    signed = {"username": server.username, "credential": server.credential} if server.credential else {}
    return {"urls": server.urls, **signed}
