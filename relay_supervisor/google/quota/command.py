"""A command to Google, on its way through the queue."""

from __future__ import annotations

import enum
import math

import msgspec

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.api import COMMAND_TIMEOUT, command_name
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.budget import Call, Ticket
from relay_supervisor.google.quota.limits import EXECUTE, GET, LIST


class Verb(enum.Enum):
    """What is asked of Google."""

    EXTEND = "extend"
    STOP = "stop"
    GENERATE = "generate"
    GET = "get"
    """Read one device's traits again."""
    LIST = "list"
    """List all devices."""


class Command(msgspec.Struct, kw_only=True, eq=False):
    """One call to make.

    Times are monotonic seconds: not before `not_before`; an extension is pressing from `due`, and from `latest` there
    is hardly time for a second try; from `deadline` on the command is pointless. `generation` tells the lease whether
    the result still concerns it. `renewal` marks the stop and the generate that replace a stream which cannot be
    extended. `attempts` counts failures before this one. `on_demand` is for a camera that runs only while it is
    watched: its generate takes what nobody else wants. `orphan` marks the stop of a session whose receiver is gone: it
    is not part of its lease's plan, and goes before generates when the budget has room for all of them.
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
    submitted: float = 0.0
    timeout: float = COMMAND_TIMEOUT
    ticket: Ticket | None = None
    call: Call = Call("")
    """What the limits see of it."""

    def __post_init__(self) -> None:
        match self.verb:
            case Verb.GET:
                self.call = Call(GET)
            case Verb.LIST:
                self.call = Call(LIST)
            case verb:
                self.call = Call(EXECUTE, command_name(verb.value, self.protocol), self.device, self.kind)

    def waited(self, now: float) -> float:
        """Seconds since it could have been sent; for an extension, since it was pressing."""
        since = self.due if self.verb is Verb.EXTEND else max(self.submitted, self.not_before)
        return max(0.0, now - since)


Result = LiveStream | Extension | Device | Listing | None | NestError
"""What became of a command: what Google granted (None for a stop), or why not."""
