"""What must hold of every slot and every lease at any time: each has a process, or a command, or a deadline ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from relay_supervisor.fleet.keeper import HELLO_TIMEOUT, LAUNCH_TIMEOUT, SILENCE
from relay_supervisor.fleet.slot import Phase, Slot
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.states import LeaseState
from tests.simulation.control import ControlPlane

_LATE: Final = 1.5
"""Seconds by which a deadline may have passed: slots are looked at four times a second, and the loop is busy."""
_TICKED: Final = 0.6
_LONGEST_BACKOFF: Final = 80.0
_LONGEST_HOLD_OFF: Final = 3700.0


def broken_slots(control: ControlPlane, now: float) -> Iterator[str]:
    """Slots that wait for nothing, or longer than their deadline."""
    fleet = control.fleet
    if not control.bus.reading or now - fleet._ticked_at > _TICKED or math.isfinite(fleet._back_at):
        return  # after a pause of its own it reads the bus before it looks at them again
    for slot in fleet._all():
        if problem := _problem_of_slot(slot, now):
            yield f"slot of {slot.camera} in {slot.phase.value}: {problem}"


def _problem_of_slot(slot: Slot, now: float) -> str:
    match slot.phase:
        case Phase.ABSENT:
            return "it is wanted" if slot.wanted and slot.process is None and slot.replacement is None else ""
        case Phase.STARTING | Phase.RUNNING | Phase.STOPPING if slot.process is None:
            return _late(now, slot.launched_at + LAUNCH_TIMEOUT)
        case Phase.STARTING:
            return _late(now, slot.seen_at + HELLO_TIMEOUT)
        case Phase.RUNNING:
            return _late(now, slot.seen_at + (SILENCE if slot.hello is not None else HELLO_TIMEOUT))
        case Phase.HUNG | Phase.STOPPING:
            return "nothing ends it" if slot.ending is None else _late(now, slot.ending.next_at)
        case Phase.BACKOFF:
            late = _late(now, slot.next_start) if slot.wanted else ""
            return late or ("it waits too long" if slot.next_start > now + _LONGEST_BACKOFF else "")


def _late(now: float, deadline: float) -> str:
    if not math.isfinite(deadline):
        return "it has no deadline"
    return f"its deadline passed {now - deadline:.1f} s ago" if now > deadline + _LATE else ""


def broken_leases(control: ControlPlane, now: float) -> Iterator[str]:
    """Leases that nobody owns, or that wait for nothing."""
    book = control.leases.book
    for camera, lease in book.leases.items():
        if camera not in control.director.running and lease.state is not LeaseState.RELEASED:
            yield f"lease of {camera} in {lease.state.value}: its camera does not run"
        elif problem := _problem_of_lease(control, lease, now):
            yield f"lease of {camera} in {lease.state.value}: {problem}"


def _problem_of_lease(control: ControlPlane, lease: Lease, now: float) -> str:
    queued = any(command.camera == lease.camera and not command.orphan for command in control.leases.book.queue)
    admitted = lease.camera in control.leases.book.admitted
    match lease.state:
        case LeaseState.WANTED:
            return "" if queued or lease.reading or not admitted else "no command is queued"
        case LeaseState.HELD:
            if not math.isfinite(lease.expires) or lease.stream is None:
                return "it has no stream that ends"
            waits = queued or lease.reading or not admitted
            return _late(now, lease.expires) or ("" if waits else "no command is queued")
        case LeaseState.HELD_OFF:
            if lease.reread:
                return "" if queued or lease.reading or not admitted else "its traits are never read"
            return _late(now, lease.retry_at) or ("too long" if lease.retry_at > now + _LONGEST_HOLD_OFF else "")
        case LeaseState.GENERATING | LeaseState.EXTENDING | LeaseState.REPLACING | LeaseState.RENEWING:
            return "" if control.leases._dispatcher.under_way else "no command is under way"
        case LeaseState.LOST:
            return "it is left there"
        case _:
            return ""
