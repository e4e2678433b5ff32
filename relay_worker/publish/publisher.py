"""One publication at the SFU: offer, answer, connection, media out, keyframe requests back.

A `Publisher` lives for one session and is never renegotiated: when it fails, its owner creates a new one
(`cloudflare-sfu.md` 5.2). Signalling is an interface, so that a worker asks its supervisor and `relay-worker debug`
asks Cloudflare directly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from relay_common.clock import Clock, LoopClock
from relay_common.counters import joined
from relay_common.errors import RelayError
from relay_common.fsm import Machine
from relay_common.protocol import Stage
from relay_worker.media.delay import DelayMeter
from relay_worker.publish.answer import Answer, parse_answer
from relay_worker.publish.extensions import max_payload
from relay_worker.publish.feedback import Estimate
from relay_worker.publish.media_out import MediaOut
from relay_worker.publish.offer import make_offer
from relay_worker.publish.publication import (
    SOUND_REPORT_SILENCE,
    Patch,
    PublishError,
    PublisherSettings,
    PublisherStats,
    PublishTrack,
    Signaling,
)
from relay_worker.publish.publisher_states import PUBLISHER_TABLE, PublisherEvent, PublisherState
from relay_worker.webrtc.addresses import default_host_addresses
from relay_worker.webrtc.arrival import waited
from relay_worker.webrtc.gso import PacketPath, RelayPath, UdpPath
from relay_worker.webrtc.sdp import AnswerError
from relay_worker.webrtc.sdp_fragment import read_restart, write_patch
from relay_worker.webrtc.transport import MediaTransport, PeerConnectError

log = logging.getLogger(__name__)

RESTART_WITHIN: Final = 3.0
"""Seconds for an ICE restart, in which the publication is as good as lost; a new one is made after it."""
_UNHEARD: Final = "A new session is made; if it happens again look at the uplink and at UDP filters"


class Publisher(MediaOut):
    """Publishes video (mid 0) and, when `audio`, Opus (mid 1) of one camera in one SFU session.

    `profile_idc` is the stream's H.264 profile when it is known (it decides the label that stands first).
    `simulcast` offers a small layer beside it (`send_small`), of which a keyframe is asked for by `on_small_request`.
    `on_lost` is called once when a connected publication fails by itself, with the reason; with `patch` an ICE restart
    is tried first. It is `connected` in the state of that name.
    """

    def __init__(
        self,
        camera: str,
        signaling: Signaling,
        *,
        audio: bool = True,
        profile_idc: int | None = None,
        simulcast: bool = False,
        settings: PublisherSettings | None = None,
        clock: Clock | None = None,
        on_keyframe_request: Callable[[], None] = lambda: None,
        on_small_request: Callable[[], None] = lambda: None,
        on_lost: Callable[[PublishError], None] = lambda error: None,
        patch: Patch | None = None,
        delay: DelayMeter | None = None,
    ) -> None:
        self._settings = settings or PublisherSettings()
        super().__init__(
            clock or LoopClock(),
            self._settings.pacer,
            on_keyframe_request=on_keyframe_request,
            on_small_request=on_small_request,
            delay=delay,
        )
        self.camera = camera
        self._signaling = signaling
        self._on_lost, self._patch = on_lost, patch
        self._restart: asyncio.Task[None] | None = None
        self._acknowledged: list[int] = []
        """Highest packets that were acknowledged when ICE was restarted last."""
        self.ice_restarts = self.ice_restarts_failed = 0
        self._machine = Machine(PUBLISHER_TABLE)
        self._offer = make_offer(
            audio=audio, profile_idc=profile_idc, stereo=self._settings.stereo, simulcast=simulcast
        )
        self._transport: MediaTransport | None = None
        self.answer: Answer | None = None

    @property
    def state(self) -> PublisherState:
        return self._machine.state

    @property
    def path(self) -> PacketPath | None:
        """What packets leave by; None before the connection."""
        return self._transport.path if self._transport is not None else None

    @property
    def relayed(self) -> bool:
        """Whether packets go through a TURN relay; known once connected."""
        return isinstance(self.path, RelayPath)

    def _fire(self, event: PublisherEvent) -> None:
        self.connected = self._machine.fire(event) is PublisherState.CONNECTED

    async def start(self) -> None:
        """Publish and connect. Raises PublishError, SimulcastRefused, or the RelayError of signalling; then `close` the
        publisher.

        It must also be closed after a cancellation.
        """
        self._fire(PublisherEvent.START)
        settings = self._settings
        try:
            self._transport = transport = MediaTransport(
                ice_servers=settings.ice_servers,
                # Looked for again at an ICE restart: they may be what has changed.
                addresses=partial(
                    default_host_addresses, loopback=settings.loopback, loopback_too=settings.loopback_too
                ),
                gso=settings.gso,
                peer=settings.peer,
                on_unanswered=self._unanswered if settings.notice_refusals else None,
                on_packet=self._received,
                on_closed=self._transport_closed,
            )
            local = await transport.gather()
            self.answer = parse_answer(await self._ask(self._offer.sdp(local)), self._offer)
            self._fire(PublisherEvent.ANSWERED)
            await transport.connect(self.answer.transport, settings.connect_timeout)
            assert transport.protector is not None
            assert transport.path is not None
            self._begin(transport.protector, transport.path, self.answer.tracks, self._offer.cname)
            self._fire(PublisherEvent.ESTABLISHED)
        except RelayError as error:
            raise self._failed(error) from error
        # A viewer can only start at a keyframe, and the camera's next one may be seconds away.
        self._on_keyframe_request()

    def _failed(self, error: RelayError) -> RelayError:
        """Record that `start` failed; adds the camera and the stage to the error."""
        if not self._machine.can(PublisherEvent.FAIL):
            return PublishError(self.camera, Stage.PUBLISH, "closed while it was being published")
        self._fire(PublisherEvent.FAIL)
        if isinstance(error, PeerConnectError):
            return PublishError(self.camera, Stage(error.stage), error.message, hint=error.hint)
        if isinstance(error, AnswerError):
            return PublishError(self.camera, Stage.PUBLISH, error.message, hint=error.hint)
        return error

    async def _ask(self, sdp: str) -> str:
        tracks = [PublishTrack(track.mid, track.kind, track.rids) for track in self._offer.tracks]
        timeout = self._settings.signaling_timeout
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that arrives together with the answer.
            async with asyncio.timeout(timeout):
                return await self._signaling.publish(sdp, tracks)
        except TimeoutError:
            message = f"no SDP answer within {timeout:g} s"
            raise PublishError(
                self.camera, Stage.PUBLISH, message, hint="Check the connection to the SFU's API"
            ) from None

    # --- the connection

    @property
    def max_payload(self) -> int:
        """Bytes of the largest video payload whose packet fits the path; known once connected."""
        assert self._transport is not None
        return max_payload(self._transport.ip_header, self._video.extensions.size if self._video is not None else 0)

    @property
    def rids(self) -> tuple[str, ...]:
        """The layers that the answer took, best first; none of a plain publication."""
        return self._offer.tracks[0].rids if self.answer is not None else ()

    @property
    def audio_accepted(self) -> bool:
        """Whether the SFU takes audio; known once connected."""
        return self._audio is not None

    def _waited(self) -> float:
        return waited(self._transport.media.reading) if self._transport is not None else 0.0

    def _transport_closed(self) -> None:
        self._fail(f"{self._settings.peer} closed the connection, or no longer answers on it")

    @property
    def _restarting(self) -> bool:
        return self._restart is not None and not self._restart.done()

    def _unanswered(self) -> None:
        self._lost(f"{self._settings.peer} answers no connectivity check")

    def _lost(self, message: str) -> None:
        """The way there does not work: look for another, where that may help, before the publication has failed."""
        sender = self._sender
        if not self.connected or self._restarting or sender is None:
            return
        acknowledged = [track.highest for track in sender.tracks]
        if self._patch is None or acknowledged == self._acknowledged:
            self._fail(message, _UNHEARD)
            return
        self._acknowledged = acknowledged
        self._restart = asyncio.get_running_loop().create_task(self._find_way(self._patch, message))

    async def _find_way(self, patch: Patch, lost: str) -> None:
        """Restart ICE; if that cannot be done, the publication has failed for the reason `lost`."""
        transport, answer, sender = self._transport, self.answer, self._sender
        assert transport is not None
        assert answer is not None
        assert sender is not None
        try:
            async with asyncio.timeout(RESTART_WITHIN):
                local = await transport.gather_again()
                mids = [track.mid for track in self._offer.tracks]
                theirs = await patch(write_patch(local, self._offer.tracks[0].kind, mids), restart=True)
                await transport.reconnect(read_restart(theirs, answer.transport), RESTART_WITHIN)
        except (RelayError, TimeoutError) as error:
            self.ice_restarts_failed += 1
            log.info("%s: no ICE restart: %s", self.camera, getattr(error, "message", "") or "not in time")
            self._fail(lost, _UNHEARD)
            return
        if not self.connected:  # ended meanwhile
            return
        self.ice_restarts += 1
        log.info("%s: %s; the session goes on after an ICE restart", self.camera, lost)
        sender.put_off(float("inf"), self._clock.now())  # what was owed before is owed from now on
        self._on_keyframe_request()

    def _fail(self, message: str, hint: str = "") -> None:
        if self.connected:
            self._fire(PublisherEvent.FAIL)
            self._stop_timer()
            self._on_lost(PublishError(self.camera, Stage.SENDING, message, hint=hint))

    def check(self, now: float) -> bool:
        """Judge liveness; call it about once a second from the worker's watchdog.

        The SFU acknowledges new packets in every receiver report. When media was sent and none was acknowledged for
        `report_silence` seconds, the publication fails (`on_lost`), and so it does for one track, once the SFU has been
        seen to report on it. True while it is good.
        """
        sender = self._sender
        if not self.connected or self._restarting or sender is None:
            return self.connected
        silence = self._settings.report_silence
        # Only silence while we kept sending counts: what was not sent cannot be acknowledged.
        if sender.owed_since is not None and sender.last_sent - sender.owed_since > silence:
            self._lost(f"{self._settings.peer} acknowledged none of our packets: ended after {silence:g} s")
            return self.connected
        for track in sender.tracks:
            if track.is_small:
                continue  # a picture in ten seconds may be all that is sent, and the original is what counts
            most = silence if track.kind == "video" else max(silence, SOUND_REPORT_SILENCE)
            if track.acknowledged and track.owed_since is not None and track.last_sent - track.owed_since > most:
                self._fail(
                    f"{self._settings.peer} acknowledged no {track.kind} packet: ended after {most:g} s", _UNHEARD
                )
        return self.connected

    # --- end

    def stats(self) -> PublisherStats:
        """Current totals and estimates; what was refused or limited is in `counters`."""
        sender, path = self._sender, self.path
        tracks = sender.tracks if sender is not None else ()
        return PublisherStats(
            tracks={track.kind: track.stats for track in tracks if not track.is_small},
            estimate=sender.estimate if sender is not None else Estimate(),
            pacer=self._pacer.stats,
            ceiling=self._pacer.ceiling,
            share=self._uplink.share(self._clock.now()) if self._uplink is not None else None,
            queued_bytes=self._pacer.queued_bytes,
            drops=path.drops if path is not None else 0,
        )

    def totals(self, kind: str) -> tuple[int, int, int]:
        """Of `stats`: packets of one kind, keyframes that were requested, and what of video was cut."""
        path, pacer, track = self.path, self._pacer.stats, self._video if kind == "video" else self._audio
        if track is None:
            return 0, 0, 0
        cut = pacer.thinned_frames + (path.drops if path is not None else 0) if track is self._video else 0
        return track.stats.packets, track.stats.plis + track.stats.firs, cut

    async def close(self) -> None:
        """Send BYE and release everything; safe in any state and more than once."""
        if self.state is PublisherState.CLOSED:
            return
        if self.connected and self._sender is not None:
            self._sender.say_goodbye(self._clock.now())
        self._fire(PublisherEvent.CLOSE)
        self._stop_timer()
        if self._restart is not None:
            self._restart.cancel()
        if self._transport is not None:
            await self._transport.close()

    def counters(self) -> dict[str, int]:
        """Counters of this publication, its own and those of its parts as `part.name`."""
        sender, uplink, transport, path = self._sender, self._uplink, self._transport, self.path
        return {"not_connected": self._not_connected} | joined(
            small={"unsent": self._small_layer.unsent},
            pacer={"overflows": self._pacer.stats.overflows},
            sender=sender.counters() if sender is not None else {},
            uplink=uplink.counters() if uplink is not None else {},
            transport=transport.counters() if transport is not None else {},
            path=path.counters() if isinstance(path, UdpPath) else {},
        )
