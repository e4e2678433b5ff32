"""One camera's stream lease: the data behind the states of its table (`states.py`).

A lease takes no decisions about the budget: it says which command it wants next (`wanted_command`) and is given the
result. Times are monotonic seconds.
"""

from __future__ import annotations

import math
import random
from typing import Final

import msgspec

from relay_common.backoff import Backoff
from relay_common.causes import Cause
from relay_common.fsm import Machine
from relay_common.protocol import Protocol
from relay_supervisor.google.leases.planner import Load, extension_times, least_margin
from relay_supervisor.google.leases.refusals import LearntRefusal
from relay_supervisor.google.leases.states import LEASE, LeaseEvent, LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Verb

_UNMOVED: Final = 0.1
"""Share of the lifetime by which an extension has to move the expiry to count as one."""


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Pacing of retries, in seconds."""

    backoff: float = 5.0
    backoff_ceiling: float = 300.0
    slow_retry: float = 300.0
    """Interval of retries once degraded."""
    degraded_after: int = 5
    """Consecutive failures that make a camera degraded."""
    stable_after: float = 60.0
    """A stream that lasted this long (or its whole lifetime) has worked: when it is lost, it is retried at once."""


class Lease:
    """The lease of one camera.

    `generation` identifies the current stream: results and reports for another one are stale.
    """

    def __init__(self, camera: str, device: Device, settings: LeaseSettings, rng: random.Random) -> None:
        self.camera, self.device = camera, device
        self._settings, self._rng = settings, rng
        self._machine = Machine(LEASE)
        self._backoff = Backoff(settings.backoff, max(settings.backoff, settings.backoff_ceiling), rng=rng)
        self.phase = rng.random()
        self.protocol = device.protocol
        self.generation = 0
        self.stream: LiveStream | None = None
        self.generated_at = self.granted_at = -math.inf
        self.life = 0.0
        self.expires = -math.inf
        self.retry_at = -math.inf
        self.wanted_since = 0.0
        self.extension = LearntRefusal(rng, enough=2.0)
        """Belief that the camera's streams cannot be extended."""
        self.second_stream = LearntRefusal(rng, enough=1.0)
        """Belief that Google grants no second stream while the first one plays."""
        self.spent = False
        """Whether the current stream is not extended any further, regardless of the camera's later ones."""
        self.on_demand = False
        self.reread = False
        self.reading = False
        """Whether its traits are being read."""
        self.failures = self.generates = self.extends = 0
        self.live = False
        self.last_error = ""
        self.cause: tuple[Cause, str] = (Cause.NONE, "")
        """The cause of `last_error`, and its detail."""
        self.server_fault = False

    @property
    def state(self) -> LeaseState:
        """The current state."""
        return self._machine.state

    @property
    def degraded(self) -> bool:
        """Whether it failed so often in a row that it is retried only slowly."""
        return self.failures >= self._settings.degraded_after

    def fire(self, event: LeaseEvent, now: float) -> None:
        """Make the table's move for `event`."""
        self._machine.fire(event)
        if self.state is LeaseState.WANTED and event is not LeaseEvent.SENT_BACK:
            self.wanted_since = now

    def can(self, event: LeaseEvent) -> bool:
        """Whether the table allows `event` now."""
        return self._machine.can(event)

    def load(self, assumed_life: float) -> Load:
        """Its cost to the budget; `assumed_life` applies when it has no stream."""
        return Load(self.camera, self.life or assumed_life, 1 if self.extendable or self.replaceable else 2)

    @property
    def extendable(self) -> bool:
        """Whether the camera's streams are believed to be extendable."""
        return not self.extension.believed

    @property
    def probing(self) -> bool:
        """Whether its stream is to test whether the camera's can be extended after all."""
        return not self.spent and self.extension.doubted(self.generated_at)

    @property
    def replaceable(self) -> bool:
        """Whether its successor may be generated while it plays: over WebRTC, unless Google refuses a second one."""
        refused = self.second_stream.believed and not self.second_stream.doubted(self.generated_at)
        return self.protocol is Protocol.WEB_RTC and not refused

    @property
    def asks(self) -> bool:
        """Whether it needs the camera's traits before it can continue."""
        return self.reread or self.state is LeaseState.DOUBTED

    @property
    def moved(self) -> bool:
        """Whether the camera no longer speaks the protocol of the stream it still sends."""
        return self.stream is not None and self.stream.protocol is not self.protocol

    def granted(self, stream: LiveStream, sent: float) -> None:
        """A Generate sent at `sent` succeeded."""
        if self.state is LeaseState.REPLACING:
            self.generation += 1
            if not self.moved:
                self.second_stream.disproved()
        self.fire(LeaseEvent.GRANTED, sent)
        self.stream, self.live, self.spent = stream, False, False
        self.generated_at = sent
        self._new_life(stream.expires_in, sent)
        self.generates += 1

    def extended(self, extension: Extension, sent: float) -> None:
        """An Extend sent at `sent` succeeded."""
        assert self.stream is not None
        self.fire(LeaseEvent.EXTENDED, sent)
        self.stream = self.stream.extended(extension)
        self.extends += 1
        self.healthy()
        gained = sent + extension.expires_in - self.expires
        # Lifetimes are accurate to a second; an expiry that moves far back means a shorter lifetime, not an unmoved
        # one.
        if abs(gained) < _UNMOVED * self.life - 1.0:
            self.spent = True
            self.expires += gained
            self.not_extended(sent)
        else:
            self._new_life(extension.expires_in, sent)
            self.extension.disproved()

    def not_extended(self, now: float, weight: float = 1.0) -> None:
        """Count an Extend that was refused early or did not move the expiry with `weight` (0..1) against the camera."""
        self.extension.refused(weight, now)

    def resume(self, stream: LiveStream, generation: int, granted: float, now: float) -> None:
        """Take over the stream that an earlier process left, of which `stream.expires_in` seconds remain at `now`."""
        self.fire(LeaseEvent.RESUME, now)
        self.stream, self.generation = stream, generation
        self.generated_at = self.granted_at = granted
        self.expires = now + stream.expires_in
        self.life = self.expires - granted

    def healthy(self) -> None:
        """Media flows: forget the failures."""
        self.live = True
        self.failures = 0
        self.last_error, self.cause = "", (Cause.NONE, "")
        self.server_fault = False

    def extension_failed(self, why: str, now: float, least_wait: float) -> None:
        """An Extend failed in a way that a retry may fix: retry after part of the remaining lifetime.

        `least_wait` is respected unless the stream would expire first: losing it costs a Generate and the picture.
        """
        self.fire(LeaseEvent.FAILED, now)
        self._count(why)
        left = self.expires - now
        pause = min(15.0, left / 4) * self._rng.uniform(0.6, 1.0)
        self.retry_at = now + max(pause, min(least_wait, left / 2))

    def doubt(self, why: str, now: float) -> None:
        """An Extend was refused as if the camera spoke another protocol, which is no failure of the stream."""
        self.fire(LeaseEvent.DOUBT, now)
        self.last_error = why
        self.retry_at = now

    def switch(self, now: float) -> None:
        """The camera does speak another protocol: its current stream plays until one over the new protocol arrives."""
        self.fire(LeaseEvent.SWITCH, now)
        self.last_error, self.cause = "", (Cause.NONE, "")
        self.reading = False

    def generate_failed(self, why: str, now: float, least_wait: float) -> None:
        """A Generate failed; the stream that it was to replace, if any, plays on."""
        self.fire(LeaseEvent.FAILED, now)
        self._count(why)
        self._hold_off(now, least_wait)

    def lose(self, why: str, now: float, *, failed: bool, bereft: bool = False) -> None:
        """The stream is gone. `failed` says that it never worked or broke, rather than expired.

        One that worked and is `bereft` of its receiver, which was lost with its machine, has worked for long enough.
        """
        lived = now - self.generated_at
        stable = lived >= min(self._settings.stable_after, self.life) or (bereft and self.live)
        self.forget()
        self.fire(LeaseEvent.LOSE, now)
        if failed:
            self._count(why)
        else:
            self.last_error = why
        if stable or not failed:
            self._backoff.reset()
            self.fire(LeaseEvent.RETRY, now)
        else:
            self._hold_off(now, 0.0)
            self.fire(LeaseEvent.HOLD_OFF, now)

    def park(self, why: str, now: float) -> None:
        """Stop trying until a person has fixed the cause."""
        self.forget()
        self._count(why)
        self.fire(LeaseEvent.PARK, now)

    def released(self, now: float) -> None:
        """The camera is no longer wanted."""
        self.forget()
        self.spent = False
        self.fire(LeaseEvent.UNWANT, now)

    def forget(self) -> None:
        """Drop the stream and any command under way for it."""
        self.generation += 1
        self.stream = None
        self.live = self.reread = self.reading = False
        self.expires = -math.inf
        self.life = 0.0  # the lifetime of a lost stream says nothing about the next

    def traits_read(self, device: Device) -> bool:
        """Adopt freshly read traits; whether the camera's protocol has changed."""
        changed = device.protocol is not self.protocol
        self.device, self.protocol, self.reread = device, device.protocol, False
        if changed:  # what was learnt concerns streams over the other protocol
            self.extension.disproved()
            self.second_stream.disproved()
        return changed

    def hurry(self, now: float, within: float) -> None:
        """Shorten the wait: the cause of its failures is over."""
        self._backoff.reset()
        self.retry_at = min(self.retry_at, now + within * self._rng.random())

    def wanted_command(self, now: float, *, margin: float, pace: float) -> Command | None:
        """The command it needs next, or None in a state that only waits."""
        match self.state:
            case LeaseState.WANTED:
                ran_out = self.spent or not self.extendable
                renewal = ran_out and self.failures == 0 and self.generates > 0
                return self._command(Verb.GENERATE, attempts=self.failures, renewal=renewal)
            case _ if self.reading:
                return None
            case _ if self.asks:
                return self._command(Verb.GET, not_before=self.retry_at)
            case LeaseState.HELD if self.moved:
                return self._command(Verb.GENERATE, not_before=self.retry_at, deadline=self.expires, renewal=True)
            case LeaseState.HELD if self.probing or (self.extendable and not self.spent):
                times = extension_times(self.granted_at, self.life, phase=self.phase, margin=margin, pace=pace)
                begin = max(times.not_before, self.retry_at)
                command = self._command(Verb.EXTEND, not_before=begin, due=times.due, deadline=self.expires)
                command.latest = self.expires - least_margin(self.life)
                return command
            case LeaseState.HELD:
                end = self.expires - least_margin(self.life)
                if self.replaceable:
                    begin = max(end, self.retry_at)
                    return self._command(Verb.GENERATE, not_before=begin, due=end, deadline=self.expires, renewal=True)
                return self._command(Verb.STOP, not_before=end, due=end, deadline=self.expires, renewal=True)
            case _:
                return None

    def stop_command(self, now: float, within: float) -> Command:
        """The command that ends its stream because the camera is no longer wanted."""
        command = self._command(Verb.STOP, not_before=now, deadline=min(self.expires, now + within))
        command.submitted = now
        return command

    def orphan_command(self, now: float) -> Command:
        """The command that ends its stream because its receiver is gone."""
        command = self._command(Verb.STOP, deadline=self.expires)
        command.orphan, command.submitted = True, now
        return command

    def _command(
        self,
        verb: Verb,
        *,
        not_before: float = -math.inf,
        due: float = math.inf,
        deadline: float = math.inf,
        attempts: int = 0,
        renewal: bool = False,
    ) -> Command:
        command = Command(
            verb=verb,
            camera=self.camera,
            device=self.device.id,
            kind=self.device.kind,
            protocol=self._protocol_of(verb),
            generation=self.generation,
            not_before=not_before,
            due=due,
            deadline=deadline,
            attempts=attempts,
            renewal=renewal,
            submitted=self.wanted_since,
            on_demand=self.on_demand,
        )
        if self.stream is not None:
            command.handle = self.stream.handle
        return command

    def _protocol_of(self, verb: Verb) -> Protocol:
        """A new stream uses the protocol that the camera speaks now; the current one keeps its own."""
        return self.protocol if verb is Verb.GENERATE or self.stream is None else self.stream.protocol

    def _new_life(self, life: float, sent: float) -> None:
        self.granted_at, self.life, self.expires = sent, life, sent + life
        self.retry_at = -math.inf

    def _count(self, why: str) -> None:
        self.failures += 1
        self.last_error = why

    def _hold_off(self, now: float, least_wait: float) -> None:
        delay = self._backoff.next_delay()
        if self.degraded:
            delay = self._settings.slow_retry * self._rng.uniform(0.9, 1.1)
        self.retry_at = now + max(delay, least_wait)
