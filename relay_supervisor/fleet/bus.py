"""The supervisor's end of the bus: control and stats of all workers, each known by its key.

Over `ipc://` in the runtime directory and, for workers on other machines, over TCP as well. Every connection is
authenticated (`zap.py`), and a message counts as coming from the instance whose key its connection was authenticated
with. Routing ids and names in a message are chosen by the peer: they are compared with that, never believed. Losing
stats is fine, so their queue is short; a control message to a worker that is gone is counted, not raised.

Workers of a release without keys know the old sockets, which are bound only while the state database knows such workers
and authenticate by process. They go with the release after this one. Over TCP there are none.
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
from relay_common.clock import Clock, SystemClock
from relay_common.config_cluster import binding_advice
from relay_common.disk import DiskWork
from relay_common.errors import ConfigError
from relay_common.proc import ref_of
from relay_common.protocol import FromSupervisor, FromWorker, Heartbeat, Hello, LogLine
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.bus_sockets import BusSockets, Doorkeeper, Letter, socket_file
from relay_supervisor.fleet.handshakes import Handshakes
from relay_supervisor.fleet.keyring import Keyring, Member
from relay_supervisor.fleet.refusals import BusRefusal, Refusals
from relay_supervisor.fleet.zap import ZapHandler, peer_pid
from relay_supervisor.socket_file import SocketFile
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)


class BusListener(Protocol):
    """Receiver of workers' messages."""

    def on_message(self, instance: str, message: FromWorker) -> None:
        """A worker sent a message."""

    def on_stats(self, stats: WorkerStats) -> None:
        """A worker sent its statistics."""


class Bus:
    """Receives from all workers in `keyring`, sends to one by its instance id.

    `network` are the endpoints for workers on other machines, if there are to be any. `undeliverable` counts messages
    to workers that were not connected.
    """

    def __init__(
        self,
        directory: Path,
        keyring: Keyring | None = None,
        loops: Loops | None = None,
        clock: Clock | None = None,
        network: tuple[str, str] | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.keyring = keyring or Keyring()
        self.keyed = BusSockets("bus", f"ipc://{directory}/bus.sock", f"ipc://{directory}/bus-stats.sock")
        self.unkeyed = BusSockets("keyless bus", f"ipc://{directory}/control.sock", f"ipc://{directory}/stats.sock")
        self.network = BusSockets("bus over TCP", *network) if network is not None else None
        self.refusals, self._clock = Refusals(clock), clock
        self._zap = ZapHandler(self.keyring, self.refusals, ref_of)
        self._listener: BusListener | None = None
        self._context: zmq.asyncio.Context | None = None
        self._control_reader = wire.supervisor_reader()
        self._stats_reader = wire.stats_reader()
        self._loops = loops or Loops(clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._served: dict[str, BusSockets] = {}
        self._read: list[BusSockets] = []
        self.undeliverable = 0
        self._files: list[SocketFile] = []
        self._disk = DiskWork("bus key")

    @property
    def reading(self) -> bool:
        """Whether all workers' messages are being received: while they are not, silence means nothing."""
        return bool(self._served) and len(self._read) == len(self._served)

    @property
    def refused(self) -> int:
        """Frames that were oversized, malformed or of an unknown type."""
        readers = (self._control_reader, self._stats_reader)
        return sum(r.oversized + r.malformed + r.unknown for r in readers)

    def ends(self, *, remote: bool) -> BusSockets:
        """What workers connect to, on this machine or on others; raises ConfigError where there is nothing."""
        if not remote:
            return self.keyed
        if self.network is None:
            raise ConfigError("workers on other machines need an address to connect to: set cluster.bus_listen")
        return self.network

    def listen(self, listener: BusListener) -> None:
        """Pass workers' messages to `listener`."""
        self._listener = listener

    async def start(self) -> None:
        """Bind the sockets and start receiving; workers of an earlier run must be in the keyring by now.

        Raises ConfigError without CURVE or when an address cannot be listened on, zmq.ZMQError when the files of the
        sockets cannot be created.
        """
        self.keyring.open()
        context = self._context = zmq.asyncio.Context()
        self._tasks = [self._loops.start("bus keys", Doorkeeper(context, self._zap).run)]
        if self.keyring.file is not None:
            self._keep("bus key file", SocketFile(self.keyring.file, self._keep_key))
        self._serve(self.keyed, context)
        if self.keyring.has_unkeyed:
            self._serve(self.unkeyed, context)
        if self.network is not None:
            self._serve_network(self.network, context)

    def _serve_network(self, network: BusSockets, context: zmq.asyncio.Context) -> None:
        try:
            self._serve(network, context)
        except zmq.ZMQError as error:
            first, second = (endpoint.rpartition("/")[2] for endpoint in network.endpoints)
            raise ConfigError(
                f"[cluster] bus_bind or bus_listen: cannot listen on {first} and {second} ({error.strerror})",
                hint=binding_advice(
                    network.control_endpoint,
                    "Choose an address of this machine, and a port that is free like the one after it",
                ),
            ) from error

    def _serve(self, sockets: BusSockets, context: zmq.asyncio.Context) -> None:
        sockets.open(context, self.keyring.secret if sockets is not self.unkeyed else None, self._clock)
        self._served[sockets.name] = sockets
        start, names = self._loops.start, (sockets.name, f"{sockets.name} statistics")
        self._tasks += [
            start(names[0], functools.partial(self._receive_control, sockets)),
            start(names[1], functools.partial(self._receive_stats, sockets)),
        ]
        for name, endpoint, shaken in zip(names, sockets.endpoints, sockets.handshakes, strict=True):
            self._tasks.append(start(f"{name} handshakes", functools.partial(self._count_failed, sockets, shaken)))
            if (file := socket_file(endpoint)) is not None:
                bind = functools.partial(self._bind, sockets, endpoint)
                self._keep(f"{name} socket file", SocketFile(file, bind))

    def _keep(self, name: str, file: SocketFile) -> None:
        self._files.append(file)
        self._tasks.append(self._loops.start(name, file.keep))

    async def stop(self) -> None:
        """Close the sockets; connected workers notice by silence and keep trying to reconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._context is None:
            return
        self._context.destroy(linger=0)
        self._context = None
        for file in self._files:
            if file.path != self.keyring.file:
                with contextlib.suppress(OSError):
                    file.path.unlink()
        self._files.clear()
        self._served.clear()

    async def _bind(self, sockets: BusSockets, endpoint: str) -> None:
        sockets.bind(endpoint)

    async def _keep_key(self) -> None:
        await self._disk.do(self.keyring.write)  # what prevents it is logged once by who calls this

    def send(self, instance: str, message: FromSupervisor) -> bool:
        """Queue `message` for a worker; False (and counted) when it is not connected or its queue is full."""
        log.debug("> %s", type(message).__name__, extra={"instance": instance})
        member = self.keyring.named(instance)
        sockets = self._served.get(member.over) if member is not None else None
        if (
            member is not None
            and sockets is not None
            and member.address
            and sockets.send(member.address, wire.encode(message))
        ):
            return True
        self.undeliverable += 1
        return False

    # --- who it is ---------------------------------------------------------------------------------------------

    async def _count_failed(self, sockets: BusSockets, handshakes: Handshakes) -> None:
        while True:
            self.refusals.add(await handshakes.failed(), sockets.whence)

    def _speaker(self, letter: Letter) -> Member | None:
        """Whose key the connection of a message was authenticated with; None when that worker has ended."""
        member = self.keyring.member(letter.credential)
        if member is None:
            self.refusals.add(BusRefusal.ENDED)
        return member

    def _may_be_called(self, member: Member, address: bytes) -> bool:
        """Whether the routing id is nobody else's name or address."""
        if member.address == address:
            return True
        other = self.keyring.named(address.decode("ascii", "replace")) or self.keyring.at(address)
        if other is member or (other is None and member.keyed):  # without a key the name is the routing id
            return True
        if other is not None and other.address == address:
            other.address = b""  # taken from it: nothing goes there until it has spoken again
        return False

    def _is(self, member: Member, message: FromWorker, letter: Letter) -> bool:
        """Whether a worker speaks of itself: its hello names its own instance and camera, and its process where the
        kernel knows that. What is called a process on another machine says nothing here.
        """
        if not isinstance(message, Hello):
            return True
        pid = peer_pid(letter.peer)
        named = (message.instance, message.camera) == (member.instance, member.camera)
        return named and pid in (0, message.pid)

    def _refuse(self, member: Member) -> None:
        self.refusals.add(BusRefusal.ANOTHERS_NAME, f"from {member.instance}")

    # --- what it says ------------------------------------------------------------------------------------------

    async def _receive_control(self, sockets: BusSockets) -> None:
        self._read.append(sockets)
        try:
            while True:
                letter = await sockets.receive_control()
                if len(letter.frames) != 2:
                    self._control_reader.malformed += 1
                    continue
                member = self._speaker(letter)
                address, body = letter.frames
                message = self._control_reader.decode(body) if member is not None else None
                if member is None or message is None:
                    continue
                if self._may_be_called(member, address) and self._is(member, message, letter):
                    member.address, member.over = address, sockets.name
                    self._dispatch(member.instance, message)
                    if isinstance(message, Heartbeat) and message.report:
                        self._read_report(member, message.report)
                else:
                    self._refuse(member)
        finally:
            self._read.remove(sockets)

    def _dispatch(self, instance: str, message: FromWorker) -> None:
        if not isinstance(message, Heartbeat | LogLine):
            log.debug("< %s", type(message).__name__, extra={"instance": instance})
        try:
            if self._listener is not None:
                self._listener.on_message(instance, message)
        except Exception:
            # One worker's message must never stop the bus for the others.
            log.exception("handling %s failed", type(message).__name__, extra={"instance": instance})

    async def _receive_stats(self, sockets: BusSockets) -> None:
        while True:
            letter = await sockets.receive_stats()
            member = self._speaker(letter)
            if member is not None:
                self._read_report(member, letter.frames[-1])

    def _read_report(self, member: Member, body: bytes) -> None:
        stats = self._stats_reader.decode(body)
        if stats is None or self._listener is None:
            return
        if (stats.instance, stats.camera) != (member.instance, member.camera):
            self._refuse(member)
            return
        try:
            self._listener.on_stats(stats)
        except Exception:
            log.exception("handling stats failed", extra={"instance": stats.instance})

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "rebound": sum(file.rebound for file in self._files),
            "undeliverable": self.undeliverable,
            "crowded_out": sum(one.crowded_out for one in self.network.handshakes) if self.network is not None else 0,
            **self.refusals.counters(),
        }
