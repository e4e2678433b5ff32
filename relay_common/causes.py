"""What can be wrong, as a fixed enumeration: the reason code, its stage, its sentence and what a person can do.

Every surface (status, page, events, /readyz, log, metrics, alerts, docs) takes its words from this table; a test holds
docs/reasons.md and the alert rules against it. Values are an interface and never change; new ones go last.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from relay_common import engine_waits


class Cause(enum.Enum):
    """Reason codes. What a worker or Google answers is judged where it is met; the code travels, and words follow."""

    NONE = "none"
    STARTING = "starting"
    DISABLED = "disabled"
    IDLE = "idle"
    # Google
    QUOTA_HELD = "quota_held"
    QUOTA_UNKNOWN = "quota_unknown"
    GOOGLE_FAILS = "google_fails"
    GOOGLE_SILENT = "google_silent"
    GOOGLE_REFUSES = "google_refuses"
    TOKEN_REVOKED = "token_revoked"
    TOKEN_UNAVAILABLE = "token_unavailable"
    CLIENT_REFUSED = "client_refused"
    PROJECT_REFUSED = "project_refused"
    CAMERA_NOT_SHARED = "camera_not_shared"
    CAMERA_REMOVED = "camera_removed"
    CAMERA_OFFLINE = "camera_offline"
    OFFER_REFUSED = "offer_refused"
    STREAM_ENDED = "stream_ended"
    BUDGET_SHORT = "budget_short"
    BUDGET_QUEUE = "budget_queue"
    # the network
    NAMES_UNRESOLVED = "names_unresolved"
    GOOGLE_UNREACHABLE = "google_unreachable"
    CAMERA_UNREACHABLE = "camera_unreachable"
    SFU_UNREACHABLE = "sfu_unreachable"
    UPLINK_BLOCKED = "uplink_blocked"
    UPLINK_SHORT = "uplink_short"
    # the camera
    CAMERA_STALLED = "camera_stalled"
    CAMERA_REFUSES = "camera_refuses"
    CAMERA_LOST = "camera_lost"
    CAMERA_BROKEN = "camera_broken"
    SOUND_MISSING = "sound_missing"
    # decoding
    CODEC_UNSUPPORTED = "codec_unsupported"
    PICTURE_UNDECODABLE = "picture_undecodable"
    B_FRAMES = "b_frames"
    # the relay itself
    WORKER_CRASHES = "worker_crashes"
    WORKER_HANGS = "worker_hangs"
    WORKER_UNSTARTED = "worker_unstarted"
    SUPERVISOR_SILENT = "supervisor_silent"
    INTERNAL_ERROR = "internal_error"
    DISK_FULL = "disk_full"
    STATE_UNWRITABLE = "state_unwritable"
    CLOCK_WRONG = "clock_wrong"
    # Cloudflare
    SFU_REFUSES = "sfu_refuses"
    SFU_UNAUTHORIZED = "sfu_unauthorized"
    SFU_LOST = "sfu_lost"
    VIEWERS_REFUSED = "viewers_refused"
    # WHIP servers
    SINK_FAILS = "sink_fails"
    # viewers without Cloudflare
    LOCAL_UNAVAILABLE = "local_unavailable"
    # Kubernetes
    WORKER_WAITS = "worker_waits"
    WORKER_MOVES = "worker_moves"
    NODE_LOST = "node_lost"


class RestartCause(enum.Enum):
    """Why a worker's process ended while its camera was wanted: a label of the metrics."""

    EXITED = "exited"
    KILLED = "killed"
    HUNG = "hung"
    MEMORY = "memory"
    """It was over its memory limit."""
    REQUESTED = "requested"
    FAILED = "failed"
    """It could not be watched or ended."""
    OTHER = "other"
    TAKEN_AWAY = "taken_away"
    """Its engine ended it: a node that is drained, or a Pod that somebody deleted."""


class CauseText(NamedTuple):
    """What is said of a cause. `sentence` may be followed by a detail; `advice` is empty when nothing need be done."""

    stage: str
    """Where it fails: google, network, camera, decode, relay, sfu, viewers or sink; empty when nothing does."""
    sentence: str
    advice: str = ""
    following: str = ""
    """What the relay does about it, where nothing more exact is known."""


_PARTNER: Final = "https://nestservices.google.com/partnerconnections"
_RECONNECT: Final = "the worker connects again"
_PUBLISH: Final = "publishing is tried again"
_SAVING: Final = "writing is tried again every 5 s"
_WIFI: Final = "Check the camera's power and Wi-Fi in the Google Home app"

# fmt: off
CAUSES: Final[dict[Cause, CauseText]] = {
    Cause.NONE: CauseText("", ""),
    Cause.STARTING: CauseText("", "Connecting", following="the first picture"),
    Cause.DISABLED: CauseText("", "Not relayed"),
    Cause.IDLE: CauseText("", "Idle"),
    Cause.QUOTA_UNKNOWN: CauseText(
        "google", "What another supervisor has sent to Google in the last minute is not known",
        following="commands are sent again"),
    Cause.QUOTA_HELD: CauseText(
        "google", "Google's command quota is used up: 429",
        "Stop other programs that use the same project and account, or give them a project of their own",
        "commands are sent again"),
    Cause.GOOGLE_FAILS: CauseText(
        "google", "Google fails", "Wait: the failure is Google's, and retries are paced", "the command is sent again"),
    Cause.GOOGLE_SILENT: CauseText(
        "google", "Google does not answer in time", "Wait; if it stays, check the uplink", "the command is sent again"),
    Cause.GOOGLE_REFUSES: CauseText(
        "google", "Google refuses the command",
        "If it stays, report the answer: `relay-supervisor logs` has it in full",
        "the command is sent again"),
    Cause.TOKEN_REVOKED: CauseText(
        "google", "Google has revoked the authorisation: invalid_grant",
        "Run `relay-supervisor auth`, then `relay-supervisor reload`; publish the consent screen if it is in Testing",
        "the token is tried again"),
    Cause.TOKEN_UNAVAILABLE: CauseText(
        "google", "Google gives no access token", "Wait: the failure is Google's", "the token is requested again"),
    Cause.CLIENT_REFUSED: CauseText(
        "google", "Google refuses the OAuth client",
        "Check nest.client_id and nest.client_secret, then `relay-supervisor reload`",
        "the token is tried again"),
    Cause.PROJECT_REFUSED: CauseText(
        "google", "Google refuses the project",
        "Check nest.project_id and that the Smart Device Management API is enabled: `relay-supervisor check`",
        "the command is sent again"),
    Cause.CAMERA_NOT_SHARED: CauseText(
        "google", "Google refuses the camera: it is not shared with this project", f"Share it at {_PARTNER}",
        "it is tried again when the list of devices shows it"),
    Cause.CAMERA_REMOVED: CauseText(
        "google", "Google does not know the camera: it was removed or is no longer shared", f"Share it at {_PARTNER}",
        "it is tried again when the list of devices shows it"),
    Cause.CAMERA_OFFLINE: CauseText(
        "camera", "Google says that the camera is off or offline", _WIFI, "a stream is requested again"),
    Cause.OFFER_REFUSED: CauseText(
        "google", "Google refuses the WebRTC offer",
        "After a 500, give this machine an address of its own; else report the answer: `relay-supervisor logs` has it",
        "a stream is requested again"),
    Cause.STREAM_ENDED: CauseText("google", "The stream has ended", following="a new one is generated"),
    Cause.BUDGET_SHORT: CauseText(
        "google", "The command budget is short: no room for this camera",
        "Disable other cameras, or add a second account and project: another [[nest]]",
        "it starts when another camera leaves room"),
    Cause.BUDGET_QUEUE: CauseText(
        "google", "Waiting for its turn in the command budget", following="its stream is generated"),
    Cause.NAMES_UNRESOLVED: CauseText(
        "network", "A name cannot be resolved", "Check this machine's name servers (/etc/resolv.conf) and its network",
        "it is tried again"),
    Cause.GOOGLE_UNREACHABLE: CauseText(
        "network", "Google cannot be reached", "Check this machine's network, and its clock: `relay-supervisor check`",
        "it is tried again"),
    Cause.CAMERA_UNREACHABLE: CauseText(
        "network", "The camera's stream cannot be reached", "Check this machine's network and firewall (TCP 443)",
        _RECONNECT),
    Cause.SFU_UNREACHABLE: CauseText(
        "network", "Cloudflare cannot be reached", "Check this machine's network: `relay-supervisor check`", _PUBLISH),
    Cause.UPLINK_BLOCKED: CauseText(
        "network", "No connection to Cloudflare: UDP does not get through",
        "Allow outgoing UDP in the firewall, or set a TURN key in [cloudflare.turn]", _PUBLISH),
    Cause.UPLINK_SHORT: CauseText(
        "network", "The uplink does not carry the stream", "Fewer cameras, a lower quality, or a faster uplink",
        "pictures are left out"),
    Cause.CAMERA_STALLED: CauseText("camera", "The camera sends no video", _WIFI, _RECONNECT),
    Cause.CAMERA_REFUSES: CauseText(
        "camera", "The camera's stream is refused", "If it stays, check the camera in the Google Home app", _RECONNECT),
    Cause.CAMERA_LOST: CauseText("camera", "The connection with the camera was lost", _WIFI, _RECONNECT),
    Cause.CAMERA_BROKEN: CauseText(
        "camera", "The camera's stream cannot be played", "If it stays, restart the camera and report the log",
        _RECONNECT),
    Cause.SOUND_MISSING: CauseText(
        "camera", "The camera sends no sound", "Switch its microphone on in the Google Home app",
        "the picture goes on with silence"),
    Cause.CODEC_UNSUPPORTED: CauseText(
        "decode", "The camera sends a codec that is not relayed",
        "Choose H.264 in the camera's settings, or disable the camera", "a new stream is requested"),
    Cause.PICTURE_UNDECODABLE: CauseText(
        "decode", "No viewer can decode the picture", "Restart the camera's worker: `relay-supervisor restart NAME`",
        "a remedy is tried every minute"),
    Cause.B_FRAMES: CauseText(
        "decode", "The camera sends B-frames, which browsers do not show live",
        "Choose a profile without them in the camera's settings"),
    Cause.WORKER_CRASHES: CauseText(
        "relay", "The camera's worker keeps ending",
        "`relay-supervisor logs` has how it ended; free memory, or report the traceback", "it is started again"),
    Cause.WORKER_HANGS: CauseText(
        "relay", "The camera's worker hangs", "If it happens again, free processor time or report its stacks",
        "it is ended and started again"),
    Cause.WORKER_UNSTARTED: CauseText(
        "relay", "The camera's worker cannot be started", "Free memory or descriptors on this machine",
        "it is started again"),
    Cause.SUPERVISOR_SILENT: CauseText("relay", "No supervisor answers the camera's worker", following="it asks again"),
    Cause.INTERNAL_ERROR: CauseText(
        "relay", "An error in the relay", "Report it with the traceback in the log", "it is tried again"),
    Cause.DISK_FULL: CauseText(
        "relay", "The disk is full: the state cannot be saved",
        "Free space under paths.state_dir; cameras play on, and leases would not survive a restart",
        _SAVING),
    Cause.STATE_UNWRITABLE: CauseText(
        "relay", "The state cannot be saved",
        "See to the disk under paths.state_dir; cameras play on, and leases would not survive a restart",
        _SAVING),
    Cause.CLOCK_WRONG: CauseText(
        "relay", "This machine's clock is wrong", "Start time synchronisation: `timedatectl set-ntp true`",
        "leases are measured on Google's clock"),
    Cause.SFU_REFUSES: CauseText(
        "sfu", "Cloudflare refuses to publish",
        "Wait if it is a 5xx (https://www.cloudflarestatus.com); else report the log",
        _PUBLISH),
    Cause.SFU_UNAUTHORIZED: CauseText(
        "sfu", "Cloudflare refuses the app id or secret",
        "Make a new secret under Realtime → SFU and put it into cloudflare.app_secret", "publishing is tried again"),
    Cause.SFU_LOST: CauseText("sfu", "The publication at Cloudflare has ended", following=_PUBLISH),
    Cause.VIEWERS_REFUSED: CauseText(
        "viewers", "Cloudflare refuses viewers",
        "Wait if it is a 5xx (https://www.cloudflarestatus.com); else check cloudflare.app_secret", "pages try again"),
    Cause.SINK_FAILS: CauseText(
        "sink", "A WHIP server does not get the camera",
        "Check that it runs, and its [[whip]] table: `relay-supervisor check`", "publishing there is tried again"),
    Cause.LOCAL_UNAVAILABLE: CauseText(
        "relay", "The camera cannot be watched without Cloudflare",
        "Check [local]: its addresses, and that udp_ports has a port for each camera: `relay-supervisor check`"),
    Cause.WORKER_WAITS: CauseText(
        "relay", "The cluster does not start the camera's worker", "See below, by Kubernetes' reason",
        "it is started as soon as the cluster can"),
    Cause.WORKER_MOVES: CauseText(
        "relay", "The cluster has taken the camera's worker away",
        "Nothing while a node is drained or upgraded; else `kubectl get events` says who deletes its Pod",
        "another one is started, where there is room"),
    Cause.NODE_LOST: CauseText(
        "relay", "The node of the camera's worker is lost, or too busy",
        "`kubectl get nodes` says whether it is up; if it is, look at its network and its load",
        "another worker is started, on another node where there is one"),
}
"""Every cause with its words."""
# fmt: on

UNREMARKABLE: Final = frozenset({Cause.NONE, Cause.STARTING, Cause.DISABLED, Cause.IDLE, Cause.BUDGET_QUEUE})
"""What is as it should be: no warning in the log."""
ACCOUNT_WIDE: Final = frozenset(
    {Cause.QUOTA_HELD, Cause.TOKEN_REVOKED, Cause.TOKEN_UNAVAILABLE, Cause.CLIENT_REFUSED, Cause.PROJECT_REFUSED}
    | {Cause.QUOTA_UNKNOWN}
    | {Cause.NAMES_UNRESOLVED, Cause.GOOGLE_UNREACHABLE, Cause.VIEWERS_REFUSED}
)
"""What is told once for all cameras that it concerns."""


def reference() -> str:
    """docs/reasons.md."""
    lines = [
        "# Reasons",
        "",
        "Generated by `python -m relay_common.causes`. When something is wrong, the status, the page, the log, the",
        "events and `/readyz` (for the operator) name the same cause in the same sentence; metrics carry its code:",
        "`relay_camera_reason{camera, stage, reason}`, `relay_cameras_by_reason{reason}` and `relay_problem{reason}`.",
        "A detail, such as the HTTP status, may follow the sentence.",
        "",
        "| code | stage | what it says | what to do |",
        "|---|---|---|---|",
    ]
    for cause, words in CAUSES.items():
        lines.append(f"| `{cause.value}` | {words.stage or '-'} | {words.sentence or '-'} | {words.advice or '-'} |")
    return "\n".join([*lines, "", *engine_waits.reference()]) + "\n"


def cause_of(code: str) -> Cause:
    """The cause with that code; NONE for "" and for one that this version does not know."""
    try:
        return Cause(code)
    except ValueError:
        return Cause.NONE


def sentence(cause: Cause, detail: str = "") -> str:
    """The cause in one sentence, with a detail such as a status."""
    words = CAUSES[cause].sentence
    return f"{words}: {detail}" if detail and words else words or detail


if __name__ == "__main__":
    print(reference(), end="")
