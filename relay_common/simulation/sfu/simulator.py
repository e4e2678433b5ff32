"""The simulated SFU: Cloudflare Realtime's session API and a media plane that real endpoints connect to.

It follows what is known of the real one, defects and limits included; `SfuVariant` and `SfuFaults` cover behaviour
observed only sometimes. Known simplifications: no messages on DataChannels (only their control plane), no
WebSocket adapters, no `thirdparty` sessions, and no offers by the SFU for publishing.

Of simulcast Cloudflare documents the rids, `preferredRid`, both policies, the update of a pulled track and that a track
without packets is collected after 30 s. What it leaves open is a setting, or an assumption: whether viewers are
switched at keyframes, and whether an answer may refuse layers (`SfuVariant`); after which silence a layer counts as not
sent (`SfuTimings.layer_silent_after`); that each layer is collected by itself and does not come back; that a keyframe
is requested of the layer to come; and that after the last by name, the first that is sent will do. How Cloudflare
estimates what a viewer's line carries is not known either: `bandwidth.py` is a small congestion control of our own, off
unless `SfuVariant.viewer_estimate` says by which feedback.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from relay_common.simulation.sfu import control as sfu_control
from relay_common.simulation.sfu.api import SfuApi, answer_error
from relay_common.simulation.sfu.options import ApiFault, SfuFaults, SfuTimings, SfuVariant
from relay_common.simulation.sfu.port import Arrival, MediaPort
from relay_common.simulation.sfu.service import SfuService
from relay_common.simulation.sfu.sessions import ApiError
from relay_common.simulation.sfu.turn import TurnKeys

__all__ = ["ApiFault", "SfuFaults", "SfuSimulator", "SfuTimings", "SfuVariant"]


class _Server(uvicorn.Server):
    """uvicorn inside an existing loop: it leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class SfuSimulator:
    """One SFU with one app, one HTTP port and one UDP port, both on `host` (an IPv4 address; 0 picks ports).

    `faults` may be changed at any time; `timings` and `variant` before `start`. `start` raises OSError when a
    port is taken.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        udp_port: int = 0,
        app_id: str = "app",
        app_secret: str = "secret",
        faults: SfuFaults | None = None,
        *,
        timings: SfuTimings | None = None,
        variant: SfuVariant | None = None,
    ) -> None:
        self.faults = faults or SfuFaults()
        self.timings = timings or SfuTimings()
        self.variant = variant or SfuVariant()
        self.turn = TurnKeys()
        self.app_id = app_id
        self._host, self._http_port, self._udp_port = host, port, udp_port
        self._media = MediaPort(self.timings, self.variant, self.faults)
        self.service = SfuService(self._media, self.timings, self.variant, self.faults)
        api = SfuApi(self.service, app_id, app_secret, self.variant, self.faults)
        self.app = Starlette(
            routes=[*api.routes(), *self.turn.routes(), *sfu_control.routes(self)],
            exception_handlers={ApiError: answer_error, HTTPException: answer_error, Exception: answer_error},
        )
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open both ports and serve in the running loop."""
        listener = socket.create_server((self._host, self._http_port))
        try:
            self._media.open(self._host, self._udp_port)
        except OSError:
            listener.close()
            raise
        self._http_port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_keep_alive=15,  # longer than httpx keeps one: else both may end it as a request is sent
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="sfu simulator")
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close all sessions (their peers get a DTLS alert), then the ports."""
        self._media.close()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    async def __aenter__(self) -> SfuSimulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """Base URL of the API, corresponding to `https://rtc.live.cloudflare.com/v1`."""
        return f"http://{self._host}:{self._http_port}/v1"

    @property
    def control_url(self) -> str:
        """Base of the control interface."""
        return f"http://{self._host}:{self._http_port}/control"

    @property
    def media_address(self) -> tuple[str, int]:
        """Address on which media is received."""
        return self._media.address

    # -- observation and faults, also reachable under `/control` --------------------------------------------------

    def sessions(self) -> list[dict[str, Any]]:
        """Every session with its tracks' counters (see `sfu_control.describe`), oldest first."""
        now = time.monotonic()
        return [sfu_control.describe(session, now) for session in self.service.sessions.values()]

    def published(self, name: str) -> dict[str, Any] | None:
        """Counters of the newest active publication with that track name, in any session."""
        found = [t for s in self.sessions() for t in s["published"] if t["name"] == name and t["active"]]
        return found[-1] if found else None

    def port_counters(self) -> dict[str, int]:
        """Datagrams received, wakes, datagrams of unknown origin, datagrams that could not be sent."""
        media = self._media
        return {"received": media.received, "wakes": media.wakes, "unknown": media.unknown, "unsent": media.unsent}

    def end_session(self, session_id: str) -> None:
        """Lose a session as the edge does: media stops, every later call answers 410. Raises KeyError."""
        self.service.end(self.service.sessions[session_id])

    def lose_upstream(self, session_id: str, share: float | None) -> None:
        """Drop this share of one publisher's RTP instead of `faults.upstream_loss`; None ends it. Raises KeyError."""
        self.service.sessions[session_id].peer.upstream_loss = share

    def narrow(self, session_id: str, rate: float | None) -> None:
        """Let one viewer's line carry this many bit/s instead of `faults.downstream_rate`; None ends it. KeyError."""
        self.service.sessions[session_id].peer.downstream_rate = rate

    def admit_only(self, address: str) -> None:
        """Drop every datagram that does not come from this address, as a firewall would; "" admits all again."""
        self._media.only_from = address

    def inject(self, datagram: bytes, source: tuple[str, int]) -> None:
        """Treat `datagram` as received from `source`."""
        self._media.receive(datagram, source)

    def start_recording(self, limit: int = 200_000) -> None:
        """Record the last `limit` RTP arrivals."""
        self._media.start_recording(limit)

    def stop_recording(self) -> None:
        """Stop recording; `arrivals` keeps the packets."""
        self._media.stop_recording()

    def arrivals(self) -> list[Arrival]:
        """Recorded packets: (monotonic seconds by the kernel's stamp, SSRC, sequence, timestamp, bytes, marker)."""
        return list(self._media.arrivals)
