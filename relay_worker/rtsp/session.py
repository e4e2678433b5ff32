"""An RTSP client session without I/O and clock: bytes and times in; events and bytes out.

OPTIONS, DESCRIBE, SETUP of each track over interleaved TCP, PLAY, then media with keepalives until TEARDOWN.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from relay_common.fsm import Machine
from relay_common.secrets import Secret
from relay_worker.media.stream import Batch, Feed, Kind, Track
from relay_worker.native.states import SessionState
from relay_worker.rtsp.dialogue import Dialogue
from relay_worker.rtsp.errors import (
    ProtocolError,
    RedirectError,
    RtspError,
    RtspStage,
    RtspTimeoutError,
    SessionLostError,
    UnsupportedError,
    access_hint,
    error_for_status,
)
from relay_worker.rtsp.events import Playing, Redirected, SessionEvent, SessionSettings
from relay_worker.rtsp.fields import DEFAULT_SESSION_TIMEOUT, is_interleaved, read_channels, read_session
from relay_worker.rtsp.messages import Request, Response
from relay_worker.rtsp.parser import ParseError, RtspParser
from relay_worker.rtsp.requests import Pending
from relay_worker.rtsp.sdp import SdpError, parse_sdp
from relay_worker.rtsp.states import TABLE, RtspEvent, RtspState
from relay_worker.rtsp.tracks import (
    aggregate_url,
    base_url,
    choose_tracks,
    is_rtsp_url,
    no_video,
    without_credentials,
)

sdp_log = logging.getLogger("relay.sdp")

__all__ = ["Batch", "Playing", "Redirected", "RtspSession", "SessionEvent", "SessionSettings"]

_STAGES: Final = {
    RtspState.OPTIONS: RtspStage.OPTIONS,
    RtspState.DESCRIBE: RtspStage.DESCRIBE,
    RtspState.SETUP: RtspStage.SETUP,
    RtspState.PLAY: RtspStage.PLAY,
}
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class _Channels(NamedTuple):
    """A track's interleaved channels."""

    track: Track
    rtp: int
    rtcp: int


class RtspSession(SessionState):
    """The client of one connection. `start`, then `receive` what arrives and send what `data_to_send` returns.

    Every method may raise an `RtspError`; the session is over then. After `receive`, `poll` and `stop`, call
    `data_to_send`. `poll` is due at `next_deadline`.
    """

    def __init__(self, url: Secret, settings: SessionSettings | None = None) -> None:
        self._url, self._access_hint = without_credentials(url.reveal()), access_hint(urlsplit(url.reveal()))
        self._settings = settings or SessionSettings()
        self._machine = Machine(TABLE)
        self.state = self._machine.state
        self.dialogue = Dialogue(url, self._settings, lambda: self.stage)
        self.outgoing = self.dialogue.outgoing
        """Bytes for the server, fetched by `data_to_send`."""
        self._parser = RtspParser()
        self._last_data = 0.0
        self._aggregate = self._url
        self._session_timeout = DEFAULT_SESSION_TIMEOUT
        self._public: frozenset[str] = frozenset()
        self._next_keepalive: float | None = None
        self._to_set_up: list[Track] = []
        self._tracks: list[Track] = []
        self._channels: list[_Channels] = []
        self.unknown_channel = 0
        """Frames on channels of no track."""
        self.refused: list[str] = []
        """Why tracks were left out."""

    def _fire(self, event: RtspEvent) -> RtspState:
        self.state = self._machine.fire(event)
        return self.state

    @property
    def stage(self) -> RtspStage:
        """The stage an error would belong to now."""
        return _STAGES.get(self.state, RtspStage.STREAMING)

    @property
    def parser(self) -> RtspParser:
        """The parser, for its counters."""
        return self._parser

    def start(self, now: float) -> None:
        """Send the first request."""
        self._fire(RtspEvent.START)
        self._last_data = now
        self.dialogue.request("OPTIONS", self._url, now)

    def data_to_send(self) -> bytes:
        """Bytes for the server since the last call."""
        data = bytes(self.outgoing)
        self.outgoing.clear()
        return data

    def receive_data(self, data: bytes, now: float) -> list[SessionEvent]:
        """Process received bytes; media is returned as one `Batch` per track, after any other event."""
        self._last_data = now
        try:
            items = self._parser.receive_data(data)
        except ParseError as error:
            raise ProtocolError(self.stage, str(error)) from None
        events: list[SessionEvent] = []
        for item in items:
            if isinstance(item, Response):
                events += self._response(item, now)
            elif isinstance(item, Request):
                events += self._server_request(item)
            else:
                self.unknown_channel += 1
        events += self.take_batches()
        return events

    def take_batches(self) -> list[Batch]:
        """The media that the parser has found, by track."""
        batches = []
        packets = self._parser.packets
        for track, rtp, rtcp in self._channels:
            if packets[rtp] or packets[rtcp]:
                batches.append(Batch(track, packets[rtp], packets[rtcp]))
                packets[rtp], packets[rtcp] = [], []
        return batches

    def feed(self) -> Feed | None:
        """Where the video comes from, while it plays; None where another track comes before it."""
        if self.state is not RtspState.PLAYING or self._channels[0].track.kind is not Kind.VIDEO:
            return None
        track, rtp, rtcp = self._channels[0]
        sound = next(((one.rtp, one.rtcp) for one in self._channels if one.track.kind is Kind.AUDIO), None)
        return Feed(track, self, self._parser, RtspState.PLAYING, rtp, rtcp, sound)

    def connection_lost(self) -> None:
        """The server closed the connection: always raises, unless we were ending the session."""
        if self.state in (RtspState.TEARDOWN, RtspState.CLOSED, RtspState.REDIRECTED):
            return
        stage = self.stage
        self._fire(RtspEvent.END)
        raise SessionLostError(stage, "the server closed the connection")

    def stop(self, now: float) -> None:
        """End the session, with TEARDOWN once it was set up. Harmless when it has ended already."""
        if not self._machine.can(RtspEvent.STOP):
            return
        if self._fire(RtspEvent.STOP) is RtspState.TEARDOWN and self.dialogue.session_id:
            self.dialogue.request("TEARDOWN", self._aggregate, now)

    def send_rtcp(self, track: Track, packet: bytes) -> None:
        """Queue an RTCP packet on the track's RTCP channel."""
        channel = next((entry.rtcp for entry in self._channels if entry.track == track), None)
        if channel is not None and self.state is RtspState.PLAYING:
            self.outgoing += b"$" + bytes((channel,)) + len(packet).to_bytes(2, "big") + packet

    def next_deadline(self) -> float | None:
        """When `poll` is due; None when nothing is pending."""
        if self.state in (RtspState.CLOSED, RtspState.REDIRECTED):
            return None
        if self.state is not RtspState.PLAYING:
            return self.dialogue.requests.deadline()
        silent = self._last_data + self._settings.media_timeout
        return silent if self._next_keepalive is None else min(silent, self._next_keepalive)

    def poll(self, now: float) -> None:
        """Send a keepalive that is due; raise RtspTimeoutError when an answer, or media, is overdue."""
        if self.state is RtspState.PLAYING:
            if now - self._last_data >= self._settings.media_timeout:
                unanswered = self.dialogue.requests.waiting()
                without = f", without an answer to {unanswered}" if unanswered else ""
                raise RtspTimeoutError(
                    RtspStage.STREAMING, f"nothing received: ended after {now - self._last_data:.0f} s{without}"
                )
            if self._next_keepalive is not None and now >= self._next_keepalive:
                self._keepalive(now)
        elif (deadline := self.next_deadline()) is not None and now >= deadline:
            methods = ", ".join(self.dialogue.requests.overdue(now))
            raise RtspTimeoutError(self.stage, f"no answer to {methods} in {self._settings.read_timeout:.0f} s")

    # Keepalives

    def _keepalive(self, now: float) -> None:
        self._next_keepalive = now + self._keepalive_interval()
        self.dialogue.requests.give_up_keepalives()
        method = "GET_PARAMETER" if "GET_PARAMETER" in self._public else "OPTIONS"
        self.dialogue.request(method, self._aggregate, now, keepalive=True)

    def _keepalive_interval(self) -> float:
        return max(1.0, min(self._session_timeout / 2, self._session_timeout - 5))

    # Responses

    def _response(self, response: Response, now: float) -> list[SessionEvent]:
        pending = self.dialogue.answered(response, now)
        if pending is None:
            return []
        if pending.keepalive:
            self._keepalive_answered(pending, response)
            return []
        if pending.method == "TEARDOWN":
            self._fire(RtspEvent.END)
            return []
        if self.state in (RtspState.TEARDOWN, RtspState.CLOSED, RtspState.REDIRECTED):
            return []
        if response.status in _REDIRECTS and pending.method != "OPTIONS":
            return [self._redirect(response.headers.get("Location"))]
        return self._step(pending, response, now)

    def _step(self, pending: Pending, response: Response, now: float) -> list[SessionEvent]:
        """The answer to a request of the opening dialogue."""
        ok = response.status < 300
        if pending.method == "OPTIONS":
            self._options_answered(response, now)
        elif pending.method == "SETUP":
            assert pending.track is not None
            self._setup_answered(pending.track, response, now)
        elif not ok:
            raise error_for_status(self.stage, pending.method, response.status, response.reason, self._access_hint)
        elif pending.method == "DESCRIBE":
            self._described(response, now)
        elif pending.method == "PLAY":
            return [self._play_answered(now)]
        return []

    def _options_answered(self, response: Response, now: float) -> None:
        # Whatever the answer, DESCRIBE shows whether the server can be used.
        if response.status < 300:
            names = ",".join(response.headers.get_all("Public"))
            self._public = frozenset(name.strip().upper() for name in names.split(","))
        self._fire(RtspEvent.OPTIONS_ANSWERED)
        self.dialogue.request("DESCRIBE", self._url, now, [("Accept", "application/sdp")])

    def _described(self, response: Response, now: float) -> None:
        sdp_log.debug("description of the camera:\n%s", response.body.decode("utf-8", "replace"))
        try:
            description = parse_sdp(response.body)
        except SdpError as error:
            raise ProtocolError(RtspStage.DESCRIBE, str(error)) from None
        headers = response.headers
        base = base_url(self._url, headers.get("Content-Base"), headers.get("Content-Location"))
        self._aggregate = aggregate_url(base, description.control)
        chosen = choose_tracks(description, self._aggregate)
        if not any(track.kind is Kind.VIDEO for track in chosen):
            raise no_video(description)
        self._to_set_up = [track for track in chosen if track.kind is Kind.VIDEO or self._settings.audio]
        self._fire(RtspEvent.DESCRIBED)
        self._set_up_next(now)

    def _set_up_next(self, now: float) -> None:
        if self._to_set_up:
            track = self._to_set_up.pop(0)
            first = 2 * len(self._tracks)
            transport = f"RTP/AVP/TCP;unicast;interleaved={first}-{first + 1}"
            self.dialogue.request("SETUP", track.control, now, [("Transport", transport)], track=track)
            return
        if not self._tracks:
            raise UnsupportedError(RtspStage.SETUP, f"no track could be set up ({'; '.join(self.refused)})")
        self._fire(RtspEvent.ALL_SET_UP)
        self.dialogue.request("PLAY", self._aggregate, now, [("Range", "npt=0.000-")])

    def _setup_answered(self, track: Track, response: Response, now: float) -> None:
        try:
            if response.status >= 300:
                raise error_for_status(RtspStage.SETUP, "SETUP", response.status, response.reason, self._access_hint)
            rtp, rtcp = self._channels_for(response.headers.get("Transport"))
        except RtspError as error:
            # A broken audio track must not take the video down.
            if track.kind is Kind.VIDEO:
                raise
            self.refused.append(f"{track.kind.value}: {error.message}")
        else:
            identifier, timeout = read_session(response.headers.get("Session"))
            self.dialogue.name_session(identifier)
            self._session_timeout = timeout or self._session_timeout
            self._tracks.append(track)
            self._channels.append(_Channels(track, rtp, rtcp))
            packets = self._parser.packets
            packets[rtp], packets[rtcp] = [], []
            self._parser.channels = packets
        self._fire(RtspEvent.TRACK_DONE)
        self._set_up_next(now)

    def _channels_for(self, transport: str) -> tuple[int, int]:
        """The channels the server chose; ours when it does not say."""
        if not is_interleaved(transport):
            raise UnsupportedError(RtspStage.SETUP, "the server insists on a transport other than interleaved TCP")
        first, second = read_channels(transport, 2 * len(self._tracks))
        if first > 255 or second > 255 or first == second or {first, second} & self._parser.packets.keys():
            raise ProtocolError(RtspStage.SETUP, f"the server chose unusable interleaved channels {first}-{second}")
        return first, second

    def _play_answered(self, now: float) -> Playing:
        self._fire(RtspEvent.STARTED)
        self._next_keepalive = now + self._keepalive_interval()
        return Playing(tuple(self._tracks), self._session_timeout)

    def _keepalive_answered(self, pending: Pending, response: Response) -> None:
        if response.status == 454:
            raise SessionLostError(RtspStage.STREAMING, "the server does not know the session any more", status=454)
        if response.status >= 400 and pending.method == "GET_PARAMETER":
            self._public -= {"GET_PARAMETER"}

    # The other direction

    def _redirect(self, location: str) -> Redirected:
        stage = self.stage
        if not is_rtsp_url(location):
            raise RedirectError(stage, "redirect without a usable Location")
        if self._url.lower().startswith("rtsps:") and not location.lower().startswith("rtsps:"):
            raise RedirectError(stage, "redirect from TLS to plain RTSP refused")
        self._fire(RtspEvent.REDIRECT)
        return Redirected(Secret(location))

    def _server_request(self, request: Request) -> list[SessionEvent]:
        self.dialogue.reply(request)
        if request.method == "TEARDOWN" and self.state is not RtspState.TEARDOWN:
            raise SessionLostError(self.stage, "the server ended the session")
        if request.method == "REDIRECT" and self._machine.can(RtspEvent.REDIRECT):
            return [self._redirect(request.headers.get("Location"))]
        return []
