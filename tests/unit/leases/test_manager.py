"""The running control plane against the simulator over real HTTP, with leases of seconds."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from relay_common.clock import SystemClock
from relay_common.config import LimitsConfig, NestConfig
from relay_common.secrets import Secret
from relay_common.simulation.google.api import NestApi as SimulatedApi
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.devices import Device as SimulatedDevice
from relay_common.simulation.google.failures import ANY, failure
from relay_common.simulation.google.oauth import Client, OAuth
from relay_common.simulation.google.quota import UNLIMITED
from relay_supervisor.google.api import NestApi
from relay_supervisor.google.errors import AuthorizationRevoked, NestError
from relay_supervisor.google.leases.account import Account
from relay_supervisor.google.leases.effects import Effect, Granted, Lost, Renewed
from relay_supervisor.google.leases.lease import LeaseSettings
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.oauth import TokenSource
from relay_supervisor.google.quota.budget import UNANSWERED
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.state.store import Store
from relay_supervisor.supervise import Loops

MANY = LimitsConfig(
    commands_per_minute=1000, device_commands_per_minute=1000, camera_per_minute=1000, camera_per_hour=10_000
)


class Google:
    """The simulator, served."""

    def __init__(self) -> None:
        self.oauth = OAuth(Client("id", "secret", "refresh"))
        self.backend = NestBackend("proj", self.oauth, limits=UNLIMITED, lease=4.0)
        self.server = SimulatedApi(self.backend)
        self.devices = [SimulatedDevice(f"dev{n}", f"Camera {n}") for n in range(2)]
        for device in self.devices:
            self.backend.add(device)


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    subject = Google()
    await subject.server.start()
    yield subject
    await subject.server.stop()


@asynccontextmanager
async def running(
    google: Google, effects: list[Effect], store: Store | None = None
) -> AsyncIterator[tuple[LeaseManager, TokenSource]]:
    clock = SystemClock()
    tokens = TokenSource(
        project_id="proj",
        client_id="id",
        client_secret=Secret("secret"),
        refresh_token=Secret("refresh"),
        token_url=f"{google.server.url}/token",
        clock=clock,
    )
    async with httpx.AsyncClient() as http:
        manager = LeaseManager(
            account="acct",
            api=NestApi("proj", tokens, f"{google.server.url}/v1", http),
            limits=limits_from(MANY),
            clock=clock,
            on_effect=effects.append,
            store=store,
            rng=random.Random(1),
            settings=LeaseSettings(backoff=0.1, backoff_ceiling=0.2, slow_retry=0.3, stable_after=1.0),
        )
        task = asyncio.create_task(manager.run())
        try:
            yield manager, tokens
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await tokens.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_request_of_a_listing_is_in_the_log_of_the_quota(google: Google, tmp_path: Path) -> None:
    google.backend.page_size = 1
    store = Store(tmp_path / "relay.db", SystemClock()).open()
    async with running(google, [], store) as (manager, tokens):
        await tokens.token()
        google.oauth.expire_all()
        assert len((await manager.discover()).devices) == 2
    store.close()
    calls = Store(tmp_path / "relay.db", SystemClock()).open().calls("acct")
    assert [call.call.method for call in calls] == ["ListDevices"] * 3, "one refused for its token, and two pages"
    assert all(call.answered is not None for call in calls)


async def test_discover_generate_extend_and_restart_without_a_generate(google: Google, tmp_path: Path) -> None:
    effects: list[Effect] = []
    store = Store(tmp_path / "relay.db", SystemClock()).open()
    async with running(google, effects, store) as (manager, _):
        assert manager.devices == []
        devices = (await manager.discover()).devices
        manager.remember(devices)
        assert [device.display_name for device in devices] == ["Camera 0", "Camera 1"]
        for device in devices:
            manager.want(device.display_name, device)
        await until(lambda: sum(isinstance(effect, Renewed) for effect in effects) >= 2)
        assert manager.lease("Camera 0").state in ("held", "extending")
        current = manager.current("Camera 0")
        assert current is not None
    store.close()
    assert [device.generates for device in google.devices] == [1, 1]

    again: list[Effect] = []
    store = Store(tmp_path / "relay.db", SystemClock()).open()
    async with running(google, again, store) as (manager, _):
        assert manager.devices == devices
        for device in manager.devices:
            manager.want(device.display_name, device)
        assert [type(effect) for effect in again] == [Granted, Granted]
        assert {effect.generation for effect in again} == {current.generation}  # type: ignore[union-attr]
        await until(lambda: sum(isinstance(effect, Renewed) for effect in again) >= 2)
        assert manager.book.budget.api.used(SystemClock().now()) >= 6, "the old process's calls still count"
    store.close()
    assert [device.generates for device in google.devices] == [1, 1]
    assert not any(isinstance(effect, Lost) for effect in effects + again)


async def test_an_extend_that_was_given_up_keeps_its_place_after_a_sigkill(google: Google, tmp_path: Path) -> None:
    """Google may count it half a minute after it was sent, whatever has become of the supervisor."""
    google.backend.failures.add(ANY, "ExtendRtspStream", failure(503, delay=60.0))
    store = Store(tmp_path / "state" / "relay.db", SystemClock(), boot="b").open()
    async with running(google, [], store) as (manager, _):
        began = SystemClock().now()
        device = (await manager.discover()).devices[0]
        manager.want("cam", device)
        await until(lambda: manager.book.leases["cam"].failures > 0)
        (held,) = [release for release in manager.book.budget.api.releases(began) if release > began + UNANSWERED + 60]
        await store.database.flush(5.0)
        shutil.copytree(tmp_path / "state", tmp_path / "killed")  # as a SIGKILL leaves it
    store.close()
    left = Store(tmp_path / "killed" / "relay.db", SystemClock(), boot="b").open()
    async with running(google, [], left) as (manager, _):
        assert max(manager.book.budget.api.releases(began)) == pytest.approx(held, abs=1.0)
    left.close()


async def test_a_stop_that_was_not_carried_out_is_the_next_supervisors(google: Google, tmp_path: Path) -> None:
    """The session of a worker that was killed must not stay open at Google because the supervisor was killed, too."""
    google.backend.lease = 300.0
    store = Store(tmp_path / "state" / "relay.db", SystemClock(), boot="b").open()
    google.backend.failures.add(ANY, "StopRtspStream", failure(503, delay=60.0))
    async with running(google, [], store) as (manager, _):
        device = (await manager.discover()).devices[0]
        manager.want("cam", device)
        await until(lambda: manager.current("cam") is not None)
        manager.unwant("cam")
        await until(lambda: manager.book.queue.executed == 3)  # the Stop is under way
        await store.database.flush(5.0)
        shutil.copytree(tmp_path / "state", tmp_path / "killed")  # as a SIGKILL leaves it
    store.close()
    assert google.devices[0].stops == 0
    google.backend.failures.clear()
    left = Store(tmp_path / "killed" / "relay.db", SystemClock(), boot="b").open()
    async with running(google, [], left):
        await until(lambda: google.devices[0].stops == 1)
        await until(lambda: not left.abandoned("acct"))
    left.close()


async def test_a_failing_camera_recovers_and_the_other_never_notices(google: Google) -> None:
    effects: list[Effect] = []
    async with running(google, effects) as (manager, _):
        for device in (await manager.discover()).devices:
            manager.want(device.display_name, device)
        await until(lambda: len(effects) == 2)
        google.backend.failures.add("Camera 0", ANY, failure(500, count=10**6))
        await until(lambda: any(isinstance(effect, Lost) for effect in effects))
        await until(lambda: manager.lease("Camera 0").degraded)
        assert "500" in manager.lease("Camera 0").last_error
        google.backend.failures.clear()
        await until(lambda: manager.lease("Camera 0").state == "held")
        assert all(effect.camera == "Camera 0" for effect in effects if isinstance(effect, Lost))  # type: ignore[union-attr]
    assert google.devices[1].generates == 1


async def test_an_expired_access_token_is_replaced_within_the_budget(google: Google) -> None:
    effects: list[Effect] = []
    async with running(google, effects) as (manager, tokens):
        (device, _) = (await manager.discover()).devices
        google.oauth.expire_all()
        manager.want("cam", device)
        await until(lambda: any(isinstance(effect, Granted) for effect in effects))
        assert manager.budget().executed == 3, "the list, the refused command and its repetition"
        assert tokens.refreshes == 2
        assert manager.lease("cam").failures == 0


async def test_a_revoked_grant_is_told_and_mended_without_a_restart(google: Google) -> None:
    effects: list[Effect] = []
    async with running(google, effects) as (manager, tokens):
        (device, _) = (await manager.discover()).devices
        google.oauth.expire_all()
        google.oauth.revoked = True
        manager.want("cam", device)
        await until(lambda: "partnerconnections" in manager.budget().auth_error)
        with pytest.raises(NestError):
            await manager.discover()
        google.oauth.revoked = False
        tokens.replace_refresh_token(Secret("refresh"))
        manager.resume_account()
        await until(lambda: any(isinstance(effect, Granted) for effect in effects))
        assert manager.budget().auth_error == ""


async def test_releasing_all_stops_the_streams(google: Google) -> None:
    effects: list[Effect] = []
    async with running(google, effects) as (manager, _):
        for device in (await manager.discover()).devices:
            manager.want(device.display_name, device)
        await until(lambda: len(effects) == 2)
        await manager.release_all(within=10.0)
    assert [device.stops for device in google.devices] == [1, 1]


async def test_a_reload_with_the_same_refresh_token_tries_it_again_at_once(google: Google, tmp_path: Path) -> None:
    """`auth` may write the token that is there; what was wrong with it may have been mended at Google."""
    config = NestConfig(
        project_id="proj",
        client_id="id",
        client_secret=Secret("secret"),
        refresh_token=Secret("refresh"),
        api_base_url=f"{google.server.url}/v1",
        token_url=f"{google.server.url}/token",
    )

    async def offer(camera: str) -> str:
        raise AssertionError("no camera speaks WebRTC")

    store = Store(tmp_path / "relay.db", SystemClock()).open()
    account = Account(config, MANY, SystemClock(), store, lambda effect: None, offer, random.Random(1))
    loops = Loops(SystemClock())
    account.start(loops.start, "leases")
    try:
        google.oauth.revoked = True
        with pytest.raises(AuthorizationRevoked):
            await account.leases.discover()
        assert "partnerconnections" in account.leases.budget().auth_error
        google.oauth.revoked = False
        with pytest.raises(AuthorizationRevoked):
            await account.leases.discover()
        assert account.authorised(Secret("refresh"))
        assert len((await account.leases.discover()).devices) == 2
        assert account.leases.budget().auth_error == ""
        assert not account.authorised(Secret("refresh")), "nothing is wrong, nothing changed"
    finally:
        await account.stop(release=False)
        await loops.aclose()
        store.close()
