"""Streams that nobody receives any more, until Google has answered their Stop.

A WebRTC session without its receiver stays open at the camera, which serves only a few. A Stop that was not carried out
is therefore sent again while the stream lives, and outlives the supervisor: the manager saves what is `pending`.

Nobody knows whether Google grants a stream while an earlier one is open. Where a Generate is refused (409) meanwhile,
the Stop is as urgent as that one, and so are those of other cameras of its protocol from then on: sessions over WebRTC
say nothing of RTSP. An RTSP stream, which ends with its connection as far as is known, is stopped only then.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from typing import Final

import msgspec

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import (
    Conflict,
    GoogleServerError,
    NestError,
    NestTimeout,
    NestUnreachable,
    RateLimited,
)
from relay_supervisor.google.leases.refusals import LearntRefusal
from relay_supervisor.google.models import LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb, stop_of
from relay_supervisor.google.quota.queue import CommandQueue

_MOST: Final = 16
"""Most Stops kept for one camera; more streams than Google grants one in the lifetime of a stream."""
_ATTEMPTS: Final = 4
_PAUSE: Final = 10.0
"""Seconds before the second attempt; doubled for each one after it."""
_NOT_CARRIED_OUT: Final = (RateLimited, GoogleServerError, NestTimeout, NestUnreachable, Conflict)


class Abandoned:
    """The Stops of abandoned streams, queued or under way, each until it is settled or its stream has expired."""

    def __init__(self, queue: CommandQueue, rng: random.Random) -> None:
        self._queue = queue
        self._stops: dict[str, Command] = {}
        self._kept: dict[str, Command] = {}
        """By camera, the Stop of its last stream that is sent only where Google refuses another."""
        self._blocked: set[str] = set()
        """Cameras whose Generate was refused while a stream of theirs was open."""
        self._ended: dict[str, float] = {}
        """By camera, when a Stop was last carried out."""
        self._in_the_way = {protocol: LearntRefusal(rng, enough=1.0) for protocol in Protocol}
        self.let_expire = 0
        """Streams left to expire because their camera had too many of them."""

    def add(self, command: Command) -> None:
        """Queue the Stop `command`, and remember its stream until it is settled."""
        handle = command.handle.reveal()
        if handle in self._stops and self._stops[handle].orphan:
            return
        command.blocking |= command.orphan and self._are_in_the_way(command)
        self._stops[handle] = command
        self._queue.submit(command)
        of_camera = [key for key, other in self._stops.items() if other.camera == command.camera]
        if len(of_camera) > _MOST:  # the oldest ends soonest by itself
            self._queue.withdraw(self._stops.pop(of_camera[0]))
            self.let_expire += 1

    def keep(self, command: Command) -> None:
        """Send the Stop `command` only if Google refuses the camera another stream, as it may have been seen to."""
        if self._are_in_the_way(command):
            self.add(command)
        else:
            self._kept[command.camera] = command

    def answered(self, command: Command, result: Result, now: float) -> None:
        """Learn from the answer to a Generate whether streams that are still open are in its way."""
        kept = self._kept.pop(command.camera, None)
        if isinstance(result, Conflict) and kept is not None and kept.deadline > now:
            self.add(kept)
        sent = command.ticket.sent if command.ticket is not None else now
        there = [stop for stop in self.pending(now) if stop.camera == command.camera and stop.orphan]
        if isinstance(result, Conflict) and (there or self._ended.get(command.camera, -math.inf) >= sent):
            refusal = self._in_the_way[command.protocol]
            if not refusal.believed or refusal.doubted(now):
                refusal.refused(1.0, now)
            self._blocked.add(command.camera)
            for stop in there:
                stop.blocking = True
            self._hurry(command.protocol, now)
        elif isinstance(result, LiveStream) and there:
            self._in_the_way[command.protocol].disproved()

    def _hurry(self, protocol: Protocol, now: float) -> None:
        """Stop those of other cameras as well, now that they are known to be in the way of a Generate that waits."""
        for stop in [*self.pending(now), *self._kept.values()]:
            waits = self._queue.find(stop.camera, Verb.GENERATE) is not None
            if not waits or stop.protocol is not protocol or not stop.orphan or stop.deadline <= now:
                continue
            if self._kept.get(stop.camera) is stop:
                self.add(self._kept.pop(stop.camera))
            stop.blocking = True

    def _are_in_the_way(self, stop: Command) -> bool:
        """Whether streams like the one that `stop` ends are believed to be in the way of others."""
        refusal = self._in_the_way[stop.protocol]
        return refusal.believed and not refusal.doubted(stop.submitted)

    def cleared(self, camera: str, now: float) -> bool:
        """Whether a Generate of the camera's was refused, and nothing is in its way any more; told once."""
        if camera not in self._blocked or any(stop.camera == camera for stop in self.pending(now)):
            return False
        self._blocked.discard(camera)
        return True

    def forget(self, camera: str) -> None:
        """Drop what is only known of a camera that is no longer there; Stops that are queued stay."""
        self._kept.pop(camera, None)
        self._ended.pop(camera, None)
        self._blocked.discard(camera)

    def unreceived(self, command: Command, handle: Secret, now: float, life: float) -> None:
        """Stop the stream which `command` brought, or extended, after its lease had moved on.

        It lives for `life` seconds; `handle` is empty when the one that was sent stays valid.
        """
        handle = handle if handle.reveal() else command.handle
        self.add(stop_of(command.camera, command.device, command.kind, command.protocol, handle, now, now + life))

    def taken_back(self, handle: Secret) -> None:
        """The stream has a receiver again."""
        self._stops.pop(handle.reveal(), None)

    def settled(self, command: Command, result: Result, now: float) -> None:
        """Apply the answer to a Stop: the stream is gone, or the Stop is sent again later."""
        if self._stops.pop(command.handle.reveal(), None) is None:
            return
        if not isinstance(result, NestError) or not (result.account or isinstance(result, _NOT_CARRIED_OUT)):
            self._ended[command.camera] = now
            return
        wait, attempts = max(result.retry_after or 0.0, _PAUSE * 2**command.attempts), command.attempts + 1
        again = msgspec.structs.replace(command, orphan=True, ticket=None, not_before=now + wait, attempts=attempts)
        if attempts < _ATTEMPTS and again.not_before < again.deadline:
            self.add(again)

    def pending(self, now: float) -> Collection[Command]:
        """The Stops that are still to be carried out; those of expired streams are dropped."""
        self._stops = {handle: command for handle, command in self._stops.items() if command.deadline > now}
        return self._stops.values()
