"""Whether the relay works, and if not, which camera or part is the reason.

Pure: judges a `RelayStatus` and the parts that the application reports, without a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from relay_common.causes import UNREMARKABLE, Cause
from relay_supervisor.status.model import CameraStatus, RelayStatus
from relay_supervisor.status.verdict import StatusVerdict

_STORE: Final = (Cause.DISK_FULL.value, Cause.STATE_UNWRITABLE.value)


class PartStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the supervisor that everything depends on: the bus, the fork server, the store…"""

    name: str
    ok: bool
    reason: str = ""
    """What is wrong, in words; empty when nothing is."""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One problem: which part or camera, what is wrong and what happens next."""

    reason: str
    part: str = ""
    camera: str = ""
    name: str = ""
    next: str = ""
    code: str = ""
    """The cause from the enumeration `Cause`; empty where a part has a reason of its own."""
    stage: str = ""
    since: float = 0.0
    """Unix seconds; 0 when not known, like `next_at`."""
    next_at: float = 0.0
    advice: str = ""
    """What a person can do."""
    account: str = ""
    """Which of several accounts it is about, as in the status; empty where there is but one, or it is about all."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict: `ready` when every part is well and at least one enabled camera (if there is any) is live.

    `reasons` say why it is not ready; `degraded` are cameras that are not live, or whose picture nobody can decode,
    while the relay as a whole works.
    """

    ready: bool
    reasons: list[Reason]
    degraded: list[Reason]
    cameras: int
    """Cameras that should be live: all enabled ones except on-demand cameras that nobody watches."""
    live: int
    problems: list[Reason] = []
    """What is wrong with the relay, an account or a camera that plays, and makes neither this nor `?strict=1` a 503."""


def _reason(found: StatusVerdict, fallback: str, part: str = "", following: str = "") -> Reason:
    """A verdict as a reason; `fallback` and `following` serve where it names nothing."""
    return Reason(
        part=part,
        camera=found.camera,
        name=found.subject,
        reason=found.cause or fallback,
        next=found.next if found.cause else following,
        code=found.code if found.cause else "",
        stage=found.stage,
        since=found.since,
        next_at=found.next_at,
        advice=found.advice,
    )


def _of_camera(camera: CameraStatus) -> Reason:
    fallback = camera.reason or camera.lease.last_error or f"it is {camera.state}"
    found = msgspec.structs.replace(camera.verdict, camera=camera.id, subject=camera.name)
    reason = _reason(found, fallback, following=camera.lease.next_action)
    return msgspec.structs.replace(reason, account=camera.account)


def judge(status: RelayStatus, parts: Sequence[PartStatus] = ()) -> Health:
    """The health of the relay from its status and its parts."""
    found = {(problem.code, problem.subject): problem for problem in status.problems}
    reasons = []
    for part in parts:
        if not part.ok:
            code = next((code for code, _ in found if part.name == "store" and code in _STORE), "")
            state = found.pop((code, ""), StatusVerdict())
            words = f"{state.cause} ({part.reason})" if state.cause else part.reason or "it does not work"
            reasons.append(msgspec.structs.replace(_reason(state, words, part.name), reason=words))
    for budget in status.budgets:
        if budget.auth_error:
            account = found.pop((budget.auth_code, budget.account), StatusVerdict(subject=budget.account))
            reason = _reason(account, budget.auth_error, "nest account")
            several = budget.account if len(status.budgets) > 1 else ""
            reasons.append(msgspec.structs.replace(reason, account=several))
    enabled = [camera for camera in status.cameras if camera.enabled and camera.state != "idle"]
    dark = [_of_camera(camera) for camera in enabled if camera.state != "live"]
    if enabled and len(dark) == len(enabled):
        reasons, dark = reasons + dark, []
    playing = [camera for camera in enabled if camera.state == "live"]
    dark += [_of_camera(camera) for camera in playing if camera.decodable == "no"]
    elsewhere = (
        {code for code, _ in found} | {reason.code for reason in reasons} | {cause.value for cause in UNREMARKABLE}
    )
    noted = [
        _of_camera(camera) for camera in playing if camera.decodable != "no" and camera.verdict.code not in elsewhere
    ]
    live = sum(camera.state == "live" for camera in enabled)
    return Health(
        ready=not reasons,
        reasons=reasons,
        degraded=dark,
        cameras=len(enabled),
        live=live,
        problems=[_reason(problem, "") for problem in found.values()] + noted,
    )
