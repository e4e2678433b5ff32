"""Token refresh by google-auth against the simulator's token endpoint over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine

import httpx
import pytest
from starlette.responses import Response

from relay_common.clock import ManualClock
from relay_common.errors import Remedy
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_common.simulation.google.api import NestApi as SimulatedApi
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.devices import Device
from relay_common.simulation.google.errors import Reply
from relay_common.simulation.google.oauth import Client, OAuth
from relay_supervisor.google.api import NestApi
from relay_supervisor.google.errors import AuthorizationRevoked, ClientRefused, TokenUnavailable
from relay_supervisor.google.oauth import TokenSource, authorize_url
from tests.fixtures.conversations import Conversations


class Google:
    """The simulator, served, with a clock for the client."""

    def __init__(self) -> None:
        self.oauth = OAuth(Client("id.apps", "GOCSPX-secret", "1//refresh-token-long"))
        self.backend = NestBackend("proj", self.oauth)
        self.server = SimulatedApi(self.backend)
        self.clock = ManualClock()

    def tokens(self, *, secret: str = "GOCSPX-secret", refresh: str = "1//refresh-token-long") -> TokenSource:
        return TokenSource(
            project_id="proj",
            client_id="id.apps",
            client_secret=Secret(secret),
            refresh_token=Secret(refresh),
            token_url=f"{self.server.url}/token",
            clock=self.clock,
        )


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    subject = Google()
    await subject.server.start()
    yield subject
    await subject.server.stop()


Answer = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def mocked(clock: ManualClock, answer: Answer, timeout: float = 5.0) -> TokenSource:
    return TokenSource(
        project_id="p",
        client_id="c",
        client_secret=Secret("s"),
        refresh_token=Secret("r"),
        token_url="http://token.test",
        clock=clock,
        timeout=timeout,
        transport=httpx.MockTransport(answer),
    )


async def settled(tokens: TokenSource) -> None:
    """Wait for a refresh in the background."""
    for _ in range(1000):
        if tokens._refreshing is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the refresh never ended")


async def test_callers_share_one_refresh_and_the_loop_runs_on(google: Google) -> None:
    tokens = google.tokens()
    found = await asyncio.gather(*(tokens.token() for _ in range(20)))
    assert len(set(found)) == 1
    assert google.oauth.refreshes == tokens.refreshes == 1
    assert await tokens.token() == found[0]
    await tokens.aclose()


async def test_it_refreshes_ahead_and_in_the_background(google: Google) -> None:
    tokens = google.tokens()
    first = await tokens.token()
    await google.clock.advance(3599 - 700)
    assert await tokens.token() == first
    await google.clock.advance(200)
    assert await tokens.token() == first, "good for minutes yet: nobody waits"
    await settled(tokens)
    assert await tokens.token() != first
    await tokens.aclose()


async def test_a_token_endpoint_down_for_minutes_goes_unnoticed_until_the_token_has_ended(google: Google) -> None:
    tokens = google.tokens()
    tokens._http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(400, json={"error": "x"})))
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    down, tokens._http = tokens._http, httpx.AsyncClient(timeout=5.0)
    await google.clock.advance(60)
    first = await tokens.token()
    tokens._http = down
    await google.clock.advance(3599 - 500)
    assert await tokens.token() == first
    await settled(tokens)
    assert isinstance(tokens.error, TokenUnavailable)
    assert await tokens.token() == first
    await google.clock.advance(480)
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert caught.value.remedy is Remedy.RETRY
    assert caught.value.account
    assert not caught.value.counted
    tokens._http = httpx.AsyncClient(timeout=5.0)
    await google.clock.advance(60)
    assert await tokens.token() != first
    await tokens.aclose()


async def test_a_failing_endpoint_is_not_asked_again_at_once() -> None:
    asked = 0

    def refuse(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(400, text="<html>no</html>")

    clock = ManualClock()
    tokens = TokenSource(
        project_id="p",
        client_id="c",
        client_secret=Secret("s"),
        refresh_token=Secret("r"),
        token_url="http://token.test",
        clock=clock,
        transport=httpx.MockTransport(refuse),
    )
    for _ in range(5):
        with pytest.raises(TokenUnavailable):
            await tokens.token()
    assert asked == 1
    await tokens.aclose()


async def test_an_unreachable_endpoint_is_a_typed_error() -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused: refresh_token=1//abcdefghijklmnop")

    tokens = TokenSource(
        project_id="p",
        client_id="c",
        client_secret=Secret("s"),
        refresh_token=Secret("r"),
        token_url="http://token.test",
        clock=ManualClock(),
        transport=httpx.MockTransport(unreachable),
    )
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.token()
    assert "abcdefgh" not in str(caught.value)
    await tokens.aclose()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>secret-in-the-body</html>", "TypeError"),
        (502, b"\xff\xfe secret-in-the-body", "UnicodeDecodeError"),
        (400, b'["secret-in-the-body"]', "AttributeError"),
        (200, b'{"access_token": "t", "expires_in": "secret-in-the-body"}', "ValueError"),
    ],
)
async def test_after_an_answer_that_nobody_foresaw_the_endpoint_is_asked_again(
    google: Google, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, kind: str
) -> None:
    async def odd(reply: Reply) -> Response:
        return Response(body, status)

    tokens = google.tokens()
    with monkeypatch.context() as spoilt:
        spoilt.setattr(google.server, "_send", odd)
        with pytest.raises(TokenUnavailable, match=kind) as caught:
            await tokens.token()
    assert "secret-in-the-body" not in str(caught.value)
    await google.clock.advance(60)
    assert (await tokens.token()).reveal().startswith("ya29.")
    assert tokens.error is None
    await tokens.aclose()


async def test_without_a_thread_to_ask_from_it_asks_later(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = google.tokens()
    with monkeypatch.context() as crowded:

        def no_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        crowded.setattr(asyncio, "to_thread", no_thread)
        with pytest.raises(TokenUnavailable, match="RuntimeError"):
            await tokens.token()
    await google.clock.advance(60)
    assert (await tokens.token()).reveal().startswith("ya29.")
    await tokens.aclose()


async def test_a_revoked_grant_says_how_to_authorise_and_is_tried_again_slowly(google: Google) -> None:
    google.oauth.revoked = True
    tokens = google.tokens()
    with pytest.raises(AuthorizationRevoked) as caught:
        await tokens.token()
    text = str(caught.value)
    assert "https://nestservices.google.com/partnerconnections/proj/auth?" in text
    assert "client_id=id.apps" in text
    assert "every 7 days" in text
    assert "refresh-token-long" not in text
    assert "GOCSPX" not in text
    assert caught.value.remedy is Remedy.FATAL
    google.oauth.revoked = False
    await google.clock.advance(25)
    with pytest.raises(AuthorizationRevoked):
        await tokens.token()
    await google.clock.advance(36)
    assert (await tokens.token()).reveal().startswith("ya29.")
    assert tokens.error is None
    await tokens.aclose()


@pytest.mark.slow
async def test_the_pauses_after_refusals_widen_to_an_hour() -> None:
    asked = list[float]()
    clock = ManualClock(now=0.0)

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(clock.now())
        return httpx.Response(400, json={"error": "invalid_grant"})

    tokens = mocked(clock, refuse)
    for _ in range(8 * 360):
        with pytest.raises(AuthorizationRevoked):
            await tokens.token()
        await clock.advance(10.0)
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert 30 <= pauses[0] <= 70
    assert 1790 <= pauses[-1] <= 3610
    assert len(asked) < 24
    await tokens.aclose()


async def test_the_same_refresh_token_once_more_is_tried_at_once(google: Google) -> None:
    google.oauth.revoked = True
    tokens = google.tokens()
    with pytest.raises(AuthorizationRevoked):
        await tokens.token()
    google.oauth.revoked = False
    tokens.replace_refresh_token(Secret("1//refresh-token-long"))
    assert (await tokens.token()).reveal().startswith("ya29.")
    await tokens.aclose()


async def test_who_waits_for_a_refresh_while_the_refresh_token_is_replaced_gets_a_token(google: Google) -> None:
    tokens = google.tokens()
    asking = asyncio.create_task(tokens.token())
    await asyncio.sleep(0)
    tokens.replace_refresh_token(Secret("1//refresh-token-long"))
    assert (await asking).reveal().startswith("ya29."), "not an empty one"
    await tokens.aclose()


@pytest.mark.parametrize(("part", "pause"), [(1000, 0.0), (1, 0.02)], ids=["never ends", "trickles"])
async def test_an_answer_that_trickles_or_never_ends_is_given_up(part: int, pause: float) -> None:
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            end = time.monotonic() + 60.0
            while time.monotonic() < end:
                await asyncio.sleep(pause)
                yield b" " * part

    # What never ends has to be too large before it is too late, on a busy machine, too.
    timeout = 0.5 if pause else 30.0
    tokens = mocked(ManualClock(), lambda request: httpx.Response(200, stream=Trickle()), timeout)
    words = "larger than 65536 bytes" if part > 1 else "no complete answer within"
    with pytest.raises(TokenUnavailable, match=words):
        await asyncio.wait_for(tokens.token(), 40.0)
    await tokens.aclose()


async def test_a_header_that_trickles_is_given_up() -> None:
    """httpx limits the time between two bytes: a refresh went on for hours, and no other one began meanwhile."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X-Filler: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    conversations = Conversations(answer)
    server = await asyncio.start_server(conversations, "127.0.0.1", 0)
    tokens = mocked(ManualClock(), lambda request: httpx.Response(500), timeout=0.5)
    tokens._token_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    tokens._http = httpx.AsyncClient(timeout=0.5)
    with pytest.raises(TokenUnavailable, match="no complete answer within"):
        await asyncio.wait_for(tokens.token(), 40.0)
    await tokens.aclose()
    server.close()
    await conversations.end()


async def test_a_new_refresh_token_needs_no_restart(google: Google) -> None:
    tokens = google.tokens(refresh="1//an-old-refresh-token")
    with pytest.raises(AuthorizationRevoked):
        await tokens.token()
    tokens.replace_refresh_token(Secret("1//refresh-token-long"))
    assert tokens.error is None
    assert (await tokens.token()).reveal().startswith("ya29.")
    await tokens.aclose()


async def test_the_result_of_a_refresh_with_the_old_token_is_dropped() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        old = b"the-new-one" not in request.content
        if old:
            asked.set()
            await go_on.wait()
        return httpx.Response(200, json={"access_token": f"ya29.{'old' if old else 'new'}", "expires_in": 3600})

    tokens = mocked(ManualClock(), answer)
    asking = asyncio.create_task(tokens.token())
    async with asyncio.timeout(30.0):
        await asked.wait()
        tokens.replace_refresh_token(Secret("the-new-one"))
        assert (await tokens.token()).reveal() == "ya29.new", "it does not wait for the old one"
        go_on.set()
        assert (await asking).reveal() == "ya29.new"
        assert (await tokens.token()).reveal() == "ya29.new"
    assert tokens.error is None
    await tokens.aclose()


async def test_a_wrong_client_is_told_apart(google: Google) -> None:
    tokens = google.tokens(secret="GOCSPX-wrong")
    with pytest.raises(ClientRefused, match=r"nest\.client_secret"):
        await tokens.token()
    await tokens.aclose()


def test_the_authorisation_page() -> None:
    assert authorize_url("p/1", "c") == (
        "https://nestservices.google.com/partnerconnections/p%2F1/auth?redirect_uri=https%3A%2F%2Fwww.google.com"
        "&access_type=offline&prompt=consent&client_id=c&response_type=code"
        "&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fsdm.service"
    )


async def test_the_whole_client_against_the_simulator(google: Google) -> None:
    google.backend.add(Device("dev1", "Front door", lease=120.0))
    for n in range(3):
        google.backend.add(Device(f"more{n}", f"Camera {n}"))
    google.backend.page_size = 2
    tokens = google.tokens()
    async with httpx.AsyncClient() as http:
        api = NestApi("proj", tokens, f"{google.server.url}/v1", http)
        assert [device.display_name for device in await api.devices()] == [
            "Front door",
            "Camera 0",
            "Camera 1",
            "Camera 2",
        ]
        stream = await api.generate("dev1", Protocol.RTSP)
        assert 115.0 < stream.expires_in <= 120.0
        google.oauth.expire_all()
        assert (await api.device("dev1")).protocol is Protocol.RTSP
        after = stream.extended(await api.extend("dev1", Protocol.RTSP, stream.handle))
        assert after.handle != stream.handle
        assert after.url is not None
        assert stream.url is not None
        assert after.url.reveal().split("?")[0] == stream.url.reveal().split("?")[0]
        assert after.url != stream.url
        await api.stop("dev1", Protocol.RTSP, after.handle)
    await tokens.aclose()
