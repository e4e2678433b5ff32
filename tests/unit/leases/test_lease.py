"""The lease's table, edge by edge, and its facts."""

from __future__ import annotations

import math
import random

import pytest

from relay_common.fsm import IllegalTransition, Machine
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.leases.lease import Lease, LeaseSettings
from relay_supervisor.google.leases.states import LEASE, LeaseEvent, LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Verb

DEVICE = Device("enterprises/p/devices/d", "d", "CAMERA", "Door", (Protocol.RTSP,))
STREAM = LiveStream(Protocol.RTSP, Secret("x1"), 300.0, 0.0, url=Secret("rtsps://h/p?auth=t1"))


def lease(**settings: float) -> Lease:
    return Lease("cam", DEVICE, LeaseSettings(**settings), random.Random(1))  # type: ignore[arg-type]


def held(**settings: float) -> Lease:
    subject = lease(**settings)
    subject.fire(LeaseEvent.WANT, 0.0)
    subject.fire(LeaseEvent.SENT, 0.0)
    subject.granted(STREAM, 0.0)
    return subject


@pytest.mark.parametrize(("source", "event", "target"), list(LEASE.edges()))
def test_every_edge(source: LeaseState, event: LeaseEvent, target: LeaseState) -> None:
    machine = Machine(LEASE, source)
    assert machine.fire(event) is target


@pytest.mark.parametrize("state", list(LeaseState))
def test_every_other_move_is_refused_and_changes_nothing(state: LeaseState) -> None:
    machine = Machine(LEASE, state)
    for event in set(LeaseEvent) - set(LEASE.allowed(state)):
        with pytest.raises(IllegalTransition):
            machine.fire(event)
        assert machine.state is state


def test_every_state_can_be_reached_and_left() -> None:
    reached = {target for _, _, target in LEASE.edges()}
    left = {source for source, _, _ in LEASE.edges()}
    assert reached == left == set(LeaseState)


def test_every_wanting_state_can_be_released() -> None:
    for state in set(LeaseState) - {LeaseState.RELEASED, LeaseState.LOST}:
        assert LEASE.target(state, LeaseEvent.UNWANT) is LeaseState.RELEASED


def test_wanted_asks_for_a_generate() -> None:
    subject = lease()
    subject.fire(LeaseEvent.WANT, 5.0)
    command = subject.wanted_command(6.0, margin=60.0, pace=36.0)
    assert command is not None
    assert (command.verb, command.attempts, command.submitted) == (Verb.GENERATE, 0, 5.0)


def test_held_asks_for_an_extension_between_half_and_the_margin() -> None:
    command = held().wanted_command(1.0, margin=60.0, pace=36.0)
    assert command is not None
    assert command.verb is Verb.EXTEND
    assert 150.0 <= command.not_before <= 174.0
    assert (command.due, command.latest, command.deadline) == (240.0, 270.0, 300.0)
    assert command.handle == Secret("x1")


def test_extension_renews_tokens_url_and_life() -> None:
    subject = held()
    subject.fire(LeaseEvent.SENT, 150.0)
    subject.extended(Extension(Secret("x2"), 290.0, 0.0, Secret("t2")), 150.0)
    assert subject.stream is not None
    assert subject.stream.handle == Secret("x2")
    assert subject.stream.url == Secret("rtsps://h/p?auth=t2")
    assert subject.expires == 440.0
    assert subject.generation == 0, "the running session is the same one"


def test_a_least_wait_is_cut_short_where_the_stream_would_end_first() -> None:
    for left, most in ((12.0, 6.0), (200.0, 30.0)):
        subject = held()
        subject.fire(LeaseEvent.SENT, 300.0 - left)
        subject.extension_failed("409", 300.0 - left, 30.0)
        assert subject.retry_at - (300.0 - left) == most


def test_a_failed_extension_is_retried_within_what_is_left() -> None:
    subject = held()
    now, tries = 270.0, 0
    while now < 300.0:
        subject.fire(LeaseEvent.SENT, now)
        subject.extension_failed("500", now + 1.0, 0.0)
        tries += 1
        assert subject.retry_at < 300.0
        now = subject.retry_at
        if tries == 3:
            break
    assert tries == 3, "two paced retries fit after the first failure"


def test_generate_failures_back_off_and_degrade() -> None:
    subject = lease()
    subject.fire(LeaseEvent.WANT, 0.0)
    waits = []
    for _ in range(7):
        subject.fire(LeaseEvent.SENT, 0.0)
        subject.generate_failed("500", 0.0, 0.0)
        waits.append(subject.retry_at)
        subject.fire(LeaseEvent.RETRY, 0.0)
    assert all(2.5 * 2**n <= wait <= 5 * 2**n for n, wait in enumerate(waits[:4]))
    assert all(270.0 <= wait <= 330.0 for wait in waits[4:])
    assert subject.degraded
    subject.fire(LeaseEvent.SENT, 0.0)
    subject.granted(STREAM, 0.0)
    assert subject.degraded, "Google makes streams for dead cameras too"
    subject.healthy()
    assert not subject.degraded


def test_a_stream_that_lived_is_regenerated_at_once_one_that_never_did_is_not() -> None:
    subject = held()
    subject.lose("EOF", 100.0, failed=True)
    assert subject.state is LeaseState.WANTED
    subject.fire(LeaseEvent.SENT, 100.0)
    subject.granted(STREAM, 100.0)
    subject.lose("404", 110.0, failed=True)
    assert subject.state is LeaseState.HELD_OFF
    assert subject.retry_at > 110.0


def test_losing_raises_the_generation_so_that_late_results_are_known() -> None:
    subject = held()
    before = subject.generation
    subject.lose("EOF", 10.0, failed=True)
    assert subject.generation > before
    assert subject.stream is None
    assert subject.expires == -math.inf


def test_a_stream_that_cannot_be_extended_is_stopped_before_its_end_and_generated_anew() -> None:
    subject = held()
    subject.extension.believe(1000.0)
    command = subject.wanted_command(1.0, margin=60.0, pace=36.0)
    assert command is not None
    assert (command.verb, command.renewal, command.not_before) == (Verb.STOP, True, 270.0)
    subject.fire(LeaseEvent.RENEW, 270.0)
    assert subject.state is LeaseState.RENEWING
    subject.lose("renewed", 271.0, failed=False)
    again = subject.wanted_command(271.0, margin=60.0, pace=36.0)
    assert again is not None
    assert (again.verb, again.renewal) == (Verb.GENERATE, True)


def doorbell() -> Lease:
    """A held WebRTC stream that cannot be extended."""
    subject = lease()
    subject.traits_read(Device("n", "d", "DOORBELL", "Door", (Protocol.WEB_RTC,)))
    subject.fire(LeaseEvent.WANT, 0.0)
    subject.fire(LeaseEvent.SENT, 0.0)
    subject.granted(LiveStream(Protocol.WEB_RTC, Secret("m1"), 300.0, 0.0, answer_sdp=Secret("a1")), 0.0)
    subject.extension.believe(1000.0)
    return subject


def test_a_webrtc_stream_that_cannot_be_extended_is_replaced_while_it_plays() -> None:
    subject = doorbell()
    before = subject.generation
    command = subject.wanted_command(1.0, margin=60.0, pace=36.0)
    assert command is not None
    assert (command.verb, command.renewal, command.not_before) == (Verb.GENERATE, True, 270.0)
    assert subject.load(300.0).commands == 1
    subject.fire(LeaseEvent.REPLACE, 270.0)
    subject.granted(LiveStream(Protocol.WEB_RTC, Secret("m2"), 300.0, 0.0, answer_sdp=Secret("a2")), 271.0)
    assert (subject.state, subject.expires) == (LeaseState.HELD, 571.0)
    assert subject.generation > before, "its worker must take it for another stream"


def test_where_a_second_stream_is_refused_the_first_is_stopped() -> None:
    subject = doorbell()
    subject.fire(LeaseEvent.REPLACE, 270.0)
    subject.second_stream.believe(1000.0)
    subject.fire(LeaseEvent.FAILED, 270.0)
    command = subject.wanted_command(270.0, margin=60.0, pace=36.0)
    assert command is not None
    assert (command.verb, command.renewal) == (Verb.STOP, True)
    assert subject.load(300.0).commands == 2


def test_resuming_keeps_generation_and_end() -> None:
    subject = lease()
    subject.resume(STREAM, 7, 900.0, 1000.0)
    assert (subject.state, subject.generation, subject.expires, subject.life) == (LeaseState.HELD, 7, 1300.0, 400.0)


def test_a_device_that_speaks_another_protocol_is_noticed() -> None:
    subject = lease()
    assert not subject.traits_read(DEVICE)
    assert subject.traits_read(Device("n", "d", "CAMERA", "Door", (Protocol.WEB_RTC,)))
    assert subject.protocol is Protocol.WEB_RTC
