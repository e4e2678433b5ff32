"""How targets take an input apart, how seeds are put together, and the SDP answer that both start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Target = Callable[[bytes], object]
"""A parser as a function of bytes that may raise only what is a finding."""

OF_THE_SUPERVISOR: Final = (
    "google_listing",
    "google_stream",
    "google_refusal",
    "sfu_reply",
    "forwarded",
    "http_guard",
    "view_requests",
    "redaction",
    "config_toml",
    "config_environment",
    "state_values",
)
"""The targets of `supervisor_targets.py`; they are told apart before anything of the relay is imported."""

ANSWER: Final = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE 0 1\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 101 102\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=setup:passive\r\na=recvonly\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtcp-mux\r\n"
    "a=rtpmap:101 H264/90000\r\na=fmtp:101 profile-level-id=42e01f;packetization-mode=1\r\na=rtcp-fb:101 nack\r\n"
    "a=candidate:1 1 udp 2130706431 127.0.0.1 1473 typ host\r\na=end-of-candidates\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=setup:passive\r\na=recvonly\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtpmap:111 opus/48000/2\r\n"
)


def cut(*pieces: bytes) -> bytes:
    """Pieces in the form that `chunks` takes apart."""
    parts = [part for piece in pieces for part in (piece[i : i + 255] for i in range(0, len(piece), 255))]
    return b"".join(bytes([len(part)]) + part for part in parts)


def chunks(data: bytes) -> list[bytes]:
    """`data` cut into pieces: a length octet before each."""
    pieces, position = [], 0
    while position < len(data):
        end = position + 1 + data[position]
        pieces.append(data[position + 1 : end])
        position = end
    return pieces
