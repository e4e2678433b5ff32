"""The supervisor's end of the bus: a ROUTER for control and a SUB for stats.

Control over `ipc://` in the runtime directory. Losing stats is fine, so their queue is short; a control message
to a worker that is gone is counted, not raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from pathlib import Path
from typing import Protocol

import zmq
import zmq.asyncio

from relay_common import wire
from relay_common.clock import SystemClock
from relay_common.protocol import FromSupervisor, FromWorker, Heartbeat, LogLine
from relay_common.worker_stats import WorkerStats
from relay_supervisor.socket_file import SocketFile
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)

STATS_QUEUE = 64
CONTROL_QUEUE = 1000


class BusListener(Protocol):
    """Receiver of workers' messages."""

    def on_message(self, instance: str, message: FromWorker) -> None:
        """A worker sent a message."""

    def on_stats(self, stats: WorkerStats) -> None:
        """A worker sent its statistics."""


class Bus:
    """Receives from all workers, sends to one by its instance id.

    `undeliverable` counts messages to workers that were not connected.
    """

    def __init__(self, directory: Path, loops: Loops | None = None) -> None:
        self.control_endpoint = f"ipc://{directory}/control.sock"
        self.stats_endpoint = f"ipc://{directory}/stats.sock"
        self._listener: BusListener | None = None
        self._context: zmq.asyncio.Context | None = None
        self._control: zmq.asyncio.Socket
        self._stats: zmq.asyncio.Socket
        self._control_reader = wire.supervisor_reader()
        self._stats_reader = wire.stats_reader()
        self._loops = loops or Loops(SystemClock())
        self._tasks: list[asyncio.Task[None]] = []
        self.reading = False
        """Whether workers' messages are being received: while they are not, silence means nothing."""
        self.undeliverable = 0
        self._files = {
            name: SocketFile(Path(endpoint.removeprefix("ipc://")), functools.partial(self._bind, endpoint))
            for name, endpoint in (("bus", self.control_endpoint), ("bus statistics", self.stats_endpoint))
        }

    @property
    def refused(self) -> int:
        """Frames that were oversized, malformed or of an unknown type."""
        readers = (self._control_reader, self._stats_reader)
        return sum(r.oversized + r.malformed + r.unknown for r in readers)

    def listen(self, listener: BusListener) -> None:
        """Pass workers' messages to `listener`."""
        self._listener = listener

    async def start(self) -> None:
        """Bind both sockets and start receiving; raises zmq.ZMQError when they cannot be created."""
        self._context = zmq.asyncio.Context()
        self._control, self._stats = self._context.socket(zmq.ROUTER), self._context.socket(zmq.SUB)
        for socket, endpoint, queue in (
            (self._control, self.control_endpoint, CONTROL_QUEUE),
            (self._stats, self.stats_endpoint, STATS_QUEUE),
        ):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, queue)
            socket.setsockopt(zmq.SNDHWM, queue)
            socket.setsockopt(zmq.MAXMSGSIZE, 4 * 1024 * 1024)
            if socket is self._control:
                # Without it a message to an unknown peer vanishes; with handover a restarted peer keeps its name.
                socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
                socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            else:
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            self._bind_private(socket, endpoint)
        self._tasks = [
            self._loops.start("bus", self._receive_control),
            self._loops.start("bus statistics", self._receive_stats),
            *(self._loops.start(f"{name} socket file", file.keep) for name, file in self._files.items()),
        ]

    async def stop(self) -> None:
        """Close both sockets; connected workers notice by silence and keep trying to reconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._context is None:
            return
        self._context.destroy(linger=0)
        self._context = None
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.path.unlink()

    async def _bind(self, endpoint: str) -> None:
        """Bind again without unbinding, which would disconnect the workers."""
        self._bind_private(self._control if endpoint == self.control_endpoint else self._stats, endpoint)

    @staticmethod
    def _bind_private(socket: zmq.asyncio.Socket, endpoint: str) -> None:
        socket.bind(endpoint)
        Path(endpoint.removeprefix("ipc://")).chmod(0o600)  # until then the directory, 0700, keeps others out

    def send(self, instance: str, message: FromSupervisor) -> bool:
        """Queue `message` for a worker; False (and counted) when it is not connected or its queue is full."""
        log.debug("> %s", type(message).__name__, extra={"instance": instance})
        if self._context is None:
            self.undeliverable += 1
            return False
        sending = self._control.send_multipart([instance.encode(), wire.encode(message)], flags=zmq.DONTWAIT)
        if wire.delivered(sending):
            return True
        self.undeliverable += 1
        return False

    async def _receive_control(self) -> None:
        self.reading = True
        try:
            while True:
                frames = await self._control.recv_multipart()
                if len(frames) != 2:
                    self._control_reader.malformed += 1
                    continue
                message = self._control_reader.decode(frames[1])
                if message is not None:
                    self._dispatch(frames[0].decode("ascii", "replace"), message)
        finally:
            self.reading = False

    def _dispatch(self, instance: str, message: FromWorker) -> None:
        if not isinstance(message, Heartbeat | LogLine):
            log.debug("< %s", type(message).__name__, extra={"instance": instance})
        try:
            if self._listener is not None:
                self._listener.on_message(instance, message)
        except Exception:
            # One worker's message must never stop the bus for the others.
            log.exception("handling %s failed", type(message).__name__, extra={"instance": instance})

    async def _receive_stats(self) -> None:
        while True:
            stats = self._stats_reader.decode(await self._stats.recv())
            if stats is not None and self._listener is not None:
                try:
                    self._listener.on_stats(stats)
                except Exception:
                    log.exception("handling stats failed", extra={"instance": stats.instance})

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"rebound": sum(file.rebound for file in self._files.values()), "undeliverable": self.undeliverable}
