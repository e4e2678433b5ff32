"""RTSP/1.0 messages as a server reads and writes them (RFC 2326), with Basic and Digest authentication.

Independent of the relay's client on purpose: a mistake made on both sides would cancel out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

MAX_HEAD: Final = 16_384
MAX_BODY: Final = 65_536

REASONS: Final = {
    200: "OK",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """The client sent something that is not RTSP."""


@dataclass(frozen=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    url: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The URL's path, without a trailing slash."""
        return urlsplit(self.url).path.rstrip("/")

    @property
    def token(self) -> str:
        """The value of `?auth=`, without a control path that a client appended to it."""
        values = parse_qs(urlsplit(self.url).query).get("auth", [""])
        return values[0].split("/")[0]


@dataclass(frozen=True)
class InterleavedFrame:
    """Binary data from the client: receiver reports, usually."""

    channel: int
    payload: bytes


async def read_message(reader: asyncio.StreamReader) -> Request | InterleavedFrame:
    """The next request or interleaved frame.

    Raises BadRequest, or what the stream raises: IncompleteReadError at its end, LimitOverrunError for a huge head.
    """
    first = await reader.readexactly(1)
    while first in b"\r\n":
        first = await reader.readexactly(1)
    if first == b"$":
        channel, high, low = await reader.readexactly(3)
        return InterleavedFrame(channel, await reader.readexactly(high << 8 | low))
    head = first + await reader.readuntil(b"\r\n\r\n")
    request = _parse_head(head.decode("utf-8", "replace"))
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        raise BadRequest(f"Content-Length {length!r}")
    await reader.readexactly(int(length))
    return request


def _parse_head(text: str) -> Request:
    first, *lines = text.rstrip("\r\n").split("\r\n")
    match first.split(" "):
        case [method, url, "RTSP/1.0"]:
            pass
        case _:
            raise BadRequest("not an RTSP/1.0 request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("header without a colon")
        headers[name.strip().lower()] = value.strip()
    return Request(method, url, headers)


def response(status: int, sequence: str, headers: dict[str, str] | None = None, body: str = "") -> bytes:
    """A response's bytes; Content-Length is added when there is a body."""
    fields = {"CSeq": sequence, **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body.encode()))
    lines = [f"RTSP/1.0 {status} {REASONS.get(status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def interleaved_channels(transport: str) -> tuple[int, int] | None:
    """The channels that a Transport header asks for; None when it does not ask for interleaved TCP."""
    for offer in transport.split(","):
        fields = [field.strip() for field in offer.split(";")]
        if fields[0].upper() != "RTP/AVP/TCP":
            continue
        for field in fields[1:]:
            match = re.fullmatch(r"interleaved=(\d{1,3})(?:-(\d{1,3}))?", field)
            if match:
                low = int(match[1])
                return low, int(match[2]) if match[2] else low + 1
        return 0, 1
    return None


@dataclass(frozen=True)
class Credentials:
    """Credentials that a generic (non-Nest) camera requires: user, password and scheme."""

    user: str
    password: str
    scheme: Literal["basic", "digest"] = "digest"
    realm: str = "camera"
    nonce: str = "7d0e5f9b2a4c"

    def challenge(self) -> str:
        """The WWW-Authenticate header's value (RFC 2617)."""
        if self.scheme == "basic":
            return f'Basic realm="{self.realm}"'
        return f'Digest realm="{self.realm}", nonce="{self.nonce}"'

    def accept(self, request: Request) -> bool:
        """Whether the request's Authorization header is valid."""
        given = request.headers.get("authorization", "")
        if self.scheme == "basic":
            expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return hmac.compare_digest(given.encode(), f"Basic {expected}".encode())
        if not given.startswith("Digest "):
            return False
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', given.removeprefix("Digest ")))
        secret = _md5(f"{self.user}:{self.realm}:{self.password}")
        request_hash = _md5(f"{request.method}:{fields.get('uri', '')}")
        answer = _md5(f"{secret}:{self.nonce}:{request_hash}")
        return fields.get("nonce") == self.nonce and hmac.compare_digest(
            fields.get("response", "").encode(), answer.encode()
        )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
