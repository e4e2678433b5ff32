"""The asyncio shell: side by side, persisted first, late results delivered, nothing left waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.api import Turn
from relay_supervisor.google.errors import (
    AuthorizationRevoked,
    GoogleServerError,
    NestError,
    NotReached,
    OfferRefused,
    OfferUnavailable,
)
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.command import Command, Result, Verb
from relay_supervisor.google.quota.dispatcher import Dispatcher, OfferSource, OnCommand


class Script:
    """A source that gives out prepared commands and notes what comes back."""

    def __init__(self, *commands: Command) -> None:
        self.waiting = list(commands)
        self.settled: list[tuple[str, Result, float]] = []
        self.places: list[float] = []
        """When each further request of a command may go."""

    def poll(self, now: float) -> Command | None:
        if self.waiting and self.waiting[0].not_before <= now:
            return self.waiting.pop(0)
        return None

    def next_deadline(self, now: float) -> float | None:
        return self.waiting[0].not_before if self.waiting else None

    def sent(self, command: Command, now: float) -> None:
        command.submitted = now

    def sends_again(self, command: Command, now: float) -> float:
        if self.places[0] > now:
            return self.places[0] - now
        del self.places[0]
        return 0.0

    def settle(self, command: Command, result: Result, now: float) -> None:
        self.settled.append((command.camera, result, now))


class Google:
    """Answers after a delay per device."""

    def __init__(self, clock: ManualClock, delays: dict[str, float]) -> None:
        self.clock, self.delays = clock, delays
        self.offers: list[str] = []
        self.timeouts: dict[str, float] = {}
        self.failure: Exception | None = None
        self.requests = 1
        """How many a reading of devices takes."""

    async def generate(
        self, device: str, protocol: Protocol, *, offer_sdp: str = "", timeout: float = 30.0
    ) -> LiveStream:
        self.offers.append(offer_sdp)
        self.timeouts[device] = timeout
        await self.clock.sleep(self.delays.get(device, 0.1))
        if self.failure is not None:
            raise self.failure
        return LiveStream(protocol, Secret("h"), 300.0, 0.0)

    async def extend(self, device: str, protocol: Protocol, handle: Secret, *, timeout: float = 30.0) -> Extension:
        self.timeouts[device] = timeout
        await self.clock.sleep(self.delays.get(device, 0.1))
        return Extension(Secret("h2"), 300.0, 0.0)

    async def stop(self, device: str, protocol: Protocol, handle: Secret, *, timeout: float = 30.0) -> None:
        self.timeouts[device] = timeout
        await self.clock.sleep(self.delays.get(device, 0.1))

    async def device(self, device: str, *, turn: Turn) -> Device:
        for _ in range(self.requests - 1):
            await turn()
        return Device(device, device, "CAMERA", device, (Protocol.RTSP,))

    async def listing(self, *, turn: Turn) -> Listing:
        return Listing([await self.device("d", turn=turn)])


class Notebook:
    """A journal that notes the order of things."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def sending(self, command: Command) -> None:
        self.notes.append(f"sending {command.camera}")

    def settled(self, command: Command, counted_by: float | None) -> None:
        self.notes.append(f"settled {command.camera} {counted_by is not None}")


def command(camera: str, verb: Verb = Verb.GENERATE, **more: object) -> Command:
    return Command(verb=verb, camera=camera, device=camera, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def dispatching(
    source: Script,
    clock: ManualClock,
    google: Google,
    *,
    offer: OfferSource | None = None,
    journal: Notebook | None = None,
    on_change: Callable[[], None] = lambda: None,
    on_command: OnCommand = lambda *_: None,
) -> AsyncIterator[Dispatcher]:
    subject = Dispatcher(
        google, source, clock, offer=offer, journal=journal, on_change=on_change, on_command=on_command
    )
    task = asyncio.create_task(subject.run())
    try:
        yield subject
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_slow_command_delays_no_other() -> None:
    clock = ManualClock(now=0.0)
    source = Script(command("slow"), command("fast", Verb.EXTEND), command("later", Verb.STOP, not_before=5.0))
    async with dispatching(source, clock, Google(clock, {"slow": 30.0})) as subject:
        await clock.advance(10.0)
        assert [(camera, at) for camera, _, at in source.settled] == [("fast", 0.1), ("later", 5.1)]
        assert subject.under_way == 1
        await clock.advance(25.0)
        assert source.settled[-1][0] == "slow"
        assert subject.under_way == 0


async def test_wake_makes_it_look_again() -> None:
    clock = ManualClock(now=0.0)
    source = Script()
    async with dispatching(source, clock, Google(clock, {})) as subject:
        await clock.advance(1.0)
        source.waiting.append(command("a"))
        subject.wake()
        await clock.advance(1.0)
        assert [camera for camera, _, _ in source.settled] == ["a"]


async def test_who_listens_is_told_of_each_command_with_its_wait_and_its_time() -> None:
    clock, told = ManualClock(now=100.0), list[tuple[str, bool, float, float]]()

    def listen(over: Command, result: Result, waited: float, took: float) -> None:
        told.append((over.camera, isinstance(result, NestError), round(waited, 3), round(took, 3)))

    google = Google(clock, {"a": 2.0, "b": 1.0})
    google.failure = GoogleServerError("500")
    source = Script(command("a", submitted=88.0), command("b", Verb.EXTEND, due=97.0))
    async with dispatching(source, clock, google, on_command=listen):
        await clock.advance(5.0)
    assert told == [("b", False, 3.0, 1.0), ("a", True, 12.0, 2.0)]


async def test_a_call_is_on_disk_before_it_is_sent_and_noted_after() -> None:
    clock, journal = ManualClock(now=0.0), Notebook()
    google = Google(clock, {})
    google.failure = GoogleServerError("500")
    source = Script(command("a"))
    async with dispatching(source, clock, google, journal=journal):
        await clock.advance(0.05)
        assert journal.notes == ["sending a"]
        await clock.advance(1.0)
    assert journal.notes == ["sending a", "settled a True"]
    assert isinstance(source.settled[0][1], GoogleServerError)


async def test_each_call_ends_within_its_own_time() -> None:
    clock = ManualClock(now=0.0)
    google = Google(clock, {})
    verbs = (Verb.GENERATE, Verb.EXTEND, Verb.STOP)
    source = Script(*(command(verb.value, verb, timeout=float(n)) for n, verb in enumerate(verbs, 7)))
    async with dispatching(source, clock, google):
        await clock.advance(1.0)
    assert google.timeouts == {"generate": 7.0, "extend": 8.0, "stop": 9.0}


async def test_what_never_reached_google_is_noted_as_no_call() -> None:
    clock, journal = ManualClock(now=0.0), Notebook()
    google = Google(clock, {})
    google.failure = NotReached("ConnectError: Temporary failure in name resolution")
    async with dispatching(Script(command("a")), clock, google, journal=journal):
        await clock.advance(1.0)
    assert journal.notes == ["sending a", "settled a False"]


async def test_a_webrtc_stream_needs_an_offer_first() -> None:
    clock, journal = ManualClock(now=0.0), Notebook()
    google = Google(clock, {})

    async def offer(camera: str) -> str:
        await clock.sleep(2.0)
        return f"offer of {camera}"

    source = Script(command("w", protocol=Protocol.WEB_RTC))
    async with dispatching(source, clock, google, offer=offer, journal=journal):
        await clock.advance(1.0)
        assert journal.notes == [], "not sent before the worker has made its offer"
        await clock.advance(2.0)
    assert google.offers == ["offer of w"]


async def test_without_an_offer_nothing_is_sent_or_counted() -> None:
    clock, journal = ManualClock(now=0.0), Notebook()
    source = Script(command("w", protocol=Protocol.WEB_RTC))
    async with dispatching(source, clock, Google(clock, {}), journal=journal):
        await clock.advance(1.0)
    result = source.settled[0][1]
    assert isinstance(result, OfferUnavailable)
    assert not result.counted
    assert "sending w" not in journal.notes


async def test_an_unexpected_exception_is_an_answer_too() -> None:
    clock = ManualClock(now=0.0)
    google = Google(clock, {})
    google.failure = RuntimeError("a bug")
    source = Script(command("a"))
    async with dispatching(source, clock, google):
        await clock.advance(1.0)
    assert isinstance(source.settled[0][1], NestError)


async def test_reading_devices() -> None:
    clock = ManualClock(now=0.0)
    source = Script(command("a", Verb.GET), command("", Verb.LIST))
    async with dispatching(source, clock, Google(clock, {})):
        await clock.advance(1.0)
    assert isinstance(source.settled[0][1], Device)
    assert isinstance(source.settled[1][1], Listing)


async def test_each_further_request_of_a_reading_waits_for_its_place_and_is_logged() -> None:
    clock = ManualClock(now=0.0)
    source, google, journal = Script(command("list", Verb.LIST)), Google(clock, {}), Notebook()
    google.requests, source.places = 3, [0.0, 61.0]
    async with dispatching(source, clock, google, journal=journal):
        await clock.advance(60.0)
        assert journal.notes == ["sending list", "settled list True", "sending list"]
        assert source.settled == []
        await clock.advance(2.0)
    assert journal.notes[3:] == ["settled list True", "sending list", "settled list True"]
    assert isinstance(source.settled[0][1], Listing)


async def test_an_answer_that_cannot_be_settled_is_logged_and_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(now=0.0)
    source = Script(command("bad"), command("good", not_before=5.0))
    settle = source.settle

    def refusing(command: Command, result: Result, now: float) -> None:
        if command.camera == "bad":
            raise KeyError(command.camera)
        settle(command, result, now)

    monkeypatch.setattr(source, "settle", refusing)
    async with dispatching(source, clock, Google(clock, {})):
        await clock.advance(10.0)
    assert [camera for camera, _, _ in source.settled] == ["good"]
    assert [record.message for record in caplog.records if record.exc_info] == ["a command to Google failed"]


async def test_cancelling_gives_up_what_is_under_way() -> None:
    clock = ManualClock(now=0.0)
    source = Script(command("slow"))
    async with dispatching(source, clock, Google(clock, {"slow": 30.0})) as subject:
        await clock.advance(1.0)
        assert subject.under_way == 1
    assert subject.under_way == 0
    assert source.settled == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OfferRefused("400 INVALID_ARGUMENT (m-lines)", status=400), ["400 INVALID_ARGUMENT (m-lines)"]),
        (AuthorizationRevoked("900 characters, which the account tells once"), []),
    ],
)
async def test_what_google_answers_is_in_the_log(
    failure: NestError, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    google = Google(clock, {})
    google.failure = failure
    with caplog.at_level(logging.INFO):
        async with dispatching(Script(command("a")), clock, google):
            await clock.advance(1.0)
    assert [record.getMessage() for record in caplog.records] == told
    assert {getattr(record, "camera", "") for record in caplog.records} <= {"a"}
