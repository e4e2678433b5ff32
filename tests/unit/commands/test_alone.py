"""Two relays of one identity, each alone, with workers in Pods: the second serves who commands, until it does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_common.errors import RelayError
from relay_supervisor.cluster import election, lone
from relay_supervisor.commands import alone
from relay_supervisor.commands.serving import Hangups
from relay_supervisor.commands.systemd import ServiceManager
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects
from tests.fixtures.offline import NoLauncher, offline_config


class Closable(ClusterConnection):
    async def aclose(self) -> None:
        pass


async def nothing() -> None:
    pass


class Runs:
    """`run`, several times in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects, self.hangups = ClusterObjects(), Hangups(asyncio.get_running_loop())
        self.may_change: list[Callable[[], bool]] = []
        self._connections: list[Closable] = []
        self._cut = False
        monkeypatch.setattr(alone, "ClusterApi", self._connection)
        monkeypatch.setattr(alone, "PodLauncher", self.launcher)

    def _connection(self, namespace: str) -> Closable:
        made = Closable(self.objects, nothing)
        made.away = self._cut
        self._connections.append(made)
        return made

    def cut_off(self, number: int) -> None:
        """The API server is away for that connection, and for all that are made from now on."""
        self._cut = self._connections[number].away = True

    def connect(self) -> None:
        """It is back for all."""
        self._cut = False
        for connection in self._connections:
            connection.away = False

    def launcher(self, config: Any, clock: Any, may_change: Callable[[], bool]) -> NoLauncher:
        self.may_change.append(may_change)
        return NoLauncher(self.runtime)

    def begin(self, directory: Path) -> tuple[Config, asyncio.Event, asyncio.Task[None]]:
        made = offline_config(directory)
        config = replace(made, cluster=replace(made.cluster, namespace="cameras", identity="relay"))
        self.runtime = config.paths.runtime()
        signalled = asyncio.Event()
        run = alone.run_alone(config, lambda: config, ServiceManager(), signalled, self.hangups, SystemClock())
        return config, signalled, asyncio.ensure_future(run)


@pytest.fixture
async def runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield Runs(monkeypatch)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


async def asked(config: Config, path: str) -> httpx.Response | None:
    transport = httpx.AsyncHTTPTransport(uds=str(config.paths.socket()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        try:
            return await client.get(path)
        except httpx.HTTPError:
            return None


async def until(config: Config, *, commands: bool) -> dict[str, Any]:
    """Its seat, once it commands or waits."""
    async with asyncio.timeout(60.0):
        while (answer := await asked(config, "/api/seat")) is None or answer.json()["commands"] != commands:
            await asyncio.sleep(0.05)
    seat: dict[str, Any] = answer.json()
    return seat


async def test_the_second_waits_and_says_for_whom(runs: Runs, tmp_path: Path) -> None:
    one, end, running = runs.begin(tmp_path / "one")
    await until(one, commands=True)
    two, end_too, waiting = runs.begin(tmp_path / "two")
    assert (await until(two, commands=False))["holder"].startswith("alone.")
    refused = await asked(two, "/api/cameras")
    assert refused is not None
    error = refused.json()["error"]
    assert refused.status_code == 503
    assert error["code"] == "standing_by"
    assert "commands the workers of the identity relay" in error["message"]
    assert "another cluster.identity" in error["hint"]
    assert len(runs.may_change) == 1, "it has no launcher"
    end.set()
    await running
    await until(two, commands=True)
    assert runs.may_change[1]()
    assert not runs.may_change[0]()
    end_too.set()
    await waiting


async def test_one_with_the_same_state_directory_unseats_nobody(runs: Runs, tmp_path: Path) -> None:
    one, end, running = runs.begin(tmp_path)
    await until(one, commands=True)
    before = runs.objects.held["Lease", "relay-command"]["metadata"]["annotations"]["nest-relay/session"]
    _, _, second = runs.begin(tmp_path)
    with pytest.raises(RelayError, match="another supervisor"):
        await second
    after = runs.objects.held["Lease", "relay-command"]["metadata"]["annotations"]["nest-relay/session"]
    assert (before, runs.may_change[0]()) == (after, True)
    end.set()
    await running


async def test_without_the_api_server_it_runs(runs: Runs, tmp_path: Path) -> None:
    runs.objects.away = True
    one, end, running = runs.begin(tmp_path)
    await until(one, commands=True)
    assert not runs.may_change[0]()
    runs.objects.away = False
    async with asyncio.timeout(60.0):
        while not runs.may_change[0]():
            await asyncio.sleep(0.05)
    end.set()
    await running


async def test_one_that_ended_for_another_runs_again_only_when_the_api_server_lets_it(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the API server it could not know that the other one commands."""
    for name, seconds in (("DURATION", 4.0), ("STOP_AFTER", 3.0), ("RENEW_EVERY", 0.2), ("LOOK_EVERY", 0.2)):
        monkeypatch.setattr(election, name, seconds)
    monkeypatch.setattr(lone, "ASKS", 0.5)
    one, end, running = runs.begin(tmp_path / "one")
    await until(one, commands=True)
    two, end_too, waiting = runs.begin(tmp_path / "two")
    await until(two, commands=False)
    await asyncio.sleep(1.0)  # the first one knows of it
    runs.cut_off(0)
    await until(two, commands=True)
    assert len(runs.may_change) == 2
    said = (await until(one, commands=False))["problem"]
    assert "API server" in said
    refused = await asked(one, "/api/cameras")
    assert refused is not None
    assert said in refused.json()["error"]["message"]
    await asyncio.sleep(2.0)
    assert len(runs.may_change) == 2, "it has not begun again"
    runs.connect()
    end_too.set()
    await waiting
    await until(one, commands=True)
    end.set()
    await running
