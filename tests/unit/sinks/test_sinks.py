"""The sinks of a configuration: which cameras go where, which are kept awake, and what a reload moves."""

from __future__ import annotations

from typing import Any

from relay_common.clock import ManualClock
from relay_common.cloudflare import LocalTrack
from relay_common.config import WhipConfig
from relay_common.protocol import SinkTarget
from relay_supervisor.sinks.broker import Broker, Publication
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.sinks.whip import LONGEST_PAUSE, WhipSink


def table(name: str, **more: Any) -> WhipConfig:
    return WhipConfig(**{"name": name, "url": f"https://{name}.example/whip/{{name}}", **more})


def sinks(*tables: WhipConfig, sfu: bool = True) -> Sinks:
    clock = ManualClock()
    unused = Broker(WhipSink(table("unused"), clock), clock)
    made = Sinks(unused, SinkTarget() if sfu else None, clock)
    made.configure(tables)
    return made


async def test_each_camera_goes_where_its_tables_say() -> None:
    found = sinks(table("studio", cameras=["Porch"]), table("barn"))
    assert [target.name for target in found.targets("Porch", "enterprises/p/devices/a")] == ["", "studio", "barn"]
    assert [target.name for target in found.targets("Yard", "enterprises/p/devices/b")] == ["", "barn"]
    assert found.targets("Yard", "b")[1].longest_pause == LONGEST_PAUSE
    alone = sinks(table("barn"), sfu=False)
    assert [target.name for target in alone.targets("Yard", "b")] == ["barn"]
    assert alone.find("") is None
    assert not alone.at_sfu
    for one in (found, alone):
        await one.aclose()


async def test_a_camera_is_kept_awake_by_its_own_sinks_alone() -> None:
    found = sinks(table("studio", cameras=["Porch"], keeps_awake=True), table("barn"))
    assert found.keeps_awake("Porch", "a")
    assert not found.keeps_awake("Yard", "b")
    found.configure([table("barn")])
    assert not found.keeps_awake("Porch", "a")
    await found.aclose()


async def test_a_reload_moves_the_publications_of_the_tables_that_changed() -> None:
    found = sinks(table("studio"), table("barn"), table("gone"))
    for name in ("studio", "barn", "gone"):
        track = LocalTrack(mid="0", kind="video", name="v")
        made = Publication(
            id=name, camera="a", session="", tracks=[track], attempt=1, created_at=0.0, live=True, sink=name
        )
        found.restore([made])
    kept = found.find("barn")
    moved = found.configure([table("studio", url="https://elsewhere.example/whip"), table("barn"), table("new")])
    assert [publication.id for publication in moved] == ["studio"]
    assert found.find("barn") is kept
    assert found.find("gone") is None
    assert [sink.name for sink in found.whip()] == ["barn", "studio", "new"]
    await found.aclose()
