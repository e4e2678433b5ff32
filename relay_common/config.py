"""The configuration's types: sections, keys, defaults and ranges.

The reference in the documentation is generated from them and their docstrings; `config_file.py` reads the file.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from relay_common.config_cluster import ClusterConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Text = Annotated[str, Meta(min_length=1)]


class _Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class NestConfig(_Section, frozen=True):
    """One Device Access project and the Google user who granted it."""

    project_id: Text
    """Device Access project id: a UUID from console.nest.google.com/device-access."""
    client_id: Text
    """OAuth client id, ending in .apps.googleusercontent.com."""
    client_secret: Secret
    """Secret of the OAuth client."""
    refresh_token: Secret
    """Refresh token obtained by `relay-supervisor auth`."""
    api_base_url: Text = "https://smartdevicemanagement.googleapis.com/v1"
    """Smart Device Management API."""
    token_url: Text = "https://www.googleapis.com/oauth2/v4/token"
    """Google's token endpoint."""
    account: str = ""
    """Name of this account where several are spread over the supervisors of a cluster (docs/deployment.md), each with
    its own Lease, state and workers, named after it, and where `cluster.bus_listen` is a name, with a Service of its
    own. With `cluster.replica`; all accounts have one, or none."""
    ports: Annotated[int, Meta(ge=0, le=65_532)] = 0
    """First of the account's four TCP ports where it has a name: two of the bus, two among supervisors, instead of
    those in `[cluster]`. Workers remember theirs, so they stay with the account."""


class IceServer(_Section, frozen=True):
    """A STUN or TURN server, as a table in `cloudflare.ice_servers`."""

    urls: Text | list[Text]
    """`stun:`, `turn:` or `turns:` URLs (RFC 7064, RFC 7065)."""
    username: str = ""
    """User name; every TURN server wants one."""
    credential: Secret = Secret("")
    """Its password."""
    share_with_guests: bool = False
    """Whether viewers who came by a link are given this credential, too. It does not end when their link does."""

    @property
    def addresses(self) -> list[str]:
        """The URLs as a list."""
        return [self.urls] if isinstance(self.urls, str) else list(self.urls)


class TurnConfig(_Section, frozen=True):
    """A TURN key of Cloudflare's, for networks that block UDP. Each view gets a credential of its own, which is revoked
    when the view ends; the relay has one for itself. Viewers never get the token."""

    key_id: str = ""
    """Id of the key from the Cloudflare dashboard, Realtime > TURN; empty: none."""
    api_token: Secret = Secret("")
    """Shown once, when the key is created."""


class CloudflareConfig(_Section, frozen=True):
    """A Cloudflare Realtime SFU application. Without this section cameras are watched by [local] alone, or published at
    the servers of [[whip]]."""

    app_id: Text = ""
    """App id from the Cloudflare dashboard, Realtime > SFU; required with any other key of the section."""
    app_secret: Secret = Secret("")
    """Shown once, when the app is created; required as well."""
    api_base_url: Text = "https://rtc.live.cloudflare.com/v1"
    """Cloudflare Realtime API."""
    ice_servers: list[str | IceServer] = []
    """STUN URLs for viewers, and TURN servers for them and for the relay itself where UDP is blocked; usually empty. A
    TURN server is a table: `{ urls = "turns:…", username = "…", credential_file = "…" }`; `share_with_guests = true`
    in it gives it to viewers who came by a link, too."""
    turn: TurnConfig = TurnConfig()
    """Set in [cloudflare.turn]."""

    @property
    def used(self) -> bool:
        """Whether cameras are published there."""
        return bool(self.app_id)


class WhipConfig(_Section, frozen=True):
    """A server that takes WHIP (RFC 9725), such as go2rtc, MediaMTX or LiveKit: cameras are published there as well."""

    name: Text
    """What status, log and metrics call it; each table has its own. Letters, digits, `.`, `_` and `-`, at most 64."""
    url: Text
    """Its WHIP endpoint; `{camera}` in it stands for the camera's id, `{name}` for its name in lower case with hyphens.
    `http://` only on this machine or a private network, as whoever listens in there reads the token."""
    bearer_token: Secret = Secret("")
    """What the endpoint wants to see, if it wants anything; it is sent to the host of `url` and no other."""
    cameras: Literal["all"] | list[str] = "all"
    """Which cameras to publish there: all, or only these display names or device ids."""
    ice_servers: list[str | IceServer] = []
    """TURN servers for the relay where it cannot be reached directly, as tables like those of `cloudflare.ice_servers`;
    usually empty. What the server itself recommends is used as well."""
    ca_file: str = ""
    """PEM file of certificate authorities to trust there instead of the system's; empty for the system's."""
    keeps_awake: bool = False
    """Whether an on-demand camera streams all the time to be published there; without it this sink gets it only while
    somebody watches, and a battery lasts."""
    renditions: bool = False
    """Whether it gets the smaller picture of cameras that make one as well, as a second layer (simulcast); it counts as
    watching that all the time. A server that refuses it gets the original alone."""

    def takes(self, name: str, device: str) -> bool:
        """Whether the camera with this display name or device id is published there."""
        return self.cameras == "all" or name in self.cameras or device in self.cameras


class LocalConfig(_Section, frozen=True):
    """Watching without Cloudflare: each camera's worker answers viewers itself, by WHEP at `/whep/{camera}`."""

    listen: str | list[str] = ""
    """Addresses of this machine at which workers answer viewers over UDP: `"127.0.0.1"` for this machine alone, its
    address in the home's network for others. `"0.0.0.0"` and `"::"` need `announce`. Empty: off."""
    udp_ports: str = ""
    """UDP ports to deal out, one for each camera: `"8560-8599"`. Empty: any free one; behind a firewall, in a container
    or behind a port forward give a range with at least one port for each camera."""
    announce: list[str] = []
    """Addresses that viewers are told instead of those in `listen`: that of the container's host, or of the router that
    forwards the ports. `"ADDRESS:PORT"` where the port differs from the camera's own, which fits one camera alone."""
    viewers: Annotated[int, Meta(ge=1, le=64)] = 4
    """Most viewers of one camera at once, the last of them never a guest; each costs encryption and upload."""
    allowed_origins: list[str] = []
    """Web sites whose pages may play from here with a token or a link: `["https://home.example"]`."""

    @property
    def addresses(self) -> list[str]:
        """The addresses to listen on; none when it is off."""
        return [address for address in ([self.listen] if isinstance(self.listen, str) else self.listen) if address]

    @property
    def announced(self) -> list[str]:
        """The addresses that answers name, each with a port or without."""
        return list(self.announce) or self.addresses


class RtspConfig(_Section, frozen=True):
    """Connections to cameras."""

    ca_file: str = ""
    """PEM file of certificate authorities to trust instead of the system's; empty for the system's."""
    connect_timeout: Seconds = 10.0
    """Limit for name resolution, TCP and TLS together, in seconds."""
    read_timeout: Seconds = 30.0
    """Longest wait for any answer, in seconds; the first DESCRIBE of a Nest camera takes about 8 s."""
    media_timeout: Seconds = 10.0
    """Longest time without video while playing, in seconds; after it the relay reconnects."""


class CameraSettings(_Section, frozen=True):
    """Settings of one camera, by display name or device id."""

    enabled: bool = True
    """Whether to relay it at all."""
    audio: bool = True
    """Whether to relay its sound."""
    mode: Literal["auto", "always", "on_demand"] = "auto"
    """When to stream: `always`, or `on_demand`, that is, only while someone is watching. `auto` streams always until
    Google refuses to extend the camera's stream, as it does for battery doorbells, and on demand from then on. Set
    `on_demand` for other battery cameras: Google does not say which cameras run on battery."""
    idle_after: Seconds = 60.0
    """Seconds without a viewer after which an on-demand camera is released."""
    renditions: Literal["default", "off", "keyframes", "smooth"] = "default"
    """Its smaller picture; `default`: as `[cameras]` says."""


class CamerasConfig(_Section, frozen=True):
    """Which cameras to relay."""

    include: Literal["all"] | list[str] = "all"
    """All cameras that Google lists, or only these display names or device ids."""
    rediscover: Seconds = 600.0
    """Seconds between discoveries of new, renamed and withdrawn cameras."""
    settings: dict[str, CameraSettings] = {}
    renditions: Literal["off", "keyframes", "smooth"] = "off"
    """A second, smaller picture of each camera for small tiles and narrow lines, taken at its next publication:
    `keyframes`, made of its keyframes alone for next to no CPU, or `smooth`, up to ten pictures a second while somebody
    has it, for which the whole stream is decoded (docs/limits.md)."""

    def setting(self, name: str, device: str) -> CameraSettings:
        """Settings of the camera with this display name or device id; its renditions are never `default`."""
        found = self.settings.get(name) or self.settings.get(device) or CameraSettings()
        return found if found.renditions != "default" else msgspec.structs.replace(found, renditions=self.renditions)

    def included(self, name: str, device: str) -> bool:
        """Whether this camera is listed and enabled."""
        return self.lists(name, device) and self.setting(name, device).enabled

    def lists(self, name: str, device: str) -> bool:
        """Whether this camera is listed, enabled or not."""
        return self.include == "all" or name in self.include or device in self.include


class HttpConfig(_Section, frozen=True):
    """The dashboard and its API."""

    listen: Text = "127.0.0.1:8080"
    """Address and port; any address other than loopback requires `token`."""
    token: Secret = Secret("")
    """Bearer token clients must send; at least 16 characters. With `cluster.namespace` it is required."""
    probe_listen: str = ""
    """Address and port for container health checks: serves only `/livez` and `/readyz`, without reasons or a token,
    and stays responsive while `listen` is busy. Empty: they are served on `listen` only."""
    trusted_proxies: list[str] = []
    """Addresses or networks of reverse proxies (`["127.0.0.1", "172.18.0.0/16"]`) whose `X-Forwarded-For` header
    identifies the client, whose `X-Forwarded-Prefix` says where it sees the relay, and whose `X-Forwarded-Proto:
    https` that it does so over TLS: the session cookie is for TLS alone then. From others they are ignored."""
    base_path: str = ""
    """Path under which a reverse proxy serves the relay: `"/cameras"` for `https://home.example/cameras/`, whether the
    proxy strips it or not. One that strips it and sends `X-Forwarded-Prefix`, being trusted, does not need it."""


class ViewersConfig(_Section, frozen=True):
    """Who may watch, and which sites may embed a camera's page."""

    access: Literal["auto", "open", "links", "token"] = "auto"
    """`open`: anyone who can reach `http.listen`, which must then be loopback. `token`: clients that send `http.token`.
    `links`: those, and anyone with a signed link to one camera. `auto`: `open` without a token, `token` with one."""
    link_secret: Secret = Secret("")
    """Key for signing links; at least 16 characters. Without it links expire when the relay restarts; changing it
    revokes all links. With `cluster.namespace` it is required."""
    frame_ancestors: list[str] = []
    """Sites that may embed a camera's page in a frame: `["https://home.example"]`."""


class LimitsConfig(_Section, frozen=True):
    """Google's published limits; change them only if Google has granted you different ones."""

    commands_per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """executeCommand calls per project and user in any 60 s."""
    device_commands_per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """Calls of one command to one device in any 60 s."""
    camera_per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 30
    """All commands to one camera or doorbell in any 60 s."""
    camera_per_hour: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """All commands to one camera or doorbell in any hour."""
    devices_list_per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """devices.list calls in any 60 s."""
    devices_get_per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """devices.get calls in any 60 s."""
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Fraction of each limit that this relay may use; lower it when other programs share the project."""


class WorkersConfig(_Section, frozen=True):
    """The relaying processes, one per camera."""

    memory_limit_mb: Annotated[int, Meta(ge=0, le=100_000)] = 200
    """Resident memory in MiB above which a camera's worker is replaced; 0: never. About 70 is usual, mostly shared."""
    landlock: Literal["auto", "off"] = "auto"
    """`auto`: the kernel's Landlock keeps workers from files, TCP ports and processes they do not need, if it can."""
    data_path: Literal["auto", "compiled", "python"] = "auto"
    """What moves packets: `compiled`, which takes less CPU and refuses to start where it was installed without a C
    compiler, or `python`. `auto`: compiled code where it is there."""
    immortal_objects: Literal["auto", "off"] = "auto"
    """`auto`: on CPython 3.12 and 3.13 workers copy 4 MB less of what they share, since references are not counted."""
    rehearsal: Literal["auto", "off"] = "auto"
    """`auto`: a worker's life is rehearsed before the first one is started (a second): workers share 2 MB more."""
    rendition_cpu_ms: Annotated[float, Meta(ge=0, le=10_000)] = 150.0
    """Milliseconds of CPU a second that a camera's `smooth` rendition may cost; beyond that it is `keyframes`."""
    all_renditions_cpu_ms: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """The same for all cameras together, `keyframes` included; who is watched first has it. 0: 250 a processor."""


class PathsConfig(_Section, frozen=True):
    """Directories."""

    state_dir: str = ""
    """Leases and quota log; empty for $STATE_DIRECTORY or ~/.local/state/nest-relay."""
    runtime_dir: str = ""
    """Sockets; empty for $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/nest-relay or a directory under /tmp."""

    def state(self) -> Path:
        """The state directory, resolved; raises ConfigError for a user who has no default."""
        if self.state_dir:
            return Path(self.state_dir).expanduser()
        if systemd := os.environ.get("STATE_DIRECTORY"):
            return Path(systemd.split(":")[0])
        try:
            return Path.home() / ".local" / "state" / "nest-relay"
        except RuntimeError:  # of a user whom no file knows, as containers have them
            raise ConfigError("paths.state_dir has to be set: this user has no home directory") from None

    def runtime(self) -> Path:
        """The runtime directory, resolved."""
        if self.runtime_dir:
            return Path(self.runtime_dir).expanduser()
        if systemd := os.environ.get("RUNTIME_DIRECTORY"):
            return Path(systemd.split(":")[0])
        # The XDG specification has relative paths ignored: each program would start them at a directory of its own.
        if (user := Path(os.environ.get("XDG_RUNTIME_DIR", ""))).is_absolute():
            return user / "nest-relay"
        return Path(tempfile.gettempdir()) / f"nest-relay-{os.getuid()}"

    def socket(self) -> Path:
        """Where the supervisor serves its HTTP interface for the command line."""
        return self.runtime() / "http.sock"


class LogConfig(_Section, frozen=True):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged."""
    format: Literal["console", "json"] = "console"
    """`console` for people, `json` for one JSON object per line."""


class OtelConfig(_Section, frozen=True):
    """Export to an OpenTelemetry collector; needs `pip install nest-relay[otel]`."""

    endpoint: str = ""
    """Base URL of the collector's OTLP/HTTP receiver, usually `http://127.0.0.1:4318`; empty: no export."""
    interval: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    """Seconds between exports of the metrics."""
    traces: bool = True
    """Whether to export a span for each command to Google and each call to the SFU as well."""


class Config(_Section, frozen=True):
    """The whole configuration; `nest` holds one entry per Google account or project."""

    nest: list[NestConfig]
    cloudflare: CloudflareConfig = CloudflareConfig()
    rtsp: RtspConfig = RtspConfig()
    cameras: CamerasConfig = CamerasConfig()
    http: HttpConfig = HttpConfig()
    viewers: ViewersConfig = ViewersConfig()
    limits: LimitsConfig = LimitsConfig()
    workers: WorkersConfig = WorkersConfig()
    paths: PathsConfig = PathsConfig()
    log: LogConfig = LogConfig()
    otel: OtelConfig = OtelConfig()
    whip: list[WhipConfig] = []
    whip_mistakes: list[str] = []
    """What is wrong with the tables that are left out of `whip`: each costs its own sink, and nothing else."""
    local: LocalConfig = LocalConfig()
    cluster: ClusterConfig = ClusterConfig()


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "nest": NestConfig,
    "cloudflare": CloudflareConfig,
    "cloudflare.turn": TurnConfig,
    "rtsp": RtspConfig,
    "cameras": CamerasConfig,
    "http": HttpConfig,
    "viewers": ViewersConfig,
    "limits": LimitsConfig,
    "workers": WorkersConfig,
    "paths": PathsConfig,
    "log": LogConfig,
    "otel": OtelConfig,
    "whip": WhipConfig,
    "local": LocalConfig,
    "cluster": ClusterConfig,
}
"""The sections of the file by name."""

TABLES: Final = frozenset(("settings", "turn"))
"""Fields that are tables of their own in the file, not keys of their section."""
SECRET_SUFFIX: Final = "_file"
"""Suffix that turns a secret's key into the key for a file containing it."""


def secret_fields(struct: type[msgspec.Struct]) -> set[str]:
    """The keys of a section that hold secrets."""
    return {f.name for f in msgspec.structs.fields(struct) if f.type is Secret}


def keys_of(struct: type[msgspec.Struct]) -> set[str]:
    """Every key that may stand in a section, those for files with secrets included."""
    names = {f.name for f in msgspec.structs.fields(struct)} - TABLES
    return names | {f"{s}{SECRET_SUFFIX}" for s in secret_fields(struct)}
