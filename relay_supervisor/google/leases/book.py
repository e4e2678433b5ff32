"""All leases of one Google account with their queue and budget, as one object without I/O or clock.

Report what happens (`want`, `unwant`, `media_failed`, `settle`, …), ask it what to send (`poll`) and when to ask again
(`next_deadline`), and carry out the `effects` it collects. Every `now` is monotonic seconds.
"""

from __future__ import annotations

import math
import random
from typing import Final

import msgspec

from relay_common.causes import Cause
from relay_common.protocol import Protocol
from relay_supervisor.google.errors import NestError, RateLimited
from relay_supervisor.google.leases.abandoned import Abandoned
from relay_supervisor.google.leases.account_errors import AccountErrors
from relay_supervisor.google.leases.causes import worker_detail
from relay_supervisor.google.leases.effects import Effect, Granted, Listed
from relay_supervisor.google.leases.lease import Lease, LeaseSettings
from relay_supervisor.google.leases.outcomes import Outcomes
from relay_supervisor.google.leases.schedule import Schedule
from relay_supervisor.google.leases.states import ALIVE, ENDING, LeaseEvent, LeaseState
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.budget import Budget
from relay_supervisor.google.quota.command import Command, Result, Verb, counted_by
from relay_supervisor.google.quota.forecast import Forecast
from relay_supervisor.google.quota.limits import Limits
from relay_supervisor.google.quota.queue import CommandQueue

_HURRY_WITHIN: Final = 20.0
_STOP_WITHIN: Final = 60.0
_LISTING: Final = ""


class _Leftover(msgspec.Struct, frozen=True):
    """A released stream whose Stop has not been sent: it can still be resumed."""

    stream: LiveStream
    granted: float
    expires: float


class LeaseBook:
    """The control plane of one Device Access project and user.

    `first_generation` must exceed every generation of earlier processes, so that their workers accept new streams.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        rng: random.Random | None = None,
        settings: LeaseSettings | None = None,
        first_generation: int = 0,
    ) -> None:
        self.budget = Budget(limits)
        self.queue = CommandQueue(self.budget)
        self.forecast = Forecast(self.queue)
        self.leases: dict[str, Lease] = {}
        self.effects: list[Effect] = []
        self.superseded = 0
        """Results that arrived after their lease had moved on."""
        self._first_generation = first_generation
        self._rng = rng or random.Random()
        self._settings = settings or LeaseSettings()
        self._account = AccountErrors(self._rng)
        self.abandoned = Abandoned(self.queue, self._rng)
        self._leftovers: dict[str, _Leftover] = {}
        self._probe: Command | None = None
        self._schedule = Schedule(self.budget, self.queue, self.leases)
        self._outcomes = Outcomes(self._schedule, lambda effect: self.effects.append(effect))

    @property
    def admitted(self) -> set[str]:
        """The cameras that the budget has room for."""
        return self._schedule.admitted

    def capacity(self) -> int:
        """Number of cameras that fit in the budget at present."""
        return self._schedule.capacity()

    @property
    def account_error(self) -> str:
        """Why no command can be sent at all, and what to do about it; "" when commands can be sent."""
        return self._account.error

    @property
    def account_cause(self) -> tuple[Cause, str]:
        """The cause of `account_error`, and its detail; NONE when commands can be sent."""
        return self._account.cause

    # --- demand

    def want(self, camera: str, device: Device, now: float, *, on_demand: bool = False) -> None:
        """Keep a stream of `camera` alive from now on; calling it again only refreshes `device` and `on_demand`.

        On-demand cameras get what the others leave of the budget.
        """
        lease = self.leases.get(camera)
        if lease is None:
            lease = self.leases[camera] = Lease(camera, device, self._settings, self._rng)
            lease.generation = self._first_generation
        changed, lease.on_demand = lease.on_demand != on_demand, on_demand
        if lease.state is not LeaseState.RELEASED:
            self.device_seen(camera, device, now)
            if changed:
                self._schedule.rearrange(now)
            return
        lease.device, lease.protocol = device, device.protocol
        left = self._leftovers.pop(camera, None)
        if left is not None and left.expires > now and self.queue.find(camera, Verb.STOP) is not None:
            stream = msgspec.structs.replace(left.stream, expires_in=left.expires - now)
            self.abandoned.taken_back(stream.handle)
            lease.resume(stream, lease.generation, left.granted, now)
            self.effects.append(Granted(camera, lease.generation, stream, lease.expires))
        else:
            lease.fire(LeaseEvent.WANT, now)
        self._schedule.rearrange(now)

    def unwant(self, camera: str, now: float, *, stop: bool = True) -> None:
        """Release the camera; with `stop` its stream is ended at Google, if nothing more important needs the budget."""
        lease = self.leases.get(camera)
        if lease is None or lease.state is LeaseState.RELEASED:
            return
        self.queue.cancel(camera)
        # A Stop over a protocol that the camera no longer speaks would only be refused.
        ours = lease.state in (LeaseState.HELD, LeaseState.REPLACING) and lease.expires > now and not lease.moved
        held = lease.stream if ours else None
        if held is not None and stop:
            self._leftovers[camera] = _Leftover(held, lease.granted_at, lease.expires)
            self.abandoned.add(lease.stop_command(now, _STOP_WITHIN))
        lease.released(now)
        self._schedule.rearrange(now)

    def drop(self, camera: str, now: float) -> None:
        """Forget the camera altogether."""
        self.unwant(camera, now)
        self.abandoned.forget(camera)
        lease = self.leases.pop(camera, None)
        if lease is not None:
            # A command still under way for it must not be taken for its successor's.
            self._first_generation = max(self._first_generation, lease.generation)

    def resume(
        self,
        camera: str,
        device: Device,
        stream: LiveStream,
        generation: int,
        now: float,
        *,
        granted: float,
        on_demand: bool = False,
    ) -> None:
        """Take over a stream left by an earlier process; `stream.expires_in` counts from `now`."""
        lease = self.leases[camera] = Lease(camera, device, self._settings, self._rng)
        lease.on_demand = on_demand
        lease.resume(stream, generation, granted, now)
        self.effects.append(Granted(camera, generation, stream, lease.expires))
        self._schedule.rearrange(now)

    def device_seen(self, camera: str, device: Device, now: float) -> None:
        """Rediscovery found the device: retry a parked camera, and follow one whose protocol changed."""
        lease = self.leases.get(camera)
        if lease is None:
            return
        if lease.state is LeaseState.GENERATING:
            lease.device = device
            return
        changed = lease.traits_read(device)
        if lease.state in ALIVE:
            if changed:
                self._outcomes.follow(lease, now)
            return
        if lease.state is LeaseState.PARKED:
            lease.failures = 0
            lease.fire(LeaseEvent.RETRY, now)
            self._schedule.rearrange(now)

    def list_devices(self, now: float) -> None:
        """Ask for devices.list within the budget; `Listed` follows."""
        if self.queue.find(_LISTING, Verb.LIST) is None:
            self.queue.submit(Command(verb=Verb.LIST, camera=_LISTING, submitted=now))

    def resume_account(self, now: float) -> None:
        """The account was authorised again or its configuration fixed: resume immediately."""
        self._account.recovered()
        self.queue.held_until = now

    # --- reports from the workers

    def media_live(self, camera: str, generation: int, now: float) -> None:
        """Media of this generation is flowing."""
        lease = self.leases.get(camera)
        if lease is not None and lease.generation == generation and lease.state in ALIVE:
            lease.healthy()

    def media_failed(
        self,
        camera: str,
        generation: int,
        why: str,
        now: float,
        cause: Cause = Cause.STREAM_ENDED,
        *,
        bereft: bool = False,
    ) -> None:
        """The worker cannot play this generation's stream, even with its free retries.

        `bereft`: its receiver was lost from sight lately, with its machine.
        """
        lease = self.leases.get(camera)
        if lease is None or lease.generation != generation or lease.state not in ALIVE:
            return
        if lease.state in (LeaseState.DOUBTED, LeaseState.REPLACING, LeaseState.RENEWING):
            return
        # A WebRTC session without its receiver stays open at the camera, which serves only a few.
        over_webrtc = lease.protocol is Protocol.WEB_RTC
        command = lease.orphan_command(now) if not lease.moved and lease.expires > now else None
        self._outcomes.lose(lease, why, now, failed=True, bereft=bereft, cause=(cause, worker_detail(why)))
        if command is not None and over_webrtc:
            self.abandoned.add(command)
        elif command is not None:
            self.abandoned.keep(command)

    # --- what to send

    def poll(self, now: float) -> Command | None:
        """The next command to send now, or None."""
        self._tick(now)
        if self._probe is not None:
            return None
        command = self.queue.poll(now)
        if command is None:
            return None
        if self.account_error and command.verb is not Verb.LIST:
            self._probe = command  # one is enough to find out whether the error is over
        lease = self.leases.get(command.camera)
        if command.orphan:
            pass
        elif command.verb is Verb.STOP and not command.renewal:
            self._leftovers.pop(command.camera, None)
        elif lease is not None and command.verb in (Verb.EXTEND, Verb.GENERATE):
            if command.verb is Verb.EXTEND:
                command.timeout = min(command.timeout, max(1.0, (command.deadline - now) / 3))
            lease.fire(LeaseEvent.REPLACE if command.verb is Verb.GENERATE and lease.stream else LeaseEvent.SENT, now)
        elif lease is not None and command.verb is Verb.STOP:
            lease.fire(LeaseEvent.RENEW, now)
        elif lease is not None and command.verb is Verb.GET:
            lease.reading = True
        return command

    def next_deadline(self, now: float) -> float | None:
        """When to poll again, unless something happens earlier."""
        soonest = self.queue.next_deadline(now) if self._probe is None else None
        best = math.inf if soonest is None else soonest
        for lease in self.leases.values():
            if lease.expires < best and lease.state in ENDING:
                best = lease.expires
            elif lease.retry_at < best and lease.state is LeaseState.HELD_OFF and not lease.reread:
                best = lease.retry_at
        return None if math.isinf(best) else best

    def sent(self, command: Command, now: float) -> None:
        """The command is sent only now (an offer had to be made first): its lifetime counts from here."""
        if command.ticket is not None:
            command.ticket.sent = now

    def sends_again(self, command: Command, now: float) -> float:
        """The last request of `command` was answered and it needs another: 0 once counted, else seconds to wait.

        Infinity when its place depends on a call still under way. The ticket is the new request's from then on.
        """
        if command.ticket is not None:
            self.budget.answered(command.ticket, now)
            command.ticket = None
        if (ready := self.budget.ready_at(command.call, now)) > now:
            return ready - now
        command.ticket = self.budget.take(command.call, now)
        return 0.0

    # --- results

    def settle(self, command: Command, result: Result, now: float) -> None:
        """Apply the result of a command from `poll`: answered, failed, or not sent."""
        self._account_for(command, result, now)
        if command is self._probe:
            self._probe = None
        if command.verb is Verb.LIST:
            if isinstance(result, RateLimited):
                self.list_devices(now)
            elif isinstance(result, (Listing, NestError)):
                self.effects.append(Listed(result))
            return
        lease = self.leases.get(command.camera)
        if command.verb is Verb.STOP and not command.renewal:
            self.abandoned.settled(command, result, now)
        elif command.verb is Verb.GENERATE:
            self.abandoned.answered(command, result, now)
        if command.orphan:
            return
        if lease is None or lease.generation != command.generation:
            self.superseded += command.verb is not Verb.STOP
            unwanted = lease is None or lease.state is LeaseState.RELEASED
            if isinstance(result, LiveStream) or (isinstance(result, Extension) and unwanted):
                self.abandoned.unreceived(command, result.handle, now, result.expires_in)
            return
        if command.verb is Verb.GET:
            lease.reading = False
            if not lease.asks:  # a discovery was faster
                self._schedule.plan(lease, now)
                return
        if isinstance(result, NestError):
            self._outcomes.failed(lease, command, result, now)
        else:
            self._outcomes.succeeded(lease, command, result, now)

    def _account_for(self, command: Command, result: Result, now: float) -> None:
        ticket = command.ticket
        assert ticket is not None
        self.queue.answered(command)
        if (counted := counted_by(command, result, now)) is None:
            self.queue.give_back(ticket)
        else:
            self.budget.answered(ticket, counted)
        if isinstance(result, NestError):
            self.queue.failed += 1
            if isinstance(result, RateLimited):
                self.budget.refused(ticket, result.bucket, now, result.retry_after)
            elif result.counted:
                self.budget.accepted(ticket)
            if pause := self._account.failed(result, ticket.sent, now):
                self.queue.held_until = max(self.queue.held_until, now + pause)
            return
        self.budget.accepted(ticket)
        if self.account_error:
            self.queue.held_until = now  # the account can be used again
        if self._account.succeeded():
            for lease in self.leases.values():
                if lease.server_fault:
                    lease.hurry(now, _HURRY_WITHIN)

    # --- internals

    def _tick(self, now: float) -> None:
        for lease in self.leases.values():
            if lease.expires <= now and lease.state in ENDING:
                worked = lease.live or lease.life >= 2.0
                self._outcomes.lose(lease, _expired(lease), now, failed=not worked)
            elif lease.state is LeaseState.HELD_OFF and not lease.reread:
                if self.abandoned.cleared(lease.camera, now):
                    lease.hurry(now, 0.0)
                if lease.retry_at <= now:
                    lease.fire(LeaseEvent.RETRY, now)
                    self._schedule.plan(lease, now)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "superseded": self.superseded,
            "commands_dropped": self.queue.dropped,
            "streams_left_to_expire": self.abandoned.let_expire,
        }


def _expired(lease: Lease) -> str:
    return f"the stream expired ({lease.last_error})" if lease.last_error else "the stream expired"
