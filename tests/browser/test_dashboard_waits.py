"""A camera whose Pod does not start: its tile and its large view say so, why, in the engine's words, and what to do."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from relay_common.causes import Cause
from relay_common.engine_waits import WAITS, EngineWait, wait_of
from relay_supervisor.status.model import WorkerStatus
from relay_supervisor.status.verdict import verdict
from tests.fixtures.dashboard import picture, served, until

pytestmark = pytest.mark.browser

NO_ROOM = "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu."
NO_IMAGE = 'ImagePullBackOff: Back-off pulling image "registry.example/nest-relay:0.1.0"'


@pytest.mark.parametrize(
    ("reason", "where", "said"),
    [
        (NO_ROOM, "", "waits: insufficient cpu"),
        (NO_IMAGE, "node-2", f"waits: {wait_of(NO_IMAGE).value.replace('_', ' ')}, on node-2"),
    ],
    ids=["no room", "no image"],
)
async def test_a_pod_that_does_not_start(chromium_page: Page, reason: str, where: str, said: str) -> None:
    page, wait = chromium_page, wait_of(reason)
    assert wait is not EngineWait.OTHER
    async with served(2) as dashboard:
        camera = dashboard.relay.cameras[0]
        camera.state, camera.viewable, camera.webrtc, camera.source = "connecting", False, "", ""
        camera.reason, camera.stage = f"its worker waits: {reason}", "relay"
        camera.worker = WorkerStatus(
            state="starting", where=where, phase="waiting", waits=wait.value, phase_reason=reason
        )
        camera.verdict = verdict(
            Cause.WORKER_WAITS,
            reason,
            state="connecting",
            wall=dashboard.clock.wall(),
            subject=camera.name,
            camera=camera.id,
            advice=WAITS[wait].advice,
        )
        await page.goto(dashboard.server.url)
        tile = f'[data-camera="{camera.id}"]'
        await until(page, f"document.querySelector('{tile} .why')?.innerText.includes({reason!r})")
        advice = WAITS[wait].advice.replace("`", "")
        assert advice in " ".join((await page.inner_text(f"{tile} .why")).split())
        await page.locator(f"{tile} .open").click()
        await page.wait_for_selector("#large[open]")
        await until(page, f"document.getElementById('large').innerText.includes({said!r})")
        assert reason in await page.inner_text("#large-why")
        assert advice in " ".join((await page.inner_text("#large-advice")).split())
        await picture(page, f"pod-{wait.value}")
        # Once it runs, it says where.
        camera.worker = WorkerStatus(state="running", where="node-1", phase="running", uptime=12.0)
        await until(page, "document.getElementById('large').innerText.includes(', on node-1')")
        assert "waits: " not in await page.inner_text("#large")
