"""The UDP port on which a camera's viewers are answered: a socket for each address, all with the same number."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.announced import announced
from relay_common.clock import Clock
from relay_worker.local.ice import UdpSource
from relay_worker.webrtc.transport import MAX_DATAGRAM, MAX_READS, default_host_addresses

RECEIVE_BUFFER: Final = 256 * 1024
ATTEMPTS: Final = 8
"""Ports tried until one is free on every address."""


class LocalPorts:
    """Opens the sockets and reads from them. `on_datagram` gets what comes, with the time by `clock`."""

    def __init__(self, on_datagram: Callable[[bytes, UdpSource, float], None], clock: Clock) -> None:
        self._on_datagram, self._clock = on_datagram, clock
        self._sockets: list[socket.socket | None] = []
        self._addresses: list[str] = []
        self._announce: list[str] = []
        self.port = 0
        """0: none is open."""
        self.problem = ""
        """Why none is open, or not one for every address, in words."""
        self.unsent = 0
        """Datagrams of ICE and DTLS that a socket did not take."""

    def open(self, addresses: Sequence[str], port: int, announce: Sequence[str]) -> None:
        """Listen on this port (0: any free one) of these addresses; `problem` says what of it failed."""
        self.close()
        self._addresses, self._announce = list(addresses), list(announce)
        for _ in range(1 if port else ATTEMPTS):
            self._close_sockets()
            self._bind(port)
            if not self.problem:
                break
        loop = asyncio.get_running_loop()
        for place, sock in enumerate(self._sockets):
            if sock is not None:
                loop.add_reader(sock.fileno(), self._readable, place, sock)

    def _bind(self, port: int) -> None:
        self._sockets, self.port, failed = [], port, []
        for address in self._addresses:
            try:
                sock = _listen(address, self.port)
            except OSError as error:
                failed.append(f"{address}: {error.strerror or error}")
                self._sockets.append(None)
                continue
            self._sockets.append(sock)
            self.port = sock.getsockname()[1]
        if not any(self._sockets):
            self.port = 0
        where = f" port {port}" if port else ""
        self.problem = f"cannot listen on UDP{where} of {'; '.join(failed)}" if failed else ""

    def _readable(self, place: int, sock: socket.socket) -> None:
        now = self._clock.now()
        for _ in range(MAX_READS):
            try:
                data, address = sock.recvfrom(MAX_DATAGRAM)
            except OSError:  # nothing more to read, or it was closed
                return
            if data:
                self._on_datagram(data, UdpSource(place, address), now)

    def announce(self, announce: Sequence[str]) -> None:
        """Name these addresses from now on."""
        self._announce = list(announce)

    def reachable_at(self) -> list[tuple[str, int]]:
        """Address and port of each candidate: those that are announced, or those that are listened on."""
        if self._announce:
            return [(host, port or self.port) for host, port in map(announced, self._announce)]
        open_on = [address for address, sock in zip(self._addresses, self._sockets, strict=True) if sock is not None]
        named = [address for address in open_on if not ipaddress.ip_address(address).is_unspecified]
        if len(named) < len(open_on):
            versions = {ipaddress.ip_address(address).version for address in open_on if address not in named}
            hosts = default_host_addresses()
            named += [host for host in hosts if ipaddress.ip_address(host).version in versions and host not in named]
        return [(address, self.port) for address in named]

    def socket_of(self, source: UdpSource) -> socket.socket | None:
        """The socket that datagrams from there come to."""
        return self._sockets[source.port] if source.port < len(self._sockets) else None

    def send(self, datagram: bytes, to: UdpSource) -> None:
        """Send now or never."""
        sock = self.socket_of(to)
        try:
            if sock is not None:
                sock.sendto(datagram, to.address)
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        """Close all sockets."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            if sock is not None:
                loop.remove_reader(sock.fileno())
        self._close_sockets()
        self._addresses, self._sockets, self.problem = [], [], ""

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            if sock is not None:
                sock.close()
        self.port = 0


def _listen(address: str, port: int) -> socket.socket:
    family, kind, _, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock
