"""What all session descriptions share: their longest length, lines of `<type>=<value>` and attributes (RFC 8866 §5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_SDP: Final = 128 * 1024
"""Longest SDP accepted from Google or the SFU, in characters: with its envelope it fits into a bus frame."""


def lines(text: str) -> Iterator[tuple[str, str]]:
    """(type, value) of each line, trimmed, the type in lower case; lines without "=" are skipped.

    Any line end is accepted, and none at the end of the text.
    """
    for line in text.splitlines():
        kind, equals, value = line.strip().partition("=")
        if equals:
            yield kind.strip().lower(), value.strip()


def ice_ufrag(text: str) -> str:
    """The first user name fragment of ICE; "" without one. It names the ICE session (RFC 8839 §5.4)."""
    attributes = (attribute(value) for kind, value in lines(text) if kind == "a")
    return next((value for name, value in attributes if name == "ice-ufrag"), "")


def attribute(value: str) -> tuple[str, str]:
    """Name and value of an attribute line's value: `<name>:<value>`, or a name alone (RFC 8866 §5.13)."""
    name, _, rest = value.partition(":")
    return name.strip(), rest.strip()
