"""Addresses to listen on: whether one is acceptable, and a socket bound to it, or a clear error. Options of sockets."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from relay_common.errors import ConfigError
from relay_common.loopback import is_loopback
from relay_common.secrets import Secret

SHORTEST_TOKEN: Final = 16
"""Fewest characters of a token that cannot be guessed."""
BACKLOG: Final = 128
"""Connections the kernel queues until they are accepted."""
PROBE: Final = 1
"""Seconds without traffic after which the kernel probes the other end of a connection between supervisors."""

_BRACKETED: Final = re.compile(r"^\[([\d.]+)\](?=:)")


def split_listen(listen: str, key: str = "listen") -> tuple[str, int]:
    """(host, port) of an address to listen on, the value of `key` in [http]; raises ConfigError if invalid.

    One of IPv4 may stand in brackets like one of IPv6: of which kind a Pod's is no manifest knows.
    """
    try:
        parts = urlsplit("//" + _BRACKETED.sub(r"\1", listen))
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # UnicodeError, for what cannot be a name, is one
        host, port = "", None
    if not host or port is None or parts.path or parts.username:
        meant = re.fullmatch(r":?(\d{1,5})", listen)
        raise ConfigError(
            f"[http] {key} is {listen!r}, which is no address with a port",
            hint=f'Write for example "127.0.0.1:{meant[1] if meant else 8080}"',
        )
    return host, port


def check_listen(listen: str, token: Secret | None) -> tuple[str, int]:
    """(host, port) of `[http] listen`, for example "127.0.0.1:8080", "[::1]:8080" or "127.0.0.1:0".

    Raises ConfigError when it does not have that form, when other machines can reach it and there is no token, or when
    the token cannot be used.
    """
    host, port = split_listen(listen)
    if token:
        require_usable(token)
    if not token and not is_loopback(host):
        raise ConfigError(
            f"[http] listen is {listen!r}, which other machines can reach, and there is no [http] token",
            hint='Set token or token_file (openssl rand -hex 24), or listen on "127.0.0.1:8080"',
        )
    return host, port


def require_usable(token: Secret) -> None:
    """Raise ConfigError for a token that is too short, or that no client could send.

    Of a header beyond ASCII each client makes other bytes, and some refuse it, quoting it in their error.
    """
    value = token.reveal()
    problem = f"is shorter than {SHORTEST_TOKEN} characters" if len(value) < SHORTEST_TOKEN else ""
    if not all(" " <= character <= "~" for character in value):
        problem = "holds characters that cannot be sent"
    if problem:
        raise ConfigError(f"[http] token {problem}", hint="Make one with: openssl rand -hex 24")


def overlap(host: str, other: str) -> bool:
    """Whether one port cannot be listened on at both hosts, as far as they say; names are not looked up."""
    first, second = _meant(host), _meant(other)
    if first == second:
        return True
    if isinstance(first, str) or isinstance(second, str):
        return any(not isinstance(one, str) and one.is_unspecified for one in (first, second))
    versions = {first.version, second.version}
    # Linux has "::" listen on IPv4 as well.
    return any(one.is_unspecified and (one.version == 6 or len(versions) == 1) for one in (first, second))


def _meant(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
    return (address.version == 6 and address.ipv4_mapped) or address


def resolve(host: str, port: int) -> str:
    """The address that `host` means when it is listened on: the first of a name's; the name if it is not known."""
    try:
        return str(_resolved(host, port)[1][0])
    except socket.gaierror:
        return host


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Family and socket address of `host`; raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return found[0], found[4]


def bind(host: str, port: int, key: str = "listen", section: str = "http") -> socket.socket:
    """A socket listening on `host` and `port`; raises a ConfigError that names section, key and fix."""
    try:
        family, address = _resolved(host, port)
    except socket.gaierror as error:
        raise ConfigError(
            f"[{section}] {key}: the host {host!r} is not known ({error.strerror})",
            hint='Use an address, "127.0.0.1:8080"',
        ) from error
    if family == socket.AF_INET6 and address[0] == "::" and not _has_ipv6():
        family, address = socket.AF_INET, ("0.0.0.0", port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted ones inherit it. asyncio sets it only on sockets that were made for TCP by name, and these were not:
        # the second part of an answer would wait for 40 ms until the client's kernel has acknowledged the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        # Listen here: two binds of one port may succeed, two listeners do not.
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"[{section}] {key}: cannot listen on {host}:{port} ({error.strerror})",
            hint=_advice(error, port, f"[{section}] {key}"),
        ) from error
    return sock


def _has_ipv6() -> bool:
    """Whether the kernel knows IPv6 at all: where it does not, "::" means whatever there is."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _advice(error: OSError, port: int, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Another program has port {port} (ss -ltnp shows which): stop it, or choose another port in {key}"
    if error.errno == errno.EACCES:
        return f"Ports below 1024 need privileges: choose a higher one in {key}"
    return f"Choose an address of this machine in {key}"


def given_up_after(seconds: int) -> tuple[tuple[int, int, int], ...]:
    """Socket options by which the kernel gives a connection up whose other end is gone without a word.

    That is one which acknowledges nothing for so long or, though it does, takes nothing for so long.
    """
    return (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, seconds // PROBE),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000),
    )
