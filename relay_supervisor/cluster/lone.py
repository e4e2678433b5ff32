"""A supervisor without others that stand by for it, whose workers are Pods: none other of its identity may touch them.

It holds the Lease of its identity, as those do that stand by for each other, under a name made of its key on the bus:
one started again with its state takes the Lease at once, and any other waits. Its state is its own, so while nobody has
registered to take over it obeys nobody: without the API server streams go on, and no Pod is changed. The Lease keeps
others from its Pods, then, not from Google: such supervisors share no quota log. So whoever takes the Lease after
another one takes the minute before for used up, and sends nothing in the minute after (`own_log.py`).
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import logging
import secrets
import socket
from typing import Final

from relay_common.clock import Clock
from relay_common.config_cluster import ClusterConfig
from relay_supervisor.cluster.election import ALONE, CommandState
from relay_supervisor.cluster.objects import Objects
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.cluster.seat import Seat
from relay_supervisor.status.model import SeatStatus
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)

ASKS: Final = 2.0
"""Seconds for which a start waits to hear whether another one has the Lease."""
_LOOK: Final = 0.1
_WATCH: Final = 0.5


class LoneState(enum.Enum):
    """What a supervisor knows of others of its identity."""

    COMMANDS = "commands"
    """It has the Lease."""
    UNKNOWN = "unknown"
    """The API server has not answered: it may run, and changes nothing there."""
    UNPROTECTED = "unprotected"
    """It may not use Leases, and runs as if there were no other."""
    WAITS = "waits"
    """Another one has it."""


class LoneSeat:
    """The Lease of `config.identity`, for the supervisor with that secret `key` on the bus.

    `namesake`: another one that lives has the same key, as when its state was copied. `own` says whose commands are in
    its quota log.
    """

    def __init__(
        self,
        objects: Objects,
        config: ClusterConfig,
        key: bytes,
        clock: Clock,
        own: OwnLog,
        *,
        namesake: bool = False,
    ) -> None:
        self._config, self._clock, self._loops = config, clock, Loops(clock)
        self.name = f"{ALONE}{hashlib.blake2b(key, digest_size=6, person=b'alone').hexdigest()}"
        self._session, self._log = f"{socket.gethostname()}/{secrets.token_hex(8)}", own
        names = config.identity, self.name, self._session
        self._seat = Seat(objects, *names, clock, namesake=namesake, knows=own.knows)
        self._own = ("",) if namesake else ("", self.name)
        self.over = asyncio.Event()
        """Set when another one may have taken the Lease, and is to be waited for."""

    @property
    def state(self) -> LoneState:
        """What is known now."""
        seat = self._seat
        if seat.forbidden:
            return LoneState.UNPROTECTED
        if seat.won.is_set():
            # Whoever has registered may take over from one that is cut off; without such it goes on by itself.
            over = seat.lost.is_set() or (seat.others and not seat.may_extend)
            return LoneState.WAITS if over else LoneState.COMMANDS
        elsewhere = seat.holder not in self._own and seat.state is CommandState.STANDING_BY
        return LoneState.WAITS if elsewhere else LoneState.UNKNOWN

    @property
    def may_change(self) -> bool:
        """Whether Pods may be changed now."""
        return not self.over.is_set() and (self._seat.in_command or self._seat.forbidden)

    @property
    def unsure_until(self) -> float:
        """Until when it is not known what Google has been sent (monotonic seconds)."""
        return self._seat.unsure_until

    @property
    def namesake(self) -> bool:
        """Whether another process with our key has the Lease."""
        return self._seat.namesake

    async def settled(self) -> LoneState:
        """Take the Lease, or see that another one has it; UNKNOWN when that is not known after `ASKS` seconds."""
        self._log.begin(self._session)  # before it can hold the Lease
        self._loops.start("seat", self._seat.run)
        until = self._clock.now() + ASKS
        while (state := self.state) is LoneState.UNKNOWN and self._clock.now() < until:
            await self._clock.sleep(_LOOK)
        if state is LoneState.WAITS:
            log.error("%s", self.problem)
        elif state is LoneState.UNPROTECTED:
            log.warning(
                "this account may not use Leases in %s: another supervisor of the identity %s would delete the Pods of "
                "this one's workers, unnoticed; `check` names the rights",
                self._config.namespace,
                self._config.identity,
            )
        return state

    @property
    def won(self) -> asyncio.Event:
        """Set when the Lease is our own."""
        return self._seat.won

    def watch(self) -> None:
        """Set `over` once another one is to be waited for."""
        self._loops.start("who commands", self._watch)

    async def _watch(self) -> None:
        while self.state is not LoneState.WAITS:
            await self._clock.sleep(_WATCH)
        log.error("%s; this one ends, and leaves its workers alone", self.problem)
        self.over.set()
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """Give the Lease up, if it is our own, and end."""
        await self._seat.release()
        await self._loops.aclose()

    @property
    def problem(self) -> str:
        """Who has the Lease, and what that means; "" while no other has."""
        seat, config = self._seat, self._config
        if self.state is not LoneState.WAITS:
            return ""
        if seat.holder in self._own and not seat.namesake:
            return "the API server cannot be reached, and another supervisor that stands by may take over"
        where = seat.session_of_holder.rpartition("/")[0]
        who = f"{seat.holder}{where and f' on {where}'}"
        key = ", with the same state directory's key" if seat.namesake else ""
        return f"{who} commands the workers of the identity {config.identity} in the namespace {config.namespace}{key}"

    @property
    def advice(self) -> str:
        """What to do about it."""
        return (
            "Stop that one, or give this one another cluster.identity; "
            "it takes over by itself within 15 s when that one has ended"
        )

    def status(self) -> SeatStatus:
        """Who commands, while this one waits."""
        seat = self._seat
        return SeatStatus(
            replica=self.name,
            state=seat.state.value,
            commands=False,
            holder=seat.holder,
            others=sorted(seat.others),
            problem=self.problem or seat.problem,
            known=seat.known,
        )
