"""What a supervisor serves by itself that stands by: who commands, its health, and nothing else."""

from __future__ import annotations

from pathlib import Path

import click
import httpx
import msgspec
import pytest

from relay_common.clock import SystemClock
from relay_common.config import HttpConfig
from relay_common.secrets import Secret
from relay_supervisor.commands.status import render
from relay_supervisor.http.passing import Commander, PassOn
from relay_supervisor.http.standby import StandbyInterface
from relay_supervisor.status.model import RelayStatus, SeatStatus, Totals
from tests.fixtures.offline import offline_config
from tests.fixtures.ports import free_ports

TOKEN = "a token for the dashboard"


async def test_where_it_can_pass_nothing_on_it_says_who_commands_and_refuses_the_rest(tmp_path: Path) -> None:
    seat = SeatStatus(replica="b", state="standing by", commands=False, holder="a")
    config = offline_config(tmp_path)
    ports = free_ports(2)
    http = HttpConfig(listen=f"127.0.0.1:{ports[0]}", token=Secret(TOKEN), probe_listen=f"127.0.0.1:{ports[1]}")
    config.paths.runtime().mkdir(exist_ok=True)
    clock = SystemClock()
    passing = PassOn("b", lambda: Commander(seat.holder, "", clock.now()), lambda: None, clock)
    interface = StandbyInterface(msgspec.structs.replace(config, http=http), clock, lambda: seat, passing)
    await interface.start()
    token = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", trust_env=False) as client:
            assert (await client.get("/api/stats")).status_code == 401
            found = msgspec.json.decode((await client.get("/api/stats", headers=token)).content, type=RelayStatus)
            assert (found.seat, found.cameras) == (seat, [])
            assert "\nrelay_in_command 0.0\n" in (await client.get("/metrics", headers=token)).text
            refused = await client.post("/api/cameras/x/restart", headers=token)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "standing_by")
            assert refused.json()["error"]["message"].startswith(
                "This supervisor, b, stands by: a commands the cameras"
            )
            assert (await client.get("/livez")).status_code == 200
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", trust_env=False) as client:
            assert (await client.get("/readyz")).status_code == 200, "it could take over"
            seat = SeatStatus(replica="b", state="standing by", commands=False, problem="it does not answer")
            assert (await client.get("/readyz")).status_code == 503
        transport = httpx.AsyncHTTPTransport(uds=str(config.paths.socket()))
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as client:
            assert (await client.get("/api/stats")).status_code == 200
            assert "nobody has been known" in (await client.get("/")).text
    finally:
        await interface.stop()
    assert not config.paths.socket().exists()


@pytest.mark.parametrize(
    ("seat", "words"),
    [
        (SeatStatus(), []),
        (
            SeatStatus(replica="a", state="in command", holder="a", others=["b"]),
            ["this supervisor, a, is in command; b stands by"],
        ),
        (
            SeatStatus(replica="a", state="in command", holder="a"),
            ["this supervisor, a, is in command; nobody stands by for it"],
        ),
        (
            SeatStatus(replica="b", state="standing by", commands=False, holder="a", problem="it is away"),
            ["this supervisor, b, stands by: a commands (it is away)"],
        ),
    ],
)
def test_status_says_which_one_commands(seat: SeatStatus, words: list[str]) -> None:
    status = RelayStatus(version="1", at=0.0, uptime=5.0, totals=Totals(), budgets=[], cameras=[], seat=seat)
    lines = click.unstyle(render(status)).splitlines()
    assert lines[1 : 1 + len(words)] == words
    assert ("CAMERA" in lines[-1]) == seat.commands


def test_status_says_whether_another_one_was_asked() -> None:
    seat = SeatStatus(replica="a", state="in command", holder="a", others=["b"])
    status = RelayStatus(version="1", at=0.0, uptime=5.0, totals=Totals(), budgets=[], cameras=[], seat=seat)
    assert click.unstyle(render(status, asked="b")).splitlines()[1] == "a is in command; b stands by; asked through b"
    assert render(status, asked="a") == render(status)
