"""Extensions that Google refuses, or grants without moving the stream's end: what is learnt from them, and unlearnt."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import NestError, NotExtendable, StreamGone
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Lost
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from

GONE = StreamGone("404", status=404)
HALF_AN_HOUR = 1800.0


class Home:
    """A book, the time, and a Google whose streams end at `ends`; `extended` says what an Extend gets."""

    def __init__(self, *cameras: str, protocol: Protocol = Protocol.RTSP) -> None:
        self.book = LeaseBook(limits_from(), rng=random.Random(3))
        self.now = 1000.0
        self.protocol = protocol
        self.life: dict[str, float] = {}
        """Life of a camera's streams where it is not 300 s."""
        self.ends: dict[str, float] = {}
        self.extended: Callable[[str], float | NestError] = lambda camera: self.now + self.life.get(camera, 300.0)
        self.sent: list[tuple[float, Verb, str]] = []
        self.gaps: list[str] = []
        """Cameras whose streams ended, each time."""
        for camera in cameras:
            self.want(camera)

    def want(self, camera: str) -> None:
        device = Device(f"enterprises/p/devices/{camera}", camera, "CAMERA", camera, (self.protocol,))
        self.book.want(camera, device, self.now)

    def lease(self, camera: str = "cam") -> Lease:
        return self.book.leases[camera]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while (command := self.book.poll(self.now)) is not None:
                self._answer(command)
            self.gaps += [effect.camera for effect in self.book.effects if isinstance(effect, Lost)]
            self.book.effects = []
            deadline = self.book.next_deadline(self.now)
            assert deadline is not None, "nothing will ever happen"
            self.now = min(end, max(deadline, self.now + 1e-6))

    def count(self, verb: Verb, since: float = 0.0) -> int:
        return sum(kind is verb and at >= since for at, kind, _ in self.sent)

    def _answer(self, command: Command) -> None:
        camera = command.camera
        self.sent.append((self.now, command.verb, camera))
        self.last = command
        self.book.sent(command, self.now)
        if command.verb is Verb.STOP:
            self.book.settle(command, None, self.now)
            return
        if command.verb is Verb.GENERATE:
            life = self.life.get(camera, 300.0)
            self.ends[camera] = self.now + life
            url, answer = (Secret("rtsps://h/p"), None) if self.protocol is Protocol.RTSP else (None, Secret("sdp"))
            stream = LiveStream(self.protocol, Secret("x"), life, 0.0, url=url, answer_sdp=answer)
            self.book.settle(command, stream, self.now)
            self.book.media_live(camera, self.lease(camera).generation, self.now)
            return
        until = self.extended(camera)
        if isinstance(until, float):
            self.ends[camera] = until
            self.book.settle(command, Extension(Secret("x"), until - self.now, 0.0, Secret("t")), self.now)
        else:
            self.book.settle(command, until, self.now)


def names(count: int) -> list[str]:
    return [f"c{n:02d}" for n in range(count)]


# --- extensions that move nothing


def test_an_end_that_an_extension_does_not_move_is_the_end_of_extending() -> None:
    home = Home("cam")
    home.extended = home.ends.__getitem__
    home.run(290.0)
    assert [verb for _, verb, _ in home.sent] == [Verb.GENERATE, Verb.EXTEND, Verb.STOP, Verb.GENERATE]
    assert home.last.renewal, "before cameras that have no picture yet"
    home.run(2000.0)
    assert home.lease().state is LeaseState.HELD
    assert home.count(Verb.EXTEND) <= 4, "learnt, and tried again once in a while"
    assert home.count(Verb.GENERATE) <= 9, "each stream is used up"


def test_over_webrtc_the_successor_of_a_stream_whose_end_stays_comes_beside_it() -> None:
    home = Home("cam", protocol=Protocol.WEB_RTC)
    home.extended = home.ends.__getitem__
    home.run(3000.0)
    assert home.gaps == []
    assert home.count(Verb.STOP) == 0


def test_a_session_that_is_capped_after_an_hour_is_no_reason_not_to_extend_the_next() -> None:
    home = Home("cam")
    begun = {"cam": home.now}

    def capped(camera: str) -> float:
        if home.sent[-2][1] is Verb.GENERATE:
            begun[camera] = home.sent[-2][0]
        return min(home.now + 300.0, begun[camera] + 3600.0)

    home.extended = capped
    home.run(4 * 3600.0)
    assert home.lease().extendable
    assert 4 <= home.count(Verb.GENERATE) <= 5
    assert home.lease().state is LeaseState.HELD


def test_a_shorter_life_is_not_taken_for_an_end_that_stays() -> None:
    home = Home("cam")
    home.life["cam"] = 300.0
    home.run(10.0)
    home.life["cam"] = 60.0
    home.run(1000.0)
    assert home.count(Verb.GENERATE) == 1
    assert home.lease().state is LeaseState.HELD


def test_a_life_that_is_over_does_not_count_against_its_camera_or_others() -> None:
    """The last life that Google granted was next to nothing; the stream is gone, and nothing waits for ever."""
    home = Home("cam")
    home.life["cam"] = 0.25
    home.run(0.1)
    home.life.clear()
    home.run(100.0)
    assert home.lease().state is LeaseState.HELD
    home.life["short"] = 5.0
    home.want("short")
    home.run(1.0)
    home.want("late")
    home.run(1.0)
    assert home.lease("late").state is LeaseState.HELD
    assert home.book.capacity() > 0
    home.book.unwant("short", home.now)
    home.run(1.0)
    assert home.book.capacity() >= 40, "of cameras that have ended nothing is reckoned with"


def test_a_camera_with_short_lives_costs_the_healthy_ones_nothing() -> None:
    home = Home("dear", *names(38))
    home.run(900.0)
    assert home.gaps == []
    home.life["dear"] = 20.0
    home.run(400.0)
    home.life.clear()
    home.run(900.0)
    assert set(home.gaps) <= {"dear"}
    assert all(lease.state is LeaseState.HELD for lease in home.book.leases.values())
    assert len(home.book.admitted) == 39


# --- extensions that are refused


@pytest.mark.parametrize("error", [GONE, NotExtendable("not supported")])
def test_what_was_learnt_is_tried_again_after_a_while_and_later_each_time(error: NestError) -> None:
    home = Home("cam")
    home.extended = lambda camera: error
    home.run(8 * 3600.0)
    extends = [at for at, verb, _ in home.sent if verb is Verb.EXTEND]
    tried = extends[2:] if error is GONE else extends[1:]
    learnt = extends[1] if error is GONE else extends[0]
    waits = [at - before for before, at in itertools.pairwise([learnt, *tried])]
    assert len(waits) >= 3
    for n, wait in enumerate(waits[:3]):
        assert 0.5 * HALF_AN_HOUR * 2**n < wait <= HALF_AN_HOUR * 2**n + 600.0, "the next stream after the wait"
    assert len(extends) < 12
    home.extended = lambda camera: home.now + 300.0
    home.run(9 * 3600.0)
    assert home.lease().extendable
    assert home.count(Verb.GENERATE, since=home.now - 900.0) == 0, "extended for good"
    home.extended = lambda camera: error
    since = home.now
    home.run(2 * 3600.0)
    assert home.count(Verb.EXTEND, since) >= 3, "what was learnt before is forgotten: half an hour again"


def test_a_try_that_is_refused_costs_no_stream_before_its_end() -> None:
    home = Home("cam")
    home.extended = lambda camera: GONE
    home.run(1000.0)
    assert not home.lease().extendable
    since = home.now
    home.run(3600.0)
    assert home.count(Verb.EXTEND, since) >= 1
    generated = [at for at, verb, _ in home.sent if verb is Verb.GENERATE and at >= since]
    assert min(b - a for a, b in itertools.pairwise(generated)) > 260.0


def test_while_it_is_tried_again_it_is_reckoned_with_as_before() -> None:
    home = Home("cam")
    home.extended = lambda camera: NotExtendable("not supported")
    home.run(200.0)
    assert home.lease().load(300.0).commands == 2
    while not home.lease().probing:
        home.run(10.0)
        assert home.now < 4000.0, "never tried again"
    assert home.lease().load(300.0).commands == 2
    home.extended = lambda camera: home.now + 300.0
    home.run(290.0)
    assert home.lease().load(300.0).commands == 1


@pytest.mark.parametrize("cameras", [6, 10, 20])
def test_an_outage_in_which_every_extension_is_refused_teaches_nothing_about_the_cameras(cameras: int) -> None:
    home = Home(*names(cameras))
    home.run(1200.0)
    home.extended = lambda camera: GONE
    home.run(15 * 60.0)
    home.extended = lambda camera: home.now + 300.0
    unlearnt = [camera for camera in home.book.leases if not home.lease(camera).extendable]
    assert len(unlearnt) <= 1
    home.run(3600.0)
    assert all(lease.extendable for lease in home.book.leases.values())
    since, home.gaps = home.now, []
    home.run(1800.0)
    assert home.gaps == []
    assert home.count(Verb.GENERATE, since) == 0


def test_several_cameras_that_can_never_be_extended_are_learnt_all_the_same() -> None:
    home = Home()
    home.extended = lambda camera: GONE
    for camera in names(5):
        home.want(camera)
        home.run(30.0)
    home.run(3000.0)
    learnt = [camera for camera in home.book.leases if home.lease(camera).extension.until < 1e6]
    assert learnt == names(5)
