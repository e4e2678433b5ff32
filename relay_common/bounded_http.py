"""Bodies of HTTP messages, bounded in size; and exchanges, bounded in time as well, however slowly they trickle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx

from relay_common.deadline import Deadline


class BodyTooLarge(Exception):
    """A body has more than `most` bytes; what came is discarded."""

    def __init__(self, most: int) -> None:
        super().__init__(f"larger than {most} bytes")
        self.most = most


async def whole_body(parts: AsyncIterator[bytes], most: int) -> bytes:
    """All parts in one; raises BodyTooLarge when they are more than `most` bytes together, without reading on."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > most:
            raise BodyTooLarge(most)
    return bytes(body)


async def bounded_exchange(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    content: bytes | None,
    headers: Mapping[str, str] | None,
    within: float,
    most: int,
) -> tuple[httpx.Response, bytes]:
    """Send a request; the response, and its body of at most `most` bytes.

    Raises httpx.HTTPError, also when the complete response takes longer than `within` seconds (httpx itself limits the
    time between two bytes), or is too large.
    """
    try:
        async with Deadline(within), http.stream(method, url, content=content, headers=headers) as response:
            return response, await whole_body(response.aiter_bytes(), most)
    except BodyTooLarge as error:
        raise httpx.DecodingError(f"the answer is {error}") from None
    except TimeoutError:
        raise httpx.ReadTimeout(f"no complete answer within {within:g} s") from None
