"""Streams that nobody receives any more, until Google has answered their Stop.

A WebRTC session without its receiver stays open at the camera, which serves only a few. A Stop that was not carried out
is therefore sent again while the stream lives, and outlives the supervisor: the manager saves what is `pending`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from relay_common.secrets import Secret
from relay_supervisor.google.errors import (
    Conflict,
    GoogleServerError,
    NestError,
    NestTimeout,
    NestUnreachable,
    RateLimited,
)
from relay_supervisor.google.quota.command import Command, Result, stop_of
from relay_supervisor.google.quota.queue import CommandQueue

_MOST: Final = 16
"""Most Stops kept for one camera; more streams than Google grants one in the lifetime of a stream."""
_ATTEMPTS: Final = 4
_PAUSE: Final = 10.0
"""Seconds before the second attempt; doubled for each one after it."""
_NOT_CARRIED_OUT: Final = (RateLimited, GoogleServerError, NestTimeout, NestUnreachable, Conflict)


class Abandoned:
    """The Stops of abandoned streams, queued or under way, each until it is settled or its stream has expired."""

    def __init__(self, queue: CommandQueue) -> None:
        self._queue = queue
        self._stops: dict[str, Command] = {}
        self.let_expire = 0
        """Streams left to expire because their camera had too many of them."""

    def add(self, command: Command) -> None:
        """Queue the Stop `command`, and remember its stream until it is settled."""
        handle = command.handle.reveal()
        if handle in self._stops and self._stops[handle].orphan:
            return
        self._stops[handle] = command
        self._queue.submit(command)
        of_camera = [key for key, other in self._stops.items() if other.camera == command.camera]
        if len(of_camera) > _MOST:  # the oldest ends soonest by itself
            self._queue.withdraw(self._stops.pop(of_camera[0]))
            self.let_expire += 1

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
        if self._stops.pop(command.handle.reveal(), None) is None or not isinstance(result, NestError):
            return
        if not (result.account or isinstance(result, _NOT_CARRIED_OUT)) or command.attempts + 1 >= _ATTEMPTS:
            return
        wait = max(result.retry_after or 0.0, _PAUSE * 2**command.attempts)
        again = msgspec.structs.replace(
            command, orphan=True, ticket=None, not_before=now + wait, attempts=command.attempts + 1
        )
        if again.not_before < again.deadline:
            self.add(again)

    def pending(self, now: float) -> Collection[Command]:
        """The Stops that are still to be carried out; those of expired streams are dropped."""
        self._stops = {handle: command for handle, command in self._stops.items() if command.deadline > now}
        return self._stops.values()
