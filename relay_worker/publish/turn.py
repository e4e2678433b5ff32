"""When a publication goes through a TURN relay: only where the SFU cannot be reached directly.

The first attempt is direct, so that where UDP is not blocked no allocation is made and TURN may be down. After one that
fails at ICE the next offers the relay, too, and so do later ones for as long as a relay is what connects: ICE prefers
the direct path wherever it works again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiortc import RTCIceServer

from relay_common.protocol import Stage, TurnServer

RENEW: Final = 600.0
"""Seconds before the end of the credentials in use at which the publication is replaced, if there are newer ones."""


class TurnFallback:
    """The servers given so far, and whether to use them. Times in Unix seconds; an end of 0 is none."""

    def __init__(self) -> None:
        self._server: RTCIceServer | None = None
        self._ends_at = 0.0
        self._needed = False
        self._used_until = 0.0
        self.relayed = False
        """Whether the current publication goes through a relay."""

    def give(self, servers: Sequence[TurnServer], ends_at: float) -> None:
        """Use these from the next attempt on, in place of earlier ones."""
        url, server = best(servers)
        signed = None if server is None else RTCIceServer(url, server.username, server.credential)
        self._server = signed
        self._ends_at = ends_at

    def servers(self) -> tuple[RTCIceServer, ...]:
        """What the next attempt is to gather with."""
        self._used_until = self._ends_at
        return (self._server,) if self._needed and self._server is not None else ()

    def failed(self, stage: Stage) -> None:
        """An attempt failed at `stage`."""
        self.relayed = False
        if stage is Stage.ICE:
            # With the relay offered in vain, the next attempt is direct: the relay itself may be what is down.
            self._needed = not self._needed

    def connected(self, *, relayed: bool) -> None:
        """An attempt succeeded, through a relay or not."""
        self.relayed = self._needed = relayed

    def outdated(self, wall: float) -> bool:
        """Whether the relay in use has to be replaced by one with newer credentials."""
        if not self.relayed or not self._used_until or self._used_until == self._ends_at:
            return False
        return wall >= self._used_until - RENEW


def best(servers: Sequence[TurnServer]) -> tuple[str, TurnServer | None]:
    """The URL to use and its server; aiortc takes one. UDP is what is blocked, so TLS and TCP come first.

    Of TLS the port that everybody allows, of equals the one that was named first.
    """
    offered = [(url, server) for server in servers if server.credential for url in server.urls]
    ranked = sorted((rank, place) for place, (url, _) in enumerate(offered) if (rank := _rank(url)))
    return offered[ranked[0][1]] if ranked else ("", None)


def _rank(url: str) -> int:
    """Lower is better; 0: not usable."""
    scheme, _, rest = url.partition(":")
    address, _, query = rest.partition("?")
    udp = "transport=udp" in query or (scheme == "turn" and "transport=tcp" not in query)
    if scheme == "turns":
        return 0 if udp else 1 if address.endswith(":443") else 2
    if scheme != "turn":
        return 0
    return 4 if udp else 3
