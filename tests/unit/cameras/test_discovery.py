"""Listings of devices, complete and not: when they are asked for, and what they do to the cameras that run."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from relay_common.clock import ManualClock
from relay_common.config import CamerasConfig
from relay_common.protocol import Protocol
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.reconcile import StopCamera, reconcile
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.events import EventHub
from relay_supervisor.google.errors import AuthorizationRevoked, NestUnreachable
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.models import Device, Listing


def device(name: str) -> Device:
    return Device(f"enterprises/p/devices/{name}", name, "CAMERA", name.title(), (Protocol.RTSP,))


DOOR, YARD = device("door"), device("yard")
BOTH, NONE = Listing([DOOR, YARD]), Listing([])


class Relay:
    """A registry with the cameras that run by it."""

    def __init__(self, config: CamerasConfig | None = None) -> None:
        self.registry = Registry(config or CamerasConfig())
        self.running: dict[str, Camera] = {}

    def listed(self, listing: Listing) -> list[str]:
        """Take over a listing; which cameras it stops, by name."""
        self.registry.discovered(0, listing)
        return self.stopped()

    def stopped(self) -> list[str]:
        desired = self.registry.desired()
        actions = reconcile(desired, self.running)
        self.running = desired
        return [action.camera.name for action in actions if isinstance(action, StopCamera)]


@pytest.fixture
def relay() -> Relay:
    subject = Relay()
    assert subject.listed(BOTH) == []
    return subject


def test_a_camera_listed_without_its_live_stream_stays_what_it_was(relay: Relay) -> None:
    before = relay.running
    for _ in range(3):
        assert relay.listed(Listing([YARD], frozenset({DOOR.name}))) == []
    assert relay.running == before


def test_a_device_that_never_had_a_live_stream_is_no_camera(relay: Relay) -> None:
    relay.listed(Listing([DOOR, YARD], frozenset({"enterprises/p/devices/thermostat"})))
    assert len(list(relay.registry)) == 2


def test_one_empty_listing_stops_nothing_and_the_second_everything(relay: Relay) -> None:
    assert relay.listed(NONE) == []
    assert relay.listed(NONE) == ["Door", "Yard"]
    assert list(relay.registry) == []


@pytest.mark.parametrize("between", [BOTH, Listing([YARD], frozenset({DOOR.name}))])
def test_only_two_listings_in_a_row_count(relay: Relay, between: Listing) -> None:
    for listing in (Listing([YARD]), between, Listing([YARD])):
        assert relay.listed(listing) == []
    assert relay.listed(Listing([YARD])) == ["Door"]


async def test_what_people_change_is_not_put_off_by_an_absence(relay: Relay) -> None:
    relay.listed(NONE)
    door = next(camera for camera in relay.registry if camera.name == "Door")
    await relay.registry.override(door, included=False)
    assert relay.stopped() == ["Door"]
    relay.registry.config = CamerasConfig(include=[])
    assert relay.stopped() == ["Yard"]


def test_the_cameras_of_one_account_do_not_miss_those_of_another(relay: Relay) -> None:
    for _ in range(2):
        assert relay.registry.discovered(1, Listing([device("attic")])) == []
    assert relay.stopped() == []
    assert relay.registry.accounts == 2


def test_a_camera_whose_name_is_not_available_keeps_it_and_so_stays_selected() -> None:
    relay = Relay(CamerasConfig(include=["Door"]))
    relay.listed(BOTH)
    nameless = msgspec.structs.replace(DOOR, display_name="Hall", named=False)
    assert relay.listed(Listing([nameless, YARD])) == []
    assert relay.registry.seen(0, nameless) == DOOR
    assert relay.listed(Listing([msgspec.structs.replace(DOOR, display_name="Hall"), YARD])) == ["Door"], "renamed"


def test_what_an_earlier_process_knew_runs_at_once_and_two_listings_correct_it() -> None:
    relay = Relay()
    relay.registry.restored(0, [DOOR, YARD])
    assert relay.stopped() == []
    assert len(relay.running) == 2
    assert relay.registry.accounts == 0, "it has not been listed yet"
    assert relay.listed(Listing([YARD, device("attic")])) == []
    assert relay.registry.accounts == 1
    assert relay.listed(Listing([YARD, device("attic")])) == ["Door"]
    assert relay.registry.devices(0) == [YARD, device("attic")]


class Google:
    """Answers each listing with the next of what it was given, the last for ever; and the discovery that asks."""

    def __init__(self, *answers: Listing | Exception, name: str = "") -> None:
        self.clock = ManualClock(now=0.0)
        self.answers, self.asked = list(answers), list[float]()
        self.told: list[Listing] = []
        self.remembered: list[Device] = []
        self.registry = Registry(CamerasConfig())
        self.published: list[str] = []
        hub = EventHub(self.clock, boot="b")
        hub.publish = lambda kind, text, camera="": self.published.append(text)  # type: ignore[method-assign,assignment]
        self.discovery = Discovery(
            0,
            cast(LeaseManager, self),
            self.registry,
            hub,
            self.clock,
            random.Random(1),
            lambda account, listing: self.told.append(listing),
            name,
        )

    async def discover(self) -> Listing:
        self.asked.append(self.clock.now())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return msgspec.structs.replace(answer)

    def remember(self, devices: list[Device]) -> None:
        self.remembered = devices

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.discovery.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_listing_that_lacks_a_camera_is_soon_followed_by_another() -> None:
    google = Google(BOTH, Listing([YARD]), BOTH)
    async with google.running():
        await google.clock.advance(1300.0)
    assert google.asked == [0.0, 600.0, 630.0, 1230.0]


async def test_after_the_second_listing_without_it_the_pace_is_the_usual_one() -> None:
    google = Google(BOTH, NONE)
    async with google.running():
        await google.clock.advance(1300.0)
    assert google.asked == [0.0, 600.0, 630.0, 1230.0]
    assert list(google.registry) == google.remembered == []


async def test_a_listing_that_a_person_asked_for_brings_the_next_one_forward() -> None:
    google = Google(BOTH, NONE, BOTH)
    async with google.running():
        await google.clock.advance(100.0)
        assert google.remembered == [DOOR, YARD]
        await google.discovery.refresh()
        assert google.remembered == [DOOR, YARD], "for the next process as for this one"
        await google.clock.advance(60.0)
    assert google.asked == [0.0, 100.0, 130.0]


async def test_a_wake_is_not_waited_for() -> None:
    google = Google(BOTH)
    async with google.running():
        await google.clock.advance(100.0)
        google.discovery.wake()
        await google.clock.advance(0.0)
    assert google.asked == [0.0, 100.0]


async def test_failures_are_retried_sooner_and_stop_nothing() -> None:
    google = Google(BOTH, NestUnreachable("down"), BOTH)
    async with google.running():
        await google.clock.advance(700.0)
        assert len(google.asked) == 3
        assert google.asked[2] < 605.0
    assert len(list(google.registry)) == 2
    assert len(google.told) == 2


async def test_a_cause_that_lasts_is_logged_once_in_ten_minutes_and_another_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def said() -> list[str]:
        texts = [f"{one.levelname} {one.message}".partition(";")[0] for one in caplog.records]
        caplog.clear()
        return texts

    down, revoked = NestUnreachable("down"), AuthorizationRevoked("revoked")
    google = Google(*[down] * 3, revoked)
    caplog.set_level(logging.INFO)
    async with google.running():
        await google.clock.advance(40.0)
        assert said() == ["ERROR cameras cannot be listed: down", "ERROR cameras cannot be listed: revoked"]
        await google.clock.advance(500.0)
        assert (said(), len(google.asked) > 10) == ([], True)
        await google.clock.advance(200.0)
        assert said() == ["ERROR cameras cannot be listed: revoked"]
        google.answers = [BOTH, down]
        await google.clock.advance(60.0)
        assert said() == ["INFO the cameras can be listed again"]
        await google.clock.advance(620.0)
        assert said() == ["ERROR cameras cannot be listed: down"], "it is another outage"


async def test_a_cause_that_lasts_is_published_once_and_again_after_a_listing_that_succeeds() -> None:
    down, revoked = NestUnreachable("down"), AuthorizationRevoked("revoked")
    google = Google(*[down] * 3, *[revoked] * 3, BOTH, down)
    async with google.running():
        await google.clock.advance(1000.0)
    assert len(google.asked) > 8
    assert google.published == [f"cameras cannot be listed: {why}" for why in ("down", "revoked", "down")]


async def test_an_exception_that_nobody_expected_does_not_end_the_listing() -> None:
    google = Google(KeyError("surprise"), BOTH)
    async with google.running():
        await google.clock.advance(0.5)
        assert "internal error (KeyError)" in google.discovery.problem
        await google.clock.advance(5.0)
        assert google.discovery.problem == ""
    assert len(list(google.registry)) == 2


async def test_one_listing_that_two_asked_for_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    google = Google(BOTH, NONE)
    await google.discovery.refresh()
    shared = Listing([])

    async def discover() -> Listing:
        return shared

    monkeypatch.setattr(google, "discover", discover)
    await google.discovery.refresh()
    await google.discovery.refresh()
    assert len(list(google.registry)) == 2
    assert len(google.told) == 2


async def test_a_camera_without_a_live_stream_is_told_of_once_until_it_has_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    without = Listing([YARD], frozenset({DOOR.name}), streamless=("Door (DOORBELL)",))
    google = Google(without, without, BOTH, without)
    with caplog.at_level(logging.WARNING):
        for times in (1, 1, 1, 2):
            await google.discovery.refresh()
            assert caplog.text.count("Google lists Door (DOORBELL) without a live stream") == times


async def test_of_several_accounts_it_is_said_whose_cameras_cannot_be_listed(caplog: pytest.LogCaptureFixture) -> None:
    google = Google(NestUnreachable("down"), name="shop")
    assert google.discovery.problem == "the cameras of shop have not been listed yet"
    async with google.running():
        await google.clock.advance(0.0)
        assert google.discovery.problem == "the cameras of shop cannot be listed: down"
        assert google.published == ["cameras of shop cannot be listed: down"]
        assert "cameras of shop cannot be listed: down; trying again" in caplog.text
