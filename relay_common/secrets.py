"""Secrets that do not print themselves, and redaction of text that may contain one."""

from __future__ import annotations

import os
import re
import stat
from typing import Final

_PRIVATE_BITS: Final = stat.S_IRWXG | stat.S_IRWXO


class Secret:
    """A string that shows itself only through `reveal()`: repr, str and format do not print it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call this only where it is sent."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(…)" if self._value else "Secret()"

    __str__ = __repr__


REDACTED: Final = "[redacted]"

_PATTERNS: Final = (
    # Stream URLs: Google puts a bearer token in the query.
    (re.compile(r"(?i)([?&](?:auth|token|access_token|code|sig|signature)=)[^&\s\"'<>]+"), rf"\1{REDACTED}"),
    # user:password@ or token@ in any URL, even if the password contains @. Its / ? # must be escaped (RFC 3986 3.2.1)
    # but often are not: text after a colon that is not a port is taken as a password up to the last @. Of the scheme
    # only its end is matched, and such a password is bounded, or the time would grow with the square of the length.
    (
        re.compile(
            r"(?i)((?<=[a-z0-9+.-])://)"
            r"(?:[^/?#\s\"'<>]*|[^/?#\s@:\[]{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s\"'<>]{0,512})(@)"
        ),
        rf"\1{REDACTED}\2",
    ),
    (
        re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|link)\s+)[^\r\n\"']+"),
        rf"\1{REDACTED}",
    ),
    # The parameters are quoted; with user name, nonce and response the password can be guessed offline.
    (re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?digest\s+)[^\r\n]+"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{REDACTED}"),
    (
        re.compile(
            r"(?i)([\"']?(?:refresh_token|access_token|client_secret|app_secret|streamToken|streamExtensionToken|id_token)"
            r"[\"']?\s*[:=]\s*[\"']?)(?!…[,)])[^\s\"',&}]+"
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(a=ice-pwd:)\S+"), rf"\1{REDACTED}"),
    # Google's formats anywhere: access tokens, refresh tokens, stream tokens, client secrets.
    (re.compile(r"\bya29\.[\w.-]+"), REDACTED),
    (re.compile(r"\b1//[\w-]{10,}"), REDACTED),
    (re.compile(r"\bg\.0\.[\w.-]+"), REDACTED),
    (re.compile(r"\bGOCSPX-[\w-]+"), REDACTED),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a credential replaced by a marker."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def others_may_read(file: os.stat_result, uid: int, gid: int) -> bool:
    """Whether others than the owner may use a file that a process of this user and group finds.

    Not so where root gives it to that group to read, as Kubernetes passes a Secret on: nobody else is in it there, and
    the process could not change the file.
    """
    passed_on = file.st_uid == 0 != uid and file.st_gid == gid
    return bool(file.st_mode & (_PRIVATE_BITS & ~stat.S_IRGRP if passed_on else _PRIVATE_BITS))
