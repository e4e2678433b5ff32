"""One client of the RTSP server: its requests and its session."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from relay_common.clock import Clock
from relay_common.simulation.camera.camera import Camera
from relay_common.simulation.camera.faults import FaultKind
from relay_common.simulation.camera.packetizer import RtpTrack
from relay_common.simulation.camera.player import Player, TrackPlayback
from relay_common.simulation.camera.pump import Pump
from relay_common.simulation.camera.rtsp_streams import Admission, StreamTable
from relay_common.simulation.camera.rtsp_wire import (
    BadRequest,
    InterleavedFrame,
    Request,
    interleaved_channels,
    read_message,
    response,
)

_IDLE_TIMEOUT: Final = 60.0
_WRITE_LIMIT: Final = 8 << 20
"""Unsent bytes after which a client that does not read is dropped."""

_SERVER_CHANNELS: Final = 10
"""First channel of a server that chooses its own."""

_PUBLIC: Final = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"


class Connection:
    """Serves one TCP connection; at most one session and one camera."""

    def __init__(
        self,
        streams: StreamTable,
        pump: Pump,
        clock: Clock,
        rng: random.Random,
        server_url: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._streams, self._pump, self._clock, self._rng, self._server_url = streams, pump, clock, rng, server_url
        self._reader, self._writer = reader, writer
        self._camera: Camera | None = None
        self._admission = Admission(404)
        self._base = ""
        self._tracks: list[RtpTrack] = []
        self._channels: dict[int, tuple[int, int]] = {}
        self._session = ""
        self._player: Player | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._methods: Mapping[str, Callable[[Request], Awaitable[None]]] = {
            "OPTIONS": self._options,
            "GET_PARAMETER": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "TEARDOWN": self._teardown,
        }

    async def run(self) -> None:
        """Serve until the client leaves, is silent for the session's timeout, or breaks the protocol."""
        try:
            while not self._writer.is_closing():
                timeout = self._camera.settings.session_timeout if self._camera and self._session else _IDLE_TIMEOUT
                async with asyncio.timeout(timeout):
                    message = await read_message(self._reader)
                await self._handle(message)
        except TimeoutError:
            self.cut("timeout")
        except (BadRequest, asyncio.LimitOverrunError):
            self._reply(Request("", "", {}), 400)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client left

    def end(self) -> None:
        """End the session and close the connection."""
        self._leave()
        self._writer.close()

    def abort(self) -> None:
        """Drop the connection without sending what is queued."""
        self._leave()
        self._writer.transport.abort()

    def cut(self, reason: str) -> None:
        """End the connection from the server's side, as Google's server does when a stream has expired."""
        if self._camera:
            self._camera.counters.cut[reason] = self._camera.counters.cut.get(reason, 0) + 1
        self.end()

    def reset(self) -> None:
        """Break the TCP connection with a reset."""
        # SO_LINGER with zero seconds turns close() into RST.
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if self._camera:
            self._camera.counters.cut["reset"] = self._camera.counters.cut.get("reset", 0) + 1
        self.abort()

    def jump(self, seconds: float, track: str) -> None:
        """Move the RTP timestamps of `track`."""
        if self._player:
            self._player.jump(seconds, track)

    def check_expiry(self) -> None:
        """Cut the connection if its stream has ended; otherwise check again when it is due to end."""
        if self._expiry:
            self._expiry.cancel()
            self._expiry = None
        expires = self._admission.expires()
        remaining = expires - self._clock.wall()
        if remaining <= 0:
            self.cut("expired" if expires else "stopped")
        elif expires != float("inf"):
            self._expiry = asyncio.get_running_loop().call_later(remaining, self.check_expiry)

    def write(self, data: bytes) -> None:
        """Queue media; a client that does not read is dropped when too much is queued."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > _WRITE_LIMIT:
            self.cut("overflow")
            transport.abort()
            return
        transport.write(data)

    def _leave(self) -> None:
        if self._player:
            self._player.closed = True
            self._player = None
        if self._expiry:
            self._expiry.cancel()
            self._expiry = None
        if self._camera:
            self._camera.sessions.discard(self)
        self._streams.release(self)

    async def _handle(self, message: Request | InterleavedFrame) -> None:
        if isinstance(message, InterleavedFrame):
            if self._camera and message.payload[1:2] == b"\xc9":
                self._camera.counters.receiver_reports += 1
            return
        handler = self._methods.get(message.method)
        if handler is None:
            self._reply(message, 501)
            return
        session = message.headers.get("session", "").split(";")[0]
        if session and session != self._session:
            self._reply(message, 454)
            return
        await handler(message)

    def _reply(self, request: Request, status: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        camera = self._camera
        if camera and camera.faults.get(FaultKind.STALL, self._clock.now()):
            return
        if not self._writer.is_closing():
            self._writer.write(response(status, request.headers.get("cseq", "0"), headers, body))

    def _refuse(self, request: Request, camera: Camera | None, status: int, headers: dict[str, str]) -> None:
        if camera:
            camera.counters.refused[status] = camera.counters.refused.get(status, 0) + 1
        self._reply(request, status, headers)

    async def _options(self, request: Request) -> None:
        if self._session and self._camera:
            self._camera.counters.keepalives += 1
            self._reply(request, 200, {"Public": _PUBLIC, "Session": self._session})
        else:
            self._reply(request, 200, {"Public": _PUBLIC})

    async def _describe(self, request: Request) -> None:
        admission = self._streams.admit(request.path, request.token, self._clock.wall())
        camera = admission.camera
        if camera:
            camera.counters.describes += 1
            slow = camera.faults.get(FaultKind.SLOW_DESCRIBE, self._clock.now())
            now, warm_up = self._clock.now(), camera.settings.describe_delay
            delay = slow["delay"] if slow else self._streams.describe_wait(admission.key, warm_up, now)
            await self._clock.sleep(delay)
        status, headers = self._verdict(admission, request)
        if status != 200 or camera is None:
            self._refuse(request, camera, status, headers)
            return
        self._camera, self._admission = camera, admission
        self.check_expiry()
        self._tracks = list(camera.tracks(self._clock.now()))
        self._base = f"{self._server_url}{request.path}/"
        headers = {"Content-Base": self._base, "Content-Type": "application/sdp"}
        self._reply(request, 200, headers, _sdp(self._tracks))

    def _verdict(self, admission: Admission, request: Request) -> tuple[int, dict[str, str]]:
        camera = admission.camera
        if camera is None or admission.status != 200:
            return admission.status, {}
        fault = camera.faults.of_stream(FaultKind.DESCRIBE_STATUS, admission.key, self._clock.now())
        if fault:
            return fault["status"], {}
        if camera.settings.redirect:
            return 302, {"Location": camera.settings.redirect}
        credentials = camera.settings.credentials
        if credentials and not credentials.accept(request):
            return 401, {"WWW-Authenticate": credentials.challenge()}
        if not self._streams.hold(admission, self):
            return 403, {}
        return 200, {}

    async def _setup(self, request: Request) -> None:
        control = re.search(r"trackID=(\d+)", request.url)
        if self._camera is None:
            self._reply(request, 455)
            return
        if control is None or int(control[1]) >= len(self._tracks):
            self._reply(request, 404)
            return
        asked = interleaved_channels(request.headers.get("transport", ""))
        if asked is None:
            self._reply(request, 461)
            return
        index = int(control[1])
        if self._camera.settings.interleaved == "server":
            asked = (_SERVER_CHANNELS + 2 * index, _SERVER_CHANNELS + 2 * index + 1)
        self._channels[index] = asked
        self._session = self._session or f"{self._rng.getrandbits(64):016X}"
        timeout = f"{self._camera.settings.session_timeout:.0f}"
        headers = {
            "Session": f"{self._session};timeout={timeout}",
            "Transport": f"RTP/AVP/TCP;unicast;interleaved={asked[0]}-{asked[1]}",
        }
        self._reply(request, 200, headers)

    async def _play(self, request: Request) -> None:
        camera = self._camera
        if camera is None or not self._channels or self._player:
            self._reply(request, 455)
            return
        now, wall = self._clock.now(), self._clock.wall()
        phase = camera.settings.video.phase if camera.settings.phase is None else camera.settings.phase
        playbacks = [
            TrackPlayback(self._tracks[index], *channels, self._rng, wall - phase)
            for index, channels in sorted(self._channels.items())
        ]
        infos = [
            f"url={self._base}trackID={index};seq={(playback.sequence + 1) & 0xFFFF};rtptime={playback.timestamp}"
            for index, playback in zip(sorted(self._channels), playbacks, strict=True)
        ]
        headers = {"Session": self._session, "Range": "npt=0.000-", "RTP-Info": ",".join(infos)}
        self._reply(request, 200, headers)
        camera.counters.opened += 1
        camera.sessions.add(self)
        if camera.settings.needs_range and "range" not in request.headers:
            return  # like Google's server: 200, and not a single packet
        self._player = Player(
            self,
            playbacks,
            camera.faults,
            camera.counters.playback,
            phase=phase,
            now=now,
            wall=wall,
            rng=camera.rng,
            report_interval=camera.settings.report_interval,
            next_video=camera.video,
        )
        self._pump.add(self._player)

    async def _teardown(self, request: Request) -> None:
        self._reply(request, 200)
        self._leave()
        self._session, self._channels = "", {}


def _sdp(tracks: list[RtpTrack]) -> str:
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=SDM", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
    for index, track in enumerate(tracks):
        lines += [*track.sdp, f"a=control:trackID={index}"]
    return "\r\n".join(lines) + "\r\n"
