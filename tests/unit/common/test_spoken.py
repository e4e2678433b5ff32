"""Causes of failed connections in words: real failures of sockets and httpx, as they are raised."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import httpx
import pytest

from relay_common.spoken import spoken


async def test_a_refused_connection_however_it_was_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for attempt in (
        asyncio.open_connection("127.0.0.1", port),
        httpx.AsyncClient(trust_env=False).get(f"http://127.0.0.1:{port}/"),
        asyncio.to_thread(httpx.Client(trust_env=False).get, f"http://127.0.0.1:{port}/"),
    ):
        with pytest.raises((OSError, httpx.HTTPError)) as caught:
            await attempt
        assert spoken(caught.value) == "the connection was refused: nothing listens there"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the name is not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the name cannot be resolved now"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "there is no route to it: this machine is offline"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "the connection was reset"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), "TLS failed"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "Name or service not known"),
        (httpx.ReadError(""), "ReadError"),
        (ExceptionGroup("all failed", [ConnectionRefusedError(errno.ECONNREFUSED, "x")]), "the connection was refused"),
        (httpx.ConnectError("refused: refresh_token=1//abcdefghijklmnop"), "refused: "),
    ],
)
def test_errors_have_no_numbers_and_no_secrets(error: Exception, words: str) -> None:
    said = spoken(error)
    assert said.startswith(words)
    assert "Errno" not in said
    assert "abcdefghijklmnop" not in said
    assert len(spoken(OSError(words * 100))) <= 200
