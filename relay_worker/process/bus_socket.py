"""A socket of the bus on the loop, without a task, a future or a timer for each message, as zmq.asyncio has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import zmq

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""Messages that are handled before the loop has its turn."""
_RECEIVE_AGAIN = 1.0
"""Seconds after which a failure to receive is tried again: a worker that receives nothing could not even be stopped."""


class BusSocket:
    """Gives each message that comes to `socket` to `received`, which must not raise; sends without waiting.

    The socket's descriptor becomes readable when something has changed, and says so once, whoever looks first: also a
    send takes notice of what has come meanwhile (zmq_getsockopt(3), ZMQ_FD). So each send is followed by a look.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Callable[[bytes], None]) -> None:
        self._socket, self._received = socket, received
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._next: asyncio.Handle | None = None
        """The next look, where one is due although the descriptor may say nothing."""
        self._writable: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Receive from now on. May be called again."""
        if self._loop is None:
            self._loop, self._fd = asyncio.get_running_loop(), int(self._socket.getsockopt(zmq.FD))
            self._loop.add_reader(self._fd, self._look)
            self._next = self._loop.call_soon(self._look)  # at what came before

    def close(self) -> None:
        """Receive no more; call it before the socket is closed."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._forget_next()
            self._loop = None

    def send(self, data: bytes) -> bool:
        """Send a message; False where it cannot be sent now, since nobody is connected or too much waits."""
        try:
            self._socket.send(data, zmq.DONTWAIT)
            sent = True
        except zmq.ZMQError:
            sent = False
        if self._loop is not None and self._next is None and self._events() & self._wanted():
            self._next = self._loop.call_soon(self._look)
        return sent

    async def until_writable(self, within: float) -> None:
        """Return when something can be sent, or after `within` seconds."""
        self.start()
        if self._events() & zmq.POLLOUT:
            return
        self._writable = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._writable], timeout=within)
        finally:
            self._writable = None

    def _events(self) -> int:
        return int(self._socket.get(zmq.EVENTS))

    def _wanted(self) -> int:
        return zmq.POLLIN if self._writable is None else zmq.POLLIN | zmq.POLLOUT

    def _forget_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        """Handle what has come."""
        self._forget_next()
        assert self._loop is not None
        try:
            for _ in range(AT_ONCE):
                events = self._events()
                if events & zmq.POLLOUT and self._writable is not None and not self._writable.done():
                    self._writable.set_result(None)
                if not events & zmq.POLLIN:
                    return
                self._received(self._socket.recv(zmq.DONTWAIT))
                if self._loop is None:  # closed by what it said
                    return
        except zmq.ZMQError as error:
            log.error("receiving from the supervisor failed: %s", error)
            self._next = self._loop.call_later(_RECEIVE_AGAIN, self._look)
            return
        self._next = self._loop.call_soon(self._look)
