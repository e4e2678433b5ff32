"""A page in Debian's Chromium, for every browser test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page

from tests.fixtures.chromium import chromium


@pytest.fixture
async def chromium_page() -> AsyncIterator[Page]:
    """A blank page in a fresh headless Chromium; errors of the page fail the test."""
    errors: list[str] = []
    async with chromium() as browser:
        page = await browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert not errors, f"errors on the page: {errors}"
