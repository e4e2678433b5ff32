"""RTSP messages as the simulated camera reads and writes them."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from relay_common.simulation.camera.rtsp_wire import (
    BadRequest,
    Credentials,
    InterleavedFrame,
    Request,
    interleaved_channels,
    read_message,
    response,
)


def reader(data: bytes) -> asyncio.StreamReader:
    stream = asyncio.StreamReader(limit=16_384)
    stream.feed_data(data)
    stream.feed_eof()
    return stream


async def test_requests_and_interleaved_frames_alternate() -> None:
    stream = reader(
        b"\r\nOPTIONS rtsps://h/p?auth=g.0.x RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\x00\x03abc"
        b"GET_PARAMETER rtsps://h/p/ RTSP/1.0\r\nCSEQ:2\r\nContent-Length: 2\r\n\r\nhi$\x00\x00\x00"
    )
    first, frame, second, empty = [await read_message(stream) for _ in range(4)]
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.method, first.path, first.token, first.headers) == ("OPTIONS", "/p", "g.0.x", {"cseq": "1"})
    assert (second.method, second.path, second.headers["cseq"]) == ("GET_PARAMETER", "/p", "2")
    assert (frame, empty) == (InterleavedFrame(1, b"abc"), InterleavedFrame(0, b""))


async def test_long_urls_are_read_and_endless_ones_refused() -> None:
    url = "rtsps://h/sdm_live_stream/" + "x" * 8000
    request = await read_message(reader(f"DESCRIBE {url} RTSP/1.0\r\n\r\n".encode()))
    assert isinstance(request, Request)
    assert request.url == url
    with pytest.raises(asyncio.LimitOverrunError):
        await read_message(reader(b"x" * 20_000))


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\n\r\n", b"OPTIONS *\r\n\r\n", b"PLAY u RTSP/1.0\r\nnocolon\r\n\r\n"]
)
async def test_what_is_not_rtsp_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        await read_message(reader(head))


async def test_huge_bodies_are_refused() -> None:
    with pytest.raises(BadRequest):
        await read_message(reader(b"SET_PARAMETER u RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n"))


def test_a_response_counts_its_body() -> None:
    text = response(200, "7", {"Session": "1"}, "é").decode()
    assert text == "RTSP/1.0 200 OK\r\nCSeq: 7\r\nSession: 1\r\nContent-Length: 2\r\n\r\né"


@pytest.mark.parametrize(
    ("transport", "channels"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3", (2, 3)),
        ("RTP/AVP/TCP; interleaved=4", (4, 5)),
        ("RTP/AVP;unicast;client_port=1-2, RTP/AVP/TCP;interleaved=0-1", (0, 1)),
        ("RTP/AVP/TCP;unicast", (0, 1)),
        ("RTP/AVP;unicast;client_port=5000-5001", None),
    ],
)
def test_transport_offers(transport: str, channels: tuple[int, int] | None) -> None:
    assert interleaved_channels(transport) == channels


def test_digest_and_basic() -> None:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    digest = Credentials("user", "pass")
    answer = md5(f"{md5('user:camera:pass')}:{digest.nonce}:{md5('DESCRIBE:rtsp://h/p')}")
    header = f'Digest username="user", realm="camera", nonce="{digest.nonce}", uri="rtsp://h/p", response="{answer}"'
    assert digest.accept(Request("DESCRIBE", "rtsp://h/p", {"authorization": header}))
    assert not digest.accept(Request("SETUP", "rtsp://h/p", {"authorization": header}))
    assert not digest.accept(Request("DESCRIBE", "rtsp://h/p", {}))
    basic = Credentials("user", "pass", "basic")
    assert basic.accept(Request("DESCRIBE", "u", {"authorization": "Basic dXNlcjpwYXNz"}))
    assert not basic.accept(Request("DESCRIBE", "u", {"authorization": "Basic dXNlcjpwYXN0"}))
