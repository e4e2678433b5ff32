"""WHIP's requests and what their answers mean, without I/O (RFC 9725).

An `Exchange` is one request with its redirects: send `request`, hand the answer to `receive`, and send the next request
as long as there is one. A PATCH adds candidates to a session (trickle ICE, §4.3.2) or restarts ICE in it (§4.3.3); a
server that does not take it is left for a new session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from relay_common.errors import Remedy
from relay_common.sdp_lines import MAX_SDP
from relay_common.whip.endpoint import UnusableUrl, WhipEndpoint, followed, place_of
from relay_common.whip.errors import WhipError, refusal, wait_of
from relay_common.whip.links import RecommendedServer, ice_servers

MAX_BODY: Final = 2 * MAX_SDP
"""Largest body of an answer that is read, in bytes; an SDP of MAX_SDP characters fits unless they are all unusual."""
MOST_REDIRECTS: Final = 5
_SDP: Final = "application/sdp"
_FRAGMENT: Final = "application/trickle-ice-sdpfrag"
_LONGEST_TAG: Final = 256


@dataclass(frozen=True)
class WhipRequest:
    """A request to be sent."""

    method: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class WhipResponse:
    """An answer as it came in; names of headers in lower case."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = field(default=b"", repr=False)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def first(self, name: str) -> str:
        return next(iter(self.all(name)), "")


@dataclass(frozen=True)
class WhipSession:
    """A session that the server has made."""

    answer: str = field(repr=False)
    resource: str = field(repr=False)
    """The URL that ends it; "" when the server named none that can be used."""
    etag: str = ""
    """Names the ICE session; "" where the server gave none, as one that cannot restart ICE does (§4.3.1)."""
    ice_servers: tuple[RecommendedServer, ...] = ()
    """What the server recommends; they can serve only the next offer, since this one was made without them."""
    notes: tuple[str, ...] = ()
    """Deviations from the RFC that were put up with, in words."""


@dataclass(frozen=True)
class WhipPatch:
    """A PATCH that the server took."""

    fragment: str = field(repr=False)
    """Its own end of the ICE session that it began; "" for candidates that it was told."""
    etag: str
    """The name of that ICE session; "" where the server gave none."""


class Exchange:
    """One request to `endpoint`, redirects included. `body` is of type `sort`; `if_match` is "" for none."""

    def __init__(
        self, endpoint: WhipEndpoint, method: str, url: str, body: bytes = b"", *, sort: str = _SDP, if_match: str = ""
    ) -> None:
        self._endpoint, self._method, self._body = endpoint, method, body
        self._sort, self._if_match = sort, if_match
        self._redirects = 0
        self.request = self._to(url)

    def _to(self, url: str) -> WhipRequest:
        # Not compressed: what an answer grows to would not be bounded by what is read.
        headers = {"Accept-Encoding": "identity"}
        if self._body:
            headers |= {"Content-Type": self._sort, "Accept": self._sort}
        if self._if_match:
            headers["If-Match"] = self._if_match
        if self._endpoint.token and self._endpoint.trusts(url):
            headers["Authorization"] = f"Bearer {self._endpoint.token.reveal()}"
        return WhipRequest(self._method, url, headers, self._body)

    def receive(self, response: WhipResponse, wall: float) -> WhipResponse | None:
        """Take the answer to `request`, which came at `wall` (Unix seconds): None when `request` is a new one to be
        sent, else the last answer, which is a success. Raises WhipError.
        """
        status = response.status
        if 200 <= status < 300:
            return response
        if status not in (307, 308):
            token = self._endpoint.token
            raise refusal(self._method, status, response.body, wait_of(response.first("retry-after"), wall), token)
        self._redirects += 1
        if self._redirects > MOST_REDIRECTS:
            raise WhipError(f"the server redirected {self._method} more than {MOST_REDIRECTS} times", status=status)
        try:
            url = followed(self.request.url, response.first("location"))
        except UnusableUrl as error:
            raise WhipError(
                f"{place_of(self.request.url)} redirected {self._method}, and not to where it may go: {error}",
                status=status,
                hint="Set url to the address that it redirects to",
            ) from None
        self.request = self._to(url)
        return None


def publishing(endpoint: WhipEndpoint, offer: str) -> Exchange:
    """The exchange that has `offer` answered; `created` reads what comes of it."""
    return Exchange(endpoint, "POST", endpoint.url, offer.encode())


def trickling(endpoint: WhipEndpoint, resource: str, fragment: str, etag: str) -> Exchange:
    """The exchange that tells a session's server of more candidates; `etag` is that of the session."""
    return Exchange(endpoint, "PATCH", resource, fragment.encode(), sort=_FRAGMENT, if_match=etag)


def restarting(endpoint: WhipEndpoint, resource: str, fragment: str) -> Exchange:
    """The exchange that restarts ICE in a session; `restarted` reads what comes of it."""
    return Exchange(endpoint, "PATCH", resource, fragment.encode(), sort=_FRAGMENT, if_match="*")


def restarted(response: WhipResponse) -> WhipPatch:
    """What a successful answer to `restarting` says. Raises WhipError when ICE was not restarted."""
    text = response.body.decode("utf-8", "replace").lstrip("\ufeff\r\n\t ")
    if response.status != 200 or not text or len(text) > MAX_SDP:
        # 204 is the answer to candidates: MediaMTX gives it, and goes on with the ICE session that it has.
        raise WhipError(f"the server answered PATCH with {response.status}, and restarted nothing")
    return WhipPatch(text, _tag(response))


def ending(endpoint: WhipEndpoint, resource: str) -> Exchange:
    """The exchange that ends a session."""
    return Exchange(endpoint, "DELETE", resource)


def created(base: str, response: WhipResponse) -> WhipSession:
    """The session of a successful answer from `base`. Raises WhipError when it holds no SDP."""
    notes: list[str] = []
    if response.status != 201:
        notes.append(f"the server answered the offer with {response.status} in place of 201")
    sort = response.first("content-type").partition(";")[0].strip().lower()
    if sort != _SDP:
        notes.append("the server calls its answer something else than application/sdp")
    text = response.body.decode("utf-8", "replace").lstrip("\ufeff\r\n\t ")
    if not text.startswith("v=0") or len(text) > MAX_SDP:
        raise WhipError(
            "the server's answer is no SDP that can be used", status=response.status, remedy=Remedy.REGENERATE
        )
    resource = ""
    if location := response.first("location"):
        try:
            resource = followed(base, location)
        except UnusableUrl as error:
            notes.append(f"the server's Location is of no use ({error}): the session cannot be ended, only left")
    else:
        notes.append("the server sent no Location: the session cannot be ended, only left")
    return WhipSession(text, resource, _tag(response), ice_servers(response.all("link")), tuple(notes))


def _tag(response: WhipResponse) -> str:
    """The ETag, as it can be sent back: quoted or not, since servers do either."""
    tag = response.first("etag").strip()
    return tag if len(tag) <= _LONGEST_TAG and all("!" <= c <= "~" for c in tag) else ""
