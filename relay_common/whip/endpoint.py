"""Where a WHIP server is, and to which URLs that it names our requests and our token may go."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from relay_common.loopback import is_loopback
from relay_common.secrets import Secret

LONGEST_URL: Final = 2048
_PRIVATE_NAMES: Final = (".local", ".lan", ".home", ".internal", ".home.arpa", ".localhost")
"""Ends of names that no public name server knows (RFC 6762, RFC 8375, ICANN's .internal)."""
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class WhipEndpoint:
    """A server's URL for publishing, and what proves that we may."""

    url: str = field(repr=False)
    """May hold a secret in its path or query: it is shown only as `place`."""
    token: Secret
    """Bearer token; empty where none is wanted."""

    @property
    def place(self) -> str:
        """Scheme, host and port."""
        return place_of(self.url)

    @property
    def overheard(self) -> bool:
        """Whether the token and the offer travel in the clear."""
        return urlsplit(self.url).scheme == "http"

    def trusts(self, url: str) -> bool:
        """Whether the token may be sent to `url`: same host and port as configured, or the same host by https."""
        ours, theirs = urlsplit(self.url), urlsplit(url)
        if ours.hostname != theirs.hostname:
            return False
        upgraded = ours.scheme == "http" and theirs.scheme == "https"
        return upgraded or (ours.scheme, _port(ours)) == (theirs.scheme, _port(theirs))


class UnusableUrl(ValueError):
    """A URL that requests must not go to; the message says why, without the URL."""


def parse_endpoint(url: str, token: Secret, camera: str = "camera", name: str = "name") -> WhipEndpoint:
    """The endpoint of a configured URL, in which `{camera}` and `{name}` stand for these. Raises UnusableUrl."""
    url = url.replace("{camera}", quote(camera, safe="")).replace("{name}", quote(name, safe=""))
    _check(url)
    value = token.reveal()
    if value and not all("!" <= c <= "~" for c in value):
        raise UnusableUrl("bearer_token holds characters that cannot be sent")
    return WhipEndpoint(url, token)


def followed(base: str, reference: str) -> str:
    """The URL that `reference` means in an answer from `base`. Raises UnusableUrl: never from https to http."""
    if not reference or len(reference) > LONGEST_URL or not all("!" <= c <= "~" for c in reference):
        raise UnusableUrl("it is no URL")
    try:
        url = urljoin(base, reference)
    except ValueError:
        raise UnusableUrl("it is no URL") from None
    _check(url)
    if urlsplit(base).scheme == "https" and urlsplit(url).scheme != "https":
        raise UnusableUrl("it leads from https to http")
    return url


def place_of(url: str) -> str:
    """Scheme, host and port of a URL, for people."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{_port(parts)}"


def _check(url: str) -> None:
    if len(url) > LONGEST_URL or not all("!" <= c <= "~" for c in url):
        raise UnusableUrl("it is no URL")
    try:
        parts = urlsplit(url)
        port = _port(parts)
    except ValueError:
        raise UnusableUrl("it is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or not port:
        raise UnusableUrl("it is no web address (https://…)")
    if "@" in parts.netloc:
        raise UnusableUrl("it holds a user name or a password: use bearer_token")
    if parts.scheme == "http" and not is_private(parts.hostname):
        raise UnusableUrl("http:// is for this machine and private networks: use https://")


def is_private(host: str) -> bool:
    """Whether `host` (a name or an address) is on this machine or a private network, as far as it shows."""
    if is_loopback(host) or host.endswith(_PRIVATE_NAMES):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        # No public name is without a dot; a service in the same compose file is such a name.
        return "." not in host and ":" not in host


def _port(parts: SplitResult) -> int:
    """Raises ValueError."""
    return _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
