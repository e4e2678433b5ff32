"""Debian's Chromium through Playwright, for every browser test."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--mute-audio",
]


@pytest.fixture
async def chromium_page() -> AsyncIterator[Page]:
    """A blank page in a fresh headless Chromium; errors of the page fail the test.

    Skips when there is no chromium, unless RELAY_REQUIRE_BROWSER=1.
    """
    executable = shutil.which("chromium")
    if executable is None:
        message = "chromium is not installed (apt-get install chromium)"
        if os.environ.get("RELAY_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{message}, and RELAY_REQUIRE_BROWSER=1")
        pytest.skip(message)
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        page = await browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page
        finally:
            await browser.close()
    assert not errors, f"errors on the page: {errors}"
