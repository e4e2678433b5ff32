"""A stream that cannot be extended, in the book: its successor is generated while it plays, where Google allows it."""

from __future__ import annotations

import itertools
import random

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import GoogleServerError, NotExtendable, StreamGone
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Effect, Granted, Lost
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb
from relay_supervisor.google.quota.limits import limits_from

DOORBELL = Device("enterprises/p/devices/d", "d", "DOORBELL", "Door", (Protocol.WEB_RTC,))


def stream(name: str) -> LiveStream:
    return LiveStream(Protocol.WEB_RTC, Secret(name), 300.0, 0.0, answer_sdp=Secret(f"answer {name}"))


class Google:
    """A book and the time; answers what the test says."""

    def __init__(self) -> None:
        self.book = LeaseBook(limits_from(), rng=random.Random(1))
        self.now = 1000.0
        self.book.want("door", DOORBELL, self.now)

    def command(self) -> Command:
        """The next command, when its time has come."""
        while (command := self.book.poll(self.now)) is None:
            due = self.book.next_deadline(self.now)
            assert due is not None
            self.now = max(due, self.now + 0.001)
        return command

    def answer(self, command: Command, result: Result) -> list[Effect]:
        self.book.sent(command, self.now)
        self.book.settle(command, result, self.now)
        effects, self.book.effects = self.book.effects, []
        return effects

    def held(self) -> None:
        """A stream is held, and Google has said that it cannot be extended."""
        generate = self.command()
        assert generate.verb is Verb.GENERATE
        self.answer(generate, stream("m1"))
        extend = self.command()
        assert extend.verb is Verb.EXTEND
        self.answer(extend, NotExtendable("not supported for doorbell"))


def test_the_successor_is_generated_before_the_end_and_the_old_stream_never_lost() -> None:
    google = Google()
    google.held()
    generation = google.book.leases["door"].generation
    for name in ("m2", "m3"):
        expires = google.book.leases["door"].expires
        command = google.command()
        assert command.verb is Verb.GENERATE
        assert 20.0 < expires - google.now <= 30.0
        google.book.media_failed("door", generation, "the camera hung up", google.now)
        assert google.book.leases["door"].state is LeaseState.REPLACING, "a new stream is on its way already"
        (granted,) = google.answer(command, stream(name))
        assert isinstance(granted, Granted)
        assert granted.generation > generation
        generation = granted.generation
        assert google.book.leases["door"].state is LeaseState.HELD


def test_where_google_grants_no_second_stream_the_first_is_stopped_first_from_then_on() -> None:
    google = Google()
    google.held()
    assert google.answer(google.command(), StreamGone("one stream at a time")) == []
    lease = google.book.leases["door"]
    assert lease.state is LeaseState.HELD, "the old stream plays on"
    stop = google.command()
    assert stop.verb is Verb.STOP
    assert [type(effect) for effect in google.answer(stop, None)] == [Lost]
    google.answer(google.command(), stream("m2"))
    assert google.command().verb is Verb.STOP


def test_a_failure_of_googles_is_tried_again_while_the_old_stream_lasts() -> None:
    google = Google()
    google.held()
    expires = google.book.leases["door"].expires
    assert google.answer(google.command(), GoogleServerError("503")) == []
    again = google.command()
    assert again.verb is Verb.GENERATE
    assert google.now < expires
    (granted,) = google.answer(again, stream("m2"))
    assert isinstance(granted, Granted)


def test_that_no_second_stream_is_granted_is_believed_for_half_an_hour_then_tried_again_later_each_time() -> None:
    google = Google()
    google.held()
    refused_at = list[float]()
    serial = 0
    while google.now < 1000.0 + 4 * 3600.0:
        command = google.command()
        match command.verb:
            case Verb.GENERATE if google.book.leases["door"].state is LeaseState.REPLACING:
                refused_at.append(google.now)
                google.answer(command, StreamGone("one stream at a time"))
            case Verb.GENERATE:
                serial += 1
                google.answer(command, stream(f"n{serial}"))
            case Verb.EXTEND:
                google.answer(command, NotExtendable("not supported for doorbell"))
            case _:
                google.answer(command, None)
    assert 3 <= len(refused_at) <= 6
    pauses = [later - before for before, later in itertools.pairwise(refused_at)]
    assert 900.0 <= pauses[0] <= 2400.0
    assert pauses[-1] > 1.5 * pauses[0]


def test_a_second_stream_that_is_granted_after_all_ends_the_stops() -> None:
    google = Google()
    google.held()
    google.answer(google.command(), StreamGone("one stream at a time"))
    lease = google.book.leases["door"]
    for n in range(60):
        command = google.command()
        if command.verb is Verb.EXTEND:
            google.answer(command, NotExtendable("not supported for doorbell"))
        else:
            google.answer(command, stream(f"n{n}") if command.verb is Verb.GENERATE else None)
    assert not lease.second_stream.believed
    assert lease.replaceable
