"""An RTSP source: one camera's stream from a URL, from connecting to its end."""

from __future__ import annotations

import asyncio
import math
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from relay_common.clock import Clock
from relay_common.counters import joined
from relay_common.pauses import TOLERANCE
from relay_common.secrets import Secret
from relay_common.spoken import spoken
from relay_worker import native
from relay_worker.media.stream import Batch, Feed, MediaSink, Track, WakeSink
from relay_worker.native import DONE, OTHERS_LEFT
from relay_worker.native.states import SourceState
from relay_worker.rtp.rtcp import pack_receiver_report, pack_sdes
from relay_worker.rtsp.errors import ConnectError, RedirectError, RtspError, RtspStage, SessionLostError
from relay_worker.rtsp.events import Playing, Redirected, SessionSettings
from relay_worker.rtsp.session import RtspSession
from relay_worker.rtsp.states import RtspState
from relay_worker.rtsp.tracks import is_rtsp_url
from relay_worker.rtsp.transport import Connection, client_context, connect

MAX_REDIRECTS: Final = 3
REPORT_INTERVAL: Final = 5.0
"""Shortest interval in seconds between receiver reports; they are sent when media arrives, without a timer."""
TEARDOWN_TIMEOUT: Final = 1.0
READ_FIRST: Final = 1.0
"""Seconds in which the server's pending bytes are read after a pause of this process, before its silence is judged."""
_DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322}


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How to connect (seconds), and the session's own settings."""

    connect_timeout: float = 10.0
    ca_file: str | None = None
    """Authorities to trust instead of the system's."""
    session: SessionSettings = field(default_factory=SessionSettings)


class RtspSource(SourceState):
    """Plays `url` into `sink`.

    `run` returns after `stop`, and raises an `RtspError` (with stage and remedy) for any other end; an exception of the
    sink's ends it too. A source is used once: a reconnect is a new object.
    """

    def __init__(self, url: Secret, sink: MediaSink, clock: Clock, settings: SourceSettings | None = None) -> None:
        self._url, self._sink, self._clock = url, sink, clock
        self._settings = settings or SourceSettings()
        self._session: RtspSession | None = None
        self._connection: Connection | None = None
        self._ended: asyncio.Future[Redirected | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_at, self._reading_first = 0.0, False
        self._stopping = False
        self._ssrc = secrets.randbits(32)
        self._tracks: tuple[Track, ...] = ()
        self._report_due = math.inf
        self._wake_sink = sink if isinstance(sink, WakeSink) else None
        self._feed: Feed | None = None

    @property
    def session(self) -> RtspSession | None:
        """The current session, for state and counters."""
        return self._session

    @property
    def connection(self) -> Connection | None:
        """The current connection, for counters."""
        return self._connection

    async def run(self) -> None:
        """Connect, play, follow redirects, until `stop` (returns) or failure (raises RtspError)."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            redirected = await self._play(url)
            if redirected is None:
                return
            url = redirected.url
        raise RedirectError(RtspStage.DESCRIBE, f"more than {MAX_REDIRECTS} redirects in a row")

    def stop(self) -> None:
        """End the session with TEARDOWN; `run` returns within about a second."""
        self._stopping = True
        if self._session is None or self._connection is None:
            self._end(None)
            return
        self._guard(self._begin_teardown)

    def _begin_teardown(self) -> None:
        assert self._session is not None
        self._session.stop(self._clock.now())
        self._flush()
        if self._session.state is RtspState.CLOSED:
            self._end(None)
        else:
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(
                min(TEARDOWN_TIMEOUT, self._settings.session.read_timeout), self._end, None
            )

    async def _play(self, url: Secret) -> Redirected | None:
        if not is_rtsp_url(url.reveal()):
            raise ConnectError(RtspStage.RESOLVE, "the stream URL is not an rtsp:// or rtsps:// URL with a host")
        parts = urlsplit(url.reveal())
        context = self._context() if parts.scheme == "rtsps" else None
        self._ended = asyncio.get_running_loop().create_future()
        if self._stopping:
            return None
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        connecting = asyncio.ensure_future(connect(parts.hostname or "", port, context, self._settings.connect_timeout))
        try:
            await asyncio.wait((connecting, self._ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            connecting.cancel()
        if not connecting.done():
            return None  # stopped in the meantime
        connection = connecting.result()
        if self._stopping:
            connection.close()
            return None
        try:
            self._connection, self._session = connection, RtspSession(url, self._settings.session)
            self._session.start(self._clock.now())
            connection.start(self._received, self._closed)
            self._flush()
            self._arm()
            return await self._ended
        finally:
            self._cancel_timer()
            connection.close()
            self._connection = None

    def _context(self) -> ssl.SSLContext:
        try:
            return client_context(self._settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            why = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConnectError(RtspStage.TLS, f"rtsp.ca_file cannot be used: {why}") from None

    def _received(self, data: bytes) -> None:
        self._take(data, self._clock.now(), None, None)

    def _take(self, data: bytes, now: float, done: int | None, problem: Exception | None) -> None:
        """What one wake brought. `done` and `problem` are what compiled code has said of it and has met."""
        session = self._session
        assert session is not None
        try:
            if problem is not None:
                raise problem
            media = self._take_wake(session, data, now, done) or self._take_apart(session, data, now)
            if media and now >= self._report_due:
                self._report(session, now)
        except Exception as error:
            self._fail(error)
            return
        if session.outgoing:
            self._flush()

    def _take_wake(self, session: RtspSession, data: bytes, now: float, done: int | None) -> bool:
        """Hand the wake to a sink that takes it whole; False when it has to be taken apart here."""
        if self._feed is None or self._wake_sink is None:
            return False
        if done != DONE:
            done = self._wake_sink.take_wake(self._feed, data, now, done)
        if done == OTHERS_LEFT:
            self._wake_sink.take_left(self._feed, now)
        return done in (DONE, OTHERS_LEFT)

    def _take_apart(self, session: RtspSession, data: bytes, now: float) -> bool:
        """Handle all that arrived; whether there was media in it."""
        batches: list[Batch] = []
        for event in session.receive_data(data, now):
            if isinstance(event, Batch):
                batches.append(event)
            else:
                self._handle(event, now)
        if session.state is not RtspState.PLAYING:
            self._dialogue(session)
        if batches:
            self._sink.on_media(batches, now)
        return bool(batches)

    def _handle(self, event: Playing | Redirected, now: float) -> None:
        if isinstance(event, Playing):
            self._tracks, self._report_due = event.tracks, now + REPORT_INTERVAL
            self._feed = self._session.feed() if self._session is not None else None
            self._sink.on_playing(event.tracks, now)
            self._read_compiled()
        else:
            self._end(event)
        self._arm()

    def _read_compiled(self) -> None:
        compiled, connection, sink = native.compiled(), self._connection, self._wake_sink
        if compiled is not None and connection is not None and sink is not None and self._feed is not None:
            connection.read_by(compiled, self._clock, sink, self._session, self, self._take)

    def _dialogue(self, session: RtspSession) -> None:
        """A request may have been answered and another be waiting now, with a deadline of its own."""
        if session.state is RtspState.CLOSED:
            self._end(None)
        else:
            self._arm()

    def _report(self, session: RtspSession, now: float) -> None:
        """A receiver report of every track."""
        self._report_due = now + REPORT_INTERVAL
        for track in self._tracks:
            block = self._sink.receiver_report(track, now)
            if block is not None:
                session.send_rtcp(track, pack_receiver_report(self._ssrc, [block]) + pack_sdes(self._ssrc, "relay"))

    def _flush(self) -> None:
        if self._session is not None and self._connection is not None:
            self._connection.write(self._session.data_to_send())

    def _closed(self, error: Exception | None) -> None:
        session = self._session
        assert session is not None
        try:
            if error is not None and not self._stopping:
                raise SessionLostError(session.stage, f"the connection broke: {spoken(error)}")
            session.connection_lost()
        except RtspError as failure:
            self._fail(failure)
        else:
            self._end(None)

    def _arm(self) -> None:
        """Set the single timer: while media flows it is moved only when it fires."""
        if self._session is None or self._stopping:
            return
        self._cancel_timer()
        if (deadline := self._session.next_deadline()) is None:
            return
        self._wait(max(0.0, deadline - self._clock.now()))

    def _wait(self, delay: float) -> None:
        self._due_at = self._clock.now() + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        late = self._clock.now() - self._due_at > TOLERANCE
        self._reading_first = late and not self._reading_first
        if self._reading_first:
            # This process was paused: timers may be called before what came meanwhile is read.
            self._wait(READ_FIRST)
        else:
            self._guard(self._poll)

    def _poll(self) -> None:
        assert self._session is not None
        self._session.poll(self._clock.now())
        self._flush()
        self._arm()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._fail(error)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _end(self, result: Redirected | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(result)

    def look(self) -> None:
        """Notice what the connection may have missed (`Connection.look`); call it about once a second."""
        if self._connection is not None:
            self._connection.look()

    def counters(self) -> dict[str, int]:
        """Counters of the current session, as `part.name`."""
        session = self._session
        if session is None:
            return {}
        here = {"unknown_channel": session.unknown_channel, "unmatched": session.dialogue.requests.unmatched}
        return joined(session=here, parser=session.parser.counters())

    def tolerated(self) -> dict[str, int]:
        """Tolerated deviations of the server, by their names in docs/quirks.md."""
        return dict(self._session.dialogue.tolerated()) if self._session is not None else {}
