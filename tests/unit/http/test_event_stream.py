"""An event stream and a client that vanishes while events are on their way to it."""

from __future__ import annotations

import asyncio

from starlette.types import Message

from relay_common.clock import ManualClock
from relay_supervisor.events import EventHub
from relay_supervisor.http.event_stream import EventStream


async def test_nothing_is_written_to_a_client_that_has_vanished_among_queued_events() -> None:
    """A transport tells of a write that failed in the loop's next turn, and not by raising."""
    hub, gone, written = EventHub(ManualClock(), boot="b"), asyncio.Event(), list[bytes]()
    for number in range(30):
        hub.publish("camera", f"event {number}")

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        body = message.get("body", b"")
        if gone.is_set():
            return  # as uvicorn does
        if b"event 9" in body:
            asyncio.get_running_loop().call_soon(gone.set)
        written.append(body)

    subscription = hub.subscribe("", None)
    await EventStream(hub, subscription)({"type": "http", "method": "GET"}, receive, send)
    assert b"event 9" in written[-1]
