"""The simulated SFU's statistics of what a viewer decodes, compared with the viewer's own."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Page

from tests.fixtures.media_rig import MediaRig, Viewer, media_rig

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(120)]


async def told(rig: MediaRig) -> dict[str, Any]:
    """The SFU's statistics of the one viewer's video."""
    sessions = (await rig.sfu("sessions"))["sessions"]
    (video,) = [track for session in sessions for track in session["pulled"] if "framesDecoded" in track["stats"]]
    found: dict[str, Any] = video["stats"]
    return found


class Both(NamedTuple):
    """One reading of both accounts. The SFU counts a frame when it forwards it, the browser when it decodes it."""

    theirs: dict[str, Any]
    """The browser's."""
    ours: dict[str, Any]
    """The SFU's, read just before the browser's."""
    later: dict[str, Any]
    """The SFU's again, read just after."""


async def both(rig: MediaRig, viewer: Viewer, within: float = 30.0) -> Both:
    """A reading during which the SFU forwarded three frames at most; on a busy machine one may take longer."""
    deadline = time.monotonic() + within
    while True:
        ours, theirs, later = await told(rig), await viewer.numbers(), await told(rig)
        if later["framesReceived"] - ours["framesReceived"] <= 3:
            return Both(theirs, ours, later)
        assert time.monotonic() < deadline, f"a reading takes too long: {ours}, {later}"


async def test_it_tells_what_the_browser_says(chromium_page: Page) -> None:
    async with media_rig() as rig:
        viewer = await rig.view(chromium_page)
        await viewer.decodes(30)
        before = await both(rig, viewer)
        await viewer.decodes(240)
        after = await both(rig, viewer)
        # On a busy machine a browser's jitter buffer may hold up to a second more at one reading than at the other, and
        # it leaves pictures out, of which the SFU cannot know.
        dropped = after.theirs["framesDropped"] - before.theirs["framesDropped"]
        for name, slack, less in (
            ("framesDecoded", 30, dropped),
            ("framesReceived", 30, 0),
            ("keyFramesDecoded", 1, 0),
        ):
            theirs = after.theirs[name] - before.theirs[name]
            least, most = after.ours[name] - before.later[name], after.later[name] - before.ours[name]
            assert least - slack - less <= theirs <= most + slack, (name, theirs, least, most, less)
        assert after.later["bytesReceived"] > 0
