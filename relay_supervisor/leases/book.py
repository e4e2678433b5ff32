"""All leases of one Google account with their queue and budget, as one object without I/O and clock.

Tell it what happens (`want`, `unwant`, `media_failed`, `settle`, …), ask it what to send (`poll`) and when to ask
again (`next_deadline`), and carry out the `effects` it leaves behind. Every `now` is monotonic seconds.
"""

from __future__ import annotations

import math
import random
from typing import Final

import msgspec

from relay_common.errors import Remedy
from relay_supervisor.leases import planner
from relay_supervisor.leases.effects import Effect, Granted, Listed, Lost, NotExtended, Renewed, TraitsRead
from relay_supervisor.leases.lease import ALIVE, ENDING, UNDER_WAY, Event, Lease, LeaseSettings, State
from relay_supervisor.leases.trouble import AccountTrouble, servers_fault
from relay_supervisor.nest.errors import (
    NestError,
    NotExtendable,
    OfferUnavailable,
    RateLimited,
    StreamGone,
    WrongProtocol,
)
from relay_supervisor.nest.models import Device, Extension, Stream
from relay_supervisor.quota.budget import Budget
from relay_supervisor.quota.command import Command, Result, Verb
from relay_supervisor.quota.limits import Limits
from relay_supervisor.quota.queue import CommandQueue

_USUAL_LATENCY: Final = 0.5
_HURRY_WITHIN: Final = 20.0
_STOP_WITHIN: Final = 60.0
_LISTING: Final = ""


class _Leftover(msgspec.Struct, frozen=True):
    """A released stream whose Stop has not been sent: it can still be taken back."""

    stream: Stream
    granted: float
    expires: float


class LeaseBook:
    """The control plane of one Device Access project and user.

    `first_generation` must lie above every generation of earlier processes, so that their workers take new streams.
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
        self.leases: dict[str, Lease] = {}
        self.admitted: set[str] = set()
        self.effects: list[Effect] = []
        self.superseded = 0
        """Results that came too late to concern anyone."""
        self._first_generation = first_generation
        self._rng = rng or random.Random()
        self._settings = settings or LeaseSettings()
        self._trouble = AccountTrouble(self._rng)
        self._leftovers: dict[str, _Leftover] = {}
        self._alive = 0
        self._probe: Command | None = None

    @property
    def account_error(self) -> str:
        """Why no command can be sent at all, with what to do about it; "" when commands can be sent."""
        return self._trouble.error

    # --- what is wanted

    def want(self, camera: str, device: Device, now: float, *, on_demand: bool = False) -> None:
        """Keep a stream of `camera` alive from now on; calling it again only refreshes `device` and `on_demand`.

        Cameras `on_demand` get what the others leave of the budget.
        """
        lease = self.leases.get(camera)
        if lease is None:
            lease = self.leases[camera] = Lease(camera, device, self._settings, self._rng)
            lease.generation = self._first_generation
        changed, lease.on_demand = lease.on_demand != on_demand, on_demand
        if lease.state is not State.RELEASED:
            self.device_seen(camera, device, now)
            if changed:
                self._rearrange(now)
            return
        lease.device, lease.protocol = device, device.protocol
        left = self._leftovers.pop(camera, None)
        if left is not None and left.expires > now and self.queue.find(camera, Verb.STOP) is not None:
            stream = msgspec.structs.replace(left.stream, expires_in=left.expires - now)
            lease.resume(stream, lease.generation, left.granted, now)
            self.effects.append(Granted(camera, lease.generation, stream, lease.expires))
        else:
            lease.fire(Event.WANT, now)
        self._rearrange(now)

    def unwant(self, camera: str, now: float, *, stop: bool = True) -> None:
        """Let the camera go; with `stop` its stream is ended at Google, if the budget has nothing better to do."""
        lease = self.leases.get(camera)
        if lease is None or lease.state is State.RELEASED:
            return
        self.queue.cancel(camera)
        # A Stop over a protocol that the camera does not speak any more would only be refused.
        held = lease.stream if lease.state is State.HELD and lease.expires > now and not lease.moved else None
        if held is not None and stop:
            self._leftovers[camera] = _Leftover(held, lease.granted_at, lease.expires)
            self.queue.submit(self._stop(lease, held, now))
        lease.released(now)
        self._rearrange(now)

    def drop(self, camera: str, now: float) -> None:
        """Forget the camera altogether."""
        self.unwant(camera, now)
        lease = self.leases.pop(camera, None)
        if lease is not None:
            # What is under way for it must not be taken for its successor's.
            self._first_generation = max(self._first_generation, lease.generation)

    def resume(
        self,
        camera: str,
        device: Device,
        stream: Stream,
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
        self._rearrange(now)

    def device_seen(self, camera: str, device: Device, now: float) -> None:
        """Rediscovery found the device: a parked camera is tried again, one that speaks another protocol followed."""
        lease = self.leases.get(camera)
        if lease is None:
            return
        if lease.state is State.GENERATING:
            lease.device = device
            return
        changed = lease.traits_read(device)
        if lease.state in ALIVE:
            if changed:
                self._follow(lease, now)
            return
        if lease.state is State.PARKED:
            lease.failures = 0
            lease.fire(Event.RETRY, now)
            self._rearrange(now)

    def list_devices(self, now: float) -> None:
        """Ask for devices.list within the budget; `Listed` follows."""
        if self.queue.find(_LISTING, Verb.LIST) is None:
            self.queue.submit(Command(verb=Verb.LIST, camera=_LISTING, submitted=now))

    def resume_account(self, now: float) -> None:
        """Somebody authorised again or mended the configuration: go on at once."""
        self._trouble.mended()
        self.queue.held_until = now

    # --- what the workers say

    def media_live(self, camera: str, generation: int, now: float) -> None:
        """Media of this generation flows."""
        lease = self.leases.get(camera)
        if lease is not None and lease.generation == generation and lease.state in ALIVE:
            lease.healthy()

    def media_failed(self, camera: str, generation: int, why: str, now: float) -> None:
        """The worker cannot play this generation's stream, its free retries included."""
        lease = self.leases.get(camera)
        if lease is None or lease.generation != generation or lease.state not in ALIVE:
            return
        if lease.state not in (State.DOUBTED, State.REPLACING, State.RENEWING):
            self._lose(lease, why, now, failed=True)

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
            self._probe = command  # one is enough to find out whether that is over
        lease = self.leases.get(command.camera)
        if command.verb is Verb.STOP and not command.renewal:
            self._leftovers.pop(command.camera, None)
        elif lease is not None and command.verb in (Verb.EXTEND, Verb.GENERATE):
            if command.verb is Verb.EXTEND:
                command.timeout = min(command.timeout, max(1.0, (command.deadline - now) / 3))
            lease.fire(Event.REPLACE if command.verb is Verb.GENERATE and lease.stream else Event.SENT, now)
        elif lease is not None and command.verb is Verb.STOP:
            lease.fire(Event.RENEW, now)
        elif lease is not None and command.verb is Verb.GET:
            lease.reading = True
        return command

    def next_deadline(self, now: float) -> float | None:
        """When to poll again, unless something happens before."""
        soonest = self.queue.next_deadline(now) if self._probe is None else None
        best = math.inf if soonest is None else soonest
        for lease in self.leases.values():
            if lease.expires < best and lease.state in ENDING:
                best = lease.expires
            elif lease.retry_at < best and lease.state is State.HELD_OFF and not lease.reread:
                best = lease.retry_at
        return None if math.isinf(best) else best

    def sent(self, command: Command, now: float) -> None:
        """The command leaves only now (an offer had to be made first): its life counts from here."""
        if command.ticket is not None:
            command.ticket.sent = now

    # --- what came of it

    def settle(self, command: Command, result: Result, now: float) -> None:
        """A command that `poll` gave was answered, failed, or could not be sent."""
        self._account_for(command, result, now)
        if command is self._probe:
            self._probe = None
        if command.verb is Verb.LIST:
            if isinstance(result, RateLimited):
                self.list_devices(now)
            elif isinstance(result, (list, NestError)):
                self.effects.append(Listed(result))
            return
        lease = self.leases.get(command.camera)
        if lease is None or lease.generation != command.generation:
            self.superseded += command.verb is not Verb.STOP
            return
        lease.reading &= command.verb is not Verb.GET
        if isinstance(result, NestError):
            self._failed(lease, command, result, now)
        else:
            self._succeeded(lease, command, result, now)

    def _account_for(self, command: Command, result: Result, now: float) -> None:
        ticket = command.ticket
        assert ticket is not None
        if isinstance(result, NestError):
            self.queue.failed += 1
            if not result.counted:
                self.budget.give_back(ticket)
            else:
                self.budget.answered(ticket, now)
            if isinstance(result, RateLimited):
                self.budget.refused(ticket, result.bucket, now, result.retry_after)
            elif result.counted:
                self.budget.accepted(ticket)
            if pause := self._trouble.failed(result, ticket.sent, now):
                self.queue.held_until = max(self.queue.held_until, now + pause)
            return
        self.budget.answered(ticket, now)
        self.budget.accepted(ticket)
        if self._trouble.succeeded():
            for lease in self.leases.values():
                if lease.server_fault:
                    lease.hurry(now, _HURRY_WITHIN)

    def _succeeded(self, lease: Lease, command: Command, result: Result, now: float) -> None:
        sent = command.ticket.sent if command.ticket else now
        if isinstance(result, Stream) and lease.state in (State.GENERATING, State.REPLACING):
            # One that was replaced is not stopped: its worker leaves it at the new one's first picture, and it ends.
            lease.granted(result, sent)
            self.effects.append(Granted(lease.camera, lease.generation, result, lease.expires))
            self._rearrange(now)
        elif isinstance(result, Extension) and lease.state is State.EXTENDING:
            lease.extended(result, sent)
            assert lease.stream is not None
            self.effects.append(Renewed(lease.camera, lease.generation, lease.stream, lease.expires))
            self._plan(lease, now)
        elif isinstance(result, Device):
            self._traits_read(lease, result, now)
        elif lease.state is State.RENEWING:
            self._lose(lease, "the stream was stopped to be generated anew", now, failed=False)

    def _failed(self, lease: Lease, command: Command, error: NestError, now: float) -> None:
        if lease.state is State.RENEWING:
            self._lose(lease, "the stream could not be stopped and is generated anew", now, failed=False)
            return
        if error.account or error.remedy is Remedy.HOLD:
            self._send_back(lease, now)
            return
        lease.server_fault = servers_fault(error)
        if error.remedy is Remedy.PARK:
            self._park(lease, error, now)
        elif command.verb is Verb.EXTEND:
            self._extension_failed(lease, error, now)
        elif lease.state is State.REPLACING:
            self._replacement_failed(lease, error, now)
        elif lease.state is State.DOUBTED:
            self._refused(lease, lease.last_error, now)
        elif command.verb is Verb.GENERATE:
            self._generate_failed(lease, error, now)
        else:
            lease.reread = False  # the traits could not be read: just try again after the pause
            lease.retry_at = max(lease.retry_at, now + (error.retry_after or 0.0))
            self._plan(lease, now)

    def _generate_failed(self, lease: Lease, error: NestError, now: float) -> None:
        lease.reread = error.remedy is Remedy.SWITCH_PROTOCOL
        lease.generate_failed(str(error), now, error.retry_after or 0.0)
        if lease.reread and lease.failures < 2:
            lease.retry_at = now
        self._plan(lease, now)

    def _extension_failed(self, lease: Lease, error: NestError, now: float) -> None:
        if isinstance(error, NotExtendable):
            lease.extendable = False
            self.effects.append(NotExtended(lease.camera))
            lease.fire(Event.SENT_BACK, now)
            self._rearrange(now)
        elif isinstance(error, WrongProtocol):
            if lease.moved:  # a discovery has told meanwhile
                lease.fire(Event.SENT_BACK, now)
            else:
                lease.doubt(str(error), now)
            self._plan(lease, now)
        elif isinstance(error, StreamGone):
            self._refused(lease, str(error), now)
        else:
            lease.extension_failed(str(error), now, error.retry_after or 0.0)
            self._plan(lease, now)

    def _refused(self, lease: Lease, why: str, now: float) -> None:
        """Google does not know the stream any more: only another one helps."""
        # A stream refused well before its end, twice running, is of a kind that cannot be extended.
        lease.refused_extensions += lease.expires - now > 0.25 * lease.life
        lease.extendable = lease.refused_extensions < 2
        self._lose(lease, why, now, failed=True)

    def _traits_read(self, lease: Lease, device: Device, now: float) -> None:
        """The answer to what was asked when a command was refused as if the camera spoke another protocol."""
        if not (lease.reread or lease.state is State.DOUBTED):
            self._plan(lease, now)  # a discovery was faster
            return
        changed = lease.traits_read(device)
        self.effects.append(TraitsRead(lease.camera, device))
        if changed:
            lease.retry_at = now
        if lease.state is State.DOUBTED and not changed:
            self._refused(lease, lease.last_error, now)
        else:
            self._follow(lease, now)

    def _follow(self, lease: Lease, now: float) -> None:
        """Go on with the protocol that the camera speaks now: a stream over another plays until one over that comes."""
        if lease.state is State.DOUBTED:
            lease.switch(now)
        self._rearrange(now)

    def _replacement_failed(self, lease: Lease, error: NestError, now: float) -> None:
        """The old stream plays on: try again while it lasts, or end it first where Google grants no second one."""
        if lease.moved:
            self._generate_failed(lease, error, now)
            return
        lease.beside = lease.server_fault or isinstance(error, OfferUnavailable)
        if lease.beside:
            lease.extension_failed(str(error), now, error.retry_after or 0.0)
        else:
            lease.fire(Event.FAILED, now)
        self._rearrange(now)

    def _send_back(self, lease: Lease, now: float) -> None:
        """Not the camera's fault: as if it had never been sent."""
        if lease.state in UNDER_WAY:
            lease.fire(Event.SENT_BACK, now)
        self._rearrange(now)

    # --- moves

    def _tick(self, now: float) -> None:
        for lease in self.leases.values():
            if lease.expires <= now and lease.state in ENDING:
                worked = lease.live or lease.life >= 2.0
                self._lose(lease, _expired(lease), now, failed=not worked)
            elif lease.retry_at <= now and lease.state is State.HELD_OFF and not lease.reread:
                lease.fire(Event.RETRY, now)
                self._plan(lease, now)

    def _lose(self, lease: Lease, why: str, now: float, *, failed: bool) -> None:
        generation = lease.generation
        lease.lose(why, now, failed=failed)
        self.effects.append(Lost(lease.camera, generation, why))
        self._rearrange(now)

    def _park(self, lease: Lease, error: NestError, now: float) -> None:
        generation, alive = lease.generation, lease.state in ALIVE
        lease.park(str(error), now)
        if alive:
            self.effects.append(Lost(lease.camera, generation, str(error)))
        self._rearrange(now)

    def _stop(self, lease: Lease, stream: Stream, now: float) -> Command:
        return Command(
            verb=Verb.STOP,
            camera=lease.camera,
            device=lease.device.id,
            kind=lease.device.kind,
            protocol=stream.protocol,
            generation=lease.generation,
            handle=stream.handle,
            not_before=now,
            deadline=min(lease.expires, now + _STOP_WITHIN),
            submitted=now,
        )

    # --- plans

    def rate(self, calls: int) -> float:
        """Commands per second that `calls` places sustain."""
        api = self.budget.api
        return calls / (api.span + api.guard + _USUAL_LATENCY)

    def capacity(self) -> int:
        """How many cameras the budget holds at the shortest life that Google grants at present."""
        return planner.capacity(self.rate(self.budget.api.limit), self._usual_life())

    def _usual_life(self) -> float:
        return min((lease.life for lease in self.leases.values() if lease.life), default=planner.ASSUMED_LIFE)

    def _rearrange(self, now: float) -> None:
        """The set of cameras or their cost changed: admit and plan all of them again."""
        wanting = [lease for lease in self.leases.values() if lease.state not in (State.RELEASED, State.PARKED)]
        wanting.sort(key=lambda lease: (lease.on_demand, lease.camera not in self.admitted))
        life = self._usual_life()
        loads = [lease.load(life) for lease in wanting]
        self.admitted = planner.admit(loads, self.rate(self.budget.api.limit))
        self._alive = sum(lease.state in ALIVE for lease in wanting)
        api = self.budget.api
        self.queue.reserve = planner.reserve(api.limit, self._alive, life, 1 / self.rate(1))
        for lease in wanting:
            self._plan(lease, now)

    def _plan(self, lease: Lease, now: float) -> None:
        """Put into the queue what the lease wants next."""
        self.queue.cancel(lease.camera)
        if lease.camera not in self.admitted:
            return
        margin = planner.margin(lease.life, self._alive, self.rate(self.budget.api.ceiling))
        pace = self.budget.limits.device_pace(lease.device.kind)
        command = lease.wanted_command(now, margin=margin, pace=pace)
        if command is not None:
            self.queue.submit(command)


def _expired(lease: Lease) -> str:
    return f"the stream ran out ({lease.last_error})" if lease.last_error else "the stream ran out"
