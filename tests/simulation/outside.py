"""The simulated Google and SFU of the lane: the simulator's core behind the interfaces of the relay's two clients."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from relay_common.cloudflare import LocalTrack, SessionGone, SfuError
from relay_common.cloudflare.models import SessionTrack
from relay_common.errors import Remedy
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_common.simulation.google.backend import COMMAND_PREFIX, NestBackend
from relay_common.simulation.google.errors import Reply
from relay_common.simulation.google.failures import ANY, failure
from relay_common.simulation.google.oauth import Client, OAuth
from relay_common.simulation.google.streams import Stream
from relay_supervisor.google.api import Turn, life_of
from relay_supervisor.google.errors import (
    MalformedAnswer,
    NestTimeout,
    NotReached,
    TokenUnavailable,
    error_for,
    parse_refusal,
)
from relay_supervisor.google.models import (
    CommandBody,
    Device,
    DeviceBody,
    Extension,
    Listing,
    LiveStream,
    StreamBody,
    device_from,
)
from relay_supervisor.google.quota.budget import UNANSWERED
from tests.simulation.loop import Process, SimulatedLoop

WALL: Final = 1_700_000_000.0
_LIMITS: Final = {"command": (60.0, 10), "list": (60.0, 5), "get": (60.0, 10)}
_READ: Final = UNANSWERED - 1.0
"""Seconds after which Google has read every request, also of a sender that has given it up."""
_DEVICE_LIMITS: Final = (("one command", 60.0, 5), ("device", 60.0, 30), ("device", 3600.0, 100))
_REFUSALS: Final = ("500", "503", "429", "404", "invalid")
FAILURES: Final = (*_REFUSALS, "timeout", "lost answer", "unreached", "no token", "slow", "read late")
SFU_FAILURES: Final = ("500", "lost answer", "slow")


@dataclass
class Weather:
    """What goes wrong between two moments, for which share of the calls."""

    begins: float
    ends: float
    share: float
    kinds: tuple[str, ...]


class Skies:
    """Which failure, if any, a call meets now."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random, weathers: list[Weather]) -> None:
        self._loop, self._rng, self._weathers = loop, rng, weathers

    def failure(self) -> str:
        for weather in self._weathers:
            if weather.begins <= self._loop.now < weather.ends and self._rng.random() < weather.share:
                return self._rng.choice(weather.kinds)
        return ""


class Counted:
    """Calls as Google counts them, at the moment they arrive; `violated` hears of every limit that is exceeded."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        self._violated = violated
        self._arrivals: dict[tuple[str, str, float], deque[float]] = {}

    def arrive(self, now: float, verb: str, device: str) -> None:
        method = verb if verb in ("list", "get") else "command"
        self._count(now, (method, "", *_LIMITS[method]))
        if method == "command":
            self._count(now, ("one command", f"{verb} {device}", *_DEVICE_LIMITS[0][1:]))
            for name, span, most in _DEVICE_LIMITS[1:]:
                self._count(now, (name, device, span, most))

    def _count(self, now: float, limit: tuple[str, str, float, int]) -> None:
        name, subject, span, most = limit
        times = self._arrivals.setdefault((name, subject, span), deque())
        times.append(now)
        while times[0] < now - span:
            times.popleft()
        if len(times) > most:
            self._violated(f"{len(times)} calls in {span:g} s against the limit {name} {subject}")


class SimulatedGoogle:
    """Google's API (`quota.dispatcher.Api`); what arrives there happens, whatever becomes of the supervisor."""

    def __init__(
        self,
        loop: SimulatedLoop,
        outside: Process,
        skies: Skies,
        rng: random.Random,
        life: float,
        violated: Callable[[str], None],
    ) -> None:
        """`life` is how many seconds a stream lives; `violated` hears of every limit that is exceeded."""
        self._loop, self._outside, self._skies, self._rng = loop, outside, skies, rng
        client = Client("id", "secret", "refresh")
        self.backend = NestBackend("p", OAuth(client, lifetime=1e6), lease=life, seed=rng.randrange(1 << 30))
        form = {"client_id": "id", "client_secret": "secret", "refresh_token": "refresh", "grant_type": "refresh_token"}
        self._token = self.backend.oauth.token(form, WALL).body["access_token"]  # type: ignore[index]
        self.counted = Counted(violated)
        self.calls = 0
        self.stalled_until = -math.inf
        """Until then it reads nothing; requests wait."""
        self.clock_ahead = 0.0
        """Seconds by which the relay's wall clock is ahead of Google's."""

    def stream(self, path: str) -> Stream | None:
        """The stream behind a path while it lives."""
        stream = self.backend.streams.by_path(path)
        return stream if stream is not None and stream.expires_at > WALL + self._loop.now else None

    async def listing(self, *, turn: Turn) -> Listing:
        reply = await self._call("list", "", lambda now: self.backend.list_devices(self._token, "", now), 30.0)
        bodies = msgspec.convert(_body(reply, "list").get("devices", []), list[DeviceBody])
        found = [(body.name, device_from(body)) for body in bodies]
        others = frozenset(name for name, device in found if device is None)
        return Listing([device for _, device in found if device is not None], others)

    async def device(self, device: str, *, turn: Turn) -> Device:
        reply = await self._call("get", device, lambda now: self.backend.get_device(self._token, device, now), 30.0)
        found = device_from(msgspec.convert(_body(reply, "get"), DeviceBody))
        if found is None:
            raise MalformedAnswer("Google names no live stream")
        return found

    async def generate(
        self, device: str, protocol: Protocol, *, offer_sdp: str = "", timeout: float = 30.0
    ) -> LiveStream:
        params = {"offerSdp": offer_sdp} if protocol is Protocol.WEB_RTC else {}
        body, life, at = await self._command("generate", device, protocol, params, timeout)
        if protocol is Protocol.WEB_RTC:
            assert body.media_session_id is not None
            assert body.answer_sdp is not None
            return LiveStream(protocol, Secret(body.media_session_id), life, at, answer_sdp=Secret(body.answer_sdp))
        assert body.stream_urls is not None
        assert body.stream_extension_token is not None
        url = Secret(body.stream_urls.rtsp_url)
        return LiveStream(protocol, Secret(body.stream_extension_token), life, at, url=url)

    async def extend(self, device: str, protocol: Protocol, handle: Secret, *, timeout: float = 30.0) -> Extension:
        body, life, at = await self._command("extend", device, protocol, _named(protocol, handle), timeout)
        new = body.stream_extension_token or body.media_session_id or ""
        return Extension(Secret(new), life, at, Secret(body.stream_token or ""))

    async def stop(self, device: str, protocol: Protocol, handle: Secret, *, timeout: float = 30.0) -> None:
        await self._command("stop", device, protocol, _named(protocol, handle), timeout)

    async def _command(
        self, verb: str, device: str, protocol: Protocol, params: dict[str, str], timeout: float
    ) -> tuple[StreamBody, float, float]:
        name = f"{verb.capitalize()}{'RtspStream' if protocol is Protocol.RTSP else 'WebRtcStream'}"

        def execute(now: float) -> Reply:
            return self.backend.execute(self._token, device, COMMAND_PREFIX + name, params, now)

        body = msgspec.convert(_body(await self._call(verb, device, execute, timeout), verb), CommandBody).results
        google = datetime.datetime.fromtimestamp(WALL + self._loop.now, datetime.UTC)
        date = email.utils.format_datetime(google, usegmt=True)
        return body, *life_of(body.expires_at or "", date, WALL + self._loop.now + self.clock_ahead)

    async def _call(self, verb: str, device: str, execute: Callable[[float], Reply], timeout: float) -> Reply:
        failed = self._skies.failure()
        if failed == "no token":
            raise TokenUnavailable("the token endpoint answered 503")
        if failed == "unreached":
            await asyncio.sleep(self._rng.uniform(0.0, 5.0))
            raise NotReached("no route to Google")
        answered: asyncio.Future[Reply] = self._loop.create_future()
        self._outside.spawn(self._serve(verb, device, execute, failed, timeout, answered))
        try:
            return await asyncio.wait_for(answered, timeout)
        except TimeoutError:
            raise NestTimeout(f"{verb}: no answer") from None

    async def _serve(
        self,
        verb: str,
        device: str,
        execute: Callable[[float], Reply],
        failed: str,
        timeout: float,
        answered: asyncio.Future[Reply],
    ) -> None:
        sent, takes = self._loop.now, self._rng.uniform(0.1, 20.0 if failed in ("slow", "timeout") else 0.8)
        # A request that its sender has given up does not arrive any more, unless it is in a buffer of Google's.
        arrives = min(takes, 0.9 * timeout) * self._rng.random()
        if failed == "read late":
            takes = arrives = self._rng.uniform(0.0, _READ)
        await asyncio.sleep(arrives)
        await asyncio.sleep(max(0.0, min(self.stalled_until, sent + _READ) - self._loop.now))
        self.calls += 1
        self.counted.arrive(self._loop.now, verb, device)
        injected = {"500": 500, "503": 503, "429": 429, "404": 404, "invalid": 400}.get(failed, 0)
        if injected and verb != "list":
            self.backend.failures.add(ANY, ANY, failure(injected))
        reply = execute(WALL + self._loop.now)
        self.backend.failures.clear()
        if failed in ("timeout", "lost answer"):
            return
        await asyncio.sleep(takes - arrives)
        if not answered.done():
            answered.set_result(reply)


def _named(protocol: Protocol, handle: Secret) -> dict[str, str]:
    return {"streamExtensionToken" if protocol is Protocol.RTSP else "mediaSessionId": handle.reveal()}


def _body(reply: Reply, verb: str) -> dict[str, object]:
    if reply.status != 200:
        refusal = parse_refusal(reply.status, json.dumps(reply.body).encode())
        raise error_for(refusal, what=verb, verb=verb)
    assert isinstance(reply.body, dict)
    return reply.body


class SimulatedSfu:
    """The SFU's session API, as the broker uses its client (`SfuClient`)."""

    def __init__(self, loop: SimulatedLoop, skies: Skies, rng: random.Random) -> None:
        self._loop, self._skies, self._rng = loop, skies, rng
        self.sessions: set[str] = set()
        self._number = 0

    async def new_session(self, correlation: str = "", *, attempts: int = 1) -> str:
        await self._trip()
        self._number += 1
        session = f"session-{self._number}"
        self.sessions.add(session)
        return session

    async def publish(self, session: str, offer: str, tracks: Sequence[LocalTrack]) -> str:
        await self._trip()
        self._known(session)
        return f"v=0 {session}"

    async def close(self, session: str, mids: Sequence[str]) -> None:
        await self._trip()
        self.sessions.discard(session)

    async def get_session(self, session: str) -> list[SessionTrack]:
        await self._trip()
        self._known(session)
        return []

    def forget(self, session: str) -> None:
        pass

    async def _trip(self) -> None:
        failed = self._skies.failure()
        await asyncio.sleep(self._rng.uniform(0.02, 8.0 if failed == "slow" else 0.3))
        if failed in ("500", "lost answer"):
            raise SfuError("the SFU failed", status=500, remedy=Remedy.RETRY)

    def _known(self, session: str) -> None:
        if session not in self.sessions:
            raise SessionGone("gone", status=410, code="session_error", remedy=Remedy.REGENERATE)
