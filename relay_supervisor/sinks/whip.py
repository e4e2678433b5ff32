"""A WHIP server as a sink: one of its sessions for each publication (RFC 9725)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from relay_common.clock import Clock
from relay_common.cloudflare import LocalTrack
from relay_common.config import WhipConfig
from relay_common.ids import slug
from relay_common.loopback import is_loopback_url
from relay_common.protocol import SinkTarget, TurnServer
from relay_common.whip import WhipClient, WhipEndpoint, WhipError, parse_endpoint
from relay_supervisor.sinks.ice_servers import turn_server
from relay_supervisor.sinks.sink import Opened, SinkError

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 1.0
"""Most seconds between two attempts, unless the server asks for more: one of the user's own that was started again is
published to within three.
"""


class WhipSink:
    """Publishes as `config` says. Implements `Sink`; close it with `aclose`."""

    viewing = False

    def __init__(self, config: WhipConfig, clock: Clock) -> None:
        self.config, self.name = config, config.name
        self._client = WhipClient(clock=clock, ca_file=config.ca_file)
        self._noted: set[str] = set()
        self._tags: dict[str, str] = {}
        """The ETag of each session of this run."""
        self._never: set[bool] = set()
        """Whether it takes no restart (True) and no candidates (False), as it has said."""
        endpoint = self._endpoint("", "")
        self.place = endpoint.place
        if endpoint.overheard and not is_loopback_url(config.url):
            log.warning(
                "sink %s: %s is reached without encryption: whoever listens in on that network can read the bearer "
                "token and publish in the relay's place",
                self.name,
                self.place,
            )

    def _endpoint(self, camera: str, name: str) -> WhipEndpoint:
        return parse_endpoint(self.config.url, self.config.bearer_token, camera, slug(name))

    @property
    def target(self) -> SinkTarget:
        """What workers have to know of it."""
        return SinkTarget(
            name=self.name,
            ice_servers=[turn_server(one) for one in self.config.ice_servers],
            loopback=is_loopback_url(self.config.url),
            longest_pause=LONGEST_PAUSE,
            renditions=self.config.renditions,
        )

    async def open(
        self, camera: str, name: str, offer: str, tracks: Sequence[LocalTrack], made: Callable[[str], bool]
    ) -> Opened | None:
        with _as_sink_errors():
            session = await self._client.publish(self._endpoint(camera, name), offer)
        for note in session.notes:
            if note not in self._noted:
                self._noted.add(note)
                log.warning("sink %s: %s", self.name, note)
        named = [
            TurnServer(urls=[one.url], username=one.username, credential=one.credential) for one in session.ice_servers
        ]
        if session.resource:
            self._tags[session.resource] = session.etag
        return Opened(session.resource, session.answer, named) if made(session.resource) else None

    async def alive(self, session: str) -> None:
        """No request of WHIP tells: the worker notices by itself that nothing comes back."""

    async def patch(self, session: str, fragment: str, *, restart: bool) -> str:
        tag = self._tags.get(session)
        # That it gave no tag says that it restarts nothing; of a session of an earlier run it is not known.
        if not session or restart in self._never or (restart and tag == ""):
            raise SinkError("the server takes no change of an ICE session")
        with _as_sink_errors():
            try:
                if not restart:
                    await self._client.trickle(self._endpoint("", ""), session, fragment, tag or "")
                    return ""
                changed = await self._client.restart(self._endpoint("", ""), session, fragment)
            except WhipError as error:
                if error.never:
                    self._never.add(restart)
                raise
        if session in self._tags:
            self._tags[session] = changed.etag
        return changed.fragment

    async def close(self, session: str, tracks: Sequence[LocalTrack]) -> None:
        self._tags.pop(session, None)
        if session:
            with _as_sink_errors():
                await self._client.end(self._endpoint("", ""), session)

    async def aclose(self) -> None:
        """Close the connections; requests in flight fail."""
        await self._client.aclose()


@contextlib.contextmanager
def _as_sink_errors() -> Iterator[None]:
    try:
        yield
    except WhipError as error:
        failed = SinkError(error.message, hint=error.hint, remedy=error.remedy)
        failed.retry_after, failed.unauthorized = error.retry_after, error.unauthorized
        raise failed from error
