"""Format parameters of SDP, `a=fmtp` (RFC 8866 §6.15), as RTSP servers and WebRTC peers write them."""

from __future__ import annotations


def parse_fmtp(text: str) -> dict[str, str]:
    """The parameters of an `a=fmtp` value after its payload type; names in lower case, of duplicates the last
    counts.
    """
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
