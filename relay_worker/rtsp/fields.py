"""Values of the header fields a session needs (RFC 2326 §12), parsed leniently."""

from __future__ import annotations

from typing import Final

DEFAULT_SESSION_TIMEOUT: Final = 60.0
"""Seconds, §12.37."""
MAX_SESSION_TIMEOUT: Final = 3600.0
MIN_SESSION_TIMEOUT: Final = 2.0


def _number(text: str, digits: int) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def read_cseq(value: str) -> int | None:
    """The sequence number of a message, None when it has none."""
    return _number(value, 9)


def read_session(value: str) -> tuple[str, float | None]:
    """Identifier and timeout in seconds (None when not given) of a Session field."""
    identifier, *parameters = value.split(";")
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "timeout" and (seconds := _number(text, 9)) is not None:
            return identifier.strip(), float(min(MAX_SESSION_TIMEOUT, max(MIN_SESSION_TIMEOUT, seconds)))
    return identifier.strip(), None


def is_interleaved(transport: str) -> bool:
    """Whether a Transport field means RTP over the RTSP connection; an empty one does, because that was requested."""
    text = transport.lower()
    return not text or "tcp" in text or "interleaved" in text


def read_channels(transport: str, default: int) -> tuple[int, int]:
    """RTP and RTCP channel of a Transport field; `default` and the one after it where it states none."""
    for part in transport.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "interleaved":
            low, _, high = value.partition("-")
            first, second = _number(low, 3), _number(high, 3)
            first = default if first is None else first
            return first, first + 1 if second is None else second
    return default, default + 1
