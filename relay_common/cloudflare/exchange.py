"""One request to Cloudflare's Realtime API and its bounded response."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

BASE_URL: Final = "https://rtc.live.cloudflare.com/v1"
MAX_BODY: Final = 1 << 20
"""Largest response body read, in bytes."""


async def exchange(
    http: httpx.AsyncClient, method: str, path: str, content: bytes | None, *, within: float
) -> tuple[int, float, bytes]:
    """Send JSON (None: no body) and return status, Retry-After in seconds (0: none) and body.

    Raises httpx.HTTPError, also when the complete response takes longer than `within` seconds, however slowly it
    trickles in, or is too large.
    """
    headers = {"Content-Type": "application/json"} if content is not None else {}
    received = bytearray()
    try:
        async with (
            asyncio.timeout(within),
            http.stream(method, path, content=content, headers=headers) as response,
        ):
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > MAX_BODY:
                    raise httpx.DecodingError(f"the answer is larger than {MAX_BODY} bytes")
    except TimeoutError:
        raise httpx.ReadTimeout(f"no complete answer within {within:g} s") from None
    retry_after = response.headers.get("retry-after", "")
    return response.status_code, float(retry_after) if retry_after.isdecimal() else 0.0, bytes(received)
