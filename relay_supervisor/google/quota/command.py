"""A command to Google as it passes through the queue."""

from __future__ import annotations

import enum
import math

import msgspec

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.api import COMMAND_TIMEOUT, command_name
from relay_supervisor.google.errors import NestError, NestTimeout, NestUnreachable
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.budget import UNANSWERED, Call, Ticket
from relay_supervisor.google.quota.limits import EXECUTE, GET, LIST


class Verb(enum.Enum):
    """Kind of command."""

    EXTEND = "extend"
    STOP = "stop"
    GENERATE = "generate"
    GET = "get"
    """Read one device's traits again."""
    LIST = "list"
    """List all devices."""


class Command(msgspec.Struct, kw_only=True, eq=False):
    """One call to be made.

    Times are monotonic seconds: it is not sent before `not_before`; an extension is due from `due`, and from `latest`
    there is hardly time for a second attempt; from `deadline` on the command is pointless. `generation` shows whether
    the result still concerns the lease. `renewal` marks the stop and the generate that replace a stream which cannot be
    extended. `attempts` counts earlier failures. `on_demand` marks a camera that runs only while it is watched: its
    generate gets only what the others leave of the budget. `orphan` marks the stop of a session whose receiver is gone:
    it is not part of its lease's plan, and goes before generates when the budget has room for all of them. `blocking`
    marks such a stop where Google refuses another session until it is carried out: it has the place of that generate.
    """

    verb: Verb
    camera: str
    device: str = ""
    kind: str = ""
    protocol: Protocol = Protocol.RTSP
    generation: int = 0
    handle: Secret = Secret("")
    not_before: float = 0.0
    due: float = math.inf
    latest: float = math.inf
    deadline: float = math.inf
    attempts: int = 0
    renewal: bool = False
    on_demand: bool = False
    orphan: bool = False
    blocking: bool = False
    submitted: float = 0.0
    timeout: float = COMMAND_TIMEOUT
    ticket: Ticket | None = None
    call: Call = Call("")
    """The call as the limits count it."""

    def __post_init__(self) -> None:
        match self.verb:
            case Verb.GET:
                self.call = Call(GET)
            case Verb.LIST:
                self.call = Call(LIST)
            case verb:
                self.call = Call(EXECUTE, command_name(verb.value, self.protocol), self.device, self.kind)

    def waited(self, now: float) -> float:
        """Seconds since it could have been sent; for an extension, since it became due."""
        since = self.due if self.verb is Verb.EXTEND else max(self.submitted, self.not_before)
        return max(0.0, now - since)


def stop_of(
    camera: str, device: str, kind: str, protocol: Protocol, handle: Secret, now: float, ends: float
) -> Command:
    """The Stop of a stream that no lease holds, and that ends by itself at `ends` (monotonic seconds)."""
    return Command(
        verb=Verb.STOP,
        camera=camera,
        device=device,
        kind=kind,
        protocol=protocol,
        handle=handle,
        deadline=ends,
        orphan=True,
        submitted=now,
    )


Result = LiveStream | Extension | Device | Listing | None | NestError
"""Result of a command: what Google granted (None for a stop), or the error."""


def counted_by(command: Command, result: Result, now: float) -> float | None:
    """By when Google has counted a command whose result is known at `now`; None if it never reached Google.

    One that was given up may be in a buffer of Google's still, to be read and counted later.
    """
    if isinstance(result, NestError) and not result.counted:
        return None
    if isinstance(result, (NestTimeout, NestUnreachable)) and command.ticket is not None:
        return max(now, command.ticket.sent + UNANSWERED)
    return now
