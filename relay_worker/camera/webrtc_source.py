"""A WebRTC source: one session with a camera, from our offer to its end.

Google's answer is used up by the session: it cannot be joined again, so every end requires a new stream.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiortc import RTCIceServer

from relay_common.causes import Cause
from relay_common.clock import Clock
from relay_common.counters import joined
from relay_common.errors import Remedy, RemoteError
from relay_common.fsm import Machine, Table
from relay_common.protocol import Stage
from relay_common.secrets import Secret
from relay_worker.camera.datagram_feed import DatagramFeed, IngestSink, channels_of
from relay_worker.camera.handover import KeyframeGate
from relay_worker.camera.ingest_answer import IngestAnswer, parse_ingest_answer
from relay_worker.camera.ingest_offer import make_ingest_offer
from relay_worker.camera.webrtc_ingest import REPORT_INTERVAL, Ingest
from relay_worker.media.stream import Batch, Kind, WakeSink
from relay_worker.native.states import SourceState
from relay_worker.webrtc.addresses import default_host_addresses
from relay_worker.webrtc.incoming import framed_packets
from relay_worker.webrtc.sdp import AnswerError
from relay_worker.webrtc.transport import MediaTransport, PeerConnectError

log = logging.getLogger(__name__)

FIRST_PICTURE: Final = 30.0
"""Seconds from the connection to the first video packet: a camera that has to wake up takes 15 and more."""
STALL: Final = 15.0
"""Seconds without a video packet after which a session counts as dead; pauses of more than five are normal."""
CONNECT_TIMEOUT: Final = 15.0


class IngestState(enum.Enum):
    NEW = "new"
    OFFERED = "offered"
    CONNECTING = "connecting"
    STANDBY = "standby"
    """Connected; video has not started, and another session may still be active."""
    PLAYING = "playing"
    FAILED = "failed"
    CLOSED = "closed"


class IngestEvent(enum.Enum):
    GATHERED = "offer made"
    ANSWERED = "answered"
    CONNECTED = "connected"
    TAKE_OVER = "take over"
    FAIL = "fail"
    CLOSE = "close"


_S, _E = IngestState, IngestEvent

INGEST_TABLE: Final = Table(
    "ingest",
    _S.NEW,
    {
        (_S.NEW, _E.GATHERED): _S.OFFERED,
        (_S.NEW, _E.CLOSE): _S.CLOSED,
        (_S.OFFERED, _E.ANSWERED): _S.CONNECTING,
        (_S.OFFERED, _E.CLOSE): _S.CLOSED,
        (_S.CONNECTING, _E.CONNECTED): _S.STANDBY,
        (_S.CONNECTING, _E.FAIL): _S.FAILED,
        (_S.CONNECTING, _E.CLOSE): _S.CLOSED,
        (_S.STANDBY, _E.TAKE_OVER): _S.PLAYING,
        (_S.STANDBY, _E.FAIL): _S.FAILED,
        (_S.STANDBY, _E.CLOSE): _S.CLOSED,
        (_S.PLAYING, _E.FAIL): _S.FAILED,
        (_S.PLAYING, _E.CLOSE): _S.CLOSED,
        (_S.FAILED, _E.CLOSE): _S.CLOSED,
    },
)

CONNECTED: Final = frozenset((_S.STANDBY, _S.PLAYING))


_CAUSES: Final = {
    Stage.ICE: Cause.CAMERA_UNREACHABLE,
    Stage.DTLS: Cause.CAMERA_UNREACHABLE,
    Stage.STREAMING: Cause.CAMERA_STALLED,
}


class IngestError(RemoteError):
    """The session with the camera could not be established or has ended, at `stage`; only a new stream helps."""

    remedy = Remedy.REGENERATE

    def __init__(self, stage: Stage, message: str, *, hint: str = "") -> None:
        super().__init__(f"WebRTC {stage.value}: {message}", hint=hint)
        self.stage = stage

    @property
    def cause(self) -> Cause:
        """The reason code of this failure."""
        return _CAUSES.get(self.stage, Cause.CAMERA_BROKEN)


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """Receive settings; times in seconds."""

    ice_servers: tuple[RTCIceServer, ...] = ()
    loopback: bool = False
    """Use 127.0.0.1 only: for cameras simulated on this machine."""
    connect_timeout: float = CONNECT_TIMEOUT
    first_picture: float = FIRST_PICTURE
    stall: float = STALL


class WebRtcSource(SourceState):
    """One session. `offer`, then `connect` with the answer to it; it feeds `sink` until `close` or `on_ended`.

    A source is used once.
    """

    def __init__(
        self,
        sink: IngestSink,
        clock: Clock,
        settings: IngestSettings,
    ) -> None:
        self._sink, self._clock, self._settings = sink, clock, settings
        self.on_playing: Callable[[], None] = lambda: None
        """Called when its media starts to reach the sink."""
        self.on_ended: Callable[[IngestError], None] = lambda error: None
        """Called once when it ends by itself after `connect`."""
        self._machine = Machine(INGEST_TABLE)
        self._offer = make_ingest_offer()
        self._transport = MediaTransport(
            ice_servers=settings.ice_servers,
            addresses=default_host_addresses(loopback=settings.loopback),
            peer="the camera",
            on_packet=self._received,
            on_wake=self._woken,
            on_frames=self._came,
            on_closed=lambda: self._end("the camera closed the connection, or no longer answers on it"),
        )
        self._batches: list[Batch] = []
        self._behind = 0  # how many of them are up to the last RTCP
        self._feed: DatagramFeed | None = None
        """While it plays to a sink that may take whole wakes."""
        self._known: dict[tuple[int, int], Kind] = {}
        self._report_due = -math.inf
        """When the next report is due, while nothing else is to be sent and sound alone changes nothing of that."""
        self._gate: KeyframeGate | None = None
        self._unlooked: int | None = None
        """Number of the newest packet of video that was taken without the ingest, until that knows of it."""
        self._alive_at = 0.0
        self._video_timeout = settings.first_picture
        self.ingest: Ingest | None = None
        self.answer: IngestAnswer | None = None

    @property
    def state(self) -> IngestState:
        return self._machine.state

    async def offer(self) -> str:
        """Gather addresses and return the SDP offer."""
        local = await self._transport.gather()
        self._machine.fire(IngestEvent.GATHERED)
        return self._offer.sdp(local)

    async def connect(self, answer: Secret, *, handover: bool = False) -> None:
        """Connect with the answer. Raises IngestError; `close` is then still the caller's.

        With `handover` the sink has another source: this one takes over at its first keyframe.
        """
        self._machine.fire(IngestEvent.ANSWERED)
        try:
            self.answer = parse_ingest_answer(answer.reveal())
            await self._transport.connect(self.answer.transport, self._settings.connect_timeout)
        except AnswerError as error:
            raise self._failed(IngestError(Stage.OFFER, error.message, hint=error.hint)) from None
        except PeerConnectError as error:
            raise self._failed(IngestError(Stage(error.stage), error.message, hint=error.hint)) from None
        if self.state is not IngestState.CONNECTING:
            raise IngestError(Stage.ICE, "closed while it was connecting")
        if self.answer.repairs:
            log.debug("repaired in the camera's answer: %s", dict(self.answer.repairs))
        now = self._clock.now()
        self._machine.fire(IngestEvent.CONNECTED)
        self.ingest = Ingest(self.answer, self._offer.ssrc, self._sink.receiver_report)
        self._alive_at = now
        self.ingest.request_keyframe(now)
        if handover:
            self._gate = KeyframeGate()
        else:
            self._take_over(now)
        self._send_feedback(self.ingest, now)

    def _failed(self, error: IngestError) -> IngestError:
        if self._machine.can(IngestEvent.FAIL):
            self._machine.fire(IngestEvent.FAIL)
        return error

    # --- media in --------------------------------------------------------------------------------------------------

    def _received(self, packet: bytes, is_rtcp: bool, now: float) -> None:
        ingest = self.ingest
        if ingest is None or self.state not in CONNECTED:
            return
        self._tell(ingest)
        if is_rtcp:
            self._look()
            self._batches += ingest.receive_rtcp(packet)
            self._behind = len(self._batches)
            return
        batch = ingest.receive_packet(packet, now)
        if batch is None or batch.track.kind is not Kind.AUDIO:  # sound has no part in what is asked of the camera
            self._look()
        if batch is not None:
            self._gather(batch)
            if batch.track.kind is Kind.VIDEO:
                self._alive_at, self._video_timeout = now, self._settings.stall

    def _gather(self, batch: Batch) -> None:
        """Add a packet to those of this wake: by track, video first, as far as no RTCP is between."""
        for earlier in self._batches[self._behind :]:
            if earlier.track is batch.track:
                earlier.rtp += batch.rtp
                return
        self._batches.insert(self._behind if batch.track.kind is Kind.VIDEO else len(self._batches), batch)

    def _woken(self, now: float) -> None:
        """Everything that had arrived was read: pass it on together, and send feedback."""
        ingest = self.ingest
        if ingest is None or self.state not in CONNECTED:
            return
        batches, self._batches, self._behind = self._batches, [], 0
        try:
            if batches:
                self._hand_over(batches, now)
            self._answer(ingest, now)
            if ingest.streams != self._known:
                self._known = dict(ingest.streams)
                self._transport.media.know(channels_of(self._known))
        except Exception:
            self._broken()

    def _came(self, frames: bytes, now: float, more: bool, error: Exception | None = None) -> None:
        """What one wake brought of RTP: to the sink as it is where it takes that, else packet by packet. With `more`
        there is something else behind it, and `_woken` follows. `error` was raised by who took it.
        """
        ingest, feed = self.ingest, self._feed
        if ingest is None or self.state not in CONNECTED:
            return
        try:
            if error is not None:
                raise error
            self._tell(ingest)
            if feed is not None:
                if now < self._report_due and feed.hear(frames, now):
                    return
                taken = feed.take(ingest, frames, now)
                if taken is Kind.VIDEO:
                    self._alive_at, self._video_timeout = now, self._settings.stall
                if taken is not None:
                    if not more:
                        self._rest(ingest, now)
                    return
        except Exception:
            self._broken()
            return
        for packet in framed_packets(frames):
            self._received(packet, False, now)
        if not more:
            self._woken(now)

    def _tell(self, ingest: Ingest) -> None:
        """Have the ingest know of video that compiled code has taken by itself."""
        if self._unlooked is not None:
            ingest.received(self._unlooked)
            self._unlooked = None

    def _look(self) -> None:
        """The next wake is to be looked at, whatever it brings."""
        self._report_due = -math.inf
        if self._feed is not None:
            self._feed.in_step = False

    def _rest(self, ingest: Ingest, now: float) -> None:
        """Send what is due, if anything is."""
        if self._sink.waits_for_keyframe or not ingest.rests(now):
            self._report_due = -math.inf
            self._answer(ingest, now)
        else:
            self._report_due = ingest.reported_at + REPORT_INTERVAL

    def _answer(self, ingest: Ingest, now: float) -> None:
        """Send what is due to the camera."""
        if ingest.may_request(now):
            self._want_keyframe(ingest, now)
        self._send_feedback(ingest, now)

    def _broken(self) -> None:
        log.exception("receiving from the camera failed")
        self._end("a packet could not be handled; see the log")

    def _hand_over(self, batches: Sequence[Batch], now: float) -> None:
        if self._gate is None:
            self._sink.on_media(batches, now)
            return
        gate = self._gate
        begun = False
        for batch in batches:
            begun = gate.receive_batch(batch) or begun
        if begun:
            self._gate = None
            self._take_over(now)
            self._sink.on_media(gate.held, now)

    def _take_over(self, now: float) -> None:
        assert self.answer is not None
        self._machine.fire(IngestEvent.TAKE_OVER)
        self._sink.on_playing(self.answer.tracks, now)
        if isinstance(self._sink, WakeSink):
            self._feed = DatagramFeed(self.answer.tracks, self._sink, self._sink)
            self._transport.media.listen(self._sink, self._feed, self)
        self.on_playing()

    # --- feedback out ----------------------------------------------------------------------------------------------

    def request_keyframe(self) -> None:
        """A viewer needs a keyframe: ask the camera, at most once a second."""
        if self.ingest is not None and self.state is IngestState.PLAYING:
            now = self._clock.now()
            self._report_due = -math.inf
            self.ingest.request_keyframe(now)
            self._send_feedback(self.ingest, now)

    def _want_keyframe(self, ingest: Ingest, now: float) -> None:
        """Ask for a keyframe while the picture cannot go on without one."""
        if self._gate is not None or self._sink.waits_for_keyframe:
            ingest.request_keyframe(now)
        else:
            ingest.keyframe_came(self._sink.keyframe_at)

    def _send_feedback(self, ingest: Ingest, now: float) -> None:
        packet = ingest.feedback(now)
        transport = self._transport
        if packet and transport.protector is not None and transport.path is not None:
            transport.path.send([memoryview(transport.protector.protect_rtcp(packet))])

    # --- liveness and end --------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Check liveness and send what is due, about once a second."""
        if self.ingest is None or self.state not in CONNECTED:
            return
        self._tell(self.ingest)
        self._look()
        if self.state is IngestState.PLAYING:
            self._sink.flush(now)
        self._want_keyframe(self.ingest, now)
        self._send_feedback(self.ingest, now)
        if now - self._alive_at > self._video_timeout:
            self._end(f"no video for {self._video_timeout:.0f} s")

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of the camera's, whose packets are unread."""
        self._alive_at = min(now, self._alive_at + seconds)

    def _end(self, message: str) -> None:
        self._end_feed()
        if self.state in CONNECTED:
            self._machine.fire(IngestEvent.FAIL)
            self.on_ended(IngestError(Stage.STREAMING, message))

    def _end_feed(self) -> None:
        if self._feed is not None:
            self._feed.end()
            self._feed, self._unlooked = None, None
            self._transport.media.listen(None, None, None)

    async def close(self) -> None:
        """Send BYE and release everything; safe in any state and more than once."""
        self._end_feed()
        if self.state is not IngestState.CLOSED:
            self._machine.fire(IngestEvent.CLOSE)
            await self._transport.close()

    def counters(self) -> dict[str, int]:
        """Counters of this session, as `part.name`."""
        ingest = self.ingest.counters() if self.ingest is not None else {}
        return ingest | joined(transport=self._transport.counters())
