"""The simulated SFU's statistics of what a viewer decodes, compared with the viewer's own."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.fixtures.media_rig import MediaRig, media_rig

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(120)]


async def told(rig: MediaRig) -> dict[str, Any]:
    """The SFU's statistics of the one viewer's video."""
    sessions = (await rig.sfu("sessions"))["sessions"]
    (video,) = [track for session in sessions for track in session["pulled"] if "framesDecoded" in track["stats"]]
    found: dict[str, Any] = video["stats"]
    return found


async def test_it_tells_what_the_browser_says(chromium_page: Page) -> None:
    async with media_rig() as rig:
        viewer = await rig.view(chromium_page)
        before, said_before = await viewer.numbers(), await told(rig)
        await viewer.decodes(90)
        after, said_after = await viewer.numbers(), await told(rig)
        for name in ("framesDecoded", "framesReceived"):
            theirs, ours = after[name] - before[name], said_after[name] - said_before[name]
            assert abs(theirs - ours) <= 15, (name, theirs, ours)
        assert abs(after["keyFramesDecoded"] - said_after["keyFramesDecoded"]) <= 1
        assert said_after["bytesReceived"] > 0
