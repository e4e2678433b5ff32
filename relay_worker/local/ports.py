"""The UDP port on which a camera's viewers are answered: a socket for each address, all with the same number.

Who sends to a socket on all addresses is answered from the address that it sent to (`destinations`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.announced import announced
from relay_common.clock import Clock
from relay_worker.local.destinations import Destination, open_beside, receive_from, tell_destinations, udp_socket
from relay_worker.local.ice import UdpSource
from relay_worker.webrtc.addresses import default_host_addresses
from relay_worker.webrtc.arrival import waited
from relay_worker.webrtc.incoming import MAX_DATAGRAM, MAX_READS

ATTEMPTS: Final = 8
"""Ports tried until one is free on every address."""
MAX_DESTINATIONS: Final = 16
"""Addresses of this machine that are told apart where it is listened on all of them."""


class LocalPorts:
    """Opens the sockets and reads from them. `on_datagram` gets what comes, with the time by `clock`."""

    def __init__(self, on_datagram: Callable[[bytes, UdpSource, float], None], clock: Clock) -> None:
        self._on_datagram, self._clock = on_datagram, clock
        self._sockets: list[socket.socket | None] = []
        """By place: those of `addresses`, then those of destinations, which are opened when one is answered."""
        self._destinations: dict[tuple[int, Destination], int] = {}
        """The place of each, by the place of the socket on all addresses that it was met at."""
        self._reading: socket.socket | None = None
        self._addresses: list[str] = []
        self._announce: list[str] = []
        self.port = 0
        """0: none is open."""
        self.problem = ""
        """Why none is open, or not one for every address, in words."""
        self.unsent = 0
        """Datagrams of ICE and DTLS that a socket did not take."""
        self.undirected = 0
        """Datagrams to more addresses of ours than are told apart."""

    def open(self, addresses: Sequence[str], port: int, announce: Sequence[str]) -> None:
        """Listen on this port (0: any free one) of these addresses; `problem` says what of it failed."""
        self.close()
        self._addresses, self._announce = list(addresses), list(announce)
        for _ in range(1 if port else ATTEMPTS):
            self._close_sockets()
            self._bind(port)
            if not self.problem:
                break
        for place, sock in enumerate(self._sockets):
            if sock is not None:
                self._read_from(place, sock)

    def _read_from(self, place: int, sock: socket.socket) -> None:
        loop, everywhere = asyncio.get_running_loop(), ipaddress.ip_address(sock.getsockname()[0]).is_unspecified
        loop.add_reader(sock.fileno(), self._readable_anywhere if everywhere else self._readable, place, sock)

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

    def waited(self) -> float:
        """Seconds that the datagram which is being handed over lay in its socket, unread."""
        return waited(self._reading)

    def _readable(self, place: int, sock: socket.socket) -> None:
        now, self._reading = self._clock.now(), sock
        for _ in range(MAX_READS):
            try:
                data, address = sock.recvfrom(MAX_DATAGRAM)
            except OSError:  # nothing more to read, or it was closed
                return
            if data:
                self._on_datagram(data, UdpSource(place, address), now)

    def _readable_anywhere(self, place: int, sock: socket.socket) -> None:
        """The same, of a socket on all addresses."""
        now, self._reading = self._clock.now(), sock
        for _ in range(MAX_READS):
            try:
                data, at, address = receive_from(sock)
            except OSError:
                return
            found = place if at is None else self._place(place, at)
            if data and found is not None:
                self._on_datagram(data, UdpSource(found, address), now)

    def _place(self, place: int, at: Destination) -> int | None:
        """The place of the socket that answers from this address of ours; None where there are too many."""
        found = self._destinations.get((place, at))
        if found is None:
            if len(self._destinations) >= MAX_DESTINATIONS:
                self.undirected += 1
                return None
            found = self._destinations[place, at] = len(self._sockets)
            self._sockets.append(None)
        return found

    def announce(self, announce: Sequence[str]) -> None:
        """Name these addresses from now on."""
        self._announce = list(announce)

    def reachable_at(self) -> list[tuple[str, int]]:
        """Address and port of each candidate: those that are announced, or those that are listened on."""
        if self._announce:
            return [(host, port or self.port) for host, port in map(announced, self._announce)]
        open_on = [address for address, sock in zip(self._addresses, self._sockets, strict=False) if sock is not None]
        named = [address for address in open_on if not ipaddress.ip_address(address).is_unspecified]
        if len(named) < len(open_on):
            versions = {ipaddress.ip_address(address).version for address in open_on if address not in named}
            hosts = default_host_addresses()
            named += [host for host in hosts if ipaddress.ip_address(host).version in versions and host not in named]
        return [(address, self.port) for address in named]

    def socket_of(self, source: UdpSource) -> socket.socket | None:
        """The socket that answers who sends from there."""
        sock = self._sockets[source.port] if source.port < len(self._sockets) else None
        if sock is None:
            met = next((met for met, place in self._destinations.items() if place == source.port), None)
            everywhere = self._sockets[met[0]] if met is not None else None
            if met is not None and everywhere is not None:
                own = open_beside(everywhere, met[1])
                if own is not None:
                    self._read_from(source.port, own)
                sock = self._sockets[source.port] = own or everywhere
        return sock

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
            if sock is not None and sock.fileno() >= 0:
                loop.remove_reader(sock.fileno())
                sock.close()  # a socket on all addresses may stand at several places
        self._close_sockets()
        self._addresses, self.problem = [], ""

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            if sock is not None:
                sock.close()
        self._sockets, self._destinations, self.port = [], {}, 0


def _listen(address: str, port: int) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    sock = udp_socket(family)
    try:
        if ipaddress.ip_address(address).is_unspecified:
            tell_destinations(sock)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock
