"""All sliding logs of one account: a call is allowed when every log it counts in allows it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from relay_supervisor.google.quota.limits import EXECUTE, BucketKey, Limit, Limits, Scope
from relay_supervisor.google.quota.window import Place, SlidingLog

_MANY_LOGS = 512
UNANSWERED = 30.0
"""Seconds after sending by which Google is assumed to have counted a call whose answer was never seen."""


class Call(msgspec.Struct, frozen=True):
    """A call as the limits see it: API method, short command name, device id, device type."""

    method: str
    command: str = ""
    device: str = ""
    kind: str = ""


class Ticket(msgspec.Struct):
    """A call that has taken its places in the logs."""

    call: Call
    sent: float
    places: list[tuple[BucketKey, SlidingLog, Place]]


class LoggedCall(msgspec.Struct, frozen=True):
    """A call in the persisted log; times are seconds on the reader's clock.

    `answered` is by when Google has counted it: ahead of now if it was given up. None: it was under way.
    """

    call: Call
    sent: float
    answered: float | None = None


class Budget:
    """Sliding logs for every limit, created on demand."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._logs: dict[BucketKey, SlidingLog] = {}
        self._draws: dict[Call, list[tuple[BucketKey, SlidingLog]]] = {}
        self._api = BucketKey(Scope.METHOD, EXECUTE, limits.per_minute().span)
        self._api_log = self._log(self._api, limits.per_minute())

    @property
    def api(self) -> SlidingLog:
        """The log that bounds all stream commands together."""
        return self._api_log

    def ready_at(self, call: Call, now: float, spare: int = 0) -> float:
        """When `call` may be sent, leaving `spare` places of its method free; `now` or earlier means at once."""
        ready = -math.inf
        for key, log in self._drawn(call):
            at = log.ready_at(now, spare if spare and key.scope is Scope.METHOD else 0)
            if at > ready:
                ready = at
        return ready

    def take(self, call: Call, now: float) -> Ticket:
        """Count `call` as sent at `now`."""
        if len(self._logs) > _MANY_LOGS:
            self._logs = {key: log for key, log in self._logs.items() if key == self._api or not log.empty(now)}
            self._draws.clear()
        return Ticket(call, now, [(key, log, log.take(now)) for key, log in self._drawn(call)])

    def give_back(self, ticket: Ticket) -> None:
        """Return the places of a call that was never sent."""
        for _, log, place in ticket.places:
            log.give_back(place)

    def answered(self, ticket: Ticket, now: float) -> None:
        """Record that the call was answered (or abandoned) at `now`."""
        for _, log, place in ticket.places:
            log.answered(place, now)

    def assume_answered(self, now: float) -> None:
        """Take every call that is under way for answered at `now`, in a copy that is run ahead."""
        for log in self._logs.values():
            log.assume_answered(now)

    def accepted(self, ticket: Ticket) -> None:
        """Record that the call was not refused for quota."""
        for _, log, _ in ticket.places:
            log.accepted()

    def refused(self, ticket: Ticket, bucket: str, now: float, retry_after: float | None = None) -> str:
        """Record a 429 that names `bucket`; returns the held log, in words."""
        held = [(key, log) for key, log, _ in ticket.places if self._named(key, ticket.call, bucket)]
        held = held or [(key, log) for key, log, _ in ticket.places if key.scope is Scope.METHOD]
        for _, log in held:
            log.refused(ticket.sent, now, retry_after)
        return f"{held[0][0].scope.value} {held[0][0].subject}"

    def held_for(self, now: float) -> float:
        """Seconds until stream commands are allowed again after a refusal; 0 when they are."""
        return max(0.0, self.api.held_until - now)

    def refused_until(self, call: Call) -> float:
        """Until when a 429 holds `call` back (monotonic seconds); minus infinity when none did."""
        return max((log.held_until for _, log in self._drawn(call)), default=-math.inf)

    def restore(self, calls: Iterable[LoggedCall]) -> None:
        """Restore the calls of an earlier process; their times are on this process's monotonic clock."""
        for logged in calls:
            for _, log in self._drawn(logged.call):
                log.restore(logged.sent + UNANSWERED if logged.answered is None else logged.answered)

    @staticmethod
    def _named(key: BucketKey, call: Call, bucket: str) -> bool:
        if key.scope is Scope.COMMAND:
            return bucket == call.command
        if key.scope is Scope.DEVICE:
            return "device " in bucket.lower() and ("hour" in bucket.lower()) == (key.span > 60)
        return key.scope is Scope.METHOD and bucket == call.method

    def _drawn(self, call: Call) -> list[tuple[BucketKey, SlidingLog]]:
        drawn = self._draws.get(call)
        if drawn is None:
            limits = self.limits.draws_on(call.method, call.command, call.device, call.kind)
            drawn = self._draws[call] = [(key, self._log(key, limit)) for key, limit in limits]
        return drawn

    def _log(self, key: BucketKey, limit: Limit) -> SlidingLog:
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = SlidingLog(self.limits.allowed(limit), key.span, self.limits.guard)
        return log
