"""The WHIP client over real sockets: redirects, slow, endless and unreachable servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay_common.clock import SystemClock
from relay_common.secrets import Secret
from relay_common.whip import WhipClient, WhipError, WhipSession, client, parse_endpoint
from relay_common.whip.exchange import MAX_BODY

Script = Callable[[str, dict[str, str], bytes], bytes | None]
"""What to answer to a request line, its headers and its body; None: nothing, ever."""
SDP = b"v=0\r\nanswer\r\n"


class Server:
    """A scripted HTTP/1.1 server; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Script = lambda line, headers, body: reply("201 Created", SDP, "Location: /s/1")
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode().strip():
                headers = {}
                while field := (await reader.readline()).decode().strip():
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((line.removesuffix(" HTTP/1.1"), headers, body))
                if (answer := self.answer(line, headers, body)) is None:
                    await asyncio.Event().wait()
                else:
                    writer.write(answer)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/sdp", *headers]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


class Client:
    """A client of one endpoint."""

    def __init__(self, port: int, ca_file: str = "") -> None:
        self._at = parse_endpoint(f"http://127.0.0.1:{port}/whip", Secret("tok-3n-0123456789"))
        self._client = WhipClient(clock=SystemClock(), ca_file=ca_file)
        self.aclose = self._client.aclose

    async def publish(self, offer: str) -> WhipSession:
        return await self._client.publish(self._at, offer)

    async def end(self, resource: str) -> None:
        await self._client.end(self._at, resource)


async def test_a_session_is_made_and_ended_by_way_of_a_redirect(server: Server) -> None:
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


async def test_a_session_that_is_gone_counts_as_ended(server: Server) -> None:
    whip = Client(server.port)
    for status in ("404 Not Found", "410 Gone"):
        server.answer = lambda *_, status=status: reply(status)
        await whip.end(f"http://127.0.0.1:{server.port}/s/1")
    server.answer = lambda *_: reply("503 Busy", b"", "Retry-After: 3")
    with pytest.raises(WhipError) as caught:
        await whip.end(f"http://127.0.0.1:{server.port}/s/1")
    assert (caught.value.status, caught.value.retry_after) == (503, 3.0)
    await whip.aclose()


async def test_a_server_that_says_nothing_or_too_much(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    whip = Client(server.port)
    server.answer = lambda *_: None
    with monkeypatch.context() as patched:
        patched.setattr(client, "CALL_WITHIN", 0.3)
        with pytest.raises(WhipError, match=r"no complete answer to POST within 0\.3 s"):
            await whip.publish("v=0")
    server.answer = lambda *_: reply("201 Created", b"v=0" + b"x" * MAX_BODY)
    with pytest.raises(WhipError, match="larger than"):
        await whip.publish("v=0")
    server.answer = lambda *_: b"SSH-2.0-OpenSSH\r\n\r\n"
    with pytest.raises(WhipError, match="could not be reached for POST"):
        await whip.publish("v=0")
    await whip.aclose()


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    whip = Client(unused_tcp_port)
    with pytest.raises(WhipError, match="could not be reached for POST: the connection was refused") as caught:
        await whip.publish("v=0")
    assert caught.value.status == 0
    await whip.aclose()


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Client(1, ca_file=str(tmp_path / "none.pem"))
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ssl.SSLError):
        Client(1, ca_file=str(tmp_path / "empty.pem"))
