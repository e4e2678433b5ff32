"""STUN as an ICE-lite agent needs it (RFC 8489, RFC 8445 §7): binding requests in, their responses out.

Anybody can send here. Nothing is answered that does not name a user, and parsing keeps only what is judged.
"""

from __future__ import annotations

import binascii
import hmac
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_MESSAGE: Final = 1500
"""Bytes of the longest message that is parsed."""

_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_COOKIE: Final = 0x2112A442
_INTEGRITY_SIZE: Final = 24
_FINGERPRINT_SIZE: Final = 8
_FINGERPRINT_XOR: Final = 0x5354554E

REQUEST: Final = 0x0001
_SUCCESS: Final = 0x0101
_ERROR: Final = 0x0111

USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A

_KNOWN: Final = frozenset((USERNAME, MESSAGE_INTEGRITY, PRIORITY, USE_CANDIDATE))
"""The attributes below 0x8000, which have to be understood (RFC 8489 §14), that a check may have."""
_REASONS: Final = {400: "Bad Request", 401: "Unauthenticated", 420: "Unknown Attribute", 487: "Role Conflict"}


class StunError(ValueError):
    """It is no binding request."""


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """A connectivity check, not yet authenticated."""

    transaction: bytes
    username: str
    """`ours:theirs`; empty when there is none."""
    controlled: bool
    """Whether the sender believes itself to be the controlled agent, as we are."""
    nominates: bool
    unknown: tuple[int, ...]
    """Attributes that would have to be understood and are not."""
    covered: bytes
    """What MESSAGE-INTEGRITY covers, with the length that it is computed with; empty without one."""
    integrity: bytes

    def is_authentic(self, password: str) -> bool:
        """Whether it was made by somebody who knows `password`."""
        expected = hmac.digest(password.encode(), self.covered, "sha1")
        return bool(self.covered) and hmac.compare_digest(expected, self.integrity)


def parse_binding_request(data: bytes) -> BindingRequest:
    """Parse a datagram whose first octet is below 4. Raises StunError for all but binding requests."""
    if not _HEADER.size <= len(data) <= MAX_MESSAGE:
        raise StunError("wrong size")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != REQUEST or cookie != _COOKIE or length % 4 or length + _HEADER.size != len(data):
        raise StunError("no binding request")
    found: dict[int, bytes] = {}
    unknown: list[int] = []
    covered = b""
    for position, attribute, value in _attributes(data):
        if attribute == FINGERPRINT:
            if value != _fingerprint(data[:position]):
                raise StunError("wrong fingerprint")
            break  # it is the last one (RFC 8489 §14.7)
        if covered:
            continue  # what follows the integrity is not covered by it (RFC 8489 §14.5)
        if attribute == MESSAGE_INTEGRITY:
            covered = _with_length(data[:position], position - _HEADER.size + _INTEGRITY_SIZE)
        if attribute < 0x8000 and attribute not in _KNOWN:
            unknown.append(attribute)
        found.setdefault(attribute, value)
    return BindingRequest(
        transaction=transaction,
        username=found.get(USERNAME, b"").decode("ascii", "replace"),
        controlled=ICE_CONTROLLED in found,
        nominates=USE_CANDIDATE in found,
        unknown=tuple(unknown[:16]),
        covered=covered,
        integrity=found.get(MESSAGE_INTEGRITY, b""),
    )


def _attributes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each attribute begins, its type and its value."""
    position = _HEADER.size
    while position < len(data):
        attribute, size = _ATTRIBUTE.unpack_from(data, position)
        end = position + _ATTRIBUTE.size + size
        if end > len(data):
            raise StunError("an attribute is longer than the message")
        yield position, attribute, data[position + _ATTRIBUTE.size : end]
        position = end + -size % 4


def _with_length(message: bytes, length: int) -> bytes:
    return message[:2] + length.to_bytes(2, "big") + message[4:]


def _fingerprint(message: bytes) -> bytes:
    """The value of a FINGERPRINT that follows `message`."""
    covered = _with_length(message, len(message) - _HEADER.size + _FINGERPRINT_SIZE)
    return (binascii.crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _pack(kind: int, transaction: bytes, attributes: bytes, password: str) -> bytes:
    """A message with FINGERPRINT, and before it MESSAGE-INTEGRITY where there is a password."""
    message = _HEADER.pack(kind, len(attributes), _COOKIE, transaction) + attributes
    if password:
        covered = _with_length(message, len(attributes) + _INTEGRITY_SIZE)
        message = covered + _attribute(MESSAGE_INTEGRITY, hmac.digest(password.encode(), covered, "sha1"))
    message = _with_length(message, len(message) - _HEADER.size + _FINGERPRINT_SIZE)
    return message + _attribute(FINGERPRINT, _fingerprint(message))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def pack_success(request: BindingRequest, host: str, port: int, password: str) -> bytes:
    """The response to a valid check that came from this address (RFC 8489 §14.2)."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mask = _COOKIE.to_bytes(4, "big") + request.transaction
    octets = bytes(a ^ b for a, b in zip(address.packed, mask, strict=False))
    value = struct.pack("!BBH", 0, 1 if address.version == 4 else 2, port ^ _COOKIE >> 16) + octets
    return _pack(_SUCCESS, request.transaction, _attribute(XOR_MAPPED_ADDRESS, value), password)


def pack_error(request: BindingRequest, code: int, password: str = "") -> bytes:
    """The response that refuses a check with 400, 401, 420 or 487."""
    value = struct.pack("!HBB", 0, code // 100, code % 100) + _REASONS[code].encode()
    attributes = _attribute(ERROR_CODE, value)
    if code == 420:
        attributes += _attribute(UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(request.unknown)}H", *request.unknown))
    return _pack(_ERROR, request.transaction, attributes, password)
