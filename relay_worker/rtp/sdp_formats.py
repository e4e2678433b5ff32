"""Payload formats in SDP (`a=rtpmap`, `a=fmtp`: RFC 8866 §6.6, §6.15), as RTSP servers and WebRTC peers write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_RTPMAP: Final = re.compile(r"\s*([^/\s]+)\s*(?:/\s*(\d{1,9}))?\s*(?:/\s*(\d{1,9}))?")


class RtpMap(NamedTuple):
    """What a payload type stands for."""

    encoding: str
    """In upper case."""
    clock_rate: int
    """0 when it is not stated."""
    channels: int


def parse_rtpmap(text: str) -> RtpMap | None:
    """An `a=rtpmap` value after its payload type; None when it names no encoding."""
    match = _RTPMAP.match(text)
    return RtpMap(match[1].upper(), int(match[2] or 0), int(match[3] or 1)) if match is not None else None


def encodings(rtpmaps: Mapping[str, list[str]]) -> dict[str, str]:
    """The encoding, in upper case, of each payload type that has one; of several values for one the first counts."""
    found = {payload_type: parse_rtpmap(values[0]) for payload_type, values in rtpmaps.items()}
    return {payload_type: known.encoding for payload_type, known in found.items() if known is not None}


def is_payload_type(text: str) -> bool:
    """Whether `text` is a payload type number (RFC 3550 §5.1: seven bits)."""
    return text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) < 128


def parse_fmtp(text: str) -> dict[str, str]:
    """The parameters of an `a=fmtp` value after its payload type; names in lower case, of duplicates the last
    counts.
    """
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
