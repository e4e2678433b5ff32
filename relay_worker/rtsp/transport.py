"""TCP and TLS for an RTSP session: everything that has arrived is read in one wake-up.

TLS uses a memory BIO: one `recv` takes everything the socket has, and records are decrypted from memory. An `SSLSocket`
makes two system calls per record, and servers write up to four records per RTP packet.
"""

from __future__ import annotations

import _ssl
import asyncio
import functools
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from relay_common.clock import Clock
from relay_common.spoken import spoken
from relay_worker import native
from relay_worker.media.stream import WakeSink
from relay_worker.rtsp.errors import ConnectError, RtspStage, RtspTimeoutError

BUFFER_SIZE: Final = 256 * 1024
MAX_UNSENT: Final = 256 * 1024
"""Unsent bytes at which the connection is closed: the server is not reading."""

LOOKS_A_WRITE: Final = 5
"""Looks of which one writes: nobody waits for the answer to a key update, and a write is a good part of a look."""
_RECORD: Final = 16 * 1024 + 256

# A process has one loop and reads in one place at a time, so one buffer serves every connection.
_buffer = bytearray(BUFFER_SIZE)
_view = memoryview(_buffer)


@functools.cache
def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that verifies the server against the system's authorities, or against those in `ca_file` alone.

    Made once a process: reading the system's authorities takes some 20 ms and megabytes, at every reconnect.
    """
    return ssl.create_default_context(cafile=ca_file)


def plain_read(tls: ssl.SSLObject) -> Callable[[int], bytes]:
    """Its `read`, without the Python around OpenSSL's where the standard library is as it was."""
    read: Callable[[int], bytes] = getattr(getattr(tls, "_sslobj", tls), "read", tls.read)
    return read


def wrapped(
    compiled: native.Compiled | None,
    context: ssl.SSLContext,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    host: str,
) -> tuple[ssl.SSLObject, object | None]:
    """TLS with `host` over these, and what compiled code reads it by where it can: with OpenSSL 3, as a library."""
    wrap = functools.partial(context.wrap_bio, incoming, outgoing, server_hostname=host)
    file = getattr(_ssl, "__file__", None)
    if compiled is None or file is None or not ssl.OPENSSL_VERSION.startswith("OpenSSL 3."):
        return wrap(), None
    return compiled.watch_tls(file, wrap)


class Connection:
    """One connected socket; `on_data(bytes)` is called once per wake, `on_closed(error)` once at the end.

    `on_closed` gets None when the server closed the connection in order. Nothing is called after `close`. `known` is
    what compiled code reads `tls` by.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLObject | None,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        known: object | None = None,
    ) -> None:
        self._sock = sock
        self._tls, self._incoming, self._outgoing, self._known = tls, incoming, outgoing, known
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._on_data: Callable[[bytes], None] | None = None
        self._on_closed: Callable[[Exception | None], None] | None = None
        self._wakes = self._looked_at = self._looks = 0
        self._reader: native.Reader | None = None

    def start(self, on_data: Callable[[bytes], None], on_closed: Callable[[Exception | None], None]) -> None:
        """Start delivering. `on_data` may call `write` and `close`."""
        self._on_data, self._on_closed = on_data, on_closed
        self._loop.add_reader(self._sock.fileno(), self._readable)
        # Data that arrived with the end of the TLS handshake is already in memory and will not wake the socket.
        if self._tls is not None and (self._incoming.pending or self._tls.pending()):
            self._loop.call_soon(self._deliver_pending)

    def read_by(
        self,
        compiled: native.Compiled,
        clock: Clock,
        sink: WakeSink,
        session: object,
        source: object,
        take: Callable[[bytes, float, int | None, Exception | None], None],
    ) -> None:
        """Have compiled code read from now on and give what is plain to the sink's `wake`; `take` gets the rest.

        See `native.ReaderParts`. It replaces `on_data`.
        """
        if self._sock.fileno() < 0:
            return
        parts = native.ReaderParts(_buffer, clock.now, sink, session, source, self._ended, self._go_on, take)
        if self._tls is not None:
            parts = parts._replace(
                incoming=self._incoming,
                outgoing=self._outgoing,
                read=plain_read(self._tls),
                write=self._incoming.write,
                record=_RECORD,
                refusal=ssl.SSLError,
                wanting=ssl.SSLWantReadError,
                tls=self._known,
            )
        self._on_data = lambda data: take(data, clock.now(), None, None)
        self._reader = compiled.Reader(self._sock.fileno(), parts)
        self._loop.add_reader(self._sock.fileno(), self._reader.read)

    def write(self, data: bytes) -> None:
        """Send, or queue, `data`; a failure ends the connection through `on_closed`."""
        if not data or self._sock.fileno() < 0:
            return
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._send(data)

    def close(self) -> None:
        """Send close_notify without waiting for an answer, and close."""
        if self._sock.fileno() < 0:
            return
        self._on_data = self._on_closed = None
        if self._reader is not None:
            self._wakes += self._reader.wakes()
            self._reader.close()
            self._reader = None
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        try:
            if self._tls is not None:
                try:
                    self._tls.unwrap()
                except ssl.SSLError:
                    pass
                if not self._unsent:
                    self._sock.send(self._outgoing.read())
        except OSError:
            pass
        self._sock.close()

    def look(self) -> None:
        """Read if nothing has come since the last look; call it about once a second. Answers a key update within five.

        OpenSSL answers a key update of TLS 1.3 at the next write; an empty one sends nothing else (RFC 8446 §4.6.3).
        libuv ends the watching of a socket with an error after one last call (uvloop's `UVPoll._fatal_error`). Where
        that call found data in front of the reset, nothing would ever tell of the reset.
        """
        if self._tls is not None and not self._looks % LOOKS_A_WRITE and self._sock.fileno() >= 0:
            self._tls.write(b"")
            self._send_pending()
        self._looks += 1
        if self._arrived() == self._looked_at:
            self._readable()
        self._looked_at = self._arrived()

    def _arrived(self) -> int:
        """Wakes that have brought something."""
        return self._wakes + (self._reader.wakes() if self._reader is not None else 0)

    def _readable(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            size = self._sock.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(error)
            return
        if not size:
            self._finish(None)
        elif self._tls is None:
            self._deliver(bytes(_view[:size]))
        else:
            self._incoming.write(_view[:size])
            self._decrypt(self._tls)

    def _deliver_pending(self) -> None:
        if self._tls is not None and self._sock.fileno() >= 0:
            self._decrypt(self._tls)

    def _ended(self, number: int) -> None:
        """The socket has come to its end, by this errno or in order."""
        self._finish(OSError(number, os.strerror(number)) if number else None)

    def _go_on(self, record: bytes, problem: ssl.SSLError | None) -> None:
        """Compiled code has decrypted these records, and got this instead of another, or has something to send."""
        if self._tls is not None and self._sock.fileno() >= 0:
            self._decrypt(self._tls, record, problem)

    def _decrypt(self, tls: ssl.SSLObject, record: bytes | None = None, problem: ssl.SSLError | None = None) -> None:
        """Decrypt the complete records in memory and pass them on, behind `record` if there is one."""
        records: list[bytes] = []
        ended: Exception | None = None
        closed = False
        try:
            if problem is not None:
                records += [record] if record else []
                raise problem
            while True:
                if record is None:
                    record = tls.read(_RECORD)
                if not record:
                    closed = True
                    break
                records.append(record)
                record = None
                if not self._incoming.pending:  # asking is cheaper than an SSLWantReadError per wake-up
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            closed = True
        except ssl.SSLError as error:
            closed, ended = True, error
        self._send_pending()  # an alert
        if records:
            self._deliver(records[0] if len(records) == 1 else b"".join(records))
        if closed:
            self._finish(ended)

    def _deliver(self, data: bytes) -> None:
        self._wakes += 1
        if self._on_data is not None:
            self._on_data(data)

    def _send_pending(self) -> None:
        """Send what OpenSSL itself has to say."""
        if self._outgoing.pending:
            self._send(self._outgoing.read())

    def _send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > MAX_UNSENT:
                self._finish(OSError("the server does not read what is sent to it"))
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._finish(error)
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        data, self._unsent = bytes(self._unsent), bytearray()
        self._loop.remove_writer(self._sock.fileno())
        self._send(data)

    def _finish(self, error: Exception | None) -> None:
        on_closed = self._on_closed
        self.close()
        if on_closed is not None:
            on_closed(error)


async def connect(host: str, port: int, context: ssl.SSLContext | None, timeout: float) -> Connection:
    """Resolve, connect and (with `context`) do the TLS handshake, all within `timeout` seconds.

    Raises ConnectError or RtspTimeoutError.
    """
    stage = RtspStage.RESOLVE
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout):
            addresses = await _resolve(host, port)
            stage = RtspStage.CONNECT
            sock = await _connect_any(addresses, host, port, timeout)
            stage = RtspStage.TLS
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = known = None
            if context is not None:
                tls, known = wrapped(native.compiled(), context, incoming, outgoing, host)
                await _handshake(tls, sock, incoming, outgoing, host)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, TimeoutError):
            raise RtspTimeoutError(stage, f"no connection to {host}:{port} within {timeout:g} s") from None
        raise
    return Connection(sock, tls, incoming, outgoing, known)


async def _resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """Addresses to try, families alternating (RFC 8305 §4)."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectError(RtspStage.RESOLVE, f"{host}: {spoken(error)}") from None
    addresses: list[tuple[int, Any]] = [(family, address) for family, _, _, _, address in found]
    first = addresses[0][0]
    own, other = ([a for a in addresses if (a[0] == first) is same] for same in (True, False))
    mixed = [entry for pair in zip(own, other, strict=False) for entry in pair]
    return mixed + own[len(mixed) // 2 :] + other[len(mixed) // 2 :]


async def _connect_any(addresses: list[tuple[int, Any]], host: str, port: int, timeout: float) -> socket.socket:
    """The first address that answers; each but the last gets half of the remaining time."""
    loop = asyncio.get_running_loop()
    problem: Exception = ConnectError(RtspStage.CONNECT, f"{host} has no address")
    deadline = loop.time() + timeout
    for index, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        left = deadline - loop.time()
        try:
            async with asyncio.timeout(left if index == len(addresses) - 1 else left / 2):
                await loop.sock_connect(sock, address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    if isinstance(problem, TimeoutError):
        raise problem
    raise ConnectError(RtspStage.CONNECT, f"{host}:{port}: {spoken(problem)}") from None


def _certificate_hint(code: int) -> str:
    """What to do about a certificate that fails verification (OpenSSL's X509_V_ERR codes)."""
    if code in (9, 10):  # not yet valid, expired
        return "Compare this machine's clock with the certificate's dates"
    if code in (62, 64):  # another name, another address
        return "Use the name in the URL for which the certificate was made"
    return "A self-signed or private certificate is trusted if its file is given: rtsp.ca_file, or --ca-file of `debug`"


async def _handshake(
    tls: ssl.SSLObject, sock: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, host: str
) -> None:
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            if outgoing.pending:
                await loop.sock_sendall(sock, outgoing.read())
            if done:
                return
            data = await loop.sock_recv(sock, BUFFER_SIZE)
            if not data:
                raise ConnectError(RtspStage.TLS, f"{host} closed the connection during the TLS handshake")
            incoming.write(data)
    except ssl.SSLCertVerificationError as error:
        raise ConnectError(
            RtspStage.TLS,
            # In the message itself: whoever watches the first attempts should not wait for the last one to read it.
            f"the certificate of {host} is not trusted: {error.verify_message}. {_certificate_hint(error.verify_code)}",
        ) from None
    except (ssl.SSLError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise ConnectError(RtspStage.TLS, f"{host}: {spoken(error)}") from None
