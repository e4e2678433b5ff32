"""A simulated worker of the lane: it speaks the bus's protocol as the real one, and plays streams as Google lets it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay_common import protocol, wire
from relay_common.backoff import Backoff
from relay_common.ingest_messages import IngestOffer, MakeOffer
from relay_common.protocol import FromWorker, Stage, TrackOffer, WorkerState
from relay_worker.process.spec import WorkerSpec
from tests.simulation.loop import Process
from tests.simulation.machine import Machine, SimulatedBus
from tests.simulation.outside import WALL, SimulatedGoogle, SimulatedSfu

if TYPE_CHECKING:
    from asyncio import Future, Task

BEAT: Final = 1.0
PUBLISH_TIMEOUT: Final = 20.0


class Scene:
    """A camera as it really is: whether it can be reached, and who plays its stream now."""

    def __init__(self, name: str, collided: Callable[[str], None]) -> None:
        self.name, self.reachable = name, True
        self._collided = collided
        self.players: list[SimulatedWorker] = []

    def enter(self, worker: SimulatedWorker) -> None:
        self.players.append(worker)
        if len(self.players) > 1:
            who = " and ".join(player.instance for player in self.players)
            self._collided(f"{self.name}: two workers play its stream: {who}")

    def leave(self, worker: SimulatedWorker) -> None:
        if worker in self.players:
            self.players.remove(worker)


class SimulatedWorker:
    """One worker process; its callbacks run in `process`."""

    def __init__(
        self,
        spec: WorkerSpec,
        process: Process,
        pid: int,
        started: int,
        *,
        machine: Machine,
        google: SimulatedGoogle,
        sfu: SimulatedSfu,
        scene: Scene,
        rng: random.Random,
    ) -> None:
        self.instance, self.camera = spec.instance, spec.camera
        self._grace = spec.orphan_grace
        self.process, self.pid, self.started = process, pid, started
        self._machine, self._google, self._sfu, self._scene, self._rng = machine, google, sfu, scene, rng
        self.inbox: deque[bytes] = deque()
        self._reader = wire.worker_reader()
        self._reaches: dict[SimulatedBus, float] = {}
        self.state = WorkerState.WAITING
        self.generation, self.expires_at, self.publication = 0, 0.0, ""
        self._url, self._answer, self._offer, self._answer_to = "", "", 0, 0
        self._playing: Task[None] | None = None
        self._session = ""
        self.welcomed = False
        self.leaving = False
        """Whether it has been asked to end."""
        self._request = 0
        self._answers: dict[int, Future[protocol.PublishAnswer | None]] = {}

    # --- the bus ------------------------------------------------------------------------------------------------

    def connected_to(self, bus: SimulatedBus) -> bool:
        """Whether its socket has reached this supervisor's: a moment after either of them was there."""
        if self._machine.bus is not bus:
            return False
        if bus not in self._reaches:
            self._reaches[bus] = self._machine.loop.now + self._rng.uniform(0.0, 0.1 if not self._reaches else 2.0)
        return self._machine.loop.now >= self._reaches[bus]

    @property
    def _connected(self) -> bool:
        bus = self._machine.bus
        return bus is not None and bus.owner.alive and self.connected_to(bus)

    def _send(self, message: FromWorker) -> bool:
        if not self._connected:
            return False
        assert self._machine.bus is not None
        self._machine.bus.deliver(self.instance, message)
        return True

    def receive(self) -> None:
        message = self._reader.decode(self.inbox.popleft())
        match message:
            case protocol.Identify():
                self._say_hello()
            case protocol.Welcome():
                self.welcomed = True
                for waiting in self._answers.values():
                    if not waiting.done():
                        waiting.set_result(None)
            case protocol.Play():
                self._play(message)
            case protocol.Extended(generation=generation, url=url, expires_at=expires_at):
                if generation == self.generation:
                    self._url, self.expires_at = url, expires_at
            case protocol.StreamLost(generation=generation):
                if self.generation in (0, generation):
                    self.generation = 0
                    self._drop()
            case MakeOffer(request=request):
                self.process.after(self._rng.uniform(0.01, 0.5), self._made_offer, request)
            case protocol.PublishAnswer(request=request) | protocol.PublishFailed(request=request):
                waiting = self._answers.get(request)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message if isinstance(message, protocol.PublishAnswer) else None)
            case protocol.Republish(publication=publication):
                if publication in ("", self.publication):
                    self.publication = self._session = ""
            case protocol.Stop():
                self.leaving = True
                self.process.after(self._rng.uniform(0.0, 0.5), self._finish, 0)

    def _say_hello(self) -> None:
        self._send(
            protocol.Hello(
                protocol=protocol.PROTOCOL,
                instance=self.instance,
                camera=self.camera,
                pid=self.pid,
                started=self.started,
                state=self.state,
                generation=self.generation,
                expires_at=self.expires_at,
                publication=self.publication,
                preloaded=True,
            )
        )

    def _made_offer(self, request: int) -> None:
        self._offer = request
        self._send(IngestOffer(request=request, offer=f"v=0 {request}"))

    # --- its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        publishing = asyncio.ensure_future(self._keep_published())
        alone = self._machine.loop.now
        while not publishing.done():
            now = self._machine.loop.now
            if self._connected or WALL + now + self._machine.clock_ahead < self.expires_at:
                alone = now
            elif now - alone > self._grace:
                self._finish(0)
            if not self.welcomed:
                self._say_hello()
            else:
                self._send(protocol.Heartbeat(state=self.state))
            await asyncio.sleep(BEAT if self.welcomed else 0.2)

    def _finish(self, code: int) -> None:
        """End the process."""
        self._drop()
        if (entry := self._machine.entry_of(self.instance)) is not None:
            self._machine.kernel.after(0.0, self._machine.end, entry, code)

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(protocol.Goodbye(reason="told to by SIGTERM"))
        self._finish(0)

    def ended(self) -> None:
        """Its process is gone, however that happened."""
        self._scene.leave(self)

    # --- the stream ---------------------------------------------------------------------------------------------

    def _play(self, play: protocol.Play) -> None:
        self._drop()
        self.generation, self.expires_at = play.generation, play.expires_at
        self._url, self._answer, self._answer_to = play.url, play.answer, play.offer
        self._playing = asyncio.ensure_future(self._played(play.generation))

    def _drop(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
        self._scene.leave(self)
        self._become(WorkerState.WAITING)

    def _become(self, state: WorkerState) -> None:
        if state is not self.state:
            self.state = state
            self._send(protocol.StateChanged(state=state, stage=Stage.NONE))

    def _sends(self) -> bool:
        """Whether the camera sends what was granted."""
        if self._answer:
            if self._answer_to != self._offer:
                return False
            path = self._answer.split()[-1]
        else:
            path = self._url.partition("?")[0].removeprefix(self._google.backend.streams.rtsp_url)
        return self._scene.reachable and self._google.stream(path) is not None

    async def _played(self, generation: int) -> None:
        tries = 0
        while tries < 3:
            self._become(WorkerState.CONNECTING if not tries else WorkerState.RECONNECTING)
            await asyncio.sleep(self._rng.uniform(0.2, 2.0) * (1 + tries))
            if not self._sends():
                tries += 1
                continue
            tries = 0
            self._scene.enter(self)
            self._become(WorkerState.LIVE)
            while self._sends():
                await asyncio.sleep(1.0)
            self._scene.leave(self)
            if self._answer:
                break  # a WebRTC session cannot be taken up again
        self.generation = 0  # it holds no stream any more, and its next hello says so
        self._become(WorkerState.WAITING)
        self._send(
            protocol.SourceFailed(generation=generation, stage=Stage.PLAY, remedy="regenerate", reason="PLAY: 404")
        )

    # --- the publication ----------------------------------------------------------------------------------------

    @property
    def published(self) -> bool:
        """Whether the SFU has what it sends."""
        return bool(self.publication) and self._session in self._sfu.sessions

    async def _keep_published(self) -> None:
        backoff = Backoff(0.25, 10.0, rng=self._rng)
        while True:
            if self.published:
                backoff.reset()
                await asyncio.sleep(2.0)
                continue
            if self.publication:  # the session has ended
                self._send(protocol.Unpublished(publication=self.publication, reason="consent ended"))
                self.publication = self._session = ""
            if self.welcomed and await self._published_once():
                continue
            await asyncio.sleep(backoff.next_delay())

    async def _published_once(self) -> bool:
        self._request += 1
        request, answer = self._request, self._machine.loop.create_future()
        self._answers[request] = answer
        tracks = [TrackOffer(kind="video", mid="0")]
        self._send(protocol.PublishRequest(request=request, offer="v=0", tracks=tracks))
        try:
            found = await asyncio.wait_for(answer, PUBLISH_TIMEOUT)
        except TimeoutError:
            return False
        finally:
            del self._answers[request]
        if found is None:
            return False
        self._session = found.answer.split()[-1]
        await asyncio.sleep(self._rng.uniform(0.1, 1.0))
        if self._session not in self._sfu.sessions:
            return False
        self.publication = found.publication
        return self._send(protocol.Published(publication=found.publication))
