"""The RTSP server in front of all simulated cameras: one port, TLS or plain TCP, RTP interleaved (RFC 2326).

An `Admit` function decides who may see which camera under which URL, so that the Nest simulator's streams, with their
rotating tokens and expiry, and plain password cameras are served alike.
"""

from __future__ import annotations

import asyncio
import random
import ssl

from relay_common.clock import Clock, SystemClock
from relay_common.simulation.camera.pump import Pump
from relay_common.simulation.camera.rtsp_connection import Connection
from relay_common.simulation.camera.rtsp_streams import Admit, StreamTable
from relay_common.simulation.camera.rtsp_wire import MAX_HEAD


class RtspServer:
    """Listens on one port and serves every camera that `admit` lets through."""

    def __init__(
        self,
        admit: Admit,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        self.host, self.port = host, port
        self.streams = StreamTable(admit)
        self._tls, self._clock = tls, clock or SystemClock()
        self._rng = random.Random(f"{seed}/rtsp")
        self._pump: Pump | None = None
        self._server: asyncio.Server | None = None
        self._clients: dict[Connection, asyncio.Task[None]] = {}

    @property
    def url(self) -> str:
        """Scheme, host and port of every stream URL."""
        return f"{'rtsps' if self._tls else 'rtsp'}://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; afterwards `port` is the actual one."""
        self._pump = Pump(asyncio.get_running_loop())
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every client at once."""
        if self._server is None or self._pump is None:
            return
        self._server.close()
        self._pump.close()
        tasks = list(self._clients.values())
        for client, task in self._clients.items():
            client.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self._pump is not None
        client = Connection(self.streams, self._pump, self._clock, self._rng, self.url, reader, writer)
        self._clients[client] = task
        try:
            await client.run()
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            del self._clients[client]
            client.end()
