"""The response to GET /api/events: a subscription to the event hub as server-sent events."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay_supervisor.events import EventHub, Subscription


class EventStream(Response):
    """Sends a subscription until either side ends it, even while a slow client blocks sending."""

    def __init__(self, hub: EventHub, subscription: Subscription) -> None:
        super().__init__()
        self._hub, self._subscription = hub, subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "HEAD":  # has its whole answer: further requests may follow on its connection
                await send({"type": "http.response.body", "body": b""})
                return
            await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
            sending = asyncio.ensure_future(self._send(send))
            ends = [
                sending,
                asyncio.ensure_future(self._subscription.wait_closed()),
                asyncio.ensure_future(client_gone(receive)),
            ]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if self._subscription.closed:
                    # A client that reads gets a clean end.
                    await asyncio.wait([sending], timeout=0.2)
            finally:
                for task in ends:
                    task.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
        finally:
            self._hub.unsubscribe(self._subscription)

    async def _send(self, send: Send) -> None:
        async for frame in self._subscription:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            # Sending need not wait, and all that is queued would be written to a client that is gone, before the loop
            # had a turn to say so: from the sixth such write on asyncio warns of each.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


async def client_gone(receive: Receive) -> None:
    """Return when the client has closed its connection, or the answer has ended."""
    while (await receive())["type"] != "http.disconnect":
        pass
