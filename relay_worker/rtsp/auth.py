"""RTSP authentication: Digest (RFC 7616, RFC 2617) and Basic, answered from the server's challenges."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.secrets import Secret

_SCHEME: Final = re.compile(r"(?:^|,)\s*(Digest|Basic)\b", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"([\w-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,]+))")
_ALGORITHMS: Final = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}


def parse_challenges(values: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """(lower-case scheme, parameters with lower-case names) of each challenge in WWW-Authenticate fields."""
    challenges = []
    for value in values:
        matches = list(_SCHEME.finditer(value))
        for index, match in enumerate(matches):
            end = matches[index + 1].start() if index + 1 < len(matches) else len(value)
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
                for name, quoted, plain in _PARAMETER.findall(value[match.end() : end])
            }
            challenges.append((match[1].lower(), parameters))
    return challenges


class Authenticator:
    """Answers challenges with one user's credentials; Digest SHA-256 is preferred to MD5, and both to Basic."""

    def __init__(self, username: str, password: Secret, new_nonce: Callable[[], str] | None = None) -> None:
        self._username, self._password = username, password
        self._new_nonce = new_nonce or (lambda: secrets.token_hex(8))
        self._scheme = ""
        self._parameters: dict[str, str] = {}
        self._algorithm = "MD5"
        self._count = 0

    def challenge(self, values: Sequence[str]) -> bool:
        """Process the WWW-Authenticate fields of a 401; returns whether another try makes sense.

        It does not when the credentials were already tried and the nonce is not merely stale.
        """
        best: tuple[int, str, dict[str, str], str] | None = None
        for scheme, parameters in parse_challenges(values):
            algorithm = parameters.get("algorithm", "MD5").upper()
            if scheme == "digest" and (algorithm not in _ALGORITHMS or "nonce" not in parameters):
                continue
            rank = 0 if scheme == "basic" else 2 if algorithm == "SHA-256" else 1
            if best is None or rank > best[0]:
                best = rank, scheme, parameters, algorithm
        if best is None:
            return False
        stale = best[2].get("stale", "").lower() == "true"
        tried = self._scheme != ""
        _, self._scheme, self._parameters, self._algorithm = best
        self._count = 0
        return not tried or stale

    def authorization(self, method: str, uri: str) -> str | None:
        """The Authorization field for a request, or None before a challenge."""
        if self._scheme == "basic":
            pair = f"{self._username}:{self._password.reveal()}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return self._digest(method, uri) if self._scheme else None

    def _digest(self, method: str, uri: str) -> str:
        given = self._parameters
        realm, nonce = given.get("realm", ""), given["nonce"]
        ha1 = self._hash(f"{self._username}:{realm}:{self._password.reveal()}")
        ha2 = self._hash(f"{method}:{uri}")
        fields = {"username": self._username, "realm": realm, "nonce": nonce, "uri": uri}
        extra = ""
        if "auth" in [option.strip().lower() for option in given.get("qop", "").split(",")]:
            self._count += 1
            count, cnonce = f"{self._count:08x}", self._new_nonce()
            fields["response"] = self._hash(f"{ha1}:{nonce}:{count}:{cnonce}:auth:{ha2}")
            extra = f', qop=auth, nc={count}, cnonce="{cnonce}"'
        else:
            fields["response"] = self._hash(f"{ha1}:{nonce}:{ha2}")
        if "opaque" in given:
            fields["opaque"] = given["opaque"]
        if "algorithm" in given:
            extra += f", algorithm={self._algorithm}"
        quoted = ", ".join(f'{name}="{_escape(value)}"' for name, value in fields.items())
        return f"Digest {quoted}{extra}"

    def _hash(self, text: str) -> str:
        return _ALGORITHMS[self._algorithm](text.encode()).hexdigest()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
