"""Every message that supervisor and worker exchange.

MessagePack-encoded tagged structs between the supervisor's ROUTER and the worker's DEALER; `WorkerStats` goes from the
worker's PUB to the supervisor's SUB. Both connections are authenticated with the worker's key, which alone says whom a
message comes from. To evolve it: new fields go last and have a default, a field never changes its type, unknown types
are counted and ignored, `PROTOCOL` is raised when an old peer could not do its work. `…_at` is in Unix seconds (UTC).
"""

from __future__ import annotations

import enum

import msgspec

from relay_common.beat_messages import SupervisorBeat
from relay_common.ingest_messages import IngestFromWorker, MakeOffer
from relay_common.local_messages import LocalFromSupervisor, LocalFromWorker
from relay_common.patch_messages import PatchSession, SessionPatched
from relay_common.rendition_messages import SetRendition

PROTOCOL = 1  # the version, which a hello carries
MAX_FRAME = 256 * 1024  # bytes of the largest frame that is accepted; the largest content is an SDP


class WorkerState(enum.Enum):
    """State of a camera's pipeline, as seen from outside."""

    STARTING = "starting"
    """The process is up; it has no stream yet."""
    CONNECTING = "connecting"
    """Reaching the camera or the SFU."""
    LIVE = "live"
    """Media arrives from the camera and is sent to the SFU."""
    RECONNECTING = "reconnecting"
    """The camera or the SFU was lost and is being reconnected."""
    WAITING = "waiting"
    """Holding the publication without a stream: the supervisor has to supply one."""
    STOPPING = "stopping"


class Stage(enum.Enum):
    """The stage of the media path that a verdict or failure concerns."""

    NONE = "none"
    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    OPTIONS = "options"
    DESCRIBE = "describe"
    SETUP = "setup"
    PLAY = "play"
    STREAMING = "streaming"
    DECODE = "decode"
    OFFER = "offer"
    """The exchange of SDP with a WebRTC camera."""
    PUBLISH = "publish"
    ICE = "ice"
    DTLS = "dtls"
    SENDING = "sending"


class Protocol(enum.Enum):
    """How a camera delivers its stream (SDM's `supportedProtocols`)."""

    RTSP = "RTSP"
    WEB_RTC = "WEB_RTC"


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


# --- worker → supervisor ---------------------------------------------------------------------------------------


class Hello(_Message, frozen=True, tag="hello"):
    """First message of a worker, and its answer to `Identify`: its identity and state."""

    protocol: int
    instance: str
    camera: str
    pid: int
    started: int
    """Kernel start time in clock ticks since boot: with the pid it identifies a process permanently."""
    state: WorkerState
    generation: int = 0
    """Generation of its current stream; 0 when it has none."""
    expires_at: float = 0.0
    publication: str = ""
    """The publication it sends to, as named by the supervisor; empty when it has none."""
    preloaded: bool = False
    """Whether the media stack was inherited from the fork server rather than imported."""
    version: str = ""
    confinement: str = ""
    """What the kernel confines it by, in words that begin with "none" or "off" when nothing does."""
    tcp_ports: list[int] | None = None
    """The TCP ports it may connect to; None: any."""
    publications: dict[str, str] = {}
    """What it publishes at the other sinks: the publication by the sink's name."""
    local: bool = False
    """Whether it can answer viewers itself."""
    sinks: bool = False
    """Whether it publishes where `SetSinks` says, and not at the SFU alone."""
    data_path: str = ""
    """What moves its packets: `compiled` or `python`."""
    renditions: bool = False
    """Whether it can make a smaller picture, and knows `SetRendition`."""
    immortal_objects: str = ""
    """How the objects are that it shares with others: `immortal`, or why not; empty where they are left alone."""
    rehearsal: str = ""
    """Whether a worker's life was rehearsed before the first one: `rehearsed`, or why not; empty: it was not to be."""


class Heartbeat(_Message, frozen=True, tag="beat"):
    """Sent every second by the loop that moves media."""

    state: WorkerState
    lag: float = 0.0
    """Seconds by which the loop was late for this beat."""
    report: bytes = b""
    """The `WorkerStats` of this second, encoded, where those are read here (`Welcome.reports`); else empty."""


class StateChanged(_Message, frozen=True, tag="state"):
    """The pipeline's state changed; `reason` is for people and contains no secret."""

    state: WorkerState
    stage: Stage = Stage.NONE
    reason: str = ""


class SourceFailed(_Message, frozen=True, tag="source_failed"):
    """The stream of `generation` cannot be played; every retry that costs no command has failed."""

    generation: int
    stage: Stage
    remedy: str
    reason: str
    code: str = ""
    """The cause: a value of `relay_common.causes.Cause`; empty from a worker of an earlier release."""


class TrackOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One track of an offer."""

    kind: str
    mid: str
    rids: list[str] = []
    """The layers of a simulcast track, best first; empty: one encoding."""


class PublishRequest(_Message, frozen=True, tag="publish"):
    """Request to have the sink answer this offer in a new session."""

    request: int
    offer: str
    tracks: list[TrackOffer]
    sink: str = ""


class Published(_Message, frozen=True, tag="published"):
    """Packets of every track of `publication` have been sent: viewers may pull it."""

    publication: str
    sink: str = ""
    rids: list[str] = []
    """The layers that the answer took of a simulcast track, best first; empty: one encoding."""


class Unpublished(_Message, frozen=True, tag="unpublished"):
    """The transport of `publication` is gone."""

    publication: str
    reason: str = ""
    sink: str = ""


class StackDump(_Message, frozen=True, tag="stacks"):
    """Answer to `DumpStacks`."""

    text: str


class FilePart(_Message, frozen=True, tag="file_part"):
    """Part of a file that `TakeSnapshot` or `TakeCapture` asked for, split to fit frames; or why there is none."""

    request: int
    data: bytes = b""
    last: bool = False
    error: str = ""


class LogLine(_Message, frozen=True, tag="log"):
    """One redacted line of the worker's log, for the supervisor's buffer of recent lines."""

    at: float
    level: str
    logger: str
    text: str


class Goodbye(_Message, frozen=True, tag="goodbye"):
    """The worker is ending on its own, for `reason`."""

    reason: str


# --- supervisor → worker ---------------------------------------------------------------------------------------


class Identify(_Message, frozen=True, tag="identify"):
    """Ask a worker to identify itself; answered by `Hello`."""


class Welcome(_Message, frozen=True, tag="welcome"):
    """The hello is accepted."""

    protocol: int = PROTOCOL
    reports: bool = False
    """Whether reports are read in heartbeats: one message a second is enough."""
    beats: bool = False
    """Whether a `SupervisorBeat` comes every `BEAT` seconds, as long as the supervisor lives and commands."""
    supervisor: str = ""
    """Which supervisor it is in this life of its own; empty from one of an earlier release."""


class Play(_Message, frozen=True, tag="play"):
    """Relay this stream. A higher generation replaces the previous one."""

    generation: int
    protocol: Protocol
    url: str
    """Secret: holds the stream token. Empty for WebRTC."""
    expires_at: float
    answer: str = ""
    """Secret: Google's unmodified SDP answer to the worker's offer number `offer`; WebRTC only."""
    offer: int = 0
    contested: float = 0.0
    """Seconds for which a lost worker may be the one client of `url`; negative: it was, and a refusal is final."""


class Extended(_Message, frozen=True, tag="extended"):
    """The stream of `generation` was extended; `url` is for reconnects only, the running session stays up."""

    generation: int
    url: str
    """Secret: holds the stream token."""
    expires_at: float


class StreamLost(_Message, frozen=True, tag="stream_lost"):
    """The lease of `generation` is lost: hold the publication and wait for another `Play`."""

    generation: int
    reason: str = ""


class PublishAnswer(_Message, frozen=True, tag="answer"):
    """The sink's answer to a `PublishRequest`, and the name of the publication it makes."""

    request: int
    publication: str
    answer: str
    ice_servers: list[TurnServer] = []
    """Secret: STUN and TURN servers that the sink recommends for the next offer."""


class PublishFailed(_Message, frozen=True, tag="publish_failed"):
    """The sink did not accept the offer; try again with a new one after `retry_after` seconds."""

    request: int
    reason: str
    retry_after: float


class Republish(_Message, frozen=True, tag="republish"):
    """The sink's session of `publication` is gone: publish again now."""

    publication: str
    reason: str = ""


class RequestKeyframe(_Message, frozen=True, tag="keyframe"):
    """Ask the source for an IDR, where possible."""


class RecoverVideo(_Message, frozen=True, tag="mend"):
    """No viewer decodes the video: try the next remedy that costs no command. A worker does so at most once in 60 s."""

    reason: str = ""


class DumpStacks(_Message, frozen=True, tag="dump_stacks"):
    """Answer with `StackDump`."""


class TakeSnapshot(_Message, frozen=True, tag="snapshot"):
    """Make a JPEG of the next keyframe; answered by `FilePart`s."""

    request: int


class TakeCapture(_Message, frozen=True, tag="capture"):
    """Capture packets for `seconds` seconds; answered by `FilePart`s of a pcapng file."""

    request: int
    seconds: float


class SetLog(_Message, frozen=True, tag="set_log"):
    """Log at this level and above, and everything from these subsystems (`relay_common.log.CATEGORIES`)."""

    level: str
    debug: list[str] = []


class TurnServer(msgspec.Struct, frozen=True, kw_only=True):
    """A STUN or TURN server, in the words of RTCIceServer."""

    urls: list[str]
    username: str = ""
    credential: str = ""
    """Secret."""


class UseTurn(_Message, frozen=True, tag="use_turn"):
    """TURN servers to publish through where the SFU cannot be reached directly; they replace earlier ones."""

    servers: list[TurnServer]
    ends_at: float = 0.0
    """When their credentials end; 0: never."""


class SinkTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sink to publish to; the supervisor, which has its address and credentials, carries the offers there."""

    name: str = ""
    """"" for the SFU."""
    ice_servers: list[TurnServer] = []
    loopback: bool = False
    """Whether it is on the worker's machine: 127.0.0.1 is used, alone for the SFU, beside others for a WHIP server."""
    longest_pause: float = 10.0
    """Most seconds between two attempts to publish there."""
    renditions: bool = False
    """Whether a WHIP server is offered the small layer as well; the SFU always is, where one is configured."""


class SetSinks(_Message, frozen=True, tag="sinks"):
    """Publish at these sinks and no others from now on; what is published at one that stays is not touched."""

    sinks: list[SinkTarget]


class Stop(_Message, frozen=True, tag="stop"):
    """End cleanly within `within` seconds."""

    reason: str = ""
    within: float = 3.0


FromWorker = (
    Hello
    | Heartbeat
    | StateChanged
    | SourceFailed
    | IngestFromWorker
    | PublishRequest
    | Published
    | Unpublished
    | StackDump
    | FilePart
    | LogLine
    | Goodbye
    | LocalFromWorker
    | PatchSession
)
FromSupervisor = (
    Identify
    | Welcome
    | Play
    | MakeOffer
    | Extended
    | StreamLost
    | PublishAnswer
    | PublishFailed
    | Republish
    | RequestKeyframe
    | DumpStacks
    | TakeSnapshot
    | TakeCapture
    | SetLog
    | Stop
    | RecoverVideo
    | UseTurn
    | SetSinks
    | LocalFromSupervisor
    | SetRendition
    | SessionPatched
    | SupervisorBeat
)
