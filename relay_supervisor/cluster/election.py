"""Which of several supervisors commands: what the record of a Lease means, as a table, without I/O or clock.

The holder renews its record. Whoever stands by takes it when it has not changed for `DURATION` on its own monotonic
clock since it saw the last change: what the record says of times is for people, so clocks that differ do no harm. The
holder stops commanding `STOP_AFTER` after it sent the last renewal that was answered, which is earlier on every clock.

While the API server is away, the holder may go on extending the streams that it holds for as long as every other
supervisor that it knows of promises not to take the record. Supervisors register in the record itself. A renewal names
the version that it follows, so whoever sees one after its registration knows that the holder knows of it; whoever does
not may be unknown to a holder that goes on, and takes the record only when none can go on any more, or when that one is
known to have ended.

Times are monotonic seconds.
"""

from __future__ import annotations

import enum
import math
from typing import Final

import msgspec

from relay_common.fsm import Machine, Table

DURATION: Final = 12.0
"""Seconds without a change after which a record may be taken."""
STOP_AFTER: Final = 8.0
"""Seconds after which a holder whose renewals are not answered sends nothing any more."""
RENEW_EVERY: Final = 2.0
LOOK_EVERY: Final = 2.0
RETRY_EVERY: Final = 1.0
PROMISED: Final = 10.0
"""Seconds that a promise holds: for who gave it since it did, for who got it since it asked."""
AWAY_AFTER: Final = 4.0
"""Seconds without an answer after which the API server counts as away: before that nobody promises anything."""
MOST_AWAY: Final = 600.0
"""Seconds after the last renewal beyond which no promise helps."""
REGISTER_EVERY: Final = 30.0
ALONE: Final = "alone."
"""How the name of a supervisor begins that is alone (`lone.py`): others' are labels, without a dot."""
FORGOTTEN: Final = 90.0
"""Seconds after which a supervisor that does not register again is none that has to promise."""


def is_lone(session: str) -> bool:
    """Whether a session is that of a supervisor that is alone: it names its machine, too (`lone.py`)."""
    return "/" in session


class CommandState(enum.Enum):
    """States of a supervisor that stands by for others."""

    STANDING_BY = "standing by"
    """Another holds the record, or nobody has been able to look."""
    TAKING = "taking"
    """The record is free: taking it is under way."""
    IN_COMMAND = "in command"
    """The record is ours, and nobody can take it yet."""
    UNCONFIRMED = "unconfirmed"
    """The record was ours, and may be taken by now: nothing is sent but extensions, and these only under promises."""
    DEPOSED = "deposed"
    """Another has taken it, and this view of it ends: who stands by again begins with another one."""
    RELEASED = "released"
    """We have given it up."""


class CommandEvent(enum.Enum):
    """Events of it."""

    TAKE = "take"
    WON = "won"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    RENEWED = "renewed"
    EXPIRED = "expired"
    TAKEN = "taken by another"
    RELEASE = "release"


COMMAND: Final = Table(
    "command",
    CommandState.STANDING_BY,
    {
        (CommandState.STANDING_BY, CommandEvent.TAKE): CommandState.TAKING,
        (CommandState.STANDING_BY, CommandEvent.RELEASE): CommandState.RELEASED,
        (CommandState.TAKING, CommandEvent.WON): CommandState.IN_COMMAND,
        (CommandState.TAKING, CommandEvent.REFUSED): CommandState.STANDING_BY,
        (CommandState.TAKING, CommandEvent.UNANSWERED): CommandState.STANDING_BY,
        (CommandState.TAKING, CommandEvent.RELEASE): CommandState.RELEASED,
        (CommandState.IN_COMMAND, CommandEvent.RENEWED): CommandState.IN_COMMAND,
        (CommandState.IN_COMMAND, CommandEvent.EXPIRED): CommandState.UNCONFIRMED,
        (CommandState.IN_COMMAND, CommandEvent.TAKEN): CommandState.DEPOSED,
        (CommandState.IN_COMMAND, CommandEvent.RELEASE): CommandState.RELEASED,
        (CommandState.UNCONFIRMED, CommandEvent.RENEWED): CommandState.IN_COMMAND,
        (CommandState.UNCONFIRMED, CommandEvent.TAKEN): CommandState.DEPOSED,
        (CommandState.UNCONFIRMED, CommandEvent.RELEASE): CommandState.RELEASED,
    },
)


class Peer(msgspec.Struct, frozen=True):
    """How a supervisor has registered: where others reach it ("": nowhere), its process, and a mark that changes."""

    address: str = ""
    session: str = ""
    at: float = 0.0


class LeaseRecord(msgspec.Struct, frozen=True):
    """Who holds the Lease, in which version of the object. `session` tells two processes of one name apart."""

    holder: str
    session: str
    version: str
    renewed: str = ""
    """Changes with each renewal, and with nothing else."""
    peers: dict[str, Peer] = {}
    """Who stands by, by name."""
    renewed_at: float = 0.0
    """When the holder says that it renewed it, by its own clock (Unix seconds)."""
    unsure_until: float = 0.0
    """Until when the holder does not know what Google has been sent, by its own clock (Unix seconds)."""
    serves: str = ""
    """Where the holder takes requests that others pass on to it; "": nowhere."""
    pod: str = ""
    """The UID of the holder's Pod; "": it is in none, or has not said so yet."""

    @property
    def alone(self) -> bool:
        """Whether its holder is alone: it asks nobody for promises, and has changed no Pod once this has lapsed."""
        return self.holder.startswith(ALONE)

    @property
    def held(self) -> tuple[str, str, str]:
        """What the holder writes."""
        return self.holder, self.session, self.renewed


class Election:
    """One supervisor's view. `identity` is its name among the others, `session` that of this process.

    `namesake`: another one that lives has the same name, so a record under it is no earlier life's.
    """

    def __init__(self, identity: str, session: str, *, namesake: bool = False) -> None:
        self._identity, self._session, self._namesake = identity, session, namesake
        self._machine = Machine(COMMAND)
        self.record: LeaseRecord | None = None
        """The record as it was last seen; None when there is none."""
        self._looked = False
        self.changed_at = math.inf
        """When it was first seen as it is."""
        self._until = -math.inf
        self._renewed_at = -math.inf
        self._answered_at = -math.inf
        self._registered: tuple[str, str, str] | None = None
        """What the record held when we were seen in it first; None: we are not in it."""
        self._known = False
        """Whether the holder knows that we are."""
        self._ended: LeaseRecord | None = None
        """The record of a holder that has ended."""
        self._promised_until = -math.inf
        self._promises: dict[str, float] = {}
        """Until when each other one has promised."""
        self._peers: dict[str, tuple[Peer, float]] = {}
        """Who has registered how, and since when we know that."""

    @property
    def state(self) -> CommandState:
        """The current state."""
        return self._machine.state

    def in_command(self, now: float) -> bool:
        """Whether a command may be sent now, as far as this record goes."""
        self.poll(now)
        return self.state is CommandState.IN_COMMAND

    def may_extend(self, now: float) -> bool:
        """Whether a stream that is held may be extended now: in command, or under promises."""
        if self.in_command(now):
            return True
        promised = all(self._promises.get(name, -math.inf) > now for name in self.others)
        return self.state is CommandState.UNCONFIRMED and promised and now < self._renewed_at + MOST_AWAY

    def wants_promises(self, now: float) -> bool:
        """Whether the API server does not answer us while the record is ours."""
        return self.state in _HELD and now >= self._renewed_at + RENEW_EVERY + RETRY_EVERY

    @property
    def others(self) -> dict[str, Peer]:
        """The other supervisors that the record names."""
        peers = self.record.peers if self.record is not None else {}
        return {name: peer for name, peer in peers.items() if name != self._identity}

    def promised(self, name: str, asked: float) -> None:
        """Another one has promised what it was asked at `asked`."""
        self._promises[name] = asked + PROMISED

    def promises(self, holder: str, session: str, now: float) -> bool:
        """Whether we promise that holder not to take the record for `PROMISED` seconds: if it holds it as far as we
        know, and the API server is away for us, too.

        One that has started since, and has never seen the record, promises it to whoever asks: it only binds us.
        """
        record, unread = self.record, self._answered_at == -math.inf
        away = now >= self._answered_at + AWAY_AFTER
        if self.state is not CommandState.STANDING_BY or not away:
            return False
        if not unread and (record is None or (record.holder, record.session) != (holder, session)):
            return False
        self._promised_until = now + PROMISED
        return True

    @property
    def promised_until(self) -> float:
        """Until when we have promised not to take the record."""
        return self._promised_until

    @property
    def known(self) -> bool:
        """Whether the holder knows that we stand by."""
        return self._known

    def doubted(self, now: float) -> LeaseRecord | None:
        """The record that has lapsed for others and not for us: `ended` is to be called when its holder has ended."""
        lapsed = self.state is CommandState.STANDING_BY and now >= self.changed_at + DURATION - LOOK_EVERY
        return self.record if lapsed and now + DURATION < self._free_at() else None

    def ended(self, record: LeaseRecord) -> None:
        """Whoever wrote that record has ended, and goes on under nobody's promises."""
        self._ended = record

    def registers(self, now: float) -> bool:
        """Whether we have to register, again if need be."""
        if self.state is not CommandState.STANDING_BY or self.record is None:
            return False
        return self._registered is None or now >= self._peers[self._identity][1] + REGISTER_EVERY

    def forgotten(self, now: float) -> list[str]:
        """Supervisors that the record names and that have not registered again for long."""
        return [name for name, (_, since) in self._peers.items() if now >= since + FORGOTTEN]

    def poll(self, now: float) -> None:
        """Note that time has passed."""
        if self.state is CommandState.IN_COMMAND and now >= self._until:
            self._machine.fire(CommandEvent.EXPIRED)

    def seen(self, record: LeaseRecord | None, now: float) -> None:
        """The record was read."""
        before, self.record, self._answered_at = self.record, record, now
        if not self._looked or _held(record) != _held(before):
            self._looked, self.changed_at = True, now
        self._registrations(record, now)
        if self._machine.can(CommandEvent.TAKEN) and not self.ours:
            self._machine.fire(CommandEvent.TAKEN)

    def takes(self, now: float) -> bool:
        """Whether the record is to be taken now; if so, `won`, `refused` or `unanswered` is to follow."""
        if self.state is not CommandState.STANDING_BY or now < self._free_at():
            return False
        self._machine.fire(CommandEvent.TAKE)
        return True

    def won(self, record: LeaseRecord, sent: float, now: float) -> None:
        """A write that was sent at `sent` has made or kept the record ours."""
        self.record, self.changed_at, self._answered_at = record, now, now
        self._registrations(record, now)
        if self.state in (CommandState.TAKING, *_HELD):
            self._until, self._renewed_at = sent + STOP_AFTER, sent
            self._machine.fire(CommandEvent.WON if self.state is CommandState.TAKING else CommandEvent.RENEWED)
            self.poll(now)

    def refused(self) -> None:
        """The record is not what we thought: it has to be read before anything else."""
        self._looked = False
        if self.state is CommandState.TAKING:
            self._machine.fire(CommandEvent.REFUSED)

    def unanswered(self) -> None:
        """Nobody knows what became of a write or a read."""
        if self.state is CommandState.TAKING:
            self._machine.fire(CommandEvent.UNANSWERED)

    def release(self) -> bool:
        """Stop commanding for good; whether the record is ours to give up."""
        held = self.state in _HELD
        if self._machine.can(CommandEvent.RELEASE):
            self._machine.fire(CommandEvent.RELEASE)
        return held

    @property
    def free_from(self) -> float:
        """From when the record may be taken, and was seen to be so; inf while it is ours, and until somebody looked."""
        return math.inf if self.state in _HELD else max(self._free_at(), self.changed_at)

    @property
    def looks(self) -> bool:
        """Whether the record has to be read before it is written."""
        return not self._looked or self.state is CommandState.STANDING_BY

    def pause(self, now: float, *, answered: bool) -> float:
        """Seconds until the record is to be read or written again."""
        if not answered:
            return RETRY_EVERY
        if self.state is CommandState.STANDING_BY:
            return min(LOOK_EVERY, max(0.0, self._free_at() - now))
        return RENEW_EVERY

    @property
    def ours(self) -> bool:
        """Whether the record names us, as far as we have seen."""
        record = self.record
        return record is not None and (record.holder, record.session) == (self._identity, self._session)

    def _free_at(self) -> float:
        """When the record may be taken: at once if nobody holds it, or we did in an earlier life."""
        if not self._looked:
            return math.inf
        if self.record is None:
            return self._promised_until
        free = ("",) if self._namesake else ("", self._identity)
        if self.record.holder in free:
            # Nobody's: whom we have promised to wait has given it up. Our own: another may believe that it holds it.
            return self._promised_until if self.record.holder else -math.inf
        ended = self._ended is not None and self._ended.held == self.record.held
        away = 0.0 if self._known or ended or self.record.alone else MOST_AWAY
        return max(self.changed_at + away + DURATION, self._promised_until)

    def _registrations(self, record: LeaseRecord | None, now: float) -> None:
        peers = record.peers if record is not None else {}
        before = self._peers
        self._peers = {
            name: before[name] if name in before and before[name][0] == peer else (peer, now)
            for name, peer in peers.items()
        }
        ours = peers.get(self._identity)
        if record is None or ours is None or ours.session != self._session:
            self._registered, self._known = None, False
        elif self._registered is None:
            self._registered = record.held
        elif self._registered != record.held:
            self._known = True


_HELD: Final = (CommandState.IN_COMMAND, CommandState.UNCONFIRMED)


def _held(record: LeaseRecord | None) -> tuple[str, str, str] | None:
    return record.held if record is not None else None
