"""A camera that is moved from RTSP to WebRTC while it plays, in the book: followed at once, with few commands."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google import errors
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Effect, Granted, Lost, TraitsRead
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.leases.status import lease_status
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb
from relay_supervisor.google.quota.limits import limits_from

RTSP, WEB_RTC = Protocol.RTSP, Protocol.WEB_RTC
REFUSED = errors.WrongProtocol("ExtendRtspStream of device …d: Google answered 400 INVALID_ARGUMENT", status=400)


def device(*protocols: Protocol) -> Device:
    return Device("enterprises/p/devices/d", "d", "CAMERA", "Door", protocols)


def stream(protocol: Protocol, life: float = 300.0) -> LiveStream:
    if protocol is RTSP:
        return LiveStream(RTSP, Secret("x1"), life, 0.0, url=Secret("rtsps://h/p?auth=t1"))
    return LiveStream(WEB_RTC, Secret("m1"), life, 0.0, answer_sdp=Secret("answer"))


class Google:
    """A book that holds an RTSP stream, and the time; `step` answers the next command."""

    def __init__(self) -> None:
        self.book = LeaseBook(limits_from(), rng=random.Random(1))
        self.now = 1000.0
        self.sent: list[tuple[Verb, Protocol]] = []
        self.book.want("door", device(RTSP), self.now)
        self.step(stream(RTSP))
        self.book.media_live("door", self.lease.generation, self.now)
        self.sent.clear()

    def next(self) -> Command:
        while (command := self.book.poll(self.now)) is None:
            due = self.book.next_deadline(self.now)
            assert due is not None, "nothing will ever happen"
            self.now = max(due, self.now + 0.001)
        self.sent.append((command.verb, command.protocol))
        return command

    def settle(self, command: Command, result: Result) -> list[Effect]:
        self.now += 0.1
        self.book.settle(command, result, self.now)
        effects, self.book.effects = self.book.effects, []
        return effects

    def step(self, result: Result) -> list[Effect]:
        return self.settle(self.next(), result)

    @property
    def lease(self) -> Lease:
        return self.book.leases["door"]


def test_a_refused_extension_reads_the_traits_and_generates_beside_the_old_stream() -> None:
    google = Google()
    generation = google.lease.generation
    assert google.step(REFUSED) == []
    refused = google.now
    assert google.lease.state is LeaseState.DOUBTED
    assert "traits" in lease_status(google.book, "door", google.now, 0.0).next_action
    assert [type(effect) for effect in google.step(device(WEB_RTC))] == [TraitsRead], "the old stream plays on"
    (granted,) = google.step(stream(WEB_RTC))
    assert isinstance(granted, Granted)
    assert granted.generation > generation, "its worker takes it for another stream"
    assert google.sent == [(Verb.EXTEND, RTSP), (Verb.GET, RTSP), (Verb.GENERATE, WEB_RTC)]
    assert google.now - refused < 1.0
    assert google.lease.failures == 0
    assert lease_status(google.book, "door", google.now, 0.0).protocol == "WEB_RTC"
    google.step(Extension(Secret("m1"), 300.0, 0.0))
    assert google.sent[-1] == (Verb.EXTEND, WEB_RTC)


def test_where_the_protocol_is_the_same_the_stream_is_gone_and_generated_anew() -> None:
    google = Google()
    google.step(REFUSED)
    assert [type(effect) for effect in google.step(device(RTSP))] == [TraitsRead, Lost]
    assert google.lease.failures == 1
    google.step(stream(RTSP))
    assert google.sent == [(Verb.EXTEND, RTSP), (Verb.GET, RTSP), (Verb.GENERATE, RTSP)]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (errors.GoogleServerError("500", status=500), LeaseState.WANTED),
        (errors.MalformedAnswer("no live stream"), LeaseState.WANTED),
        (errors.DeviceNotFound("404", status=404), LeaseState.PARKED),
        (errors.RateLimited("429"), LeaseState.DOUBTED),
        (errors.Unauthenticated("401"), LeaseState.DOUBTED),
    ],
)
def test_traits_that_cannot_be_read(answer: errors.NestError, state: LeaseState) -> None:
    google = Google()
    google.step(REFUSED)
    google.step(answer)
    assert google.lease.state is state


def test_a_doubted_stream_that_ends_is_lost() -> None:
    google = Google()
    google.step(REFUSED)
    google.next()
    assert google.book.next_deadline(google.now) == google.lease.expires
    google.now = google.lease.expires
    google.book.poll(google.now)
    assert [type(effect) for effect in google.book.effects] == [Lost]


def test_traits_are_read_once_whatever_else_is_planned_meanwhile() -> None:
    google = Google()
    google.step(REFUSED)
    get = google.next()
    assert "reading the camera's traits" in lease_status(google.book, "door", google.now, 0.0).next_action
    google.book.want("other", Device("enterprises/p/devices/e", "e", "CAMERA", "Other", (RTSP,)), google.now)
    assert google.next().camera == "other"
    assert google.book.poll(google.now) is None
    google.book.media_failed("door", google.lease.generation, "the camera hung up", google.now)
    assert google.lease.state is LeaseState.DOUBTED, "the answer says with what to go on"
    google.settle(get, device(WEB_RTC))
    assert google.next().protocol is WEB_RTC


def test_a_discovery_that_names_the_other_protocol_saves_the_extension() -> None:
    google = Google()
    google.book.device_seen("door", device(WEB_RTC), google.now)
    (granted,) = google.step(stream(WEB_RTC))
    assert isinstance(granted, Granted)
    assert google.sent == [(Verb.GENERATE, WEB_RTC)]


@pytest.mark.parametrize(
    "answer", [None, device(WEB_RTC), errors.GoogleServerError("500", status=500), errors.RateLimited("429")]
)
def test_a_discovery_settles_a_doubt_whatever_is_said_to_the_question(answer: Result) -> None:
    google = Google()
    google.step(REFUSED)
    get = google.next() if answer is not None else None
    google.book.device_seen("door", device(RTSP), google.now)
    assert google.lease.state is LeaseState.DOUBTED, "the list may be older than the refusal"
    google.book.device_seen("door", device(WEB_RTC), google.now)
    command = google.next()
    assert (command.verb, command.protocol) == (Verb.GENERATE, WEB_RTC)
    if get is not None:
        google.settle(get, answer)
    assert [type(effect) for effect in google.settle(command, stream(WEB_RTC))] == [Granted]
    assert google.next().verb is Verb.EXTEND


def test_an_extension_refused_after_a_discovery_told_asks_no_more() -> None:
    google = Google()
    extend = google.next()
    google.book.device_seen("door", device(WEB_RTC), google.now)
    google.settle(extend, REFUSED)
    google.step(stream(WEB_RTC))
    assert google.sent == [(Verb.EXTEND, RTSP), (Verb.GENERATE, WEB_RTC)]


@pytest.mark.parametrize(
    "failure",
    [
        lambda: errors.GoogleServerError("500", status=500),
        lambda: errors.Conflict("409", status=409),
        lambda: errors.OfferUnavailable("no offer"),
        lambda: errors.CameraUnavailable("off", status=400),
    ],
)
def test_a_new_stream_that_is_refused_is_tried_again_ever_more_slowly_while_the_old_one_plays(
    failure: Callable[[], errors.NestError],
) -> None:
    google = Google()
    expires = google.lease.expires
    google.step(REFUSED)
    google.step(device(WEB_RTC))
    times = []
    while google.lease.expires == expires:
        command = google.next()
        if google.now >= expires:
            break
        times.append(google.now)
        assert (command.verb, command.protocol) == (Verb.GENERATE, WEB_RTC)
        assert google.settle(command, failure()) == []
    assert 2 <= len(times) <= 6, "no stop, no extension, and few commands"
    assert google.sent[-1] == (Verb.GENERATE, WEB_RTC)


def test_a_camera_that_is_said_to_have_moved_and_has_not_keeps_its_stream() -> None:
    """A discovery was wrong: the first refused Generate reads the traits, and the old stream is extended."""
    google = Google()
    google.book.device_seen("door", device(WEB_RTC), google.now)
    google.step(errors.WrongProtocol("GenerateWebRtcStream: 400", status=400))
    google.step(device(RTSP))
    google.step(Extension(Secret("x2"), 300.0, 0.0, Secret("t2")))
    assert google.sent == [(Verb.GENERATE, WEB_RTC), (Verb.GET, RTSP), (Verb.EXTEND, RTSP)]
    assert google.lease.failures == 0


def test_a_moved_camera_that_nobody_wants_is_not_stopped_over_a_protocol_it_does_not_speak() -> None:
    google = Google()
    google.book.device_seen("door", device(WEB_RTC), google.now)
    google.book.unwant("door", google.now)
    assert google.book.queue.depth(google.now) == 0


def test_a_camera_that_moved_while_no_supervisor_ran_is_followed() -> None:
    book = LeaseBook(limits_from(), rng=random.Random(1))
    book.resume("door", device(WEB_RTC), stream(RTSP), 7, 1000.0, granted=900.0)
    command = book.poll(1000.0)
    assert command is not None
    assert (command.verb, command.protocol) == (Verb.GENERATE, WEB_RTC)
    assert book.leases["door"].state is LeaseState.REPLACING
