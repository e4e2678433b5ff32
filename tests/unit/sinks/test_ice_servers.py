"""STUN and TURN servers for views and workers: whose credential, how long, revoked and renewed when."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from relay_common.clock import ManualClock
from relay_common.cloudflare import TurnError, TurnKey
from relay_common.config import IceServer
from relay_common.protocol import UseTurn
from relay_common.secrets import Secret
from relay_common.simulation.sfu.api import answer_error
from relay_common.simulation.sfu.sessions import ApiError
from relay_common.simulation.sfu.turn import TurnKeys
from relay_supervisor.sinks.ice_servers import RELAY_LIFE, RENEW, VIEW_LIFE, IceServers, Lent

TOKEN = "the-api-token"
STATIC = IceServer(urls="turns:turn.example", username="u", credential=Secret("p"))


class Rig:
    """The real client of the API, and the simulated one that answers it."""

    def __init__(self, *configured: str | IceServer, token: str = TOKEN) -> None:
        self.keys = TurnKeys("key", TOKEN, ["turn:turn.example:3478?transport=tcp", "turn:turn.example:53"], "secret")
        app = Starlette(routes=self.keys.routes(), exception_handlers={ApiError: answer_error})
        self.clock = ManualClock()
        self.key = TurnKey("key", Secret(token), base_url="http://sfu/v1", transport=httpx.ASGITransport(app=app))
        self.ice = IceServers(list(configured), self.key, self.clock)

    async def lend(self, *, guest: bool = False, until: float | None = None) -> Lent:
        return await self.ice.lend(guest=guest, until=until)


async def test_a_view_gets_a_credential_of_its_own_and_never_the_token() -> None:
    rig = Rig()
    first, second = await rig.lend(), await rig.lend()
    assert first.username != second.username
    assert rig.keys.lives == [VIEW_LIFE, VIEW_LIFE]
    assert first.servers[0] == {"urls": ["stun:127.0.0.1:9"]}, "browsers refuse port 53"
    assert first.servers[1]["urls"] == ["turn:turn.example:3478?transport=tcp"]
    assert first.servers[1]["username"] == first.username
    assert TOKEN not in repr(first)
    rig.ice.take_back(first)
    await rig.ice.aclose()
    assert rig.keys.revoked == [first.username]
    assert rig.ice.counters() == {"issued": 2, "failed": 0, "revoked": 1, "unrevoked": 0}


async def test_a_guests_credential_ends_with_the_link_and_an_open_view_is_renewed_before() -> None:
    rig = Rig()
    wall = rig.clock.wall()
    guest = await rig.lend(guest=True, until=wall + 600.0)
    assert rig.keys.lives == [600.0]
    assert guest.ends_at == float("inf"), "view and credential end together"
    assert (await rig.lend()).ends_at == wall + VIEW_LIFE - RENEW
    await rig.lend(guest=True, until=wall - 1.0)
    assert len(rig.keys.lives) == 2, "nothing is issued for a link that is over"


async def test_guests_get_a_static_credential_only_where_it_is_shared() -> None:
    shared = IceServer(urls=["turn:b"], username="v", credential=Secret("q"), share_with_guests=True)
    ice = IceServers(["stun:s", STATIC, shared], None, ManualClock())
    stun = {"urls": ["stun:s"]}
    theirs = {"urls": ["turn:b"], "username": "v", "credential": "q"}
    ours = {"urls": ["turns:turn.example"], "username": "u", "credential": "p"}
    assert (await ice.lend(guest=True, until=None)).servers == [stun, theirs]
    assert (await ice.lend(guest=False, until=None)).servers == [stun, ours, theirs]
    assert ice.plain(guest=False) == [stun]
    assert ice.for_workers is not None
    assert [server.credential for server in ice.for_workers.servers] == ["p", "q"]


async def test_a_refused_token_costs_a_view_no_time_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("stun:s", token="another-token")
    assert [(await rig.lend()).servers for _ in range(3)] == [[{"urls": ["stun:s"]}]] * 3
    await rig.clock.advance(31.0)
    await rig.lend()
    assert rig.ice.counters()["failed"] == 2, "not asked again within half a minute"
    (told,) = caplog.messages
    assert "Cloudflare TURN answered 401" in told
    assert "[cloudflare.turn] key_id and api_token" in told
    assert "another-token" not in told
    rig.keys.api_token = "another-token"
    await rig.clock.advance(31.0)
    await rig.lend()
    await rig.lend()
    assert caplog.messages[1:] == ["TURN credentials are issued again"]


async def test_workers_get_another_credential_before_theirs_ends() -> None:
    rig = Rig(STATIC)
    told: list[UseTurn] = []
    rig.ice.listen(told.append)
    keeping = asyncio.create_task(rig.ice.keep_workers())
    async with asyncio.timeout(30):
        while not told:
            await asyncio.sleep(0)
        first = told[-1]
        assert first.ends_at == rig.clock.wall() + RELAY_LIFE
        assert [server.credential for server in first.servers][1:] == ["p"]
        while len(told) < 2:
            await rig.clock.advance(3600.0)
            for _ in range(20):
                await asyncio.sleep(0)
    assert rig.clock.wall() <= first.ends_at - RENEW
    assert told[-1].servers[0].username != first.servers[0].username
    keeping.cancel()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"iceServers": []}', b'{"iceServers": {"urls": "turn:a"}}', b'{"iceServers": 5}']
)
async def test_an_answer_without_credentials_is_an_error(body: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(201, content=body))
    key = TurnKey("key", Secret(TOKEN), transport=transport)
    with pytest.raises(TurnError):
        await key.issue(60.0)
