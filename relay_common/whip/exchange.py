"""WHIP's requests and what their answers mean, without I/O (RFC 9725).

An `Exchange` is one request with its redirects: send `request`, hand the answer to `receive`, and send the next request
as long as there is one. The offer holds all candidates, so nothing is trickled; a new session takes the place of an ICE
restart, as at the SFU.
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
    ice_servers: tuple[RecommendedServer, ...] = ()
    """What the server recommends; they can serve only the next offer, since this one was made without them."""
    notes: tuple[str, ...] = ()
    """Deviations from the RFC that were put up with, in words."""


class Exchange:
    """One request to `endpoint`, redirects included."""

    def __init__(self, endpoint: WhipEndpoint, method: str, url: str, body: bytes = b"") -> None:
        self._endpoint, self._method, self._body = endpoint, method, body
        self._redirects = 0
        self.request = self._to(url)

    def _to(self, url: str) -> WhipRequest:
        # Not compressed: what an answer grows to would not be bounded by what is read.
        headers = {"Accept-Encoding": "identity"}
        if self._body:
            headers |= {"Content-Type": _SDP, "Accept": _SDP}
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
    return WhipSession(text, resource, ice_servers(response.all("link")), tuple(notes))
