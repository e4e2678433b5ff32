"""Bodies and exchanges that are bounded: in bytes, and in time during which this process ran."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest

from relay_common.bounded_http import BodyTooLarge, bounded_exchange, whole_body


class Answer(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """Answers with these parts, each `pause` seconds after the one before."""

    def __init__(self, parts: Iterable[bytes], pause: float = 0.0) -> None:
        self.parts, self.pause, self.read, self.closed = parts, pause, 0, False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await asyncio.sleep(self.pause)
            self.read += 1
            yield part

    async def aclose(self) -> None:
        self.closed = True


async def exchanged(answer: Answer, *, within: float = 30.0, most: int = 10) -> tuple[httpx.Response, bytes]:
    async with httpx.AsyncClient(transport=answer) as http:
        return await bounded_exchange(
            http, "POST", "http://x/", content=b"", headers=None, within=within, most=most
        )  # fmt: skip


async def test_the_status_and_the_whole_body() -> None:
    response, body = await exchanged(Answer([b"01234", b"", b"56789"]))
    assert (response.status_code, body) == (201, b"0123456789")


async def test_what_is_larger_is_given_up_and_not_read_on() -> None:
    answer = Answer([b"01234", b"567890", b"more"])
    with pytest.raises(httpx.DecodingError, match="the answer is larger than 10 bytes"):
        await exchanged(answer)
    assert (answer.read, answer.closed) == (2, True)
    with pytest.raises(BodyTooLarge, match="larger than 4 bytes"):
        await whole_body(aiter(Answer([b"01234"])), 4)


async def test_what_trickles_ends_in_time() -> None:
    answer = Answer(iter(lambda: b"", None), 0.02)
    with pytest.raises(httpx.ReadTimeout, match=r"no complete answer within 0\.3 s"):
        await asyncio.wait_for(exchanged(answer, within=0.3), 30.0)
    assert answer.closed


async def test_an_answer_that_came_while_the_process_stood_still_is_read() -> None:
    """It may have cost something: a session at the SFU that nobody would know of."""
    asyncio.get_running_loop().call_later(0.1, time.sleep, 2.5)
    _, body = await exchanged(Answer([b"it came"], 0.3), within=0.5)
    assert body == b"it came"
