"""What a camera's worker is started with."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from relay_common.cloudflare.turn import TCP_PORTS
from relay_common.config import Config
from relay_common.config_cluster import ClusterConfig, bus_endpoints
from relay_common.loopback import is_loopback_url
from relay_common.tcp_bus import over_tcp
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.sinks.sinks import Sinks
from relay_worker.process.spec import WorkerSpec

GOOGLE_STREAM_PORTS: Final = (443,)
"""Google's stream URLs are `rtsps://…:443/…` (SDM, CameraLiveStream)."""


class BusEndpoints(Protocol):
    """Where a worker finds its supervisor."""

    @property
    def control_endpoint(self) -> str: ...

    @property
    def stats_endpoint(self) -> str: ...


class _BusEnds(NamedTuple):
    control_endpoint: str
    stats_endpoint: str


def bus_ends(bound: BusEndpoints, cluster: ClusterConfig) -> BusEndpoints:
    """Where workers find the bus that is bound there: on other machines at `cluster.bus_listen`."""
    at = bound.control_endpoint
    there = bus_endpoints(cluster.bus_listen, ipv6="[" in at) if over_tcp(at) else None
    return bound if there is None else _BusEnds(*there)


def worker_spec(camera: Camera, config: Config, sinks: Sinks, bus: BusEndpoints) -> WorkerSpec:
    """The parameters of a camera's worker; each launch adds its instance and keys."""
    return WorkerSpec(
        camera=camera.id,
        name=camera.name,
        instance="",
        control=bus.control_endpoint,
        stats=bus.stats_endpoint,
        audio=camera.settings.audio,
        ca_file=config.rtsp.ca_file,
        connect_timeout=config.rtsp.connect_timeout,
        read_timeout=config.rtsp.read_timeout,
        media_timeout=config.rtsp.media_timeout,
        ice_servers=_relay_urls(config),
        sinks=tuple(sinks.targets(camera.name, camera.device.id)),
        camera_loopback=is_loopback_url(config.nest[camera.account].api_base_url),
        log_level=config.log.level,
        log_format=config.log.format,
        landlock=config.workers.landlock == "auto",
        data_path=config.workers.data_path,
        tcp_ports=_stream_ports(config.nest[camera.account].api_base_url),
    )


def _relay_urls(config: Config) -> tuple[str, ...]:
    """URLs of the TURN servers that a worker may have to reach."""
    servers = [*config.cloudflare.ice_servers, *(one for table in config.whip for one in table.ice_servers)]
    urls = [url for one in servers for url in ([one] if isinstance(one, str) else one.addresses)]
    if config.cloudflare.turn.key_id:
        urls += [f"turn:turn.cloudflare.com:{port}?transport=tcp" for port in TCP_PORTS]
    return tuple(urls)


def _stream_ports(api_base_url: str) -> tuple[int, ...] | None:
    """TCP ports at which the API's streams are; None where they are not known before the first stream."""
    return GOOGLE_STREAM_PORTS if (urlsplit(api_base_url).hostname or "").endswith(".googleapis.com") else None
