"""The supervisor's fuzz targets: what Google, the SFU, browsers, proxies, people's files and the state database say."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import struct
import tempfile
from collections.abc import Awaitable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import msgspec
from starlette.types import Message, Scope

from relay_common import protocol, wire
from relay_common.clock import ManualClock
from relay_common.cloudflare import SfuClient
from relay_common.cloudflare.errors import SfuError
from relay_common.cloudflare.models import LocalTrack, RemoteTrack
from relay_common.config_file import load
from relay_common.errors import ConfigError
from relay_common.protocol import Protocol
from relay_common.sdp_lines import MAX_SDP
from relay_common.secrets import Secret, redact
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.google.api import NestApi
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.models import Device
from relay_supervisor.http.addresses import TrustedProxies, share_of
from relay_supervisor.http.auth import Gatekeeper, same_origin
from relay_supervisor.http.guard import Guard
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import Links, ViewerSettings
from relay_supervisor.http.viewing import AnswerRequest, ReceivedRequest, UpdateRequest, ViewRequest
from relay_supervisor.net import check_listen
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.store import Store
from relay_supervisor.viewing.decoding import Decoding
from tests.fixtures.sqlite_state import sqlite_of
from tests.fuzz.pieces import Target, chunks

TOKEN: Final = "s3cr3t-t0k3n-0f-the-0perat0r"
_LONGEST_ERROR: Final = 1000
"""Characters of an error that quotes what others sent: it goes to logs, pages and the API."""

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _answered(awaitable: Awaitable[T]) -> T | None:
    """What a call comes to; None for an error that it documents, which must be short and hold no secret."""

    async def call() -> T:
        return await awaitable

    try:
        return _loop().run_until_complete(call())
    except (NestError, SfuError) as error:
        assert TOKEN not in str(error)
        assert len(str(error)) < _LONGEST_ERROR
        return None


# --- Google and the SFU ------------------------------------------------------------------------------------------


class _Tokens:
    async def token(self) -> Secret:
        return Secret(TOKEN)

    def invalidate(self, token: Secret) -> None:
        pass


class _Server(httpx.AsyncBaseTransport):
    """Answers the first request with `reply`, all others with an empty object."""

    def __init__(self) -> None:
        self.reply: httpx.Response | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply, self.reply = self.reply, None
        return reply or httpx.Response(200, content=b"{}")


@cache
def _google() -> tuple[_Server, NestApi]:
    server = _Server()
    http = httpx.AsyncClient(transport=server)
    return server, NestApi("project", _Tokens(), "http://google.test", http, wall=lambda: 1_780_000_000.0)


def google_listing(data: bytes) -> None:
    """A list of devices, and the same bytes as one device."""
    server, api = _google()
    server.reply = httpx.Response(200, content=data)
    listing = _answered(api.listing())
    server.reply = httpx.Response(200, content=data)
    device = _answered(api.device("x"))
    devices = [*(listing.devices if listing else ()), *([device] if device else ())]
    assert msgspec.json.decode(msgspec.json.encode(devices), type=list[Device]) == devices  # as the state keeps them
    for found in devices:
        assert str(found.resolution)
        assert found.protocol in Protocol


def google_stream(data: bytes) -> None:
    """The answers to Generate and Extend; behind the first octet, a body, and one bit for a Date header."""
    server, api = _google()
    headers = {"date": "Thu, 28 May 2026 10:00:00 GMT"} if data[:1] > b"\x7f" else {}

    def answer() -> None:
        server.reply = httpx.Response(200, content=data[1:], headers=headers)

    for kind in Protocol:
        answer()
        stream = _answered(api.generate("x", kind, offer_sdp="v=0"))
        answer()
        extension = _answered(api.extend("x", kind, Secret("handle")))
        for granted in (stream, extension):
            assert granted is None or 0 <= granted.expires_in <= 86_400
        if stream is not None and extension is not None:
            stream = stream.extended(extension)
        if stream is not None:
            assert stream.handle
            play = protocol.Play(
                generation=1,
                protocol=kind,
                url=stream.url.reveal() if stream.url else "",
                expires_at=stream.expires_at,
                answer=stream.answer_sdp.reveal() if stream.answer_sdp else "",
            )
            assert wire.worker_reader().decode(wire.encode(play)) == play


def google_refusal(data: bytes) -> None:
    """An error of Google's: status, Retry-After and body."""
    server, api = _google()
    status, after, body = 400 + data[0] % 200 if data else 500, data[1:5].decode("latin-1"), data[5:]
    headers = {"retry-after": after} if after.isprintable() and after.isascii() else {}
    for call in (api.generate("x", Protocol.RTSP), api.extend("x", Protocol.RTSP, Secret("handle")), api.listing()):
        server.reply = httpx.Response(status, content=body, headers=headers)
        _answered(call)


@cache
def _sfu() -> tuple[_Server, SfuClient]:
    server = _Server()
    client = SfuClient("app", Secret(TOKEN), clock=_Patient(), rng=random.Random(1), transport=server)
    return server, client


class _Patient(ManualClock):
    """A clock on which every sleep is over at once."""

    async def sleep(self, seconds: float) -> None:
        self._now += seconds


def sfu_reply(data: bytes) -> None:
    """The SFU's answers, as whatever each call expects; the first octet chooses the status."""
    server, client = _sfu()
    status = 200 if not data or data[0] < 0xC0 else 400 + data[0]
    track = RemoteTrack(session="s", name="video")

    def call(awaitable: Awaitable[T]) -> T | None:
        server.reply = httpx.Response(status, content=data[1:])
        return _answered(awaitable)

    answer = call(client.publish("s", "v=0", [LocalTrack(mid="0", name="video", kind="video")]))
    assert answer is None or (answer.startswith("v=0") and len(answer) <= MAX_SDP)
    pull = call(client.pull("v", [track]))
    if pull is not None:
        assert len(pull.tracks) == 1
        assert all(bool(pulled.mid) != bool(pulled.error) for pulled in pull.tracks)
        assert pull.offer is None or len(pull.offer) <= MAX_SDP
    call(client.update("v", [("0", track)]))
    call(client.get_session("s"))
    call(client.close("s", ["0"]))
    call(client.new_session("x", attempts=1))


# --- browsers and proxies ----------------------------------------------------------------------------------------

_PROXIES: Final = TrustedProxies(["192.0.2.1", "2001:db8::/32"])


def forwarded(data: bytes) -> None:
    """X-Forwarded-For, from whom it is believed; and Host and Origin."""
    fields = [piece.decode("latin-1") for piece in chunks(data)]
    assert _PROXIES.client("198.51.100.7", fields) == "198.51.100.7"
    client = _PROXIES.client("192.0.2.1", fields)
    assert ipaddress.ip_address(client)
    assert share_of(client)
    for field in fields:
        share_of(field)
        assert not same_origin("relay.example", field, "") or field.lower().endswith("//relay.example") or not field
        if Gatekeeper(None, ManualClock()).host_allowed(field):
            assert "127." in field or "localhost" in field.lower() or "::1" in field or "0:1" in field
        with contextlib.suppress(ConfigError):
            check_listen(field, Secret(TOKEN))


async def _served(scope: Scope, receive: Any, send: Any) -> None:
    pass


_HEADERS: Final = (b"host", b"origin", b"authorization", b"cookie", b"sec-fetch-site", b"x-forwarded-for")


def http_guard(data: bytes) -> None:
    """Path, query and headers of a request from elsewhere: it never becomes the operator's without the token."""
    path, query, *fields = [*chunks(data), b"", b""]
    clock = ManualClock()
    settings = ViewerSettings(access="links", link_secret=Secret("l1nk-s3cr3t-0f-the-relay"))
    guard = Guard(
        _served, Gatekeeper(Secret(TOKEN), clock), Links(settings, clock, LinkBook(clock)), settings, _PROXIES
    )
    headers = [pair for pair in zip(_HEADERS, fields, strict=False) if pair[1]]
    scope: Scope = {
        "type": "http",
        "method": "POST" if len(data) & 1 else "GET",
        "path": "/" + path.decode("utf-8", "replace"),
        "query_string": query,
        "headers": headers,
        "client": ("192.0.2.1", 5),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    with contextlib.suppress(StopIteration):
        guard(scope, receive, send).send(None)
    visitor = scope["state"].get("visitor")
    assert visitor is None or not visitor.operator or TOKEN.encode() in data
    assert all(message["type"].startswith("http.response.") for message in sent)
    assert all(message.get("status", 0) < 500 for message in sent)


def view_requests(data: bytes) -> None:
    """The bodies that pages post."""
    for kind in (ViewRequest, AnswerRequest, UpdateRequest, ReceivedRequest):
        try:
            body = msgspec.json.decode(data, type=kind)
        except UNDECODABLE:
            continue
        if isinstance(body, ReceivedRequest):
            decoding = Decoding()
            for number, received in enumerate(body.cameras):
                decoding.report("view", received, float(number))
                decoding.verdict(received.camera, float(number))


# --- text of every origin ----------------------------------------------------------------------------------------

_SECRET: Final = "S3cr3tV4lue0fNobody"
_SPOKEN: Final = (
    f"rtsps://stream.example/x?auth={_SECRET}",
    f"rtsp://user:{_SECRET}@camera.example/x",
    f"rtsp://{_SECRET}@camera.example/x",
    f"Authorization: Bearer {_SECRET}",
    f'"refresh_token": "{_SECRET}"',
    f"streamExtensionToken={_SECRET}",
    f"a=ice-pwd:{_SECRET}",
    f"ya29.{_SECRET}",
    f"1//{_SECRET}",
    f"g.0.{_SECRET}",
    f"GOCSPX-{_SECRET}",
)
_AMPLIFIED: Final = 64 << 10


def redaction(data: bytes) -> None:
    """A secret between any text is redacted, and long text takes no time (libFuzzer's limit)."""
    if not data:
        return
    spoken, text = _SPOKEN[data[0] % len(_SPOKEN)], data[1:].decode("utf-8", "replace")
    middle = len(text) // 2
    assert _SECRET not in redact(f"{text[:middle]} {spoken} {text[middle:]}")
    redact(text * (_AMPLIFIED // (len(text) or 1)))


# --- files of people, and the state database ---------------------------------------------------------------------


@cache
def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def config_toml(data: bytes) -> None:
    path = _directory() / "relay.toml"
    path.write_bytes(data)
    try:
        config = load(path, {})
    except ConfigError as error:
        assert TOKEN not in str(error)
        return
    assert config.nest
    assert TOKEN not in repr(config)


def config_environment(data: bytes) -> None:
    """Keys from the environment, over a file that has all that is needed."""
    path = _directory() / "whole.toml"
    path.write_text(WHOLE)
    pieces = [piece.decode("utf-8", "surrogateescape") for piece in chunks(data)]
    environment = {f"RELAY_{key.upper()}": value for key, value in zip(pieces[::2], pieces[1::2], strict=False)}
    try:
        load(path, environment)
    except ConfigError as error:
        assert TOKEN not in str(error)


WHOLE: Final = f"""[nest]
project_id = "p"
client_id = "c"
client_secret = "{TOKEN}"
refresh_token = "{TOKEN}"
[cloudflare]
app_id = "a"
app_secret = "{TOKEN}"
"""


@cache
def _store() -> Store:
    """A store in memory, without the thread that writes."""
    store = Store(_directory() / "relay.sqlite3", ManualClock(), boot="boot")
    sqlite_of(store)._connection = sqlite_of(store)._connect(":memory:")
    return store


_TABLES: Final = {
    "leases": 12,
    "calls": 11,
    "devices": 2,
    "publications": 3,
    "workers": 3,
    "sink_publications": 4,
    "abandoned_streams": 9,
    "local_ports": 2,
    "local_viewers": 2,
}
_OF_ACCOUNTS: Final = ("leases", "calls", "devices", "abandoned_streams")


def state_values(data: bytes) -> None:
    """Any value in any column: SQLite holds every column to no type, and other versions and people write the file."""
    values = [_value(piece) for piece in chunks(data)]
    store = _store()
    connection = sqlite_of(store)._connection
    for table, columns in _TABLES.items():
        row = [*values[:columns], *[None] * (columns - len(values))]
        connection.execute(f"DELETE FROM {table}")
        with contextlib.suppress(Exception):  # NOT NULL, and what SQLite cannot hold
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", row)
            if table in _OF_ACCOUNTS:
                connection.execute(f"UPDATE {table} SET account = 'a'")
    for lease in store.leases("a"):
        _check_lease(store, lease)
    assert all(call.sent <= 1000.0 for call in store.calls("a"))
    assert len(store.devices("a")) <= 200
    for publication in store.publications():
        assert isinstance(publication.publication, str)
    for worker in store.workers():
        assert isinstance(worker.ref, str)
    assert all(1000.0 < stop.deadline <= 1600.0 for stop in store.abandoned("a"))
    assert all(0 < port < 65536 for port in store.local_ports().values())
    assert all(isinstance(viewer.viewer, str) for viewer in store.local_viewers())
    for sql, parameters in sqlite_of(store)._pending.values():
        connection.execute(sql, parameters)
    sqlite_of(store)._pending.clear()


def _check_lease(store: Store, lease: SavedLease) -> None:
    assert isinstance(lease.camera, str)
    assert isinstance(lease.generation, int)
    assert 0 < lease.expires < float("inf")
    store.save_lease("a", lease)


def _value(piece: bytes) -> Any:
    kind, rest = piece[:1], piece[1:]
    match kind:
        case b"i":
            return int.from_bytes(rest[:8], "big", signed=True)
        case b"f":
            return struct.unpack(">d", rest[:8].ljust(8, b"\0"))[0]
        case b"t":
            return rest.decode("utf-8", "replace")
        case b"b":
            return rest
    return None


SUPERVISOR_TARGETS: Final[tuple[Target, ...]] = (
    google_listing,
    google_stream,
    google_refusal,
    sfu_reply,
    forwarded,
    http_guard,
    view_requests,
    redaction,
    config_toml,
    config_environment,
    state_values,
)
