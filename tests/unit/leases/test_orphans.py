"""WebRTC sessions whose worker is gone: ended at the camera before another one is generated, when the budget allows."""

from __future__ import annotations

import random

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import StreamGone
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, LiveStream
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
        assert command.verb is Verb.GENERATE
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
    for n in range(9):
        lease.stream = LiveStream(Protocol.WEB_RTC, Secret(f"m{n}"), 300.0, 0.0)
        lease.expires = home.now + 300.0
        command = lease.orphan_command(home.now)
        home.book.queue.submit(command)
    assert sum(command.orphan for command in home.book.queue) == 4
    assert home.book.queue.dropped == 5


def test_an_rtsp_stream_ends_with_its_connection() -> None:
    home = Home(1, Protocol.RTSP)
    home.killed("cam0")
    home.run(5.0)
    assert [verb for verb, *_ in home.sent] == [Verb.GENERATE]
