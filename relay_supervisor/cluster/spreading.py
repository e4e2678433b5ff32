"""Which supervisor takes which account, where several stand by for all of them: arithmetic on what their Leases say.

Each account has a Lease of its own, and every supervisor looks at all of them. A free one is taken by the supervisor
with the fewest, which all work out alike from the same records; the others give it `TURN` seconds each before they take
it themselves, as it may be dead without anybody knowing. Nothing depends on their agreement: a Lease has one holder.
Where one has two more than another that is known to live, it gives one up, once nothing has moved for `SETTLED`
seconds: every such step brings them closer, so it ends.

Times are monotonic seconds.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Final, NamedTuple

TURN: Final = 3.0
"""Seconds that another has to take a free account first: more than two looks at its Lease are apart."""
MOST_TURNS: Final = 2
SETTLED: Final = 60.0
ALIVE: Final = 40.0
"""Seconds since its last registration for which a supervisor counts as alive; they register every 30 s."""


class AccountSeat(NamedTuple):
    """What one supervisor knows of an account's Lease: who holds it ("": nobody), and from when it may be taken."""

    holder: str
    free_from: float


class Spreading:
    """The view of the supervisor `me`."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seats: dict[str, AccountSeat] = {}
        self._registered: dict[str, tuple[Hashable, float]] = {}
        """Each one's registration, and since when it is that."""
        self._moved_at = -math.inf

    def seen(self, seats: Mapping[str, AccountSeat], registered: Mapping[str, Hashable], now: float) -> None:
        """All Leases, by account, and how each supervisor has registered, as it is known now."""
        if {name: seat.holder for name, seat in seats.items()} != {n: seat.holder for n, seat in self._seats.items()}:
            self._moved_at = now
        self._seats = dict(seats)
        before = self._registered
        self._registered = {
            name: before[name] if name in before and before[name][0] == mark else (mark, now)
            for name, mark in registered.items()
        }

    def takes(self, account: str, now: float) -> bool:
        """Whether this one is to take a free account now."""
        seat = self._seats.get(account)
        if seat is None or now < seat.free_from:
            return False
        if seat.holder == self._me:  # in an earlier life
            return True
        turns = self._order(account, now).index(self._me)
        return now >= seat.free_from + min(turns, MOST_TURNS) * TURN

    def gives_up(self, now: float) -> str | None:
        """The account that this one is to give up now, because another has too few; None for none."""
        if now < self._moved_at + SETTLED or any(now >= seat.free_from for seat in self._seats.values()):
            return None
        loads = self._loads(now)
        least = min(loads, key=lambda name: (loads[name], name))
        if loads[self._me] < loads[least] + 2 or any(
            (loads[name], name) > (loads[self._me], self._me) for name in loads
        ):
            return None
        mine = [name for name, seat in self._seats.items() if seat.holder == self._me]
        return min(mine, key=lambda account: _draw(account, least))

    def _order(self, account: str, now: float) -> list[str]:
        """Who is to take a free account, first to last; the other free ones are given away as well, in their order."""
        loads = self._loads(now)
        for free in sorted(name for name, seat in self._seats.items() if now >= seat.free_from):
            order = sorted(loads, key=lambda name: (loads[name], _draw(free, name)))
            if free == account:
                return order
            loads[order[0]] += 1
        raise AssertionError("only free accounts are asked for")

    def _loads(self, now: float) -> Counter[str]:
        """How many accounts each one has that may be alive."""
        lapsed = {seat.holder for seat in self._seats.values() if now >= seat.free_from} - {"", self._me}
        alive = {name for name, (_, since) in self._registered.items() if now < since + ALIVE} | {self._me}
        held = Counter(seat.holder for seat in self._seats.values() if seat.holder and now < seat.free_from)
        return Counter({name: held[name] for name in (alive | set(held)) - lapsed})


def _draw(account: str, name: str) -> bytes:
    """Rendezvous hashing: everybody draws alike."""
    return hashlib.sha256(f"{account} {name}".encode()).digest()
