"""The event hub: resuming, bounds, and clients that do not read."""

from __future__ import annotations

import json

import pytest

from relay_common.clock import ManualClock
from relay_supervisor.events import HEARTBEAT, STALLED, EventHub, Subscription, TooManyClients
from tests.fixtures.fake_relay import FakeRelay


def hub(**bounds: int) -> tuple[EventHub, ManualClock, FakeRelay]:
    clock = ManualClock()
    return EventHub(clock, boot="b", **bounds), clock, FakeRelay(clock, cameras=1)


async def taken(subscription: Subscription) -> list[str]:
    """All frames that wait now, shortened to their id or event."""
    frames = []
    stream = aiter(subscription)
    while not subscription.idle():
        lines = (await anext(stream)).decode().splitlines()
        frames.append(lines[0].partition(": ")[2])
    return frames


async def test_resumes_after_the_last_event_seen() -> None:
    events, _, _ = hub()
    for number in range(5):
        events.publish("camera", f"number {number}")
    assert await taken(events.subscribe("b-3", None)) == ["b-4", "b-5"]
    assert await taken(events.subscribe("b-5", None)) == []
    assert await taken(events.subscribe("", None)) == ["b-1", "b-2", "b-3", "b-4", "b-5"]


@pytest.mark.parametrize("last", ["b-1", "other-9", "nonsense", "b-", "b-٣", "b-6", "b-" + "9" * 30])
async def test_tells_when_something_was_missed(last: str) -> None:
    events, _, _ = hub(ring=3)
    for number in range(5):
        events.publish("camera", f"number {number}")
    frames = await taken(events.subscribe(last, None))
    assert frames == ["reset", "b-3", "b-4", "b-5"]


async def test_the_oldest_in_the_ring_is_still_a_complete_resume() -> None:
    events, _, _ = hub(ring=3)
    for number in range(5):
        events.publish("camera", f"number {number}")
    assert await taken(events.subscribe("b-2", None)) == ["b-3", "b-4", "b-5"]


async def test_only_the_newest_status_waits() -> None:
    events, clock, relay = hub()
    subscription = events.subscribe("", relay.status())
    for _ in range(5):
        events.tick(clock.now(), relay.status)
    assert await taken(subscription) == ["status"]


async def test_cameras_have_names_before_events_are_about_them() -> None:
    events, clock, relay = hub()
    events.publish("state", "live", "cam00000")
    subscription = events.subscribe("", relay.status())
    stream = aiter(subscription)
    frames = [(await anext(stream)).decode().splitlines()[0] for _ in range(2)]
    assert frames == ["event: status", "id: b-1"]
    events.tick(clock.now(), relay.status)
    events.publish("state", "waiting", "cam00000")
    assert (await anext(stream)).decode().startswith("id: b-2"), "later ones wait for none"


async def test_a_client_that_lets_events_pile_up_is_dropped_and_counted() -> None:
    events, _, _ = hub(ring=2, queue=3)
    slow, quick = events.subscribe("", None), events.subscribe("", None)
    for number in range(20):
        events.publish("camera", str(number))
        await taken(quick)
    assert (slow.closed, quick.closed) == (True, False)
    assert (events.dropped_clients, events.clients) == (1, 1)


async def test_a_client_that_takes_nothing_is_dropped_in_the_end() -> None:
    events, clock, relay = hub()
    slow, quick = events.subscribe("", relay.status()), events.subscribe("", relay.status())
    for _ in range(int(STALLED) + 1):
        await taken(quick)
        events.tick(clock.now(), relay.status)
        await clock.advance(1)
    assert (slow.closed, quick.closed) == (True, False)


async def test_heartbeats_where_no_status_is_wanted() -> None:
    events, clock, relay = hub()
    subscription = events.subscribe("", None)
    events.tick(clock.now(), relay.status)
    assert subscription.idle()
    await clock.advance(HEARTBEAT)
    events.tick(clock.now(), relay.status)
    assert (await anext(aiter(subscription))).startswith(b": ")


async def test_streams_are_bounded_and_end_with_the_server() -> None:
    events, _, _ = hub(clients=2)
    first = events.subscribe("", None)
    events.subscribe("", None)
    with pytest.raises(TooManyClients):
        events.subscribe("", None)
    assert events.refused_clients == 1
    events.close()
    assert first.closed
    assert events.clients == 0
    with pytest.raises(TooManyClients):
        events.subscribe("", None)


async def test_an_event_names_its_camera_so_that_no_id_stands_alone() -> None:
    events = EventHub(ManualClock(), boot="b", name_of={"2a9226a5": "Front door"}.__getitem__)
    events.publish("lease", "stream generated", "2a9226a5")
    events.publish("account", "signed in again")
    subscription = events.subscribe("", None)
    stream = aiter(subscription)
    frames = [(await anext(stream)).decode() for _ in range(2)]
    one, other = (json.loads(frame.partition("data: ")[2]) for frame in frames)
    assert (one["camera"], one["name"]) == ("2a9226a5", "Front door")
    assert (other["camera"], other["name"]) == ("", "")
