"""The SFU's ICE-lite agent (RFC 8445 section 2.5): answers connectivity checks, never sends one."""

from __future__ import annotations

import struct

from aioice import stun

Address = tuple[str, int]


def local_ufrag(datagram: bytes) -> str | None:
    """The receiving agent's ufrag from a binding request's USERNAME, without a full parse; None for anything else."""
    if len(datagram) < 20 or datagram[:2] != b"\x00\x01":
        return None
    position = 20
    while position + 4 <= len(datagram):
        kind, length = struct.unpack_from("!HH", datagram, position)
        if kind == 0x0006:
            return datagram[position + 4 : position + 4 + length].partition(b":")[0].decode("ascii", "replace")
        position += 4 + length + -length % 4
    return None


class IceLite:
    """One session's agent: credentials and the address nominated by the endpoint.

    `receive` answers a check; `remote` is the address to send to, None before the first valid check. Checks are dropped
    until the endpoint's description has set `remote_ufrag`: a browser sends them before its answer reaches the API.
    """

    def __init__(self, ufrag: str, pwd: str) -> None:
        self.ufrag = ufrag
        self._key = pwd.encode()
        self.remote_ufrag: str | None = None
        self.remote: Address | None = None
        self.answered = 0
        self.refused = 0

    def receive(self, datagram: bytes, source: Address) -> bytes | None:
        """The response to a binding request from `source`, or None to drop it silently."""
        if self.remote_ufrag is None:
            return None
        try:
            request = stun.parse_message(datagram)
        except (ValueError, struct.error, IndexError):
            self.refused += 1
            return None
        if request.message_class != stun.Class.REQUEST or request.message_method != stun.Method.BINDING:
            return None
        attributes = request.attributes
        ours, _, theirs = str(attributes.get("USERNAME", "")).partition(":")
        if ours != self.ufrag or theirs != self.remote_ufrag or not request.check_message_integrity(self._key):
            self.refused += 1
            return self._error(request, 401, "Unauthorized")
        if "ICE-CONTROLLED" in attributes:
            # A lite agent is always controlled (RFC 8445 6.1.1): the other side has to switch.
            self.refused += 1
            return self._error(request, 487, "Role Conflict")
        self.answered += 1
        if self.remote is None or "USE-CANDIDATE" in attributes:
            self.remote = source
        response = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
            attributes={"XOR-MAPPED-ADDRESS": source},
        )
        response.add_message_integrity(self._key)
        return bytes(response)

    @staticmethod
    def _error(request: stun.Message, code: int, reason: str) -> bytes:
        response = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.ERROR,
            transaction_id=request.transaction_id,
            attributes={"ERROR-CODE": (code, reason)},
        )
        response.add_fingerprint()
        return bytes(response)
