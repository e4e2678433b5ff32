"""The dialogue of a session: requests with their number, session and credentials, and what answers them.

Which request follows which is the session's business; the dialogue only carries them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from relay_common.secrets import Secret
from relay_worker.media.stream import Track
from relay_worker.rtsp.auth import Authenticator
from relay_worker.rtsp.errors import ProtocolError, RtspStage
from relay_worker.rtsp.events import RtspMessage, SessionSettings
from relay_worker.rtsp.fields import read_cseq
from relay_worker.rtsp.messages import Headers, Request, Response, reply_to
from relay_worker.rtsp.requests import Pending, PendingRequests

log = logging.getLogger("relay_worker.rtsp.session")  # whose dialogue it is: people filter by that name

MAX_DIALOGUE: Final = 64
"""Requests and responses kept for captures."""


class Dialogue:
    """Requests to one server, with the credentials of `url` once it asks for them. `stage` is for errors."""

    def __init__(self, url: Secret, settings: SessionSettings, stage: Callable[[], RtspStage]) -> None:
        parts = urlsplit(url.reveal())
        self._auth: Authenticator | None = None
        if parts.username is not None:
            self._auth = Authenticator(unquote(parts.username), Secret(unquote(parts.password or "")))
        self._user_agent, self._stage = settings.user_agent, stage
        self.outgoing = bytearray()
        """Bytes for the server."""
        self.requests = PendingRequests(settings.read_timeout)
        self.session_id = ""
        """Sent with every request once the server has named it."""
        self.other_sessions = 0
        """Answers to SETUP that named another session than the first one did."""
        self.recorded: deque[RtspMessage] = deque(maxlen=MAX_DIALOGUE)
        """The last requests and responses, for captures; they contain credentials."""

    def request(
        self,
        method: str,
        url: str,
        now: float,
        headers: list[tuple[str, str]] | None = None,
        *,
        track: Track | None = None,
        keepalive: bool = False,
    ) -> None:
        """Send a request; raises ProtocolError when `url` or a header cannot be written in one."""
        self._send(Pending(method, url, headers or [], track, keepalive=keepalive), now)

    def _send(self, pending: Pending, now: float) -> None:
        number = self.requests.add(pending, now)
        fields = [("CSeq", str(number)), ("User-Agent", self._user_agent), *pending.headers]
        if self.session_id:
            fields.append(("Session", self.session_id))
        if self._auth is not None and (credentials := self._auth.authorization(pending.method, pending.url)):
            fields.append(("Authorization", credentials))
        try:
            encoded = Request(pending.method, pending.url, Headers(fields)).encode()
        except ValueError:
            raise ProtocolError(self._stage(), "the server's description cannot be turned into a request") from None
        self.outgoing += encoded
        self.recorded.append(RtspMessage(now, True, encoded))
        log.debug("> %s (CSeq %d)", pending.method, number)

    def answered(self, response: Response, now: float) -> Pending | None:
        """The request to which `response` is the final answer.

        None when there is none: it answers nothing, it is provisional, or the request was sent again with credentials.
        """
        if response.status < 200:
            return None
        number = read_cseq(response.headers.get("CSeq"))
        pending = self.requests.answered(number)
        self.recorded.append(RtspMessage(now, False, response.recorded()))
        log.debug("< %d %s (CSeq %s)", response.status, response.reason, number)
        if pending is None or (response.status == 401 and self._authenticate(pending, response, now)):
            return None
        return pending

    def _authenticate(self, pending: Pending, response: Response, now: float) -> bool:
        """Whether the request was sent again with credentials."""
        if self._auth is None or pending.retried:
            return False
        if not self._auth.challenge(response.headers.get_all("WWW-Authenticate")):
            return False
        pending.retried = True
        self._send(pending, now)
        return True

    def name_session(self, identifier: str) -> None:
        """The first SETUP names the session; servers that name another afterwards serve all tracks under the first."""
        if identifier and self.session_id and identifier != self.session_id:
            log.info("the camera names another session at SETUP of a further track: going on with the first")
            self.other_sessions += 1
        self.session_id = self.session_id or identifier

    def reply(self, request: Request) -> None:
        """Answer a request of the server."""
        self.outgoing += reply_to(request).encode()

    def tolerated(self) -> list[tuple[str, int]]:
        """Tolerated deviations, by their names in docs/quirks.md."""
        return [
            ("answer_misnumbered", self.requests.misnumbered),
            ("keepalive_unanswered", self.requests.unanswered),
            ("session_renamed", self.other_sessions),
        ]
