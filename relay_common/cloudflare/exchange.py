"""One request to Cloudflare's Realtime API and its bounded response."""

from __future__ import annotations

from typing import Final

import httpx

from relay_common.bounded_http import bounded_exchange

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
    response, body = await bounded_exchange(
        http, method, path, content=content, headers=headers, within=within, most=MAX_BODY
    )
    retry_after = response.headers.get("retry-after", "")
    return response.status_code, float(retry_after) if retry_after.isdecimal() else 0.0, body
