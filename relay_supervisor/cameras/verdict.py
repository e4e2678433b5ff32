"""Judges one camera: state, stage, cause, what happens next and what a person can do. Pure; no clock, no I/O.

The order matters: what ended first is what mends first. A process that is gone explains everything above it, then a
stream that Google does not grant, then what the worker reports of the camera and of the SFU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from relay_common.causes import Cause, cause_of
from relay_common.cloudflare import SfuError, unauthorized
from relay_common.engine_waits import WAITS, EngineWait, wait_of
from relay_common.protocol import Stage, WorkerState
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.slot import Phase, Slot
from relay_supervisor.google.leases.causes import worker_detail
from relay_supervisor.status.model import LeaseStatus
from relay_supervisor.status.verdict import StatusVerdict, verdict

_WORDS: Final = {
    WorkerState.STARTING: "connecting",
    WorkerState.CONNECTING: "connecting",
    WorkerState.LIVE: "reconnecting",  # it was live, and is being ended
    WorkerState.RECONNECTING: "reconnecting",
    WorkerState.WAITING: "waiting",
    WorkerState.STOPPING: "stopped",
}
_BY_STAGE: Final = {
    Stage.PUBLISH: Cause.SFU_REFUSES,
    Stage.ICE: Cause.UPLINK_BLOCKED,
    Stage.DTLS: Cause.UPLINK_BLOCKED,
    Stage.SENDING: Cause.SFU_LOST,
    Stage.RESOLVE: Cause.NAMES_UNRESOLVED,
    Stage.CONNECT: Cause.CAMERA_UNREACHABLE,
    Stage.TLS: Cause.CAMERA_UNREACHABLE,
}
"""Causes of what workers of earlier releases report, which know no codes."""
_DETAILED: Final = frozenset(
    {Cause.CAMERA_REFUSES, Cause.CAMERA_LOST, Cause.CAMERA_BROKEN, Cause.CAMERA_UNREACHABLE, Cause.CODEC_UNSUPPORTED}
    | {Cause.SFU_LOST, Cause.SINK_FAILS}
    | {Cause.WORKER_CRASHES, Cause.WORKER_HANGS, Cause.WORKER_UNSTARTED, Cause.WORKER_MOVES, Cause.NODE_LOST}
    | {Cause.GOOGLE_FAILS, Cause.GOOGLE_REFUSES, Cause.PROJECT_REFUSED, Cause.BUDGET_SHORT, Cause.OFFER_REFUSED}
)
"""Causes whose sentence is followed by what was reported."""
_NO_OTHER: Final = frozenset({Cause.NONE, Cause.SFU_REFUSES, Cause.SFU_LOST, Cause.SUPERVISOR_SILENT})
"""Causes of a worker's that the SFU's own refusal explains better."""
_CRASH_LOOP: Final = 3
"""Deaths within the restart policy's window from which a worker that has started counts as failing until it is live."""
_PLACED_WITHIN: Final = 3.0
"""Seconds for which an engine may let a worker wait without that being what keeps its camera."""
REFUSED_TOKEN: Final = frozenset({Cause.TOKEN_REVOKED, Cause.CLIENT_REFUSED})
"""Causes at which Google is asked again after a pause of the token's own, not of the commands'."""
_HELD: Final = frozenset({"held", "extending", "doubted", "replacing", "renewing"})
"""States of a lease with a stream."""


class Judged(NamedTuple):
    """A cause with its detail, and the next step and the advice where more than the usual is known."""

    cause: Cause
    detail: str = ""
    following: str = ""
    next_at: float = 0.0
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class CameraFacts:
    """What is known of a camera. `why_not` says why it should not run, `idle` why it need not at present."""

    id: str
    name: str
    why_not: str
    idle: str
    lease: LeaseStatus
    slot: Slot | None
    picture: tuple[str, str, str] = ("unknown", "", "")
    """Whether it can be decoded, and if not at which stage it fails and why."""
    refused: SfuError | None = None
    """The SFU's refusal of the latest try to publish."""
    viewers_refused: SfuError | None = None
    """The SFU's refusal of the latest viewer."""
    local_problem: str = ""
    """Why its worker answers no viewers itself, though it should."""
    token_at: float = 0.0
    """When Google is asked for an access token again that it has refused (Unix seconds); 0: not refused."""


def judge_camera(facts: CameraFacts, now: float, wall: float, before: StatusVerdict | None) -> StatusVerdict:
    """The verdict on a camera at `now` (monotonic) and `wall` (Unix seconds); `before` is the one until now."""
    state = camera_state(facts, now)
    found = _judged(facts, state, now, wall)
    return verdict(
        found.cause,
        found.detail,
        state=state,
        wall=wall,
        before=before,
        subject=facts.name,
        camera=facts.id,
        following=found.following,
        next_at=found.next_at,
        advice=found.advice,
    )


def camera_state(facts: CameraFacts, now: float) -> str:
    """The camera's state in one word (`CameraStatus.state`)."""
    slot, lease = facts.slot, facts.lease
    if facts.why_not or facts.idle or slot is None:
        return "disabled" if facts.why_not else "idle" if facts.idle else "stopped"
    if slot.running and slot.state is WorkerState.LIVE:
        return "live"
    if lease.state == "parked":
        return "offline"
    if slot.phase in (Phase.BACKOFF, Phase.HUNG):
        return "degraded" if slot.policy.degraded(now) else "reconnecting"
    return "degraded" if lease.degraded else _WORDS[slot.state]


def _judged(facts: CameraFacts, state: str, now: float, wall: float) -> Judged:
    slot, lease = facts.slot, facts.lease
    if state == "disabled":
        return Judged(Cause.DISABLED, facts.why_not)
    if state == "idle":
        return Judged(Cause.IDLE, facts.idle)
    if slot is None:
        return Judged(Cause.STARTING)
    if state == "live":
        return _while_live(facts, slot)
    of_worker = _worker_ended(slot, now, wall)
    of_lease = _of_lease(facts)
    if lease.state == "parked":
        return of_lease
    if of_worker is not None:
        return of_worker
    if lease.state not in _HELD and of_lease.cause is not Cause.NONE:
        return of_lease
    reported = _reported(slot.stats, wall) if slot.stats is not None else Judged(Cause.NONE)
    if facts.refused is not None and reported.cause in _NO_OTHER:
        return Judged(*sfu_cause(facts.refused, Cause.SFU_REFUSES), "", reported.next_at)
    # The stream that has ended is the one before that which it holds now.
    of_this = of_lease if of_lease.cause is not Cause.STREAM_ENDED else Judged(Cause.NONE)
    for found in (reported, of_this):
        if found.cause is not Cause.NONE:
            return found
    following = "" if lease.state in _HELD else lease.next_step
    next_at = lease.next_at if following else 0.0
    if slot.waits and slot.process is not None and slot.process.reason:  # a moment of that is usual
        return _waiting(slot.process.reason)._replace(cause=Cause.STARTING, following=following, next_at=next_at)
    return Judged(Cause.STARTING, "", following, next_at)


def _while_live(facts: CameraFacts, slot: Slot) -> Judged:
    """What is wrong with a camera that plays."""
    decodable, stage, _ = facts.picture
    code, reason = (cause_of(slot.stats.code), slot.stats.reason) if slot.stats is not None else (Cause.NONE, "")
    if decodable == "no":
        if stage == Stage.SENDING.value:
            return Judged(Cause.UPLINK_SHORT, "it loses packets")
        return Judged(code if code is Cause.B_FRAMES else Cause.PICTURE_UNDECODABLE)
    if facts.viewers_refused is not None:
        return Judged(*sfu_cause(facts.viewers_refused, Cause.VIEWERS_REFUSED))
    of_lease = _of_lease(facts)
    if of_lease.cause not in (Cause.NONE, Cause.STREAM_ENDED):
        return of_lease
    if code is Cause.NONE and facts.local_problem:
        return Judged(Cause.LOCAL_UNAVAILABLE, facts.local_problem)
    detail = worker_detail(reason) if code in _DETAILED else ""  # a note of the worker's
    return Judged(code, detail, "", slot.stats.retry_at if slot.stats is not None else 0.0)


def _worker_ended(slot: Slot, now: float, wall: float) -> Judged | None:
    """What the camera's process suffers from; None when it is well enough."""
    if slot.phase is Phase.HUNG:
        return Judged(Cause.WORKER_HANGS)
    if slot.waits and slot.process is not None and slot.process.reason and now - slot.launched_at > _PLACED_WITHIN:
        return _waiting(slot.process.reason)  # how the one before it has ended does not keep it
    next_at = wall + slot.next_start - now if slot.phase is Phase.BACKOFF else 0.0
    if slot.policy.failing_starts:
        wait = engine_wait(slot)
        advice = WAITS[wait].advice if wait is not None else ""
        return Judged(Cause.WORKER_UNSTARTED, slot.ended_by, "", next_at, advice)
    if slot.was_taken and not slot.running:
        return Judged(Cause.WORKER_MOVES, slot.ended_by, "", next_at)
    recent = slot.policy.recent(now)
    if slot.phase is Phase.BACKOFF or recent >= _CRASH_LOOP or (recent and not slot.running):
        ended = Cause.WORKER_HANGS if slot.ended_by.startswith("hung") else Cause.WORKER_CRASHES
        return Judged(Cause.NODE_LOST if slot.node_failed else ended, slot.ended_by, "", next_at)
    return None


def engine_wait(slot: Slot) -> EngineWait | None:
    """What keeps a worker in a cluster from running, if anything does: its Pod waits, or was not even taken."""
    if slot.waits and slot.process is not None and slot.process.reason:
        return wait_of(slot.process.reason)
    if slot.process is not None or not slot.policy.failing_starts:
        return None
    found = wait_of(slot.ended_by)
    return found if found is not EngineWait.OTHER else None  # that may be said of a process of this machine


def _waiting(reason: str) -> Judged:
    wait = WAITS[wait_of(reason)]
    return Judged(Cause.STARTING if wait.usual else Cause.WORKER_WAITS, reason, advice=wait.advice)


def _of_lease(facts: CameraFacts) -> Judged:
    """Why a lease has no stream, or may lose it."""
    lease = facts.lease
    cause = cause_of(lease.code)
    detail = lease.detail if cause in _DETAILED else ""
    if cause in REFUSED_TOKEN:
        return Judged(cause, detail, "", facts.token_at)
    return Judged(cause, detail, lease.next_step, lease.next_at if cause is not Cause.NONE else 0.0)


def _reported(stats: WorkerStats, wall: float) -> Judged:
    """What the worker says is wrong."""
    at = stats.retry_at if stats.retry_at > wall else 0.0
    cause = cause_of(stats.code)
    if cause is Cause.NONE and stats.reason:
        cause = _BY_STAGE.get(stats.stage, Cause.STREAM_ENDED if stats.stage is Stage.NONE else Cause.CAMERA_BROKEN)
    was_live = stats.state is WorkerState.RECONNECTING  # before that, its first pictures are on their way
    if cause is Cause.NONE and was_live and stats.source == "playing" and stats.webrtc == "connected":
        return Judged(Cause.CAMERA_STALLED, "", "", at)  # the deadline that ends the session has not passed yet
    return Judged(cause, worker_detail(stats.reason) if cause in _DETAILED else "", "", at)


def sfu_cause(error: SfuError, refused: Cause) -> tuple[Cause, str]:
    """The cause of the SFU's `error`, and its detail; `refused` names what it refused, where it answered."""
    if error.unresolved:
        return Cause.NAMES_UNRESOLVED, ""
    if unauthorized(error) and refused is Cause.SFU_REFUSES:
        return Cause.SFU_UNAUTHORIZED, str(error.status)
    if not error.status and not error.code:
        return Cause.SFU_UNREACHABLE, ""
    return refused, str(error.status) if error.status else error.code
