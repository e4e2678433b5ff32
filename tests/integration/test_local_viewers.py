"""Viewers that a worker answers itself: stock peers, a hostile path, and one viewer beside another."""

from __future__ import annotations

import aioice.ice
import pytest

from tests.fixtures.local_rig import StockViewer, local_rig, until

pytestmark = pytest.mark.media


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


async def test_a_stock_peer_decodes_and_leaves() -> None:
    async with local_rig() as rig:
        viewer = StockViewer(rig)
        await viewer.watch()
        await until(lambda: len(viewer.frames) > 60, "two seconds of pictures")
        await until(lambda: rig.local.stats(0.0).viewers[0].rtt > 0, "a receiver report")
        await viewer.close()
        await until(lambda: rig.ended() == {viewer.name: "the viewer has left"}, "its end is noticed")
        print(rig.local.counters(), rig.local.stats(0.0))
