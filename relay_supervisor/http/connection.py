"""uvicorn's HTTP/1.1 connection, bounded: who may connect, and how long receiving and sending may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from relay_supervisor.http.addresses import TrustedProxies, share_of
from relay_supervisor.http.admission import Admission


class ClientTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long, in seconds, a client may keep a connection waiting."""

    header: float = 10.0
    """From connecting, or from the first byte of a further request, to the end of the request's header."""
    read: float = 30.0
    """While its socket is full and it reads nothing."""


_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\nToo many connections\n"
)


class BoundedConnection(H11Protocol):
    """One connection; `bounds` decides whether it stays, and counts its violations."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: Admission[BoundedConnection],
        proxies: TrustedProxies,
        timeouts: ClientTimeouts,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds, self._proxies, self._timeouts = bounds, proxies, timeouts
        self._header_due: asyncio.TimerHandle | None = None
        self._read_due: asyncio.TimerHandle | None = None

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _whole_request(self) -> bool:
        """Whether a request has come to its end: until then nothing is lost by making room for another's."""
        return self._answering and self.conn.their_state is not h11.SEND_BODY

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        # A proxy's clients are counted one by one, by the addresses it reports (see guard.py).
        admitted, idle = self._bounds.admit(self, "" if peer in self._proxies else share_of(peer))
        if idle is not None:
            idle.transport.abort()
        if not admitted:
            transport.write(_FULL)
            transport.close()
            return
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.gone(self)
        self._stop_expecting()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._answering and self._header_due is None:
            self._expect_header()
        super().data_received(data)
        if self._answering:
            self._stop_expecting()
        if self._whole_request:
            self._bounds.busy(self)

    def on_response_complete(self) -> None:
        self._bounds.idle(self)
        super().on_response_complete()
        if self._answering:  # a request was waiting behind the one that was answered
            if self._whole_request:
                self._bounds.busy(self)
        elif self.conn.trailing_data[0] and not self.transport.is_closing():  # the beginning of one
            self._expect_header()

    def send_400_response(self, msg: str) -> None:
        self._bounds.invalid += 1
        super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_due is None:
            self._read_due = self.loop.call_later(self._timeouts.read, self._unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def _expect_header(self) -> None:
        self._header_due = self.loop.call_later(self._timeouts.header, self._late)

    def _late(self) -> None:
        self._bounds.late += 1
        self.transport.abort()

    def _unread(self) -> None:
        self._bounds.stuck += 1
        self.transport.abort()

    def _stop_expecting(self) -> None:
        if self._header_due is not None:
            self._header_due.cancel()
            self._header_due = None

    def _stop_waiting(self) -> None:
        if self._read_due is not None:
            self._read_due.cancel()
            self._read_due = None
