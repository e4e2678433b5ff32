"""Authentication of the bus's connections: the handler of ZAP (ZeroMQ RFC 27), without I/O.

libzmq asks it once for each connection, before the peer's first message, and attaches the user id of its answer to
every message of that connection. The user id is the credential, not the instance: the key is looked up again for each
message, so that one whose worker has ended is worth nothing even on an open connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from zmq.utils import z85

from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.refusals import BusRefusal, Refusals

ENDPOINT: Final = "inproc://zeromq.zap.01"
"""Where libzmq expects the handler, in each context."""
DOMAIN: Final = b"workers"
"""With a domain, a connection is refused, not accepted, when no handler answers."""
_VERSION: Final = b"1.0"
_OF_UNIX_SOCKET: Final = re.compile(r"[^:]*:\d+:\d+:(\d+)")


def peer_pid(address: str) -> int:
    """The process at the other end of a Unix socket, by the kernel (SO_PEERCRED), from libzmq's "host:uid:gid:pid".

    0 for any other address, and for a process outside this pid namespace.
    """
    found = _OF_UNIX_SOCKET.fullmatch(address)
    return int(found.group(1)) if found else 0


class ZapHandler:
    """Accepts the connections of the living instances in `keyring`, and nobody else's.

    `ref_of` names the process that has a pid now (`relay_common.proc.ref_of`).
    """

    def __init__(self, keyring: Keyring, refusals: Refusals, ref_of: Callable[[int], str]) -> None:
        self._keyring, self._refusals, self._ref_of = keyring, refusals, ref_of

    def answer(self, frames: list[bytes]) -> list[bytes] | None:
        """The reply to a request received by a ROUTER; None to what is no request, whose connection stays refused."""
        if len(frames) < 8 or frames[2] != _VERSION:
            return None
        peer, empty, version, request, _, address, _, mechanism, *credentials = frames
        pid = peer_pid(address.decode("ascii", "replace"))
        credential, kind = "", BusRefusal.UNKNOWN_PROCESS
        if mechanism == b"CURVE":
            kind = BusRefusal.STRANGER
            if len(credentials) == 1 and len(credentials[0]) == 32:
                credential = z85.encode(credentials[0]).decode()
        elif mechanism == b"NULL" and pid:
            credential = self._ref_of(pid)
        if not self._keyring.admits(credential):
            self._refusals.add(kind, f"pid {pid}" if pid else address.decode("ascii", "replace"))
            return [peer, empty, version, request, b"400", b"no living worker", b"", b""]
        return [peer, empty, version, request, b"200", b"OK", credential.encode(), b""]
