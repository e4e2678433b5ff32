"""Where `relay-worker debug` publishes, without a supervisor: at Cloudflare's SFU or at a WHIP server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relay_common.clock import SystemClock
from relay_common.cloudflare import LocalTrack, SfuClient, SfuError
from relay_common.protocol import PublishAnswer, TrackOffer, TurnServer
from relay_common.whip import WhipClient, WhipEndpoint, WhipError, WhipSession
from relay_common.worker_stats import RenditionStats, SinkStats
from relay_worker.publish.signaling import PublishRefused

WHIP: Final = "whip"
"""The name of the WHIP server as a sink."""


@dataclass
class DirectSignaling:
    """Signalling straight to Cloudflare's API, for a worker without a supervisor."""

    client: SfuClient
    sessions: list[tuple[str, list[str]]] = field(default_factory=list)

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> PublishAnswer:
        """Publish in a new session; raises PublishRefused."""
        try:
            session = await self.client.new_session("relay-worker-debug")
            local = [LocalTrack(mid=t.mid, kind=t.kind, name=f"debug-{t.kind}") for t in tracks]
            answer = await self.client.publish(session, offer, local)
        except SfuError as error:
            raise PublishRefused(str(error), retry_after=max(1.0, error.retry_after)) from None
        self.sessions.append((session, [t.mid for t in tracks]))
        return PublishAnswer(request=0, publication=session, answer=answer)

    async def close(self) -> None:
        """Close what was published."""
        for session, mids in self.sessions:
            with contextlib.suppress(SfuError):
                await self.client.close(session, mids)
        await self.client.aclose()


class WhipSignaling:
    """Signalling straight to a WHIP server. `ca_file` is that of `WhipClient`, which says what it raises."""

    def __init__(self, endpoint: WhipEndpoint, ca_file: str = "") -> None:
        self._endpoint, self._client = endpoint, WhipClient(clock=SystemClock(), ca_file=ca_file)
        self._sessions: list[WhipSession] = []

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> PublishAnswer:
        """Publish in a new session; raises PublishRefused."""
        try:
            session = await self._client.publish(self._endpoint, offer)
        except WhipError as error:
            raise PublishRefused(str(error), retry_after=max(1.0, error.retry_after)) from None
        self._sessions.append(session)
        return PublishAnswer(
            request=0,
            publication=f"session {len(self._sessions)}",
            answer=session.answer,
            ice_servers=[
                TurnServer(urls=[one.url], username=one.username, credential=one.credential)
                for one in session.ice_servers
            ],
        )

    async def patch(self, sink: str, publication: str, fragment: str, *, restart: bool) -> str:
        """What `Control.patch` does, for the newest session."""
        session = self._sessions[-1]
        if not session.resource or (restart and not session.etag):
            raise PublishRefused("the server takes no change of an ICE session", retry_after=0.0)
        try:
            if restart:
                return (await self._client.restart(self._endpoint, session.resource, fragment)).fragment
            await self._client.trickle(self._endpoint, session.resource, fragment, session.etag)
        except WhipError as error:
            raise PublishRefused(str(error), retry_after=0.0) from None
        return ""

    async def close(self) -> None:
        """End what was published, where the server said how."""
        for session in self._sessions:
            if session.resource:
                with contextlib.suppress(WhipError):
                    await self._client.end(self._endpoint, session.resource)
        await self._client.aclose()


def sink_lines(sinks: list[SinkStats]) -> Iterator[str]:
    """What each sink got, in a line."""
    for sink in sinks:
        name = sink.name or "sfu"
        if not sink.live:
            yield f"{name}: not live" + (f" ({sink.stage}: {sink.reason})" if sink.reason else "")
            continue
        yield (
            f"{name}: live, {sink.video_packets} video and {sink.audio_packets} sound packets, "
            f"{sink.bitrate / 1e3:.0f} kbit/s, lost {sink.loss:.1%}, sent again {sink.retransmitted}, "
            f"rtt {sink.rtt * 1e3:.0f} ms"
        )


def rendition_line(rendition: RenditionStats) -> str:
    """What became of the small pictures, in a line."""
    left_out = {name: getattr(rendition, name) for name in ("replaced", "failed", "refused", "stuck", "refusals")}
    return (
        f"rendition: {rendition.active} of {rendition.mode}"
        + (f" ({rendition.reason})" if rendition.reason else "")
        + f", {rendition.pictures} pictures {rendition.width}x{rendition.height}, {rendition.bytes} bytes, "
        + f"{rendition.cpu:.1f} ms of CPU a second"
        + "".join(f", {name} {count}" for name, count in left_out.items() if count)
    )
