"""Bounds on the HTTP interface's connections and requests: counting only, no sockets.

The supervisor's descriptors are shared with what keeps cameras alive (calls to Google and the SFU, the bus, the store),
so HTTP gets a bounded part of them. Connections in which nothing is being answered make room for new ones, the longest
idle first: whoever opens many and sends nothing, or never the whole of a request, displaces only such connections.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

MOST_CONNECTIONS: Final = 256
MOST_OF_AN_ADDRESS: Final = 64
"""Connections of one address, and requests under way of one client behind a trusted proxy."""
_PART_OF_DESCRIPTORS: Final = 4

T = TypeVar("T", bound=Hashable)


def most_connections() -> int:
    """256, or a quarter of this process's descriptor limit if that is less; at least 16."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, soft // _PART_OF_DESCRIPTORS))


class Share:
    """A count per key (an address, a link), each bounded by `most`; keys at zero are forgotten."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts: Counter[str] = Counter()

    def take(self, key: str) -> bool:
        """Count one more for `key`; False, and nothing is counted, when it has `most` already."""
        if self._counts[key] >= self.most:
            return False
        self._counts[key] += 1
        return True

    def give_back(self, key: str) -> None:
        """Count one less for `key`, which has at least one."""
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def __len__(self) -> int:
        return len(self._counts)


class Admission(Generic[T]):
    """Decides which connections (any hashable objects) stay; `most` in all, `most_of_an_address` of one address.

    A connection is idle until it is marked busy, when a whole request has come. An address of "" (a Unix socket, a
    trusted proxy) has no bound of its own.
    """

    def __init__(self, most: int, most_of_an_address: int = MOST_OF_AN_ADDRESS) -> None:
        self._most = most
        self._addresses = Share(most_of_an_address)
        self._open: dict[T, str] = {}
        self._idle: dict[T, None] = {}  # in the order in which they became idle
        self.refused_address = 0
        self.refused_full = 0
        self.displaced = 0
        self.late = 0
        self.stuck = 0
        self.invalid = 0

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: T, address: str) -> tuple[bool, T | None]:
        """(whether the connection may stay, an idle one to close in its place).

        The one to close is no longer counted.
        """
        if address and not self._addresses.take(address):
            self.refused_address += 1
            return False, None
        evicted = None
        if len(self._open) >= self._most:
            evicted = next(iter(self._idle), None)
            if evicted is None:
                self.refused_full += 1
                if address:
                    self._addresses.give_back(address)
                return False, None
            self.displaced += 1
            self.gone(evicted)
        self._open[connection] = address
        self._idle[connection] = None
        return True, evicted

    def busy(self, connection: T) -> None:
        """Mark the connection as busy: a request is being answered."""
        self._idle.pop(connection, None)

    def idle(self, connection: T) -> None:
        """Mark the connection as idle."""
        if connection in self._open:
            self._idle.pop(connection, None)
            self._idle[connection] = None

    def gone(self, connection: T) -> None:
        """Forget a closed connection; one that is not counted is ignored."""
        address = self._open.pop(connection, None)
        self._idle.pop(connection, None)
        if address:
            self._addresses.give_back(address)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "refused_address": self.refused_address,
            "refused_full": self.refused_full,
            "displaced": self.displaced,
            "late": self.late,
            "stuck": self.stuck,
            "invalid": self.invalid,
        }
