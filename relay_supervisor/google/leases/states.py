"""The states of a lease and the moves between them, as a table.

A camera's live stream at Google is a lease: Generate starts it, it expires after about five minutes, and Extend renews
it for a full lifetime. Every command uses up part of a small budget, and a Generate also interrupts the picture. These
are the rules; the table implements them.

1.  A playing stream is worth more than a new one. While it is alive, a failed command leads back to HELD, where it
    plays on, not to a new Generate.

2.  Only three things end a stream: its expiry (`expires`), Google no longer knowing it (StreamGone), and a worker that
    can no longer play it. Each is LOSE. LOST is left at once: a stream that had worked is WANTED again, one that never
    did waits first (HELD_OFF), so that a broken camera cannot use up the others' budget.

3.  A failure of the account (token, network, quota) says nothing about a camera. Its command is SENT_BACK: the lease
    returns to where it was, as if the command had never been sent, and the queue is held until one command, sent as a
    probe, shows that the failure is over.

4.  A stream is extended as long as that is possible. Where it is not (battery doorbells; extensions that are granted
    but do not move the expiry), the stream runs to its end, and its successor is generated just before: beside it where
    Google grants a second one (WebRTC, REPLACING), after a Stop where not (RENEWING).

5.  What refusals teach is believed only for a while (`refusals.py`): an outage at Google looks the same.

6.  A camera may be moved from RTSP to WebRTC while it plays. An Extend refused as if the camera spoke another protocol
    makes its stream DOUBTED: the camera's traits are read while it plays on. If they name another protocol, a stream
    over that one is generated beside it (SWITCH, then REPLACE); if not, Google no longer knows the stream.

7.  What only a person can fix (the device is no longer shared) is PARKED until a listing shows the device again.

8.  Every stream has a generation, which rises with each new one and with each loss. Answers and reports for another
    generation are stale and change nothing.

The modules: `lease.py` holds one lease's facts and says which command it wants next; `outcomes.py` makes the moves
that follow from answers; `schedule.py` decides which leases fit into the budget (`planner.py` is the arithmetic) and
queues their commands; `book.py` combines them for an account, without I/O; `manager.py` runs it; `account.py` opens and
closes it. The path of an Extend: `Lease.wanted_command` → `Schedule.plan` → `CommandQueue.poll` → `Dispatcher` →
`NestApi.extend` → `LeaseBook.settle` → `Outcomes.succeeded` → `Lease.extended` → the effect `Renewed`.
"""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class LeaseState(enum.Enum):
    """States of a lease."""

    RELEASED = "released"
    """The camera is not wanted."""
    WANTED = "wanted"
    """Waiting for its turn to be generated."""
    GENERATING = "generating"
    """Generate is under way."""
    HELD = "held"
    """The stream is alive and its extension planned."""
    EXTENDING = "extending"
    """Extend is under way."""
    DOUBTED = "doubted"
    """The stream plays, but Extend was refused as if the camera spoke another protocol: its traits will show."""
    REPLACING = "replacing"
    """A stream that cannot be extended (any more) still plays while its successor is generated."""
    RENEWING = "renewing"
    """A stream that cannot be extended is being stopped, so that a new one can be generated."""
    LOST = "lost"
    """The stream is gone; the next state is chosen at once."""
    HELD_OFF = "held_off"
    """Waiting after a failure."""
    PARKED = "parked"
    """Waiting for a person to fix the cause."""


class LeaseEvent(enum.Enum):
    """Events of a lease."""

    WANT = "want"
    UNWANT = "unwant"
    RESUME = "resume"
    SENT = "sent"
    GRANTED = "granted"
    EXTENDED = "extended"
    SENT_BACK = "sent back"
    DOUBT = "doubt"
    SWITCH = "switch"
    FAILED = "failed"
    LOSE = "lose"
    RETRY = "retry"
    HOLD_OFF = "hold off"
    REPLACE = "replace"
    RENEW = "renew"
    PARK = "park"


LEASE: Final = Table(
    "lease",
    LeaseState.RELEASED,
    {
        (LeaseState.RELEASED, LeaseEvent.WANT): LeaseState.WANTED,
        (LeaseState.RELEASED, LeaseEvent.RESUME): LeaseState.HELD,
        (LeaseState.WANTED, LeaseEvent.SENT): LeaseState.GENERATING,
        (LeaseState.WANTED, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.WANTED, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.GENERATING, LeaseEvent.GRANTED): LeaseState.HELD,
        (LeaseState.GENERATING, LeaseEvent.SENT_BACK): LeaseState.WANTED,
        (LeaseState.GENERATING, LeaseEvent.FAILED): LeaseState.HELD_OFF,
        (LeaseState.GENERATING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.GENERATING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.HELD, LeaseEvent.SENT): LeaseState.EXTENDING,
        (LeaseState.HELD, LeaseEvent.REPLACE): LeaseState.REPLACING,
        (LeaseState.HELD, LeaseEvent.RENEW): LeaseState.RENEWING,
        (LeaseState.HELD, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.HELD, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.HELD, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.EXTENDING, LeaseEvent.EXTENDED): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.FAILED): LeaseState.HELD,
        (LeaseState.EXTENDING, LeaseEvent.DOUBT): LeaseState.DOUBTED,
        (LeaseState.EXTENDING, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.EXTENDING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.EXTENDING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.DOUBTED, LeaseEvent.SWITCH): LeaseState.HELD,
        (LeaseState.DOUBTED, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.DOUBTED, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.DOUBTED, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.REPLACING, LeaseEvent.GRANTED): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.FAILED): LeaseState.HELD,
        (LeaseState.REPLACING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.REPLACING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.RENEWING, LeaseEvent.SENT_BACK): LeaseState.HELD,
        (LeaseState.RENEWING, LeaseEvent.LOSE): LeaseState.LOST,
        (LeaseState.RENEWING, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.RENEWING, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.LOST, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.LOST, LeaseEvent.HOLD_OFF): LeaseState.HELD_OFF,
        (LeaseState.HELD_OFF, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.HELD_OFF, LeaseEvent.PARK): LeaseState.PARKED,
        (LeaseState.HELD_OFF, LeaseEvent.UNWANT): LeaseState.RELEASED,
        (LeaseState.PARKED, LeaseEvent.RETRY): LeaseState.WANTED,
        (LeaseState.PARKED, LeaseEvent.UNWANT): LeaseState.RELEASED,
    },
)

ALIVE: Final = frozenset(
    {LeaseState.HELD, LeaseState.EXTENDING, LeaseState.DOUBTED, LeaseState.REPLACING, LeaseState.RENEWING}
)
"""States with a stream that has not ended."""
ENDING: Final = frozenset({LeaseState.HELD, LeaseState.DOUBTED})
"""Those of them in which the stream's expiry ends the lease: no command under way could extend or replace it."""
UNDER_WAY: Final = frozenset({LeaseState.GENERATING, LeaseState.EXTENDING, LeaseState.REPLACING, LeaseState.RENEWING})
"""States with a command at Google."""
