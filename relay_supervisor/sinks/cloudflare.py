"""Cloudflare's SFU as a sink: one session of its API for each publication."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from relay_common.cloudflare import LocalTrack, SessionGone, SfuClient, SfuError, unauthorized
from relay_common.config import CloudflareConfig
from relay_common.loopback import is_loopback_url
from relay_common.protocol import SinkTarget
from relay_supervisor.sinks.sink import Opened, SinkError, SinkSessionGone


class CloudflareSink:
    """Publishes with `client`, which stays its owner's to close. Implements `Sink`."""

    name = ""
    viewing = True

    def __init__(self, client: SfuClient) -> None:
        self._client = client

    async def open(
        self, camera: str, name: str, offer: str, tracks: Sequence[LocalTrack], made: Callable[[str], bool]
    ) -> Opened | None:
        with _as_sink_errors():
            session = await self._client.new_session(camera, attempts=1)
            if not made(session):
                return None
            return Opened(session, await self._client.publish(session, offer, tracks))

    async def alive(self, session: str) -> None:
        with _as_sink_errors():
            try:
                await self._client.get_session(session)
            except SessionGone:
                self._client.forget(session)
                raise

    async def patch(self, session: str, fragment: str, *, restart: bool) -> str:
        """The SFU has no call for it: a new session costs one as well."""
        raise SinkError("the SFU takes no change of an ICE session")

    async def close(self, session: str, tracks: Sequence[LocalTrack]) -> None:
        with _as_sink_errors():
            try:
                await self._client.close(session, [track.mid for track in tracks])
            finally:
                self._client.forget(session)


def cloudflare_target(config: CloudflareConfig) -> SinkTarget | None:
    """What workers have to know of the SFU, None where it is not used; its TURN servers come with `UseTurn`, as their
    credentials end.
    """
    return SinkTarget(loopback=is_loopback_url(config.api_base_url)) if config.used else None


def sfu_error(error: SinkError | None) -> SfuError | None:
    """What the SFU itself answered."""
    return error.__cause__ if error is not None and isinstance(error.__cause__, SfuError) else None


@contextlib.contextmanager
def _as_sink_errors() -> Iterator[None]:
    try:
        yield
    except SfuError as error:
        kind = SinkSessionGone if isinstance(error, SessionGone) else SinkError
        failed = kind(error.message, hint=error.hint, remedy=error.remedy)
        failed.retry_after, failed.unauthorized = error.retry_after, unauthorized(error)
        raise failed from error
