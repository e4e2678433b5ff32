"""The grammar that all session descriptions share: lines of `<type>=<value>` (RFC 8866 §5) and attributes in them."""

from __future__ import annotations

from collections.abc import Iterator


def lines(text: str) -> Iterator[tuple[str, str]]:
    """(type, value) of each line, trimmed, the type in lower case; lines without "=" are skipped.

    Any line end is accepted, and none at the end of the text.
    """
    for line in text.splitlines():
        kind, equals, value = line.strip().partition("=")
        if equals:
            yield kind.strip().lower(), value.strip()


def attribute(value: str) -> tuple[str, str]:
    """Name and value of an attribute line's value: `<name>:<value>`, or a name alone (RFC 8866 §5.13)."""
    name, _, rest = value.partition(":")
    return name.strip(), rest.strip()
