"""The relay's status: one snapshot for the API, the dashboard, the command line and the metrics.

Field names are part of the HTTP API. Nothing here holds a secret, a stream URL or an SFU session id.
"""

from __future__ import annotations

import msgspec

from relay_common.worker_stats import RenditionStats, SinkStats, TrackStats
from relay_supervisor.status.verdict import StatusVerdict


class LeaseStatus(msgspec.Struct, kw_only=True):
    """A camera's stream lease at Google."""

    state: str = "released"
    """State of the lease machine: wanted, generating, held, extending, lost, held_off, parked, released."""
    protocol: str = ""
    expires_at: float = 0.0
    """Unix seconds; 0 while no stream is held."""
    expires_in: float = 0.0
    generates: int = 0
    extends: int = 0
    failures: int = 0
    """Failed commands in a row."""
    degraded: bool = False
    last_error: str = ""
    next_action: str = ""
    """What happens next, in words; empty when nothing is planned."""
    next_at: float = 0.0
    """Unix seconds of the next action; 0 when not known."""
    code: str = ""
    """Why there is no stream, or the last command failed: a value of `Cause`; empty when neither is so."""
    detail: str = ""
    """What the cause's sentence does not say, such as the status that Google answered."""
    next_step: str = ""
    """`next_action` without the time."""


class WorkerStatus(msgspec.Struct, kw_only=True):
    """A camera's process."""

    state: str = "stopped"
    instance: str = ""
    pid: int = 0
    uptime: float = 0.0
    restarts: int = 0
    last_exit: str = ""
    """How the previous process ended, in words; empty while there was none."""
    heartbeat_age: float = 0.0
    cpu: float = 0.0
    rss: int = 0
    confinement: str = ""
    """What the kernel confines it by, in words (beginning with "none" or "off": nothing); empty until it is known."""
    data_path: str = ""
    """What moves its packets: `compiled` or `python`; empty until it is known, or from an earlier release's worker."""
    data_path_fallbacks: int = 0
    """1 when crashes have cost it the compiled data path."""
    where: str = ""
    """The node it runs on; empty: this machine, or none yet."""
    phase: str = ""
    """How the engine that runs it sees it: `waiting`, `running`, `ending` or `gone`; empty: there is none."""
    phase_reason: str = ""
    """Why, in the engine's words; empty on this machine."""
    immortal_objects: str = ""
    """How the objects are that it shares with other workers: `immortal`, or why not; empty where they were left as they
    are."""
    rehearsal: str = ""
    """Whether a worker's life was rehearsed before the first one was started, so that they share more memory:
    `rehearsed`, or why not; empty where it was not to be."""
    waits: str = ""
    """What keeps it from running in a cluster: a value of `EngineWait` (docs/reasons.md); empty when nothing does."""


class LocalStatus(msgspec.Struct, kw_only=True):
    """A camera's viewers without the SFU ([local]). Totals are since its worker started."""

    on: bool = False
    """Whether a viewer that asks at `/whep/{camera}` now is answered; an idle camera is woken."""
    publication: str = ""
    """Opaque; changes when the camera's worker is replaced, and with it every connection. Empty while it has none."""
    port: int = 0
    """The UDP port that its worker answers on; 0: none."""
    problem: str = ""
    """Why its worker answers nobody, in words; empty when it does, or `local.listen` is empty."""
    viewers: int = 0
    bytes_sent: int = 0
    packets_sent: int = 0
    retransmitted: int = 0
    lost: int = 0
    """Packets that viewers reported as lost."""
    held_bytes: int = 0
    """Of the latest pictures, which a viewer that joins gets at once."""
    refused: int = 0
    """Offers that its worker did not answer."""


class RenditionStatus(RenditionStats, kw_only=True):
    """A camera's smaller picture. Totals are since its worker started."""

    wanted: str = "off"
    """What the configuration asks for; it is offered at the camera's next publication."""
    watched: int = 0
    """Viewers that have the small picture now, those without the SFU included."""
    budget: float = 0.0
    """Milliseconds of CPU a second that it may cost now; 0: `keyframes` alone, where `smooth` is configured."""


class CameraStatus(msgspec.Struct, kw_only=True):
    """Everything about one camera."""

    id: str
    """Stable short id, safe in URLs."""
    name: str
    device: str
    """Short form of the SDM device id."""
    state: str
    """One word: live, connecting, reconnecting, waiting, idle, degraded, disabled, offline, stopped."""
    reason: str = ""
    """Why it is not live, or live and not decodable, in words; or a note on one that is live."""
    stage: str = ""
    enabled: bool = True
    viewable: bool = False
    """Whether a viewer that asks now gets a picture."""
    publication: str = ""
    """Opaque name of the present publication; it changes when the camera is republished."""
    uptime: float = 0.0
    webrtc: str = "new"
    source: str = "idle"
    source_sessions: int = 0
    video: TrackStats = msgspec.field(default_factory=TrackStats)
    audio: TrackStats = msgspec.field(default_factory=TrackStats)
    delay_p50: float = 0.0
    """Seconds from a packet's arrival at the relay to its departure."""
    delay_p99: float = 0.0
    skew: float = 0.0
    lease: LeaseStatus = msgspec.field(default_factory=LeaseStatus)
    worker: WorkerStatus = msgspec.field(default_factory=WorkerStatus)
    stats_age: float = 0.0
    """Seconds since the worker last reported."""
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    """What the worker's parts have counted (`WorkerStats.counters`)."""
    decodable: str = "unknown"
    """Whether browsers can decode the picture: `unknown` (nobody watches, or no page reports it), `yes`, `no`."""
    verdict: StatusVerdict = msgspec.field(default_factory=StatusVerdict)
    """What is wrong, what happens next and what to do, in the words that every surface prints."""
    sinks: list[SinkStats] = msgspec.field(default_factory=list)
    """What each sink gets of it; what the tracks say of sending is of the first."""
    local: LocalStatus = msgspec.field(default_factory=LocalStatus)
    sfu: bool = True
    """Whether it is published at Cloudflare, for viewers there."""
    renditions: str = "off"
    """The smaller picture that viewers can have of it now: `off`, `keyframes` or `smooth`."""
    rendition: RenditionStatus = msgspec.field(default_factory=RenditionStatus)
    account: str = ""
    """Which of several accounts has it: the name of one that is spread over supervisors, where it has its own page and
    API, else what its budget calls it. Empty where there is but one."""


class BudgetStatus(msgspec.Struct, kw_only=True):
    """Google's command budget and our queue in front of it."""

    account: str = ""
    used: int = 0
    """Commands in the last 60 seconds."""
    limit: int = 0
    """Commands allowed in any 60 seconds."""
    peak: int = 0
    """Most commands in any 60 seconds since the start."""
    hold: float = 0.0
    """Seconds until commands are allowed again after a refusal for quota; 0 when not held."""
    depth: int = 0
    executed: int = 0
    failed: int = 0
    wait_mean: float = 0.0
    wait_max: float = 0.0
    capacity: int = 0
    """Cameras that this budget can serve at the lifetime Google grants."""
    auth_error: str = ""
    """Why no command can be sent at all (for example: the refresh token was revoked), with the remedy."""
    recent: list[float] = msgspec.field(default_factory=list)
    """Age in seconds of each command of the last 60 seconds."""
    auth_warning: str = ""
    """Warning that the authorisation expires soon; empty when it does not, or that is not known."""
    auth_code: str = ""
    """The cause of `auth_error`: a value of `Cause`; empty when there is none."""
    auth_detail: str = ""
    """What the cause's sentence does not say."""
    retry_at: float = 0.0
    """Unix seconds at which commands are sent again, while they are held or cannot be sent; 0 when not known."""
    name: str = ""
    """The account's name where several are spread over supervisors; `account` is its project then as well."""

    @property
    def whose(self) -> str:
        """What people are told it is called."""
        return self.name or self.account


class SinkStatus(msgspec.Struct, kw_only=True):
    """One place where cameras are published."""

    name: str = ""
    """"" for the SFU."""
    kind: str = ""
    """`cloudflare` or `whip`."""
    place: str = ""
    """Scheme, host and port of a WHIP server."""
    encrypted: bool = True
    """Whether it is asked over https."""


class SeatStatus(msgspec.Struct, kw_only=True):
    """Which of several supervisors commands ([cluster] replica)."""

    replica: str = ""
    """This supervisor's name among them; empty: there are no others."""
    state: str = ""
    """Its state (docs/state-machines.md, Command), or `in command under promises`; empty: there are no others."""
    commands: bool = True
    """Whether it commands."""
    holder: str = ""
    """Who commands, as far as it is known."""
    others: list[str] = msgspec.field(default_factory=list)
    """Who has registered to stand by for it, or with it."""
    problem: str = ""
    """Why the API server does not help to settle it; empty when it does."""
    known: bool = False
    """Whether the one that commands knows that this one stands by: then it is taken over from within seconds."""


class AccountStatus(msgspec.Struct, kw_only=True):
    """One of several accounts that are spread over supervisors."""

    name: str
    path: str = ""
    """Where its own page and API are, below the relay's."""
    holder: str = ""
    """The supervisor that commands it, as far as it is known."""
    here: bool = False
    """Whether that is the one that was asked."""
    cameras: int = 0
    live: int = 0
    problem: str = ""
    """Why nothing is known of its cameras, in words; empty when they are known."""


class Totals(msgspec.Struct, kw_only=True):
    """Sums over all cameras."""

    cameras: int = 0
    connected: int = 0
    """Cameras that are live."""
    failed: int = 0
    """Cameras that are enabled and not live, though they should be."""
    video_packets: int = 0
    video_frames: int = 0
    audio_packets: int = 0
    audio_frames: int = 0
    bytes: int = 0
    bitrate: float = 0.0
    restarts: int = 0
    viewers: int = 0


class RelayStatus(msgspec.Struct, kw_only=True):
    """The whole relay at one moment."""

    version: str
    at: float
    uptime: float
    totals: Totals
    budgets: list[BudgetStatus]
    cameras: list[CameraStatus]
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    """What the supervisor's parts have counted since its start, as `part.name`, without those at zero."""
    problems: list[StatusVerdict] = msgspec.field(default_factory=list)
    """What is wrong with the relay or an account, rather than with one camera."""
    sinks: list[SinkStatus] = msgspec.field(default_factory=list)
    """Where cameras are published."""
    local: bool = False
    """Whether cameras can be watched without the SFU: [local] is on."""
    seat: SeatStatus = msgspec.field(default_factory=SeatStatus)
    """Which of several supervisors commands."""
    accounts: list[AccountStatus] = msgspec.field(default_factory=list)
    """Those that are spread over supervisors; empty where they are not."""
