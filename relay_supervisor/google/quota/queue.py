"""The priority queue in front of Google: what to send now, and when to poll again.

Order: extensions that are due, by expiry; the stop and generate that replace a stream which cannot be extended;
generates, first attempts before retries and both before on-demand cameras; early extensions; stops that nothing waits
for. The stop of a session whose receiver is gone precedes the generate that replaces it, but only while there is room
for every waiting generate, too; where Google refuses the generate until then, the stop has its place. While the stop is
under way the generate waits for its answer, as Google may refuse it (409) before. A generate is sent only if every live
lease can still be extended after it, with time for a second attempt: recovery uses what the leases do not need and
nothing more. Early extensions and on-demand cameras leave a place free, so that a lost stream gets one at once; early
extensions are also paced, so that leases that began together drift apart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final

from relay_supervisor.google.quota.budget import Budget, Ticket
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import EXECUTE
from relay_supervisor.google.quota.waits import WaitHistogram
from relay_supervisor.google.quota.window import TICK

_TRY: Final = 5.0
"""Seconds that an attempt rarely exceeds."""
_FOLLOWS: Final = 20.0
"""Seconds for which a place is kept for the generate behind a blocking stop."""
_ANSWERS: Final = 3.0
"""Seconds for which a generate waits for the answer to its camera's stop; then it is sent all the same."""


_Key = tuple[str, Verb, str]


def _key(command: Command) -> _Key:
    return command.camera, command.verb, command.handle.reveal() if command.orphan else ""


class CommandQueue:
    """At most one command per camera and verb, besides stops of orphans. No I/O or clock: `now` is monotonic s."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.held_until = -math.inf
        """No camera's command is sent before this time (the account cannot be used)."""
        self.executed = self.failed = self.dropped = 0
        self.waits = WaitHistogram()
        self.peak = 0
        """Most stream commands sent in any 60 s since the start."""
        self._sent: list[Ticket] = []
        self._commands: dict[_Key, Command] = {}
        self.reserve = 0
        """Places that early extensions leave free for recovery."""
        self._last_early = -math.inf
        self._followed: dict[str, float] = {}
        """Cameras whose blocking stop was sent, and when, until their generate is."""
        self._stopping: dict[str, float] = {}
        """Cameras with a stop under way, and when the last one was sent."""
        self._crowded = False  # a generate found no room in the current poll
        self._saving = False  # a generate needs the place that is free: and another one, or its stop's answer

    def submit(self, command: Command) -> None:
        """Queue `command`; it replaces one of the same verb and camera, except stops of orphans."""
        self._commands[_key(command)] = command

    def withdraw(self, command: Command) -> None:
        """Remove `command` if it is still queued."""
        if self._commands.get(_key(command)) is command:
            del self._commands[_key(command)]

    def cancel(self, camera: str) -> None:
        """Remove every queued command of `camera` except the stops of its orphans."""
        for key in [key for key, command in self._commands.items() if key[0] == camera and not command.orphan]:
            del self._commands[key]

    def depth(self, now: float) -> int:
        """Commands that could be sent if the budget allowed."""
        return sum(command.not_before <= now for command in self._commands.values())

    def recent(self, now: float) -> list[float]:
        """When the stream commands of the last 60 s were sent, oldest first."""
        self._sent = [ticket for ticket in self._sent if now - ticket.sent <= 60.0]
        return sorted(ticket.sent for ticket in self._sent)

    def give_back(self, ticket: Ticket) -> None:
        """Return the places of a call that was never sent."""
        self.budget.give_back(ticket)
        self._sent = [other for other in self._sent if other is not ticket]

    def answered(self, command: Command) -> None:
        """Google has answered `command`, or it was given up."""
        if command.verb is Verb.STOP:
            self._stopping.pop(command.camera, None)

    def assume_answered(self, now: float) -> None:
        """Go on as if Google had answered everything that is under way."""
        self.budget.assume_answered(now)
        self._stopping.clear()

    def find(self, camera: str, verb: Verb) -> Command | None:
        """The queued command of this camera and verb."""
        return self._commands.get((camera, verb, ""))

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def poll(self, now: float) -> Command | None:
        """The command to send now, already counted in the budget; None when nothing may be sent."""
        self._drop_pointless(now)
        full = self.budget.api.ready_at(now) > now
        blocked = {command.camera for command in self._commands.values() if command.blocking}
        eligible = [
            command
            for command in self._commands.values()
            if command.not_before <= now
            and not (command.verb is Verb.GENERATE and (command.camera in blocked or self._stopped_at(command) > now))
            and not (full and command.call.method == EXECUTE)
            and self._held(command) <= now
        ]
        self._crowded = False
        # What waits for the answer to a stop has its place meanwhile, as far as early extensions are concerned.
        self._saving = any(one.verb is Verb.GENERATE and self._stopped_at(one) > now for one in self)
        for command in sorted(eligible, key=lambda command: self._rank(command, now)):
            if self._may_go(command, now):
                return self._take(command, now)
        return None

    def next_deadline(self, now: float) -> float | None:
        """When `poll` may return a command that it does not return now; None: not before something else happens."""
        best = math.inf
        place = self.budget.api.ready_at(now)
        free = min(
            (release + TICK for release in self.budget.api.releases(now) if release + TICK > now), default=math.inf
        )
        for command in self._commands.values():
            streams = command.call.method == EXECUTE
            if command.not_before < best and not (streams and place >= best):
                best = min(best, self._next_chance(command, now, free if streams else math.inf))
        return None if math.isinf(best) else best

    def ready_at(self, command: Command, now: float) -> float:
        """Earliest time at which the budget alone would allow `command`."""
        return max(command.not_before, self._held(command), self.budget.ready_at(command.call, now))

    def _held(self, command: Command) -> float:
        """The hold that applies to `command`: none to a listing, which shows at once what is wrong with the account."""
        return -math.inf if command.verb is Verb.LIST else self.held_until

    def _stopped_at(self, command: Command) -> float:
        """When the stop under way that `command` waits for will have been carried out, at the latest."""
        return self._stopping.get(command.camera, -math.inf) + _ANSWERS

    def _rank(self, command: Command, now: float) -> tuple[int, int, float]:
        match command.verb:
            case Verb.EXTEND if command.due <= now:
                return 0, 0, command.deadline
            case Verb.STOP if command.blocking:
                blocked = self.find(command.camera, Verb.GENERATE)
                if blocked is None:  # it follows: before it those whose stop has been carried out
                    return 2, 1, math.inf
                first, second, since = self._rank(blocked, now)
                return first, second, since - TICK
            case Verb.STOP if command.orphan:
                return 2, -1, command.submitted
            case Verb.STOP | Verb.GENERATE if command.renewal:
                return 1, 0, command.deadline
            case Verb.GENERATE | Verb.GET | Verb.LIST:
                return 2, 2 * command.on_demand + (command.attempts > 0), command.submitted
            case Verb.EXTEND:
                return 3, 0, command.deadline
            case _:
                return 4, 0, command.submitted

    def _may_go(self, command: Command, now: float) -> bool:
        spare = self._spare(command, now)
        if self.budget.ready_at(command.call, now, spare) > now:
            self._saving |= self._saves_up(command, now)
            return False
        if command.verb is Verb.GENERATE or command.blocking or self._optional(command):
            room = self._leaves_room(now)
            # Optional commands do not make extensions hurry.
            self._crowded |= not (room or self._optional(command))
            return room
        if self._early(command, now):
            return not self._saving and now >= self._last_early + self._pace()
        return True

    def _saves_up(self, command: Command, now: float) -> bool:
        """Whether a generate, or the stop that blocks one, lacks nothing but a further place, and may have it.

        Early extensions would take each place as it comes, and it would wait for ever.
        """
        wanted = (command.verb is Verb.GENERATE and not command.on_demand) or command.blocking
        return wanted and self.budget.ready_at(command.call, now) <= now and self._leaves_room(now)

    def _spare(self, command: Command, now: float) -> int:
        """Places of the method's log that `command` must leave free."""
        if command.blocking:  # stops alone bring no picture back: each leaves a place for what follows it
            return 1 + sum(since > now - _FOLLOWS for since in self._followed.values())
        if command.orphan:
            waiting = sum(other.verb is Verb.GENERATE and other.not_before <= now for other in self._commands.values())
            return max(1, self.reserve, waiting)
        if self._optional(command):
            return max(1, self.reserve)
        match command.verb:
            case Verb.EXTEND if self._early(command, now):
                # While a generate finds no room, extending at full speed is what makes room.
                return 0 if self._crowded else self.reserve
            case Verb.EXTEND:
                return 0 if self._pressed(command, now) else self._retry_place()
            case Verb.GENERATE:
                pressed = any(self._pressed(other, now) for other in self._commands.values())
                return self._retry_place() if pressed else 0
            case _:
                return 0

    @staticmethod
    def _optional(command: Command) -> bool:
        """Whether only an on-demand camera, or none, needs it."""
        if command.verb is Verb.GENERATE:
            return command.on_demand
        return command.verb is Verb.STOP and not command.renewal and not command.blocking

    def _retry_place(self) -> int:
        """One place kept for the second attempt of a lease that ends before the next place is released."""
        return 1 if self.budget.api.ceiling > 2 else 0

    def _pressed(self, command: Command, now: float) -> bool:
        api = self.budget.api
        return command.verb is Verb.EXTEND and command.deadline <= now + api.span + api.guard + _TRY

    def _early(self, command: Command, now: float) -> bool:
        return command.verb is Verb.EXTEND and now < command.due

    def _pace(self) -> float:
        api = self.budget.api
        return (api.span + api.guard) / max(1, api.ceiling - (0 if self._crowded else self.reserve))

    def _leaves_room(self, now: float) -> bool:
        """Whether, with one place fewer, each queued extension still gets a place in time for two attempts."""
        api = self.budget.api
        busy = api.releases(now)
        places = [max(release, api.held_until) for release in busy]
        places += [max(now, api.held_until)] * (api.ceiling - len(busy) - 1)
        places.append(now + api.span + api.guard)  # the generate's own, once released
        heapq.heapify(places)
        extensions = sorted(
            (max(command.latest, command.not_before, now + TICK), command.not_before)
            for command in self._commands.values()
            if command.verb is Verb.EXTEND
        )
        for latest, not_before in extensions:
            start = max(places[0], not_before)
            if start > latest:
                return False
            heapq.heapreplace(places, start + api.span + api.guard)
        return True

    def _take(self, command: Command, now: float) -> Command:
        if self._early(command, now):
            self._last_early = now
        del self._commands[_key(command)]
        if command.blocking:
            self._followed[command.camera] = now
        elif command.verb is Verb.GENERATE:
            self._followed.pop(command.camera, None)
        if command.verb is Verb.STOP:
            self._stopping[command.camera] = now
        command.ticket = self.budget.take(command.call, now)
        self.executed += 1
        if command.call.method == EXECUTE:
            self._sent.append(command.ticket)
            self.peak = max(self.peak, len(self.recent(now)))
        self.waits.observe(command.waited(now))
        return command

    def _drop_pointless(self, now: float) -> None:
        for key in [key for key, command in self._commands.items() if command.deadline <= now]:
            del self._commands[key]
            self.dropped += 1

    def _next_chance(self, command: Command, now: float, free: float) -> float:
        """When to consider `command` again; `free` is when the next place is released."""
        api = self.budget.api
        ready = self.ready_at(command, now)
        if command.verb is Verb.GENERATE:
            ready = max(ready, self._stopped_at(command))
        if ready > now:
            return min(ready, max(command.deadline, now + TICK))
        chances = [free, command.deadline, command.due, command.deadline - api.span - api.guard - _TRY]
        if self._early(command, now):
            chances.append(self._last_early + self._pace())
        return min((chance for chance in chances if chance > now), default=math.inf)
