"""Everything the relay talks to, simulated on loopback: Google's API, the cameras, the SFU.

async with World(WorldConfig(workdir=Path("/tmp/world"), cameras=6)) as world:
    world.endpoints()  # what a relay.toml needs
    await world.home.inflict("Driveway", parse_fault("stall", seconds=5))
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from relay_common.simulation import control
from relay_common.simulation.camera.camera import Camera, CameraSettings
from relay_common.simulation.camera.certs import make_server_context
from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.webrtc_habits import WebRtcHabits
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.devices import Device
from relay_common.simulation.google.oauth import Client, OAuth
from relay_common.simulation.google.quota import Limits
from relay_common.simulation.home import SimulatedHome

if TYPE_CHECKING:
    from relay_common.simulation.sfu.simulator import SfuSimulator

# fmt: off
CAMERA_NAMES: Final = (
    "Front Door", "Driveway", "Back Garden", "Garage", "Hallway", "Nursery", "Kitchen", "Living Room", "Patio",
    "Side Gate", "Porch", "Stairs", "Workshop", "Office", "Cellar", "Attic", "Greenhouse", "Pool", "Barn",
    "Mailbox", "Carport", "Balcony", "Terrace", "Playroom", "Laundry", "Gym", "Pantry", "Library", "Studio",
    "Orchard", "Henhouse", "Boathouse", "Dock", "Roof", "Courtyard", "Alley", "Gatehouse", "Stable", "Meadow",
    "Guest Room",
)
# fmt: on
"""Names for forty cameras; more are numbered."""

_HABITS: Final = (WebRtcHabits(), WebRtcHabits(no_foundation=False, no_component=True))
"""Both kinds of malformed candidate occur among a few cameras."""

_PHASE_STEP: Final = 0.617
"""Seconds between the loops of neighbouring cameras, so that their IDRs do not coincide."""


@dataclass(frozen=True)
class WorldConfig:
    """The simulated world's configuration. `workdir` is where the CA file is written; it must exist.

    `lease` is in seconds, as is `collect_after`, for which the SFU keeps a silent track; `only` leaves out the SFU
    ("nest") or everything else ("sfu"); with `shared_clip` all cameras show the same clip (they start faster and look
    alike); `webrtc` says which cameras speak WebRTC, by index or as the number of the last ones, and `doorbells` how
    many of those, again the last, are battery doorbells, whose streams cannot be extended; `second_client` what becomes
    of a camera's second client, over WebRTC as well ("": served there, refused over RTSP); `sfu` changes fields of the
    SFU's `SfuVariant`; `adjust` may change each camera's settings, given its index.
    """

    workdir: Path
    cameras: int = 6
    width: int = 640
    height: int = 360
    bitrate: int = 0
    fps: int = 30
    gop: float = 2.0
    loop: float = 10.0
    lease: float = 300.0
    limits: Limits = field(default_factory=Limits)
    tls: bool = True
    describe_delay: float = 0.3
    shared_clip: bool = False
    webrtc: int | tuple[int, ...] = 0
    doorbells: int = 0
    second_client: Literal["", "refuse", "replace"] = ""
    collect_after: float = 30.0
    sfu: dict[str, Any] = field(default_factory=dict)
    only: Literal["all", "nest", "sfu"] = "all"
    host: str = "127.0.0.1"
    api_port: int = 0
    rtsp_port: int = 0
    webrtc_port: int = 0
    sfu_port: int = 0
    sfu_udp_port: int = 0
    seed: int = 0
    adjust: Callable[[int, CameraSettings], CameraSettings] = lambda index, settings: settings

    @property
    def webrtc_cameras(self) -> tuple[int, ...]:
        """Indices of the cameras that speak WebRTC, ascending."""
        if isinstance(self.webrtc, int):
            return tuple(range(max(0, self.cameras - self.webrtc), self.cameras))
        return tuple(sorted(self.webrtc))

    def settings(self, index: int) -> CameraSettings:
        """The settings of camera number `index`, from 0."""
        name = camera_name(index)
        video = VideoSpec(
            name="Camera" if self.shared_clip else name,
            width=self.width,
            height=self.height,
            fps=self.fps,
            bitrate=self.bitrate,
            gop=self.gop,
            seconds=self.loop,
            phase=0.0 if self.shared_clip else round(index * _PHASE_STEP % self.loop, 3),
            hue=0 if self.shared_clip else index * 67 % 360,
        )
        audio = AudioSpec(pitch=440.0 if self.shared_clip else 220.0 * 2 ** (index % 24 / 12))
        phase = index * _PHASE_STEP % self.loop if self.shared_clip else None
        settings = CameraSettings(name, video, audio, describe_delay=self.describe_delay, phase=phase)
        if index in self.webrtc_cameras:
            settings = replace(settings, video=replace(video, profile="high"), webrtc=_HABITS[index % len(_HABITS)])
        if self.second_client:
            habits = replace(settings.webrtc, one_client=self.second_client == "replace")
            settings = replace(settings, second_client=self.second_client, webrtc=habits)
        return self.adjust(index, settings)


class World:
    """The simulators, started and stopped together (an async context manager)."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.client = Client("simulated.apps.googleusercontent.com", "GOCSPX-simulated", "1//0simulated-refresh-token")
        self.project_id = "5cd39b4c-0000-4000-8000-51a1a7edf00d"
        self._home: SimulatedHome | None = None
        self._sfu: SfuSimulator | None = None
        self._ca_file: Path | None = None

    @property
    def home(self) -> SimulatedHome:
        """Google's side; absent with `only="sfu"`."""
        assert self._home is not None, "this world has no cameras, or has not started"
        return self._home

    @property
    def sfu(self) -> SfuSimulator:
        """Cloudflare's side; absent with `only="nest"`."""
        assert self._sfu is not None, "this world has no SFU, or has not started"
        return self._sfu

    async def __aenter__(self) -> World:
        try:
            if self.config.only != "nest":
                self._sfu = await self._start_sfu()
            if self.config.only != "sfu":
                self._home = self._make_home()
                await self._home.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop everything at once and remove the CA file."""
        if self._home:
            await self._home.stop()
        if self._sfu:
            await self._sfu.stop()
        if self._ca_file:
            self._ca_file.unlink(missing_ok=True)

    def endpoints(self) -> dict[str, Any]:
        """What a relay.toml needs, by section, and the control addresses; holds (simulated) secrets in the clear."""
        known: dict[str, Any] = {"control": {}}
        if self._home:
            known["nest"] = {
                "project_id": self.project_id,
                "client_id": self.client.client_id,
                "client_secret": self.client.client_secret,
                "refresh_token": self.client.refresh_token,
                "api_base_url": f"{self._home.api.url}/v1",
                "token_url": f"{self._home.api.url}/token",
            }
            known["rtsp"] = {"ca_file": str(self._ca_file)} if self._ca_file else {}
            known["control"]["nest"] = f"{self._home.api.url}/control"
            known["cameras"] = list(self._home.cameras)
        if self._sfu:
            known["cloudflare"] = {
                "app_id": "app",
                "app_secret": "secret",
                "api_base_url": self._sfu.base_url,
                "ice_servers": [],
            }
            known["control"]["sfu"] = self._sfu.control_url
        return known

    def _make_home(self) -> SimulatedHome:
        config = self.config
        settings = [config.settings(index) for index in range(config.cameras)]
        tls = None
        if config.tls:
            tls, self._ca_file = make_server_context(config.workdir, config.host)
        oauth = OAuth(self.client, seed=config.seed)
        backend = NestBackend(self.project_id, oauth, limits=config.limits, lease=config.lease, seed=config.seed)
        rng = random.Random(f"{config.seed}/devices")
        cameras = [(Camera(one, config.seed), _device(one, rng)) for one in settings]
        webrtc = config.webrtc_cameras
        for index in webrtc:
            cameras[index][1].protocol = "WEB_RTC"
            cameras[index][1].max_streams = 1 if config.second_client == "refuse" else 0
        for index in webrtc[max(0, len(webrtc) - config.doorbells) :]:
            cameras[index][1].kind, cameras[index][1].extendable = "DOORBELL", False
        home = SimulatedHome(
            backend,
            cameras,
            tls=tls,
            host=config.host,
            api_port=config.api_port,
            rtsp_port=config.rtsp_port,
            webrtc_port=config.webrtc_port,
            seed=config.seed,
        )
        control.join(home)
        return home

    async def _start_sfu(self) -> SfuSimulator:
        # Imported late: a process that serves only cameras should not carry the WebRTC stack.
        from relay_common.simulation.sfu.options import SfuTimings, SfuVariant
        from relay_common.simulation.sfu.simulator import SfuSimulator

        config = self.config
        timings = SfuTimings(collect_after=config.collect_after)
        sfu = SfuSimulator(
            host=config.host,
            port=config.sfu_port,
            udp_port=config.sfu_udp_port,
            timings=timings,
            variant=SfuVariant(**config.sfu),
        )
        await sfu.start()
        return sfu


def camera_name(index: int) -> str:
    """A unique display name for camera number `index`, from 0."""
    return CAMERA_NAMES[index] if index < len(CAMERA_NAMES) else f"Camera {index + 1}"


def _device(settings: CameraSettings, rng: random.Random) -> Device:
    opaque = base64.urlsafe_b64encode(rng.randbytes(64)).decode().rstrip("=")
    return Device(
        f"AVPHwE{opaque}", settings.name, width=settings.video.width, height=settings.video.height, room=settings.name
    )
