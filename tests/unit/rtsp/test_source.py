"""The source against the simulated camera, which shares no protocol code with it, and against servers that fail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from relay_common.clock import SystemClock
from relay_common.errors import Remedy
from relay_common.secrets import Secret
from relay_common.simulation.camera.camera import Camera, CameraSettings
from relay_common.simulation.camera.certs import make_server_context
from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.rtsp_server import RtspServer
from relay_common.simulation.camera.rtsp_streams import Admission
from relay_worker.media.stream import Batch, Track
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtsp import errors, source
from relay_worker.rtsp.errors import RtspError, RtspStage
from relay_worker.rtsp.events import SessionSettings
from relay_worker.rtsp.source import RtspSource, SourceSettings

pytestmark = pytest.mark.media

VIDEO = VideoSpec(width=160, height=120, seconds=2.0)


class Sink:
    """Counts what comes and tells when there is enough of it."""

    def __init__(self, wanted: int = 30) -> None:
        self.wanted = wanted
        self.receivers: dict[Track, RtpReceiver] = {}
        self.sender_reports = 0
        self.enough = asyncio.Event()

    def on_playing(self, tracks: Sequence[Track], now: float) -> None:
        self.receivers = {track: RtpReceiver(track.clock_rate, track.format.payload_type) for track in tracks}

    def on_media(self, batches: Sequence[Batch], now: float) -> None:
        for batch in batches:
            self.sender_reports += len(batch.rtcp)
            for packet in batch.rtp:
                self.receivers[batch.track].receive_packet(packet, now)
        if all(receiver.packets >= self.wanted for receiver in self.receivers.values()):
            self.enough.set()

    def receiver_report(self, track: Track, now: float) -> ReportBlock | None:
        return self.receivers[track].receiver_report(now)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    return make_server_context(tmp_path)


@pytest.fixture
async def server(tls: tuple[ssl.SSLContext, Path]) -> AsyncIterator[tuple[RtspServer, Camera, Path]]:
    camera = Camera(CameraSettings("Test", VIDEO, describe_delay=0.3, interleaved="server"))
    await asyncio.to_thread(camera.prepare)
    statuses = {"/gone": 404, "/refused": 403}
    server = RtspServer(lambda path, token, wall: Admission(statuses.get(path, 200), camera, path), tls=tls[0])
    await server.start()
    yield server, camera, tls[1]
    await server.stop()


def settings(ca_file: Path | None = None, **session: float) -> SourceSettings:
    return SourceSettings(5.0, str(ca_file) if ca_file else None, SessionSettings(**session))


async def test_plays_over_tls_reports_back_and_stops(
    server: tuple[RtspServer, Camera, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "REPORT_INTERVAL", 0.2)
    edge, camera, ca_file = server
    sink = Sink()
    player = RtspSource(Secret(f"{edge.url}/x?auth=g.0.abc"), sink, SystemClock(), settings(ca_file))
    running = asyncio.create_task(player.run())
    async with asyncio.timeout(30):
        await sink.enough.wait()
    player.stop()
    async with asyncio.timeout(10):
        await running
    assert [track.kind.value for track in sink.receivers] == ["video", "audio"]
    assert not any(receiver.lost or receiver.malformed for receiver in sink.receivers.values())
    assert sink.sender_reports >= 2
    assert camera.counters.receiver_reports >= 2
    assert camera.counters.describes == 1


@pytest.mark.parametrize(
    ("path", "kind", "remedy"),
    [("gone", errors.NotFoundError, Remedy.RETRY), ("refused", errors.AccessError, Remedy.REGENERATE)],
)
async def test_refusals(
    server: tuple[RtspServer, Camera, Path], path: str, kind: type[RtspError], remedy: Remedy
) -> None:
    edge, _, ca_file = server
    with pytest.raises(kind) as caught:
        await RtspSource(Secret(f"{edge.url}/{path}?auth=g.0.abc"), Sink(), SystemClock(), settings(ca_file)).run()
    assert caught.value.stage is RtspStage.DESCRIBE
    assert caught.value.remedy is remedy
    assert "g.0.abc" not in str(caught.value)


async def test_certificate_is_verified_by_default(server: tuple[RtspServer, Camera, Path]) -> None:
    edge, camera, _ = server
    with pytest.raises(errors.ConnectError, match=r"not trusted.*ca_file") as caught:
        await RtspSource(Secret(f"{edge.url}/x"), Sink(), SystemClock()).run()
    assert caught.value.stage is RtspStage.TLS
    assert camera.counters.describes == 0


class Jumping(SystemClock):
    """The real clock, and pauses of the process on top."""

    paused = 0.0

    def now(self) -> float:
        return super().now() + self.paused


@pytest.mark.parametrize("silent", [False, True])
async def test_what_came_during_a_pause_of_our_own_is_read_before_silence_is_judged(
    server: tuple[RtspServer, Camera, Path], monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """After SIGCONT, timers may be called before the sockets are read."""
    monkeypatch.setattr(source, "READ_FIRST", 0.0 if silent else 0.3)
    edge, _, ca_file = server
    sink, clock = Sink(), Jumping()
    player = RtspSource(Secret(f"{edge.url}/x"), sink, clock, settings(ca_file))
    running = asyncio.create_task(player.run())
    async with asyncio.timeout(30):
        await sink.enough.wait()
        clock.paused = 25.0
        player._due()
        if silent:
            clock.paused += 25.0
            player._due()
            assert player._ended is not None
            assert player._ended.done(), "a loop that is always late judges all the same"
            with pytest.raises(errors.RtspTimeoutError, match="nothing received"):
                await running
            return
        sink.enough.clear()
        sink.wanted += 60
        more = asyncio.create_task(sink.enough.wait())
        await asyncio.wait((more, running), return_when=asyncio.FIRST_COMPLETED)
        assert not running.done()
        while player._reading_first:
            await asyncio.sleep(0.01)
    player.stop()
    async with asyncio.timeout(10):
        await running


async def test_reset_while_streaming(server: tuple[RtspServer, Camera, Path]) -> None:
    edge, camera, ca_file = server
    sink = Sink()
    running = asyncio.create_task(RtspSource(Secret(f"{edge.url}/x"), sink, SystemClock(), settings(ca_file)).run())
    async with asyncio.timeout(30):
        await sink.enough.wait()
    for session in list(camera.sessions):
        session.reset()
    with pytest.raises(errors.SessionLostError) as caught:
        async with asyncio.timeout(10):
            await running
    assert caught.value.stage is RtspStage.STREAMING


async def test_stop_while_describe_waits(server: tuple[RtspServer, Camera, Path]) -> None:
    edge, camera, ca_file = server
    player = RtspSource(Secret(f"{edge.url}/x"), Sink(), SystemClock(), settings(ca_file))
    running = asyncio.create_task(player.run())
    async with asyncio.timeout(10):
        while not camera.counters.describes:
            await asyncio.sleep(0.01)
        player.stop()
        await running


async def scripted(*answers: bytes) -> tuple[asyncio.Server, str]:
    """A plain server that answers each request with the next of `answers`, then says nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


async def test_server_that_never_answers() -> None:
    server, url = await scripted()
    async with server:
        with pytest.raises(errors.RtspTimeoutError) as caught:
            await RtspSource(Secret(url), Sink(), SystemClock(), settings(read_timeout=0.2)).run()
        assert caught.value.stage is RtspStage.OPTIONS


async def test_each_request_has_a_deadline_of_its_own() -> None:
    server, url = await scripted(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
    async with server:
        with pytest.raises(errors.RtspTimeoutError) as caught:
            # Long enough for the first answer on a busy machine.
            await RtspSource(Secret(url), Sink(), SystemClock(), settings(read_timeout=2.0)).run()
        assert caught.value.stage is RtspStage.DESCRIBE


async def test_redirects_are_followed_and_counted() -> None:
    ok = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
    last, url = await scripted(ok, b"RTSP/1.0 404 No\r\nCSeq: 2\r\n\r\n")
    first, start = await scripted(ok, f"RTSP/1.0 302 Found\r\nCSeq: 2\r\nLocation: {url}\r\n\r\n".encode())
    async with first, last:
        with pytest.raises(errors.NotFoundError):
            await RtspSource(Secret(start), Sink(), SystemClock()).run()


async def test_endless_redirects() -> None:
    location = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"RTSP/1.0 302 Found\r\nCSeq: 2\r\nLocation: {location}\r\n\r\n".encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    location = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    async with server:
        with pytest.raises(errors.RedirectError, match="3 redirects"):
            await RtspSource(Secret(location), Sink(), SystemClock()).run()


async def test_connection_refused_and_no_such_host() -> None:
    server, url = await scripted()
    server.close()
    await server.wait_closed()
    with pytest.raises(errors.ConnectError) as caught:
        await RtspSource(Secret(url), Sink(), SystemClock()).run()
    assert caught.value.stage is RtspStage.CONNECT
    with pytest.raises(errors.ConnectError, match="not an rtsp"):
        await RtspSource(Secret("http://x/"), Sink(), SystemClock()).run()
    with pytest.raises(errors.ConnectError) as caught:
        await RtspSource(Secret("rtsp://camera..invalid/"), Sink(), SystemClock()).run()
    assert caught.value.stage is RtspStage.RESOLVE


async def test_missing_ca_file() -> None:
    with pytest.raises(errors.ConnectError, match="ca_file"):
        await RtspSource(Secret("rtsps://127.0.0.1/"), Sink(), SystemClock(), settings(Path("/nonexistent"))).run()
