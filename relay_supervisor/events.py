"""Server-sent events: the full status once a second, and discrete events that can be resumed.

(https://html.spec.whatwg.org/multipage/server-sent-events.html.) Discrete events carry ids and stay in a bounded ring,
so a client that reconnects with `Last-Event-ID` misses nothing that the ring still holds; if it did miss something, it
gets a `reset` event first. A status carries no id and only the newest one waits for a slow client; a client that lets
discrete events pile up is dropped (and counted), and catches up when it reconnects.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from relay_common.clock import Clock
from relay_supervisor.status.model import RelayStatus

RING: Final = 1024
"""Discrete events kept for clients that come back."""
QUEUE: Final = 128
"""Discrete events that may wait for one client."""
MAX_CLIENTS: Final = 64
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection open."""

STALLED: Final = 20.0
"""Seconds after which a client that reads nothing is dropped."""

_HEARTBEAT_FRAME: Final = b": still here\n\n"

_encode = msgspec.json.Encoder().encode


class RelayEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: `kind` for machines, `text` for people; `camera` is its id when it concerns one."""

    id: str
    at: float
    """Unix seconds."""
    kind: str
    text: str
    camera: str = ""
    name: str = ""
    """What people call the camera."""


class TooManyClients(Exception):
    """The bound on event streams is reached."""


class Subscription:
    """One client's stream: iterate it for the bytes to send; `close()` ends it."""

    def __init__(self, bound: int, statuses: bool, now: float) -> None:
        self.statuses = statuses
        """Whether the client wants the status every second."""
        self._waiting: deque[bytes] = deque()
        self._status: bytes | None = None
        self._bound = bound
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self.taken_at = now
        """When nothing was left to send (monotonic seconds)."""

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def offer(self, frame: bytes) -> bool:
        """Queue a discrete event or a comment; False when too many wait already."""
        if len(self._waiting) >= self._bound:
            return False
        self._waiting.append(frame)
        self._wake.set()
        return True

    def offer_status(self, frame: bytes) -> None:
        """Queue the status, replacing one that has not been sent yet."""
        self._status = frame
        self._wake.set()

    def idle(self) -> bool:
        """Whether everything queued has been sent."""
        return not self._waiting and self._status is None

    def close(self) -> None:
        """End the stream; what is queued is not sent."""
        self._ended.set()
        self._wake.set()

    async def wait_closed(self) -> None:
        """Return once the stream was ended from either side."""
        await self._ended.wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        begun = False
        while not self.closed:
            # The first status goes before the events: it has the names of the cameras that they are about.
            if self._status is not None and not (begun and self._waiting):
                frame, self._status, begun = self._status, None, True
                yield frame
            elif self._waiting:
                yield self._waiting.popleft()
            else:
                self._wake.clear()
                await self._wake.wait()


class EventHub:
    """All event streams.

    `boot` identifies this run in event ids, so that ids of an earlier run are recognised; `name_of` gives the name of
    the camera with an id.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        boot: str,
        name_of: Callable[[str], str] = str,
        ring: int = RING,
        queue: int = QUEUE,
        clients: int = MAX_CLIENTS,
    ):
        self._clock, self._boot = clock, boot
        self._name_of = name_of
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=ring)
        self._queue, self._bound = queue, clients
        self._subscribers: set[Subscription] = set()
        self._next = 1
        self._closed = False
        self.published = 0
        self.dropped_clients = 0
        self.refused_clients = 0

    @property
    def clients(self) -> int:
        """Number of open streams."""
        return len(self._subscribers)

    def publish(self, kind: str, text: str, camera: str = "") -> None:
        """Send an event to all streams; `text` is for people and holds no secret."""
        number, self._next = self._next, self._next + 1
        at, name = self._clock.wall(), self._name_of(camera) if camera else ""
        event = RelayEvent(id=f"{self._boot}-{number}", at=at, kind=kind, text=text, camera=camera, name=name)
        frame = _frame("event", _encode(event), event.id)
        self._ring.append((number, frame))
        self.published += 1
        for subscriber in list(self._subscribers):
            if not subscriber.offer(frame):
                self._drop(subscriber)

    def subscribe(self, last_event_id: str, status: RelayStatus | None) -> Subscription:
        """Open a stream that starts with the events since `last_event_id` ("": all in the ring) and with `status`.

        `status` None means that the client wants none: it gets heartbeats instead. Raises TooManyClients.
        """
        if self._closed or len(self._subscribers) >= self._bound:
            self.refused_clients += 1
            raise TooManyClients
        subscription = Subscription(
            self._queue + (self._ring.maxlen or 0) + 1, statuses=status is not None, now=self._clock.now()
        )
        if status is not None:
            subscription.offer_status(_frame("status", _encode(status)))
        after, complete = self._resume_point(last_event_id)
        if not complete:
            subscription.offer(_frame("reset", b"{}"))
        for number, frame in self._ring:
            if number > after:
                subscription.offer(frame)
        self._subscribers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a stream whose client is gone."""
        subscription.close()
        self._subscribers.discard(subscription)

    def tick(self, now: float, status: Callable[[], RelayStatus]) -> None:
        """Send the status (computed only if somebody listens) or a heartbeat, and drop clients that read nothing."""
        wanted = any(subscriber.statuses for subscriber in self._subscribers)
        frame = _frame("status", _encode(status())) if wanted else b""
        for subscriber in list(self._subscribers):
            if not subscriber.idle():
                if now - subscriber.taken_at >= STALLED:
                    self._drop(subscriber)
                    continue
            elif subscriber.statuses or now - subscriber.taken_at >= HEARTBEAT:
                subscriber.taken_at = now
                if not subscriber.statuses:
                    subscriber.offer(_HEARTBEAT_FRAME)
            if subscriber.statuses:
                subscriber.offer_status(frame)

    async def run(self, status: Callable[[], RelayStatus], interval: float = 1.0) -> None:
        """Tick every `interval` seconds; runs until cancelled."""
        while True:
            self.tick(self._clock.now(), status)
            await self._clock.sleep(interval)

    def close(self) -> None:
        """End all streams and refuse new ones: the server is stopping."""
        self._closed = True
        for subscriber in list(self._subscribers):
            self.unsubscribe(subscriber)

    def _drop(self, subscriber: Subscription) -> None:
        self.dropped_clients += 1
        self.unsubscribe(subscriber)

    def _resume_point(self, last_event_id: str) -> tuple[int, bool]:
        """(number after which to replay, whether nothing was missed)."""
        oldest = self._ring[0][0] if self._ring else self._next
        if not last_event_id:
            return 0, True
        boot, _, digits = last_event_id.rpartition("-")
        if boot != self._boot or not digits.isascii() or not digits.isdecimal() or len(digits) > 15:
            return 0, False
        number = int(digits)
        return (number, True) if oldest - 1 <= number < self._next else (0, False)


def _frame(event: str, data: bytes, name: str = "") -> bytes:
    # JSON never holds a raw line end, so one data line is enough.
    head = f"id: {name}\n" if name else ""
    return f"{head}event: {event}\n".encode() + b"data: " + data + b"\n\n"
