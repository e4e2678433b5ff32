"""A simulated home: its cameras, Google's API in front of them, and the RTSP and WebRTC edges that serve their streams.

Everything that a test or a person can do to it is a method here; `control.join` offers the same over HTTP.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from relay_common.clock import Clock, SystemClock
from relay_common.simulation.camera.camera import Camera
from relay_common.simulation.camera.faults import Fault, FaultKind
from relay_common.simulation.camera.media import prepare
from relay_common.simulation.camera.player import Sent
from relay_common.simulation.camera.rtsp_server import RtspServer
from relay_common.simulation.camera.rtsp_streams import Admission
from relay_common.simulation.google.api import NestApi
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.devices import Device
from relay_common.simulation.google.failures import ANY, Failure
from relay_common.simulation.google.quota import MINUTE, most_in_any

if TYPE_CHECKING:
    from relay_common.simulation.camera.webrtc_port import WebRtcEdge


class SimulatedHome:
    """Cameras with their devices, served by one API, one RTSP server and one UDP port on `host`; ports of 0 are chosen.

    A camera's protocol is its device's, and may change while it runs: the WebRTC edge opens when it is first needed.
    Methods that take a camera's `name` raise KeyError for an unknown one.
    """

    def __init__(
        self,
        backend: NestBackend,
        cameras: Iterable[tuple[Camera, Device]],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        api_port: int = 0,
        rtsp_port: int = 0,
        webrtc_port: int = 0,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        self.backend, self._clock = backend, clock or SystemClock()
        self.cameras: dict[str, Camera] = {}
        self.devices: dict[str, Device] = {}
        for camera, device in cameras:
            backend.add(device)
            self.cameras[camera.name], self.devices[camera.name] = camera, device
            device.answer = functools.partial(self._answer, camera)
        self._webrtc: WebRtcEdge | None = None
        self._webrtc_settings: dict[str, Any] = {"host": host, "port": webrtc_port, "seed": seed}
        self.rtsp = RtspServer(self._admit, host=host, port=rtsp_port, tls=tls, clock=self._clock, seed=seed)
        self.api = NestApi(backend, host=host, port=api_port, clock=self._clock)
        backend.streams.on_stop = self._recheck

    async def start(self) -> None:
        """Start serving; missing clips are encoded first, on all cores."""
        cancelled = threading.Event()
        try:
            await asyncio.to_thread(self._prepare, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        await self.rtsp.start()
        self.backend.streams.rtsp_url = self.rtsp.url
        if any(device.protocol == "WEB_RTC" for device in self.devices.values()):
            self._webrtc_edge()
        await self.api.start()

    async def stop(self) -> None:
        """Stop at once."""
        await self.api.stop()
        await self.rtsp.stop()
        if self._webrtc:
            await self._webrtc.close()

    async def inflict(self, name: str, fault: Fault) -> None:
        """Switch a fault on at a camera."""
        await self.cameras[name].inflict(fault, self._clock.now())

    def clear(self, name: str, kind: FaultKind | None = None) -> None:
        """End a camera's fault of that kind, or all of them."""
        self.cameras[name].faults.clear(kind)

    def fail_commands(self, name: str, failure: Failure, command: str = ANY) -> None:
        """Make a camera's next commands fail; `name` and `command` (as "ExtendRtspStream") may be "*"."""
        if name != ANY and name not in self.devices:
            raise KeyError(name)
        self.backend.failures.add(name, command, failure)

    def set_device(self, name: str, **changes: Any) -> None:
        """Change a device's fields (see `Device`); `renamed` is a new display name. Going offline cuts its streams."""
        device = self.devices[name]
        # Only the display name changes: the simulation keeps using the name burnt into the picture.
        device.name = changes.pop("renamed", device.name)
        for field, value in changes.items():
            setattr(device, field, value)
        if changes.get("offline"):
            for session in list(self.cameras[name].sessions):
                session.cut("offline")

    def set_webrtc(self, name: str, **changes: Any) -> None:
        """Change a camera's WebRTC habits (see `WebRtcHabits`) for new sessions; ValueError for an unknown one."""
        self.cameras[name].habits = self.cameras[name].habits.changed(**changes)

    def expire(self, name: str) -> None:
        """End a camera's streams now, as if they had expired."""
        now = self._clock.wall()
        for stream in self.backend.streams.live(self.devices[name], now):
            stream.expires_at = now
            self._recheck(stream.path)

    def start_recording(self, name: str, limit: int = 100_000) -> None:
        """Record the last `limit` RTP packets that a camera writes; times mean little while a fault delays writes."""
        playback = self.cameras[name].counters.playback
        playback.sent, playback.recording = deque(maxlen=limit), True

    def stop_recording(self, name: str) -> None:
        """Stop recording; `sent` keeps the packets."""
        self.cameras[name].counters.playback.recording = False

    def sent(self, name: str) -> list[Sent]:
        """Recorded packets of a camera, oldest first."""
        return list(self.cameras[name].counters.playback.sent)

    def report(self) -> list[dict[str, Any]]:
        """State and counters of every camera, JSON-ready."""
        now, wall = self._clock.now(), self._clock.wall()
        return [
            {
                **camera.report(now),
                "device": device.id,
                "display_name": device.name,
                "protocol": device.protocol,
                "offline": device.offline,
                "generates": device.generates,
                "extends": device.extends,
                "stops": device.stops,
                "failed": device.failed,
                "streams": [round(s.expires_at - wall, 3) for s in self.backend.streams.live(device, wall)],
            }
            for camera, device in ((self.cameras[name], self.devices[name]) for name in self.cameras)
        ]

    def most_commands(self, span: float = MINUTE) -> int:
        """The highest number of executeCommands, whatever their result, in any `span` seconds."""
        return most_in_any((record.time for record in self.backend.commands), span)

    def _prepare(self, cancelled: threading.Event) -> None:
        live = [self.cameras[name] for name, device in self.devices.items() if device.protocol == "WEB_RTC"]
        plain = [camera for camera in self.cameras.values() if camera not in live]
        videos = [camera.settings.video for camera in plain] + [spec for camera in live for spec in camera.live_specs]
        aac, opus = ([one.settings.audio for one in some if one.settings.audio] for some in (plain, live))
        prepare(videos, aac, cancelled, opus=opus)
        for camera in plain:
            camera.prepare()
        for camera in live:
            camera.prepare_live()

    def _answer(self, camera: Camera, offer: str, path: str) -> str:
        stream = self.backend.streams.by_path(path)
        assert stream is not None
        return self._webrtc_edge().answer(camera, offer, path, lambda: stream.expires_at)

    def _webrtc_edge(self) -> WebRtcEdge:
        if self._webrtc is None:
            # Imported late: a home without such cameras should not carry the WebRTC stack.
            from relay_common.simulation.camera.webrtc_port import WebRtcEdge

            self._webrtc = WebRtcEdge(clock=self._clock, **self._webrtc_settings)
            self._webrtc.open()
        return self._webrtc

    def _recheck(self, path: str) -> None:
        self.rtsp.streams.recheck(path)
        if self._webrtc:
            self._webrtc.recheck(path)

    def _admit(self, path: str, token: str, wall: float) -> Admission:
        stream = self.backend.streams.by_path(path)
        if stream is None:
            return Admission(404)
        camera = next(self.cameras[name] for name, device in self.devices.items() if device is stream.device)
        if stream.device.offline or stream.device.withdrawn:
            return Admission(404, camera, path)
        if not token:
            return Admission(401, camera, path)
        if token != stream.stream_token or stream.expires_at <= wall:
            return Admission(403, camera, path)
        return Admission(200, camera, path, lambda: stream.expires_at)
