"""The Link header, and the ICE servers that it names (RFC 8288 §3, RFC 9725 §4.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

MOST_SERVERS: Final = 16
_LONGEST_HEADER: Final = 16 * 1024
_LONGEST_URL: Final = 512
_LONGEST_CREDENTIAL: Final = 1024

# Each alternative ends at a character that the one before cannot contain, so that nothing is read twice.
_TARGET: Final = re.compile(r"[\s,]*<([^<>]*)>")
_PARAMETER: Final = re.compile(r'\s*;\s*([^\s;,="]*)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')
_SCHEMES: Final = ("stun:", "stuns:", "turn:", "turns:")


@dataclass(frozen=True)
class RecommendedServer:
    """A STUN or TURN server that a WHIP server names."""

    url: str
    username: str = ""
    credential: str = field(default="", repr=False)


def links(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Target and parameters of each link of one header; what comes after something malformed is left out."""
    at = 0
    header = header[:_LONGEST_HEADER]
    while (target := _TARGET.match(header, at)) is not None:
        at = target.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(header, at)) is not None:
            at = found.end()
            name, quoted, plain = found.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain or ""
            # The first of each name counts (RFC 8288 §3).
            parameters.setdefault(name.lower(), value)
        yield target[1].strip(), parameters


def ice_servers(headers: Iterable[str]) -> tuple[RecommendedServer, ...]:
    """The ICE servers of all Link headers, at most 16; those with a credential of another kind are left out."""
    found: dict[RecommendedServer, None] = {}
    for header in headers:
        for url, parameters in links(header):
            if "ice-server" not in parameters.get("rel", "").lower().split():
                continue
            username, credential = parameters.get("username", ""), parameters.get("credential", "")
            usable = (
                url.lower().startswith(_SCHEMES)
                and len(url) <= _LONGEST_URL
                and max(len(username), len(credential)) <= _LONGEST_CREDENTIAL
                and parameters.get("credential-type", "password").lower() == "password"
            )
            if usable and len(found) < MOST_SERVERS:
                found[RecommendedServer(url=url, username=username, credential=credential)] = None
    return tuple(found)
