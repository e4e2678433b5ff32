"""Whether the relay works, and if not, which camera or part is the reason.

Pure: judges a `RelayStatus` and the parts that the application reports, without a clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay_supervisor.status.model import RelayStatus


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


def judge(status: RelayStatus, parts: Sequence[PartStatus] = ()) -> Health:
    """The health of the relay from its status and its parts."""
    reasons = [Reason(part=part.name, reason=part.reason or "it does not work") for part in parts if not part.ok]
    reasons += [
        Reason(part="nest account", name=budget.account, reason=budget.auth_error)
        for budget in status.budgets
        if budget.auth_error
    ]
    enabled = [camera for camera in status.cameras if camera.enabled and camera.state != "idle"]
    dark = [
        Reason(
            camera=camera.id,
            name=camera.name,
            reason=camera.reason or camera.lease.last_error or f"it is {camera.state}",
            next=camera.lease.next_action,
        )
        for camera in enabled
        if camera.state != "live"
    ]
    if enabled and len(dark) == len(enabled):
        reasons, dark = reasons + dark, []
    dark += [
        Reason(camera=camera.id, name=camera.name, reason=camera.reason)
        for camera in enabled
        if camera.state == "live" and camera.decodable == "no"
    ]
    live = sum(camera.state == "live" for camera in enabled)
    return Health(ready=not reasons, reasons=reasons, degraded=dark, cameras=len(enabled), live=live)
