"""Who may use the HTTP interface, and protection against attacks through a browser.

On loopback no token is needed; anywhere else the supervisor refuses to start without one. The token comes as
`Authorization: Bearer …` or, for the page, as a cookie set by signing in. Without a token the Host header must name
loopback (DNS rebinding); state changes must come from our own page or from no page at all.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from relay_common.clock import Clock
from relay_common.loopback import is_loopback_url
from relay_common.secrets import Secret
from relay_supervisor.http.addresses import share_of

COOKIE: Final = "relay_session"
SESSION_LIFE: Final = 30 * 86400
"""Seconds that a sign-in lasts."""
_FAILURES: Final = 10
_WINDOW: Final = 60.0
_MOST_ADDRESSES: Final = 1024

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""On every response. No inline script or style, no third party, no framing."""


def page_headers(frame_ancestors: Sequence[str]) -> dict[str, str]:
    """HEADERS for the page of one camera, which these sites may show in a frame."""
    headers = dict(HEADERS)
    if frame_ancestors:
        # X-Frame-Options cannot name sites, and would forbid what the policy allows.
        del headers["X-Frame-Options"]
        policy = headers["Content-Security-Policy"]
        sites = " ".join(frame_ancestors)
        headers["Content-Security-Policy"] = policy.replace("frame-ancestors 'none'", f"frame-ancestors {sites}")
    return headers


def cross_origin(origin: str) -> dict[str, str]:
    """Headers of an answer to a page of `origin`, another site that may play from here: it may read them, and no
    cookies are meant.
    """
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
        "Access-Control-Expose-Headers": "Location, Link, ETag, Retry-After, Accept-Post, Accept-Patch",
        "Access-Control-Max-Age": "600",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }


class FailureLimiter:
    """Refuses an address for a while after ten wrong tokens in a minute; remembers at most 1024 addresses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def blocked_for(self, address: str) -> float:
        """Seconds until `address` may try again; 0 when it may now."""
        times = self._failures.get(address)
        if times is None or len(times) < _FAILURES:
            return 0.0
        return max(0.0, times[0] + _WINDOW - self._clock.now())

    def failed(self, address: str) -> None:
        """Record a wrong token from `address`."""
        self._failures.setdefault(address, deque(maxlen=_FAILURES)).append(self._clock.now())
        self._failures.move_to_end(address)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


class Gatekeeper:
    """Authorises single requests; `token` None means that everyone on loopback has full access."""

    def __init__(self, token: Secret | None, clock: Clock) -> None:
        self._token = token.reveal().encode() if token else b""
        self._clock = clock
        self.limiter = FailureLimiter(clock)
        self.failures = 0
        self.blocked = 0

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return not self._token

    def token_matches(self, token: str) -> bool:
        """Whether `token` is the configured one, in constant time."""
        # Hashed first, so that not even the length shows in the time.
        given, wanted = (hashlib.sha256(value).digest() for value in (token.encode(), self._token))
        return hmac.compare_digest(given, wanted) and not self.open

    def check_token(self, token: str, address: str) -> float | None:
        """Try `token` from `address`: None when it is right, else seconds to wait before another try (0: none).

        Wrong ones count against the address, of IPv6 against its /64: one host has as many addresses as it likes.
        """
        # The right token first: other people's failures must not lock it out, and guessing a token of 16 characters is
        # hopeless with or without a limit. The limit saves log lines, and the time of whoever has a wrong token.
        if self.token_matches(token):
            return None
        share = share_of(address)
        if wait := self.limiter.blocked_for(share):
            self.blocked += 1
            return wait
        self.failures += 1
        self.limiter.failed(share)
        return self.limiter.blocked_for(share)

    def new_cookie(self) -> str:
        """A session cookie's value: its expiry, signed with the token so that it survives a restart."""
        end = str(int(self._clock.wall()) + SESSION_LIFE)
        return f"{end}.{self._sign(end)}"

    def cookie_valid(self, value: str) -> bool:
        """Whether `value` is a session cookie we signed that has not expired."""
        end, _, signature = value.partition(".")
        if self.open or not end.isdecimal() or not end.isascii() or len(end) > 12:
            return False
        genuine = hmac.compare_digest(signature.encode(), self._sign(end).encode())
        return genuine and int(end) > self._clock.wall()

    def _sign(self, end: str) -> str:
        return hmac.new(self._token, f"relay-session:{end}".encode(), hashlib.sha256).hexdigest()

    def host_allowed(self, host: str) -> bool:
        """Whether the Host header is acceptable: without a token, a foreign name is a rebinding attack."""
        if not self.open:
            return True
        try:
            return is_loopback_url(f"//{host}")
        except ValueError:
            return False


def same_origin(host: str, origin: str, fetch_site: str) -> bool:
    """Whether a state change comes from our own page, or from a client that is not a browser.

    Browsers send Sec-Fetch-Site to trustworthy origins and Origin with every POST and DELETE; others send neither.
    """
    if fetch_site:
        return fetch_site == "same-origin"
    if not origin:
        return True
    try:
        return origin != "null" and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # not an origin at all, so not ours
        return False
