"""The moves of a lease that follow from the answer to a command or the end of a stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from relay_common.causes import Cause
from relay_common.errors import Remedy
from relay_supervisor.google.errors import (
    NestError,
    NotExtendable,
    OfferRefused,
    OfferUnavailable,
    StreamGone,
    WrongProtocol,
)
from relay_supervisor.google.leases.account_errors import servers_fault
from relay_supervisor.google.leases.causes import nest_cause
from relay_supervisor.google.leases.effects import Effect, Granted, Lost, NotExtended, Renewed, TraitsRead
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.planner import ASSUMED_LIFE
from relay_supervisor.google.leases.schedule import Schedule
from relay_supervisor.google.leases.states import ALIVE, UNDER_WAY, LeaseEvent, LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb

_TOGETHER: Final = 120.0
"""Seconds within which refusals of different cameras count as related: less than between two of one camera."""
_TOGETHER_WEIGHT: Final = 0.15
"""Weight of a refused extension while other cameras' are refused, too: it is probably an outage at Google.
Not zero, or several doorbells would never be recognised."""


class Outcomes:
    """Applies the results of commands to their leases, passes effects to `emit`, and plans what is next."""

    def __init__(self, schedule: Schedule, emit: Callable[[Effect], None]) -> None:
        self._schedule, self._emit = schedule, emit
        self._refused_at: dict[str, float] = {}

    def succeeded(self, lease: Lease, command: Command, result: Result, now: float) -> None:
        """Apply the success of `command`."""
        sent = command.ticket.sent if command.ticket else now
        if isinstance(result, LiveStream) and lease.state in (LeaseState.GENERATING, LeaseState.REPLACING):
            # A replaced stream is not stopped: its worker leaves it at the new one's first picture, and it expires.
            lease.granted(result, sent)
            self._emit(Granted(lease.camera, lease.generation, result, lease.expires))
            self._schedule.rearrange(now)
        elif isinstance(result, Extension) and lease.state is LeaseState.EXTENDING:
            cost = lease.load(ASSUMED_LIFE).rate
            lease.extended(result, sent)
            assert lease.stream is not None
            self._emit(Renewed(lease.camera, lease.generation, lease.stream, lease.expires))
            if math.isclose(lease.load(ASSUMED_LIFE).rate, cost, rel_tol=0.1):
                self._schedule.plan(lease, now)
            else:
                self._schedule.rearrange(now)
        elif isinstance(result, Device):
            self._traits_read(lease, result, now)
        elif lease.state is LeaseState.RENEWING:
            self.lose(lease, "the stream was stopped so that a new one can be generated", now, failed=False)

    def failed(self, lease: Lease, command: Command, error: NestError, now: float) -> None:
        """Apply the failure of `command`: refused by Google, or not carried out."""
        if error.account or error.remedy is Remedy.HOLD:
            self._send_back(lease, now)
            return
        if lease.state is LeaseState.RENEWING:
            self.lose(lease, "the stream could not be stopped; a new one is generated", now, failed=False)
            return
        lease.server_fault, lease.cause = servers_fault(error), nest_cause(error)
        if error.remedy is Remedy.PARK:
            self._park(lease, error, now)
        elif command.verb is Verb.EXTEND:
            self._extension_failed(lease, error, now)
        elif lease.state is LeaseState.REPLACING:
            self._replacement_failed(lease, error, now)
        elif lease.state is LeaseState.DOUBTED:
            self._refused(lease, lease.last_error, now)
        elif command.verb is Verb.GENERATE:
            self._generate_failed(lease, error, now)
        else:
            lease.reread = False  # the traits could not be read: try again after the pause
            lease.retry_at = max(lease.retry_at, now + (error.retry_after or 0.0))
            self._schedule.plan(lease, now)

    def _generate_failed(self, lease: Lease, error: NestError, now: float) -> None:
        lease.reread = error.remedy is Remedy.SWITCH_PROTOCOL
        lease.generate_failed(str(error), now, error.retry_after or 0.0)
        if lease.reread and lease.failures < 2:
            lease.retry_at = now
        self._schedule.plan(lease, now)

    def _extension_failed(self, lease: Lease, error: NestError, now: float) -> None:
        if isinstance(error, NotExtendable):
            lease.extension.believe(now)
            self._emit(NotExtended(lease.camera, lease.extension.until))
            lease.fire(LeaseEvent.SENT_BACK, now)
            self._schedule.rearrange(now)
        elif isinstance(error, WrongProtocol):
            if lease.moved:  # a discovery has shown this meanwhile
                lease.fire(LeaseEvent.SENT_BACK, now)
            else:
                lease.doubt(str(error), now)
            self._schedule.plan(lease, now)
        elif isinstance(error, StreamGone):
            self._refused(lease, str(error), now)
        else:
            lease.extension_failed(str(error), now, error.retry_after or 0.0)
            self._schedule.plan(lease, now)

    def _refused(self, lease: Lease, why: str, now: float) -> None:
        """Google no longer knows the stream: only a new one helps."""
        probing, together = lease.probing, self._refused_together(lease.camera, now)
        # A stream refused well before its end may be one that cannot be extended.
        if lease.expires - now > 0.25 * lease.life:
            lease.not_extended(now, _TOGETHER_WEIGHT if together else 1.0)
        if probing and lease.state is LeaseState.EXTENDING:
            # The test failed as expected; the stream may still play to its end.
            lease.spent = True
            lease.fire(LeaseEvent.SENT_BACK, now)
            self._schedule.rearrange(now)
        else:
            self.lose(lease, why, now, failed=True)

    def _refused_together(self, camera: str, now: float) -> bool:
        """Whether the extension of another camera was refused within the last two minutes."""
        self._refused_at = {other: at for other, at in self._refused_at.items() if now - at < _TOGETHER}
        self._refused_at[camera] = now
        return len(self._refused_at) > 1

    def _traits_read(self, lease: Lease, device: Device, now: float) -> None:
        """Apply the traits read because a command was refused as if the camera spoke another protocol."""
        changed = lease.traits_read(device)
        self._emit(TraitsRead(lease.camera, device))
        if changed:
            lease.retry_at = now
        if lease.state is LeaseState.DOUBTED and not changed:
            self._refused(lease, lease.last_error, now)
        else:
            self.follow(lease, now)

    def follow(self, lease: Lease, now: float) -> None:
        """Continue with the camera's present protocol; a stream over another plays until its successor arrives."""
        if lease.state is LeaseState.DOUBTED:
            lease.switch(now)
        self._schedule.rearrange(now)

    def _replacement_failed(self, lease: Lease, error: NestError, now: float) -> None:
        """The old stream plays on: retry while it lasts, or end it first where Google grants no second one."""
        if lease.moved:
            self._generate_failed(lease, error, now)
            return
        if lease.server_fault or isinstance(error, (OfferRefused, OfferUnavailable)):
            lease.extension_failed(str(error), now, error.retry_after or 0.0)
        else:
            lease.second_stream.refused(1.0, now)
            lease.fire(LeaseEvent.FAILED, now)
        self._schedule.rearrange(now)

    def _send_back(self, lease: Lease, now: float) -> None:
        """Treat a failure that is not the camera's as if the command had never been sent."""
        if lease.state in UNDER_WAY:
            lease.fire(LeaseEvent.SENT_BACK, now)
        self._schedule.rearrange(now)

    def lose(
        self,
        lease: Lease,
        why: str,
        now: float,
        *,
        failed: bool,
        bereft: bool = False,
        cause: tuple[Cause, str] = (Cause.NONE, ""),
    ) -> None:
        """The stream is gone; `failed` and `bereft` are `Lease.lose`'s, `cause` says why if that is news."""
        generation = lease.generation
        if cause[0] is not Cause.NONE or lease.cause[0] is Cause.NONE:
            lease.cause = cause if cause[0] is not Cause.NONE else (Cause.STREAM_ENDED, "")
        lease.lose(why, now, failed=failed, bereft=bereft)
        self._emit(Lost(lease.camera, generation, why))
        self._schedule.rearrange(now)

    def _park(self, lease: Lease, error: NestError, now: float) -> None:
        generation, alive = lease.generation, lease.state in ALIVE
        lease.park(str(error), now)
        if alive:
            self._emit(Lost(lease.camera, generation, str(error)))
        self._schedule.rearrange(now)
