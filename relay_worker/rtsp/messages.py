"""RTSP messages as values, RFC 2326 §4 to §6."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final


class Headers:
    """Header fields in order, looked up case-insensitively."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = list(fields)

    def get(self, name: str, default: str = "") -> str:
        """The first field of that name."""
        wanted = name.lower()
        return next((value for key, value in self._fields if key.lower() == wanted), default)

    def get_all(self, name: str) -> list[str]:
        """Every field of that name."""
        wanted = name.lower()
        return [value for key, value in self._fields if key.lower() == wanted]

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and other._fields == self._fields

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in self._fields)})"  # values may hold credentials


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `url` and headers may hold secrets, so neither is in its repr."""

    method: str
    url: str = field(repr=False)
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def encode(self) -> bytes:
        """The request on the wire."""
        return _encode(_lines(f"{self.method} {self.url} RTSP/1.0", self.headers, self.body), self.body)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    reason: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def encode(self) -> bytes:
        """The response on the wire."""
        return _encode(_lines(self._start, self.headers, self.body), self.body)

    def recorded(self) -> bytes:
        """A received response, for a capture: stray line breaks, which servers do send, become spaces."""
        lines = _lines(self._start, self.headers, self.body)
        return _encode([" ".join(line.splitlines()) for line in lines], self.body)

    @property
    def _start(self) -> str:
        return f"RTSP/1.0 {self.status} {self.reason}"


def _lines(start: str, headers: Headers, body: bytes) -> list[str]:
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    return [*lines, f"Content-Length: {len(body)}"] if body else lines


def _encode(lines: list[str], body: bytes) -> bytes:
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("line break inside an RTSP header")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


_SERVED: Final = ("OPTIONS", "ANNOUNCE", "GET_PARAMETER", "SET_PARAMETER", "REDIRECT", "TEARDOWN")
"""Requests that a server may make of its client (RFC 2326 §10)."""


def reply_to(request: Request) -> Response:
    """The client's answer to a server's request: 200 to those it knows, 501 to any other."""
    fields = [("CSeq", request.headers.get("CSeq", "0"))]
    if request.method == "OPTIONS":
        fields.append(("Public", ", ".join(_SERVED)))
    known = request.method in _SERVED
    return Response(200 if known else 501, "OK" if known else "Not Implemented", Headers(fields))
