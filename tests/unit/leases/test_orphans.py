"""WebRTC sessions whose worker is gone: ended at the camera before another one is generated, when the budget allows."""

from __future__ import annotations

import math
import random

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import Conflict, GoogleServerError, NestError, NestTimeout, StreamGone
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from


class Home:
    """A book with cameras that all hold a stream."""

    def __init__(self, cameras: int, protocol: Protocol = Protocol.WEB_RTC) -> None:
        self.book = LeaseBook(limits_from(), rng=random.Random(4))
        self.now, self.sessions, self.protocol = 1000.0, 0, protocol
        self.sent: list[tuple[Verb, str, str]] = []
        for n in range(cameras):
            name = f"cam{n}"
            device = Device(f"enterprises/p/devices/{name}", name, "CAMERA", name, (protocol,))
            self.book.want(name, device, self.now)
        self.run(120.0)
        for lease in self.book.leases.values():
            assert lease.state is LeaseState.HELD
        self.sent.clear()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while (command := self.book.poll(self.now)) is not None:
                self.settle(command)
            deadline = self.book.next_deadline(self.now)
            self.now = min(end, max(deadline or end, self.now + 1e-6))

    def settle(self, command: Command) -> None:
        self.sent.append((command.verb, command.camera, command.handle.reveal()))
        if command.verb is Verb.STOP:
            self.book.settle(command, StreamGone("the camera has ended it already"), self.now)
            return
        if command.verb is Verb.EXTEND:
            self.book.settle(command, Extension(command.handle, 300.0, 0.0), self.now)
            return
        assert command.verb is Verb.GENERATE
        self.generate(command)

    def generate(self, command: Command) -> None:
        self.sessions += 1
        url, answer = (Secret("u"), None) if self.protocol is Protocol.RTSP else (None, Secret("sdp"))
        stream = LiveStream(self.protocol, Secret(f"session{self.sessions}"), 300.0, 0.0, url=url, answer_sdp=answer)
        self.book.settle(command, stream, self.now)
        self.book.media_live(command.camera, self.book.leases[command.camera].generation, self.now)

    def killed(self, camera: str) -> None:
        self.book.media_failed(camera, self.book.leases[camera].generation, "its worker was killed", self.now)


def test_the_session_of_a_killed_worker_is_stopped_before_another_is_generated() -> None:
    home = Home(1)
    home.killed("cam0")
    home.run(5.0)
    assert home.sent == [(Verb.STOP, "cam0", "session1"), (Verb.GENERATE, "cam0", "")]
    lease = home.book.leases["cam0"]
    assert (lease.state, lease.failures) == (LeaseState.HELD, 0), "a refused stop is nobody's failure"


def test_recovery_goes_first_when_the_budget_is_short() -> None:
    home = Home(10)
    for n in range(10):
        home.killed(f"cam{n}")
    home.run(1.0)
    assert [verb for verb, *_ in home.sent[:10]] == [Verb.GENERATE] * 10
    home.run(130.0)
    assert sum(verb is Verb.GENERATE for verb, *_ in home.sent) == 10
    stopped = {handle for verb, _, handle in home.sent if verb is Verb.STOP}
    assert stopped == {f"session{n}" for n in range(1, 11)}, "and later, the sessions that are left"


def test_sessions_that_are_left_behind_are_bounded() -> None:
    home = Home(1)
    home.book.budget.api.held_until = home.now + 250.0
    lease = home.book.leases["cam0"]
    for n in range(20):
        lease.stream = LiveStream(Protocol.WEB_RTC, Secret(f"m{n}"), 300.0, 0.0)
        lease.expires = home.now + 300.0
        home.book.abandoned.add(lease.orphan_command(home.now))
    assert [command.handle.reveal() for command in home.book.queue if command.orphan] == [f"m{n}" for n in range(4, 20)]
    assert home.book.abandoned.let_expire == 4


def stops(home: Home, answers: list[NestError | None]) -> list[float]:
    """When each Stop was sent, the first ones answered so."""
    began, sent = home.now, []
    while home.now < began + 200.0:
        while (command := home.book.poll(home.now)) is not None:
            if command.verb is Verb.STOP:
                sent.append(home.now - began)
                home.book.settle(command, answers.pop(0) if answers else None, home.now)
            else:
                home.settle(command)
        home.now = max(min(home.book.next_deadline(home.now) or math.inf, began + 200.0), home.now + 1e-6)
    return sent


def test_a_stop_that_google_did_not_carry_out_is_sent_again() -> None:
    home = Home(1)
    home.killed("cam0")
    first, second, third = stops(home, [GoogleServerError("backend error"), NestTimeout("no answer")])
    assert first < 1.0
    assert second - first == pytest.approx(10.0, abs=1.0)
    assert third - second == pytest.approx(20.0, abs=1.0)
    assert not home.book.abandoned.pending(home.now)


def test_it_is_given_up_after_four_attempts_and_at_once_where_the_stream_is_gone() -> None:
    home = Home(1)
    home.killed("cam0")
    assert len(stops(home, [GoogleServerError("backend error") for _ in range(9)])) == 4
    home = Home(1)
    home.killed("cam0")
    assert len(stops(home, [StreamGone("gone"), None])) == 1


def test_a_stream_granted_after_its_camera_was_given_up_is_stopped() -> None:
    home = Home(0)
    device = Device("enterprises/p/devices/cam0", "cam0", "CAMERA", "cam0", (Protocol.RTSP,))
    home.book.want("cam0", device, home.now)
    generate = home.book.poll(home.now)
    assert generate is not None
    home.book.drop("cam0", home.now)
    late = LiveStream(Protocol.RTSP, Secret("late"), 300.0, 0.0, url=Secret("u"))
    home.book.settle(generate, late, home.now + 1.0)
    assert home.book.superseded == 1
    home.run(5.0)
    assert home.sent == [(Verb.STOP, "cam0", "late")]


def test_a_stream_extended_after_its_camera_was_released_is_stopped_by_its_new_token() -> None:
    home = Home(1, Protocol.RTSP)
    while (extend := home.book.poll(home.now)) is None:
        home.now += 1.0
    assert extend.verb is Verb.EXTEND
    home.book.unwant("cam0", home.now)
    home.book.settle(extend, Extension(Secret("renewed"), 300.0, 0.0), home.now)
    home.run(5.0)
    assert home.sent == [(Verb.STOP, "cam0", "renewed")]


def test_a_stream_that_is_wanted_again_in_time_is_no_longer_to_be_stopped() -> None:
    home = Home(1, Protocol.RTSP)
    home.book.budget.api.held_until = home.now + 30.0  # the Stop has to wait
    device = home.book.leases["cam0"].device
    home.book.unwant("cam0", home.now)
    assert [stop.handle.reveal() for stop in home.book.abandoned.pending(home.now)] == ["session1"]
    home.book.want("cam0", device, home.now)
    assert not home.book.abandoned.pending(home.now)


def test_an_rtsp_stream_ends_with_its_connection() -> None:
    home = Home(1, Protocol.RTSP)
    home.killed("cam0")
    home.run(5.0)
    assert [verb for verb, *_ in home.sent] == [Verb.GENERATE]


class OneAtATime(Home):
    """Google refuses a stream while an earlier one of the camera's is open, as nobody knows whether it does."""

    def __init__(self, cameras: int, protocol: Protocol = Protocol.WEB_RTC) -> None:
        self.open: set[str] = set()
        self.refused = 0
        super().__init__(cameras, protocol)

    def settle(self, command: Command) -> None:
        if command.verb is Verb.STOP:
            self.open.discard(command.camera)
        super().settle(command)

    def generate(self, command: Command) -> None:
        if command.camera in self.open:
            self.refused += 1
            self.book.settle(command, Conflict("aborted", status=409), self.now)
            return
        self.open.add(command.camera)
        super().generate(command)

    def recovery(self, lost: list[str]) -> list[float]:
        """Seconds until each camera that was lost has a stream again."""
        began, back = self.now, dict[str, float]()
        for camera in lost:
            self.killed(camera)
        while len(back) < len(lost):
            assert self.now < began + 600.0, back
            self.run(1.0)
            for camera in lost:
                if self.book.leases[camera].state is LeaseState.HELD:
                    back.setdefault(camera, self.now - began)
        return sorted(back.values())


@pytest.mark.parametrize("protocol", list(Protocol))
def test_streams_in_the_way_are_stopped_where_google_refuses_others(protocol: Protocol) -> None:
    """In a minute without room for stops they came last, and seven minutes went by until the streams had expired."""
    home = OneAtATime(10, protocol)
    took = home.recovery([f"cam{n}" for n in range(10)])
    assert home.refused == 1, "the first refusal teaches about those that wait"
    assert took[3] < 2.0, took
    assert took[-1] < 130.0, "two commands each at ten a minute, beside the extensions"


def test_a_refusal_hurries_no_stop_that_nothing_waits_for() -> None:
    home = OneAtATime(2)
    for camera in ("cam0", "cam1"):
        home.killed(camera)
        stop = home.book.poll(home.now)
        assert stop is not None
        assert (stop.verb, stop.camera) == (Verb.STOP, camera)
        home.book.settle(stop, GoogleServerError("backend error"), home.now)  # sent again in ten seconds
        if camera == "cam0":
            home.open.discard(camera)
        home.run(0.5)
    assert home.book.leases["cam0"].state is LeaseState.HELD
    assert home.refused == 1
    left = {command.camera: command.blocking for command in home.book.queue if command.orphan}
    assert left == {"cam0": False, "cam1": True}


def test_what_was_learnt_saves_the_next_ones_a_command() -> None:
    home = OneAtATime(10)
    home.recovery([f"cam{n}" for n in range(10)])
    home.run(300.0)
    took = home.recovery([f"cam{n}" for n in range(8)])
    assert home.refused == 1
    assert took[1] < 2.0, "each is stopped just before its own generate, and not all before all"
    assert took[-1] < 130.0, took


def test_after_half_an_hour_it_is_tried_again_whether_google_refuses() -> None:
    home = OneAtATime(10)
    home.recovery([f"cam{n}" for n in range(10)])
    home.run(3600.0)
    home.open.clear()
    home.sent.clear()
    for n in range(10):
        home.killed(f"cam{n}")
    home.run(1.0)
    assert {verb for verb, *_ in home.sent} == {Verb.GENERATE}
    home.run(300.0)
    home.open.clear()
    home.sent.clear()
    for n in range(10):
        home.killed(f"cam{n}")
    home.run(1.0)
    assert {verb for verb, *_ in home.sent} == {Verb.GENERATE}, "it grants them: stops come last again"


def test_a_generate_waits_for_the_answer_to_its_stop() -> None:
    """Sent together, the stop came too late: a command for nothing, and another minute where no place was left."""
    home = OneAtATime(1)
    home.killed("cam0")
    stop = home.book.poll(home.now)
    assert stop is not None
    assert stop.verb is Verb.STOP
    assert home.book.poll(home.now) is None
    told = home.book.forecast.generate_at("cam0", home.now)
    assert told == home.now, "what is told is as if it were answered"
    home.now += 0.8
    assert home.book.poll(home.now) is None
    home.settle(stop)
    home.run(0.1)
    assert [verb for verb, *_ in home.sent] == [Verb.STOP, Verb.GENERATE]
    assert home.refused == 0
    assert home.book.leases["cam0"].state is LeaseState.HELD


def test_a_refusal_that_was_under_way_with_its_stop_is_tried_again_at_once() -> None:
    home = OneAtATime(1)
    home.killed("cam0")
    stop = home.book.poll(home.now)
    assert stop is not None
    assert stop.verb is Verb.STOP
    deadline = home.book.next_deadline(home.now)
    assert deadline == pytest.approx(home.now + 3.0), "then it is not waited for any longer"
    home.now = deadline
    generate = home.book.poll(home.now)
    assert generate is not None
    assert generate.verb is Verb.GENERATE
    home.now += 0.2
    home.settle(stop)
    home.book.settle(generate, Conflict("aborted", status=409), home.now)
    home.run(5.0)
    assert home.book.leases["cam0"].state is LeaseState.HELD


def test_what_sessions_over_webrtc_teach_is_not_believed_of_rtsp() -> None:
    """The cameras that a node had took a Stop each before their Generate, as those over WebRTC had needed one."""
    home = OneAtATime(10)
    home.recovery([f"cam{n}" for n in range(10)])
    assert home.refused == 1
    home.run(300.0)
    home.protocol = Protocol.RTSP
    home.book.want("hall", Device("enterprises/p/devices/hall", "hall", "CAMERA", "hall", (Protocol.RTSP,)), home.now)
    home.run(120.0)
    home.open.discard("hall")
    home.sent.clear()
    home.killed("hall")
    home.run(5.0)
    assert [(verb, camera) for verb, camera, _ in home.sent if camera == "hall"] == [(Verb.GENERATE, "hall")]


def test_a_refusal_for_another_reason_waits() -> None:
    home = OneAtATime(1)
    home.killed("cam0")
    stop = home.book.poll(home.now)
    assert stop is not None
    home.settle(stop)
    generate = home.book.poll(home.now)
    assert generate is not None
    home.book.settle(generate, Conflict("aborted", status=409), home.now + 0.2)
    again = None
    while again is None:
        home.now += 0.1
        again = home.book.poll(home.now)
    assert again.verb is Verb.GENERATE
    began = home.now
    home.book.settle(again, Conflict("aborted", status=409), home.now)
    while home.book.poll(home.now) is None:
        home.now += 0.1
    assert home.now - began > 20.0
