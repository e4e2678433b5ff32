"""A discrete-event world for the control plane: the real LeaseBook against the Nest simulator's core.

The simulator keeps its own quota; `Ledger` counts what arrived once more, by its own arithmetic. Neither shares code
with the product.
"""

from __future__ import annotations

import datetime
import email.utils
import heapq
import itertools
import json
import math
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.devices import Device as SimulatedDevice
from relay_common.simulation.google.failures import ANY, failure
from relay_common.simulation.google.oauth import Client, OAuth
from relay_supervisor.google.api import life_of
from relay_supervisor.google.errors import NestTimeout, TokenUnavailable, error_for, parse_refusal
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Granted, Lost, Renewed
from relay_supervisor.google.models import CommandBody, Device, Extension, LiveStream
from relay_supervisor.google.quota.budget import Call, LoggedCall
from relay_supervisor.google.quota.command import Command, Result, Verb
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.store import Store

DAY = 86_400.0
WALL = 1_700_000_000.0
_LIMITS = ((60.0, 10, "project"), (60.0, 5, "command"), (60.0, 30, "device"), (3600.0, 100, "device"))


@dataclass
class Ledger:
    """When commands arrived at Google, and the most that any closed span held."""

    arrivals: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def arrive(self, verb: str, device: str, at: float) -> None:
        for key in (("project", ""), ("command", f"{verb} {device}"), ("device", device)):
            self.arrivals.setdefault(key, []).append(at)

    def violations(self) -> list[str]:
        found = []
        for (scope, subject), times in self.arrivals.items():
            for span, limit, of in _LIMITS:
                if of == scope and (most := self.most(times, span)) > limit:
                    found.append(f"{scope} {subject}: {most} in {span:g} s")
        return found

    @staticmethod
    def most(times: list[float], span: float) -> int:
        """Most arrivals in any closed span of `span` seconds."""
        times = sorted(times)
        return max((index - bisect_left(times, at - span) + 1 for index, at in enumerate(times)), default=0)

    def count_since(self, since: float) -> int:
        return sum(at > since for at in self.arrivals.get(("project", ""), []))


@dataclass
class Camera:
    """A camera as the world sees it: when its stream ends at Google, and each time it ended though wanted."""

    name: str
    device: Device
    simulated: SimulatedDevice
    stream_ends: float = -math.inf
    lapses: list[float] = field(default_factory=list)
    first_stream: float = math.inf
    on_demand: bool = False
    watched: bool = True
    history: list[tuple[float, float]] = field(default_factory=list)
    """When Google granted it life, and until when."""

    @property
    def healthy(self) -> bool:
        return not self.simulated.offline


class _Memory:
    """What a supervisor would have saved, without the disk: for runs of a day."""

    def __init__(self) -> None:
        self._calls: dict[str, LoggedCall] = {}
        self._leases: dict[str, SavedLease] = {}

    def calls(self, account: str) -> list[LoggedCall]:
        return list(self._calls.values())

    def leases(self, account: str) -> list[SavedLease]:
        return list(self._leases.values())

    def save_lease(self, account: str, lease: SavedLease) -> None:
        self._leases[lease.camera] = lease

    def forget_lease(self, account: str, camera: str) -> None:
        self._leases.pop(camera, None)

    def write_call(self, account: str, call_id: str, call: Call, sent: float, answered: float | None) -> None:
        self._calls[call_id] = LoggedCall(call, sent, answered)

    def close(self) -> None:
        pass


class WorldClock:
    """The supervisor's clocks: its wall clock is wrong by `error` seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.error = 0.0

    def now(self) -> float:
        return self._world.now

    def wall(self) -> float:
        return WALL + self._world.now + self.error

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class World:
    """Cameras, Google, and one supervisor's book; time jumps from event to event."""

    def __init__(
        self,
        cameras: int,
        *,
        on_demand: int = 0,
        seed: int = 1,
        life: float = 300.0,
        latency: tuple[float, float] = (0.2, 0.8),
        directory: Path | None = None,
    ) -> None:
        """`on_demand` cameras more are wanted only while `watch` says so. In `directory` is the real store, if any."""
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.life, self.latency = life, latency
        self.error_share = self.timeout_share = 0.0
        """Parts of all commands that get a 500, and that are carried out without an answer in time."""
        client = Client("id", "secret", "refresh")
        self.backend = NestBackend("p", OAuth(client, lifetime=10 * DAY), lease=life, seed=seed)
        form = {"client_id": "id", "client_secret": "secret", "refresh_token": "refresh", "grant_type": "refresh_token"}
        self._token = self.backend.oauth.token(form, WALL).body["access_token"]  # type: ignore[index]
        self.ledger = Ledger()
        self.cameras = {f"cam{n:02d}": self._camera(f"cam{n:02d}") for n in range(cameras)}
        for n in range(on_demand):
            camera = self.cameras[f"demand{n:02d}"] = self._camera(f"demand{n:02d}")
            camera.on_demand, camera.watched = True, False
        self.clock = WorldClock(self)
        self.token_down = False
        """The token endpoint does not answer, and the token has expired."""
        self.token_tries = 0
        self._file = (directory or Path()) / "relay.sqlite3"
        self._memory = _Memory() if directory is None else None
        self.commands: list[tuple[float, Verb, str, int]] = []
        """Arrival, verb, camera and HTTP status of every command."""
        self.supervisor = 0
        self.up = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.start()

    def _camera(self, name: str) -> Camera:
        simulated = SimulatedDevice(name, name)
        self.backend.add(simulated)
        return Camera(name, Device(f"enterprises/p/devices/{name}", name, "CAMERA", name, (Protocol.RTSP,)), simulated)

    # --- the supervisor

    def start(self) -> None:
        """A supervisor starts on whatever the last one saved."""
        self.supervisor += 1
        self.up = True
        self.book = LeaseBook(limits_from(), rng=self.rng)
        self.saved: _Memory | Store = self._memory or Store(self._file, self.clock, boot="one boot").open()
        self.book.budget.restore(
            call for call in self.saved.calls("") if (call.answered or call.sent + 30) > self.now - 3700
        )
        leases = {lease.camera: lease for lease in self.saved.leases("") if lease.expires > self.now}
        for name, camera in self.cameras.items():
            left = leases.get(name)
            if not camera.watched:
                continue
            if left is None:
                self.book.want(name, camera.device, self.now, on_demand=camera.on_demand)
                continue
            stream = msgspec.structs.replace(left.stream, expires_in=left.expires - self.now)
            self.book.resume(
                name,
                camera.device,
                stream,
                left.generation,
                self.now,
                granted=left.granted,
                on_demand=camera.on_demand,
            )

    def crash(self) -> None:
        """kill -9: the book is gone, answers under way go nowhere."""
        self.supervisor += 1
        self.up = False
        self.saved.close()

    def watch(self, name: str, watched: bool) -> None:
        """Somebody begins or ceases to watch a camera on demand."""
        camera = self.cameras[name]
        camera.watched = watched
        if watched:
            self.book.want(name, camera.device, self.now, on_demand=True)
        else:
            self.book.unwant(name, self.now)
            self.saved.forget_lease("", name)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            if self.up:
                while (command := self.book.poll(self.now)) is not None:
                    self._send(command)
                self._effects()
            deadline = self.book.next_deadline(self.now) if self.up else None
            event = self._events[0][0] if self._events else math.inf
            then = min(math.inf if deadline is None else max(deadline, self.now + 1e-6), event)
            if then > end:
                self.now = end
                return
            self.now = then
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()

    def _effects(self) -> None:
        effects, self.book.effects = self.book.effects, []
        for effect in effects:
            if isinstance(effect, (Granted, Renewed)):
                granted = self.book.leases[effect.camera].granted_at
                device = self.cameras[effect.camera].device.id
                self.saved.save_lease(
                    "",
                    SavedLease(effect.camera, device, effect.generation, granted, effect.expires, effect.stream),
                )
                if isinstance(effect, Granted):
                    self._play(effect)
            elif isinstance(effect, Lost):
                self.saved.forget_lease("", effect.camera)

    def _play(self, granted: Granted) -> None:
        """The worker plays: a healthy camera is live soon, another fails after the worker's own retries."""
        camera, supervisor = self.cameras[granted.camera], self.supervisor

        def report() -> None:
            if supervisor != self.supervisor:
                return
            if camera.healthy:
                camera.first_stream = min(camera.first_stream, self.now)
                self.book.media_live(camera.name, granted.generation, self.now)
            else:
                self.book.media_failed(camera.name, granted.generation, "DESCRIBE: 404", self.now)

        self.at(self.now + (2.0 if camera.healthy else 25.0), report)

    # --- Google

    def _send(self, command: Command) -> None:
        camera, supervisor, sent = self.cameras[command.camera], self.supervisor, self.now
        delay = self.rng.uniform(*self.latency)
        arrives = sent + delay * self.rng.random()
        call_id = f"{len(self.commands)}.{sent}.{command.camera}"
        if not self.token_down:
            self.saved.write_call("", call_id, command.call, sent, None)

        def arrive() -> None:
            result = self._answer(command, camera)
            answered = sent + command.timeout if isinstance(result, NestTimeout) else max(self.now, sent + delay)
            self.at(answered, lambda: settle(result))

        def settle(result: Result) -> None:
            if supervisor == self.supervisor:
                if not isinstance(result, TokenUnavailable):
                    self.saved.write_call("", call_id, command.call, sent, self.now)
                self.book.settle(command, result, self.now)

        if self.token_down:
            self.token_tries += 1
            refused = TokenUnavailable("the token endpoint answered 503")
            self.at(sent + delay, lambda: settle(refused))
            return
        self.at(arrives, arrive)

    def _answer(self, command: Command, camera: Camera) -> Result:
        self.ledger.arrive(command.verb.value, command.device, self.now)
        dice = self.rng.random()
        if dice < self.error_share:
            self.backend.failures.add(camera.name, ANY, failure(500))
        name = command.call.command
        params = {} if command.verb is Verb.GENERATE else {"streamExtensionToken": command.handle.reveal()}
        full = f"sdm.devices.commands.CameraLiveStream.{name}"
        reply = self.backend.execute(self._token, command.device, full, params, WALL + self.now)
        self.commands.append((self.now, command.verb, command.camera, reply.status))
        if reply.status != 200:
            refusal = parse_refusal(reply.status, json.dumps(reply.body).encode())
            return error_for(refusal, what=name, verb=command.verb.value)
        results = msgspec.convert(reply.body, CommandBody).results
        self._follow(camera, ends=self.now + self.life if results.expires_at else -math.inf)
        if dice > 1 - self.timeout_share:
            return NestTimeout(f"{name}: no answer")
        handle, token = Secret(results.stream_extension_token), Secret(results.stream_token)
        if not results.expires_at:
            return None
        google = datetime.datetime.fromtimestamp(WALL + self.now, datetime.UTC)
        life, at = life_of(results.expires_at, email.utils.format_datetime(google, usegmt=True), self.clock.wall())
        if results.stream_urls is not None:
            return LiveStream(Protocol.RTSP, handle, life, at, url=Secret(results.stream_urls.rtsp_url))
        return Extension(handle, life, at, token)

    def _follow(self, camera: Camera, ends: float) -> None:
        camera.stream_ends = ends
        camera.history.append((self.now, ends))

        def ended() -> None:
            if camera.stream_ends == ends and camera.healthy and camera.watched:
                camera.lapses.append(self.now)

        if math.isfinite(ends):
            self.at(ends, ended)

    def refuse_all(self, start: float, length: float, status: int) -> None:
        """Google answers every command with `status` for a while."""
        self.at(start, lambda: self.backend.failures.add(ANY, ANY, failure(status, count=10**9)))
        self.at(start + length, self.backend.failures.clear)

    def take_token_endpoint_down(self, start: float, length: float) -> None:
        """No command can be sent for a while: there is no token."""
        self.at(start, lambda: setattr(self, "token_down", True))
        self.at(start + length, lambda: setattr(self, "token_down", False))

    # --- what came of it

    def lapses(self) -> int:
        """How often a stream of a camera that is always on ended though it was wanted."""
        return sum(len(camera.lapses) for camera in self.cameras.values() if not camera.on_demand)

    def live(self) -> int:
        """Cameras that are always on and have a stream."""
        return sum(camera.stream_ends > self.now for camera in self.cameras.values() if not camera.on_demand)

    def count(self, verb: Verb) -> int:
        return sum(kind is verb for _, kind, _, _ in self.commands)
