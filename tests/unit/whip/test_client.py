"""The WHIP client over real sockets: redirects, slow, endless and unreachable servers."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay_common.clock import SystemClock
from relay_common.secrets import Secret
from relay_common.simulation.camera.certs import make_server_context
from relay_common.whip import WhipClient, WhipError, WhipSession, client, parse_endpoint
from relay_common.whip.exchange import MAX_BODY, WhipPatch
from tests.fixtures.scripted_http import SDP, ScriptedServer, reply


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


class Client:
    """A client of one endpoint."""

    def __init__(self, port: int, ca_file: str = "", scheme: str = "http") -> None:
        self._at = parse_endpoint(f"{scheme}://127.0.0.1:{port}/whip", Secret("tok-3n-0123456789"))
        self._client = WhipClient(clock=SystemClock(), ca_file=ca_file)
        self.aclose = self._client.aclose

    async def publish(self, offer: str) -> WhipSession:
        return await self._client.publish(self._at, offer)

    async def restart(self, resource: str) -> WhipPatch:
        return await self._client.restart(self._at, resource, "a=ice-ufrag:new")

    async def trickle(self, resource: str, etag: str) -> None:
        await self._client.trickle(self._at, resource, "a=candidate:1", etag)

    async def end(self, resource: str) -> None:
        await self._client.end(self._at, resource)


async def test_a_session_is_made_and_ended_by_way_of_a_redirect(server: ScriptedServer) -> None:
    def answer(line: str, headers: dict[str, str], body: bytes) -> bytes:
        if line.startswith("POST /whip "):
            return reply("307 Temporary Redirect", b"", "Location: /other/whip")
        if line.startswith("POST"):
            return reply("201 Created", SDP, "Location: s/1", 'Link: <stun:a.example>; rel="ice-server"')
        return reply("200 OK")

    server.answer = answer
    whip = Client(server.port)
    session = await whip.publish("v=0 offer")
    assert session.answer == SDP.decode()
    assert session.resource == f"http://127.0.0.1:{server.port}/other/s/1"
    assert [found.url for found in session.ice_servers] == ["stun:a.example"]
    await whip.end(session.resource)
    await whip.aclose()
    assert [line for line, _, _ in server.requests] == ["POST /whip", "POST /other/whip", "DELETE /other/s/1"]
    assert {headers["authorization"] for _, headers, _ in server.requests} == {"Bearer tok-3n-0123456789"}
    assert [body for _, _, body in server.requests] == [b"v=0 offer", b"v=0 offer", b""]


async def test_ice_is_restarted_in_a_session(server: ScriptedServer) -> None:
    whip, resource = Client(server.port), f"http://127.0.0.1:{server.port}/s/1"
    server.answer = lambda line, headers, body: reply(
        *(("200 OK", b"a=ice-ufrag:x", 'ETag: "2"') if headers.get("if-match") == "*" else ("204 No Content",))
    )
    assert await whip.restart(resource) == WhipPatch("a=ice-ufrag:x", '"2"')
    await whip.trickle(resource, '"2"')
    await whip.trickle(resource, "")
    await whip.aclose()
    assert [line for line, _, _ in server.requests] == ["PATCH /s/1"] * 3
    assert [headers.get("if-match") for _, headers, _ in server.requests] == ["*", '"2"', None]
    assert {headers["content-type"] for _, headers, _ in server.requests} == {"application/trickle-ice-sdpfrag"}


async def test_a_session_that_is_gone_counts_as_ended(server: ScriptedServer) -> None:
    whip = Client(server.port)
    for status in ("404 Not Found", "410 Gone"):
        server.answer = lambda *_, status=status: reply(status)
        await whip.end(f"http://127.0.0.1:{server.port}/s/1")
    server.answer = lambda *_: reply("503 Busy", b"", "Retry-After: 3")
    with pytest.raises(WhipError) as caught:
        await whip.end(f"http://127.0.0.1:{server.port}/s/1")
    assert (caught.value.status, caught.value.retry_after) == (503, 3.0)
    await whip.aclose()


def hang_up(*_: object) -> bytes:
    raise ConnectionResetError


async def test_a_server_that_says_nothing_or_too_much(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    whip = Client(server.port)
    server.answer = lambda *_: None
    with monkeypatch.context() as patched:
        patched.setattr(client, "CALL_WITHIN", 0.3)
        with pytest.raises(WhipError, match=r"no complete answer to POST within 0\.3 s"):
            await whip.publish("v=0")
    server.answer = lambda *_: reply("201 Created", b"v=0" + b"x" * MAX_BODY)
    with pytest.raises(WhipError, match="larger than"):
        await whip.publish("v=0")
    server.answer = hang_up
    with pytest.raises(WhipError, match=r"closed the connection before its answer was complete \(POST\)"):
        await whip.publish("v=0")
    await whip.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        "SSH-2.0-{}\r\n\r\n",
        "HTTP/1.1 201 Created\r\n{}\r\n\r\n",
        "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n",
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
    ],
)
async def test_what_is_not_http_is_not_quoted(server: ScriptedServer, answer: str) -> None:
    """It may repeat the token, with which anybody who reads the log could publish."""
    whip = Client(server.port)
    server.answer = lambda *_: answer.format("tok-3n-0123456789").encode()
    with pytest.raises(WhipError, match=r"answered with something that is not HTTP \(POST\)") as caught:
        await whip.publish("v=0")
    assert "tok-3n" not in "".join(traceback.format_exception(caught.value))
    await whip.aclose()


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    whip = Client(unused_tcp_port)
    with pytest.raises(WhipError, match="could not be reached for POST: the connection was refused") as caught:
        await whip.publish("v=0")
    assert caught.value.status == 0
    await whip.aclose()


async def test_a_certificate_of_a_private_authority_is_taken_where_it_is_named(tmp_path: Path) -> None:
    tls, authorities = make_server_context(tmp_path)
    async with ScriptedServer(tls) as server:
        server.answer = lambda *_: reply("201 Created", SDP, "Location: /s/1")
        stranger, known = Client(server.port, scheme="https"), Client(server.port, str(authorities), "https")
        with pytest.raises(WhipError, match="could not be reached for POST"):
            await stranger.publish("v=0")
        assert server.requests == []
        assert (await known.publish("v=0")).resource == f"https://127.0.0.1:{server.port}/s/1"
        server.answer = lambda *_: reply(
            "307 Temporary Redirect", b"", f"Location: http://127.0.0.1:{server.port}/whip"
        )
        with pytest.raises(WhipError, match="leads from https to http"):
            await known.publish("v=0")
        for client_ in (stranger, known):
            await client_.aclose()


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Client(1, ca_file=str(tmp_path / "none.pem"))
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ssl.SSLError):
        Client(1, ca_file=str(tmp_path / "empty.pem"))
