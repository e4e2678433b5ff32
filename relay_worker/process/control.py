"""The worker's end of the bus: a DEALER for control and a PUB for stats, and signalling over it.

A missing supervisor is harmless: sockets reconnect by themselves, messages that cannot be delivered are
dropped and counted, and the supervisor that comes back asks who is there. Over TCP the same supervisor may come back,
which does not know that it was away: the worker says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from relay_common import protocol, wire
from relay_common.beat_messages import BEAT, SupervisorBeat
from relay_common.errors import ConfigError
from relay_common.patch_messages import PatchSession, SessionPatched
from relay_common.protocol import FromSupervisor, FromWorker, TrackOffer, WorkerState
from relay_common.tcp_bus import HANDSHAKE, over_tcp, watch_over
from relay_common.worker_stats import WorkerStats
from relay_worker.process.bus_socket import BusSocket
from relay_worker.process.spec import WorkerSpec
from relay_worker.publish.signaling import PublishRefused, SupervisorLost

log = logging.getLogger(__name__)

QUEUE = 200
STATS_QUEUE = 4
PUBLISH_TIMEOUT = 25.0
"""Seconds for the supervisor and the SFU to answer an offer: the SFU alone may take 5 s, with retries more."""

RECONNECT_MOST = 500
"""Milliseconds after which a worker that finds no supervisor tries again, at the latest: those of all cameras say hello
within that time to one that is started again, which takes a few seconds."""
_CONNECT_AGAIN = HANDSHAKE + 1.0
"""Seconds without a connection over TCP after which it is begun anew."""
_REFUSED_AGAIN = 2.0
"""The same after a refusal."""
_ELSEWHERE_AGAIN = 3.0
"""The same after a supervisor's silence, for the first time: its name may lead to another one any moment."""
_LOOK = 1.0
_SILENT = round(3 * BEAT / _LOOK)
"""Looks in a row at which nothing was heard of a supervisor that beats; then it commands no more, or stands still."""
_FOLLOWED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
)


class Control:
    """The worker's connection to its supervisor. `undelivered` counts messages dropped because no supervisor was
    connected.

    `lost` is called when a connection over TCP is lost, whether or not the supervisor lives, and `reconnected` when it
    is back, with whatever was sent meanwhile lost, in either direction. Raises ConfigError for TCP without keys, with
    which anybody could be the supervisor.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        handler: Callable[[FromSupervisor], None],
        reconnected: Callable[[], object] = bool,
        lost: Callable[[], object] = bool,
    ) -> None:
        if spec.keys is None and (over_tcp(spec.control) or over_tcp(spec.stats)):
            raise ConfigError("a worker without keys connects over TCP to nobody")
        self._handler, self._reconnected, self._lost = handler, reconnected, lost
        self._reader = wire.worker_reader()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._keys = spec.keys
        self._control = self._socket(zmq.DEALER, spec.control, QUEUE, identity=wire.routing_id())
        self._bus = BusSocket(self._control, self._receive)
        self._stats = self._socket(zmq.PUB, spec.stats, STATS_QUEUE)
        self._requests = itertools.count(1)
        self._answers: dict[int, asyncio.Future[protocol.PublishAnswer]] = {}
        self._patched: dict[int, asyncio.Future[str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._watched = [
            (socket, endpoint, zmq.asyncio.Socket.from_socket(socket.get_monitor_socket(_FOLLOWED)))
            for socket, endpoint in ((self._control, spec.control), (self._stats, spec.stats))
            if over_tcp(endpoint)
        ]
        self.undelivered = 0
        self.connected = False
        self._supervisor = ""
        """Whose answers are waited for."""
        self._anew = False
        """Whether the connection was lost since its welcome, and with it perhaps what was asked, or the answer."""
        self.beats = False
        """Whether the supervisor says again and again that it lives."""
        self._heard = 0
        """Messages of it."""
        self.reports_in_beats = False
        """Whether the supervisor reads reports in heartbeats; an earlier one reads those that are published."""

    def _socket(self, kind: int, endpoint: str, queue: int, identity: bytes = b"") -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        watch_over(socket, endpoint)
        socket.setsockopt(zmq.SNDHWM, queue)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.setsockopt(zmq.LINGER, 200)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MOST)
        # Queue only for a connected peer: messages to an absent supervisor would be stale by the time one connects.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        if identity:
            socket.setsockopt(zmq.IDENTITY, identity)
        if self._keys is not None:
            socket.curve_publickey = self._keys.public.encode()
            socket.curve_secretkey = self._keys.secret.reveal().encode()
            socket.curve_serverkey = self._keys.supervisor.encode()
        socket.connect(endpoint)
        return socket

    @property
    def refused(self) -> int:
        """Frames that were oversized, malformed or of an unknown type."""
        return self._reader.oversized + self._reader.malformed + self._reader.unknown

    def start(self) -> None:
        """Start receiving."""
        self._bus.start()
        self._tasks = [asyncio.create_task(self._watch(*watched)) for watched in self._watched]

    async def close(self) -> None:
        """Close the sockets after pending messages have been sent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._bus.close()
        for _, _, monitor in self._watched:
            monitor.close()
        self._context.destroy()

    def send(self, message: FromWorker) -> bool:
        """Send to the supervisor; False (and counted) when none is connected."""
        self.connected = self._bus.send(wire.encode(message))
        if not self.connected:
            self.undelivered += 1
        return self.connected

    async def until_connected(self, within: float) -> None:
        """Return when a supervisor is connected and has accepted this worker's key, or after `within` seconds."""
        await self._bus.until_writable(within)

    def beat(self, state: WorkerState, lag: float, stats: WorkerStats | None) -> None:
        """Send a sign of life, and with it a report, which is lost when nobody is there."""
        report = wire.encode(stats) if stats is not None else b""
        if report and not self.reports_in_beats:
            with contextlib.suppress(zmq.ZMQError):
                self._stats.send(report, flags=zmq.DONTWAIT)
            report = b""
        self.send(protocol.Heartbeat(state=state, lag=lag, report=report))

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        """Have the sink answer `offer`; raises PublishRefused with the time after which to try again, SupervisorLost
        where the sink has said nothing.
        """
        request = next(self._requests)
        answer: asyncio.Future[protocol.PublishAnswer] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        try:
            message = protocol.PublishRequest(request=request, offer=offer, tracks=tracks, sink=sink)
            if not self.send(message):
                raise SupervisorLost("no supervisor to carry the offer", retry_after=1.0)
            return await asyncio.wait_for(answer, PUBLISH_TIMEOUT)
        except TimeoutError:
            raise SupervisorLost(f"no answer to the offer within {PUBLISH_TIMEOUT:.0f} s", retry_after=1.0) from None
        finally:
            del self._answers[request]

    async def patch(self, sink: str, publication: str, fragment: str, *, restart: bool) -> str:
        """Tell the sink of a change of the ICE session there; its own end of one that was restarted.

        Raises PublishRefused. Where there is no supervisor, or it is replaced before it has answered, the next one is
        told. For how long to wait is the caller's business.
        """
        while True:
            try:
                return await self._patch(sink, publication, fragment, restart=restart)
            except SupervisorLost as error:
                log.info("an ICE session at %s is changed once more: %s", sink, error.message)

    async def _patch(self, sink: str, publication: str, fragment: str, *, restart: bool) -> str:
        request = next(self._requests)
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._patched[request] = waiter
        message = PatchSession(request=request, publication=publication, sink=sink, fragment=fragment, restart=restart)
        try:
            self.send(message)  # where nobody takes it, the next welcome ends the waiting
            return await waiter
        finally:
            del self._patched[request]

    def welcomed(self, supervisor: str) -> bool:
        """A supervisor has taken this worker's hello: whether it knows nothing of what was asked before, which is asked
        again then. That is so of another one, and may be of the same one after the connection to it was lost.
        """
        same = bool(supervisor) and supervisor == self._supervisor
        if same and not self._anew:
            return False  # a hello was said again before its welcome had come
        words = "the connection to it was lost" if same else "it was replaced"
        self._supervisor, self._anew = supervisor, False
        waiters: list[asyncio.Future[Any]] = [*self._answers.values(), *self._patched.values()]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(SupervisorLost(f"the supervisor has not answered, as {words}", retry_after=0.0))
        return True

    async def _watch(self, socket: zmq.Socket[bytes], endpoint: str, monitor: zmq.asyncio.Socket) -> None:
        """Follow a socket's connection and see that it comes back; runs until cancelled.

        libzmq takes a refusal, and an answer that is none of ZeroMQ's, for final. While a supervisor is away another
        program may have its port, or one that does not know the key. Nor does it end a connection to a supervisor that
        stands still, or that commands no more and does not know its successor: the one at whose name it is looked for.
        """
        limit: float | None = _CONNECT_AGAIN
        times, refused, heard, quiet = 0, False, 0, 0
        while True:
            try:
                async with asyncio.timeout(_LOOK if limit is None else limit):
                    event = parse_monitor_message(await monitor.recv_multipart())["event"]
            except TimeoutError:
                if limit is None:
                    heard, quiet = self._heard, quiet + 1 if heard == self._heard else 0
                    if not self.beats or quiet < _SILENT:
                        continue
                    if socket is self._control:
                        log.warning("the supervisor is silent: connecting anew")
                        self._lost()
                    limit, quiet = _ELSEWHERE_AGAIN, 0
                else:
                    limit = min(2 * limit, _CONNECT_AGAIN)
                with contextlib.suppress(zmq.ZMQError):  # there may be nothing left to disconnect
                    socket.disconnect(endpoint)
                socket.connect(endpoint)
                continue
            if event == zmq.EVENT_DISCONNECTED:
                if limit is None and socket is self._control:
                    self._lost()
                limit = limit or _CONNECT_AGAIN
            elif event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                if not refused:
                    log.warning("what listens at %s refuses this worker", endpoint)
                limit, refused = _REFUSED_AGAIN, True
            else:
                limit, times, refused = None, times + 1, False
                if times > 1 and socket is self._control:
                    self._back()

    def _back(self) -> None:
        log.info("connected to the supervisor again")
        self._anew = True
        try:
            self._reconnected()
        except Exception:
            # The connection has to be watched all the same.
            log.exception("telling of the connection failed")

    def _receive(self, frame: bytes) -> None:
        message = self._reader.decode(frame)
        if message is None:
            return
        self._heard += 1
        try:
            self._dispatch(message)
        except Exception:
            # No message may interrupt the media.
            log.exception("handling %s failed", type(message).__name__)

    def _dispatch(self, message: FromSupervisor) -> None:
        if isinstance(message, SupervisorBeat):
            return
        if isinstance(message, protocol.PublishAnswer | protocol.PublishFailed):
            waiter = self._answers.get(message.request)
            if waiter is None or waiter.done():
                return
            if isinstance(message, protocol.PublishAnswer):
                waiter.set_result(message)
            else:
                waiter.set_exception(PublishRefused(message.reason, message.retry_after))
            return
        if isinstance(message, SessionPatched):
            patched = self._patched.get(message.request)
            if patched is not None and not patched.done() and message.reason:
                patched.set_exception(PublishRefused(message.reason, 0.0))
            elif patched is not None and not patched.done():
                patched.set_result(message.fragment)
            return
        self._handler(message)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"undelivered": self.undelivered}
