"""Status of a book's leases and budget, as the HTTP API reports it."""

from __future__ import annotations

import math
from typing import Final

from relay_common.causes import Cause, sentence
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.states import ALIVE, LeaseState
from relay_supervisor.google.quota.command import Verb
from relay_supervisor.status.model import BudgetStatus, LeaseStatus

_PLANS: Final = {
    Verb.EXTEND: "extend",
    Verb.STOP: "stop, then generate a new stream",
    Verb.GENERATE: "generate its successor",
    Verb.GET: "read the camera's traits again",
}
"""What may be planned for a playing stream, in words."""


def lease_status(book: LeaseBook, camera: str, now: float, wall: float) -> LeaseStatus:
    """One camera's lease; a camera the book does not know is released."""
    lease = book.leases.get(camera)
    if lease is None:
        return LeaseStatus()
    alive = lease.state in ALIVE
    action, at = next_action(book, lease, now)
    cause, detail = lease_cause(book, lease, now)
    return LeaseStatus(
        state=lease.state.value,
        protocol=(lease.stream or lease).protocol.value,
        expires_at=wall + lease.expires - now if alive else 0.0,
        expires_in=max(0.0, lease.expires - now) if alive else 0.0,
        generates=lease.generates,
        extends=lease.extends,
        failures=lease.failures,
        degraded=lease.degraded,
        last_error=lease.last_error,
        next_action=action,
        next_at=wall + at - now if math.isfinite(at) else 0.0,
        code=cause.value if cause is not Cause.NONE else "",
        detail=detail,
        next_step=_next_step(book, lease),
    )


def next_action(book: LeaseBook, lease: Lease, now: float) -> tuple[str, float]:
    """What happens next to a lease, in words, and when (infinity when that is not known)."""
    match lease.state:
        case LeaseState.RELEASED:
            return "", math.inf
        case LeaseState.PARKED:
            return f"parked until the device is seen again: {lease.last_error}", math.inf
        case LeaseState.GENERATING | LeaseState.EXTENDING | LeaseState.REPLACING | LeaseState.RENEWING:
            return f"{lease.state.value}: waiting for Google's answer", now
        case _ if lease.reading:
            return "reading the camera's traits: waiting for Google's answer", now
        case _ if book.account_error:
            return f"waiting for the account: {sentence(*book.account_cause)}", book.queue.held_until
        case _ if lease.camera not in book.admitted:
            return _not_admitted(book, lease), math.inf
        case LeaseState.HELD_OFF:
            what = "read the camera's traits again" if lease.reread else "generate again"
            failures = f"{lease.failures} failures in a row: {sentence(*lease.cause)}"
            tried = f"degraded after {failures}" if lease.degraded else "after a failure"
            return f"{what} in about {_seconds(lease.retry_at, now)} ({tried})", lease.retry_at
        case LeaseState.WANTED:
            return _waiting(book, lease, now)
        case _:
            return _planned(book, lease, now)


def _next_step(book: LeaseBook, lease: Lease) -> str:
    """What happens next, without the time and the reason; empty where the cause's own words say it."""
    match lease.state:
        case LeaseState.GENERATING | LeaseState.EXTENDING | LeaseState.REPLACING | LeaseState.RENEWING:
            return "Google's answer"
        case _ if lease.reading:
            return "the camera's traits"
        case _ if book.account_error:
            return ""
        case LeaseState.HELD_OFF | LeaseState.WANTED if lease.camera in book.admitted:
            return "the camera's traits are read again" if lease.reread else "a stream is requested"
        case LeaseState.HELD | LeaseState.DOUBTED:
            return next((words for verb, words in _PLANS.items() if book.queue.find(lease.camera, verb)), "")
        case _:
            return ""


def lease_cause(book: LeaseBook, lease: Lease, now: float) -> tuple[Cause, str]:
    """Why a lease has no stream, or may lose the one it has, and what the cause's sentence does not say."""
    account = book.account_cause
    match lease.state:
        case LeaseState.RELEASED:
            return Cause.NONE, ""
        case LeaseState.PARKED:
            return lease.cause
        case _ if account[0] is not Cause.NONE:
            return account
        case state if state not in ALIVE and lease.camera not in book.admitted:
            capacity, limit = book.capacity(), book.budget.api.limit
            commands = f"{limit} command{'' if limit == 1 else 's'} a minute"
            cameras = f"{capacity} camera{'' if capacity == 1 else 's'}"
            return Cause.BUDGET_SHORT, f"{commands} can keep {cameras if capacity else 'no camera'} going"
        case _ if _refused_until(book, lease) > now:
            return Cause.QUOTA_HELD, ""
        case _ if lease.failures or lease.cause[0] is not Cause.NONE:
            return lease.cause
        case LeaseState.WANTED:
            waits = book.queue.find(lease.camera, Verb.GENERATE) and book.forecast.generate_at(lease.camera, now) > now
            return (Cause.BUDGET_QUEUE if waits else Cause.NONE), ""
        case _:
            return Cause.NONE, ""


def _refused_until(book: LeaseBook, lease: Lease) -> float:
    """Until when a 429 holds what is planned for a lease; minus infinity when none does."""
    planned = filter(None, (book.queue.find(lease.camera, verb) for verb in _PLANS))
    return max((book.budget.refused_until(command.call) for command in planned), default=-math.inf)


def budget_status(book: LeaseBook, account: str, now: float, wall: float) -> BudgetStatus:
    """The account's command budget and the queue in front of it."""
    queue, api = book.queue, book.budget.api
    cause, detail = book.account_cause
    held = max(book.budget.held_for(now), queue.held_until - now)
    return BudgetStatus(
        account=account,
        used=len(queue.recent(now)),
        limit=api.limit,
        peak=queue.peak,
        hold=book.budget.held_for(now),
        depth=queue.depth(now),
        executed=queue.executed,
        failed=queue.failed,
        wait_mean=queue.waits.mean,
        wait_max=queue.waits.longest,
        capacity=book.capacity(),
        auth_error=book.account_error,
        recent=[now - sent for sent in queue.recent(now)],
        auth_code=cause.value if cause is not Cause.NONE else "",
        auth_detail=detail,
        retry_at=wall + held if 0 < held < math.inf else 0.0,
    )


def _not_admitted(book: LeaseBook, lease: Lease) -> str:
    limit = book.budget.api.limit
    return (
        f"waiting for room: {limit} commands a minute are enough for {book.capacity()} cameras at the lifetime "
        f"Google grants, and {len(book.admitted)} are being served"
    )


def _waiting(book: LeaseBook, lease: Lease, now: float) -> tuple[str, float]:
    command = book.queue.find(lease.camera, Verb.GENERATE)
    if command is None:
        return "generate", now
    held = book.budget.held_for(now)
    if held:
        return f"generate; Google's quota is used up, no command for {held:.0f} s", now + held
    at = book.forecast.generate_at(lease.camera, now)
    if not math.isfinite(at):
        return "generate; other commands go first", math.inf
    return f"generate; waiting for budget, about {_seconds(at, now)}", at


def _planned(book: LeaseBook, lease: Lease, now: float) -> tuple[str, float]:
    for verb, words in _PLANS.items():
        command = book.queue.find(lease.camera, verb)
        if command is not None:
            at = max(command.not_before, book.queue.ready_at(command, now))
            at = at if math.isfinite(at) else command.due
            return f"{words} in about {_seconds(at, now)}", max(now, at)
    return "let the stream expire", lease.expires


def _seconds(at: float, now: float) -> str:
    return f"{max(0.0, at - now):.0f} s"
