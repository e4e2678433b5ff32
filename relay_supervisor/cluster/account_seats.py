"""The seats of all accounts, as one supervisor that stands by for all of them takes them and gives them up."""

from __future__ import annotations

import logging
from typing import Final

from relay_common.clock import Clock
from relay_supervisor.cluster.replica import Replica
from relay_supervisor.cluster.spreading import AccountSeat, Spreading

log = logging.getLogger(__name__)

_LOOK: Final = 0.5


class AccountSeats:
    """Those of the supervisor `me`; `run` gives one up where another supervisor has too few."""

    def __init__(self, me: str, clock: Clock) -> None:
        self._clock, self._spreading = clock, Spreading(me)
        self._replicas: dict[str, Replica] = {}
        self.given_up = 0
        """Accounts that were left to others since the start."""

    def joins(self, account: str, replica: Replica) -> None:
        """Have that one stand by for the account, instead of any before it, and take its seat when it is its turn."""
        self._replicas[account] = replica
        replica.seat.willing = lambda: self._takes(account)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"given_up": self.given_up}

    async def run(self) -> None:
        """Give accounts up; runs until cancelled."""
        while True:
            self._look()
            if (account := self._spreading.gives_up(self._clock.now())) is not None:
                self.given_up += 1
                log.info("%s is left to a supervisor that has fewer accounts", account)
                self._replicas[account].over.set()
            await self._clock.sleep(_LOOK)

    def _takes(self, account: str) -> bool:
        self._look()
        return self._spreading.takes(account, self._clock.now())

    def _look(self) -> None:
        seats = {name: AccountSeat(one.seat.holder, one.seat.free_from) for name, one in self._replicas.items()}
        marks: dict[str, tuple[float, str]] = {}
        for one in self._replicas.values():
            for name, peer in one.seat.others.items():
                marks[name] = max(marks.get(name, (0.0, "")), (peer.at, peer.session))
        self._spreading.seen(seats, marks, self._clock.now())
