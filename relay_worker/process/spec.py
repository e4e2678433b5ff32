"""Parameters a worker is started with. They reach it over the launch pipe, never by command line or environment."""

from __future__ import annotations

from dataclasses import dataclass

from relay_common.protocol import SinkTarget
from relay_common.secrets import Secret
from relay_worker import native


@dataclass(frozen=True, kw_only=True)
class BusKeys:
    """What a worker proves on the bus who it is with, and its supervisor to it: CURVE keys in Z85 (ZeroMQ RFC 32)."""

    public: str
    secret: Secret
    supervisor: str
    """The supervisor's public key."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """Parameters of one worker process."""

    camera: str
    """Camera id."""
    name: str
    """Display name, for the process title, the slate and the logs."""
    instance: str
    """Identity of this process on the bus."""
    control: str
    """ZeroMQ endpoint of the supervisor's ROUTER: `ipc://`, or `tcp://` from another machine."""
    stats: str
    """ZeroMQ endpoint of the supervisor's SUB."""
    keys: BusKeys | None = None
    """Set at each launch, as `instance` is: without keys the bus refuses it."""
    audio: bool = True
    ca_file: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    ice_servers: tuple[str, ...] = ()
    """URLs of TURN servers that it may be told to use, for what it may connect to; credentials come over the bus."""
    sinks: tuple[SinkTarget, ...] = (SinkTarget(),)
    """Where to publish; `SetSinks` changes it."""
    camera_loopback: bool = False
    """Whether the WebRTC cameras are on this machine."""
    orphan_grace: float = 60.0
    """Seconds without a supervisor and without a lease after which the worker ends itself."""
    log_level: str = "info"
    log_format: str = "console"
    media_timeout: float = 10.0
    landlock: bool = True
    """Whether to confine the process as far as the kernel can (`sandbox.py`)."""
    tcp_ports: tuple[int, ...] | None = None
    """TCP ports of the camera's streams, the only ones the worker may then connect to; None: not known, so any."""
    data_path: native.Setting = "auto"
    """Whether packets are moved by compiled code."""
