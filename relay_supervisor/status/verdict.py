"""The verdict on a camera or on the relay: what is wrong, since when, what happens next, what a person can do.

Pure: built from facts that others pass in; every surface prints it and makes up no words of its own.
"""

from __future__ import annotations

import msgspec

from relay_common.causes import CAUSES, Cause, sentence


class StatusVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, in the words of `relay_common.causes`. Times are Unix seconds; 0: not known."""

    state: str = ""
    """The camera's state (as `cameras[].state`); of the whole relay "ok", "degraded" or "failed"."""
    stage: str = ""
    """google, network, camera, decode, relay, sfu or viewers; empty when nothing is wrong."""
    code: str = Cause.NONE.value
    """The reason from the enumeration `Cause`; "none" when nothing is wrong."""
    subject: str = ""
    """Whom it concerns: a camera's name, an account; empty for the relay."""
    cause: str = ""
    """The cause in one sentence; empty when nothing is wrong. It contains no figure that ages."""
    since: float = 0.0
    next: str = ""
    """What happens next, without a time."""
    next_at: float = 0.0
    advice: str = ""
    """What a person can do; empty when nothing need be done."""
    camera: str = ""
    """The camera's id."""
    account: str = ""
    """Of a problem of the relay: the name of the account it is about, where several are spread over supervisors."""


def verdict(
    cause: Cause,
    detail: str = "",
    *,
    state: str,
    wall: float,
    before: StatusVerdict | None = None,
    subject: str = "",
    camera: str = "",
    following: str = "",
    next_at: float = 0.0,
    advice: str = "",
) -> StatusVerdict:
    """The verdict that names `cause`; it dates from `wall` unless `before` named the same.

    `following` is what happens next, and `next_at` when (Unix seconds), where they are known; `advice` is better than
    the cause's own.
    """
    words = CAUSES[cause]
    since = before.since if before is not None and before.code == cause.value else wall
    return StatusVerdict(
        state=state,
        stage=words.stage,
        code=cause.value,
        subject=subject,
        cause=sentence(cause, detail),
        since=since,
        next=following or words.following,
        next_at=next_at,
        advice=advice or words.advice,
        camera=camera,
    )


def spoken_verdict(found: StatusVerdict, at: float) -> str:
    """Cause, next step and advice as one line, for terminal and log; `at` is the present in Unix seconds."""
    following = found.next
    if following and found.next_at > at:
        following += f" in {duration(found.next_at - at)}"
    parts = [found.cause, f"next: {following}" if following else "", found.advice]
    return "; ".join(filter(None, parts))


def duration(seconds: float) -> str:
    """Seconds in words: "9 s", "3 min", "5 h", "365 days"."""
    for unit, long, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{seconds / long:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
