"""The launcher around an API that does what a test says: what is made and undone, and when nobody has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.config_cluster import ClusterConfig
from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.fleet.pods import pod_launcher
from relay_supervisor.fleet.pods.api import PODS, SECRETS, ApiAway, ApiRefused, ApiSilent
from relay_supervisor.fleet.pods.pod_launcher import PodLauncher
from relay_supervisor.fleet.pods.suspects import Avoided
from relay_worker.process.spec import WorkerSpec
from tests.unit.fleet.pods.statuses import NEW, RUNNING, Json, a_pod, ended

INSTANCE = "2a9226a5.10c16786"
NAME = "nest-relay-2a9226a5-10c16786"
REF = f"cameras/{NAME}"
SPEC = WorkerSpec(camera="2a9226a5", name="Porch", instance=INSTANCE, control="tcp://h:1", stats="tcp://h:2")


class ScriptedApi:
    """Stands for `ClusterApi`: keeps what it is asked, and fails where `failing` says."""

    def __init__(self, namespace: str, may_change: Callable[[], bool]) -> None:
        self.namespace, self.may_change = namespace, may_change
        self.calls: list[str] = []
        self.failing: dict[str, OSError] = {}
        self.pods: list[Json] = []
        self.left: list[Json] = []
        self.events: asyncio.Queue[tuple[str, Json] | OSError] = asyncio.Queue()

    async def _do(self, verb: str, kind: Any, detail: str = "") -> None:
        self.calls.append(f"{verb} {kind.__name__}{detail}")
        if (error := self.failing.get(f"{verb} {kind.__name__}")) is not None:
            raise error

    async def create(self, kind: Any, body: Json, *, dry: bool = False) -> Json:
        await self._do("create", kind)
        return body | a_pod(NEW, node="") if kind is PODS else body

    async def patch(self, kind: Any, name: str, change: Json) -> None:
        await self._do("patch", kind, f" {change['metadata']['ownerReferences'][0]['name']}")

    async def delete(self, kind: Any, name: str, grace: int | None = None) -> None:
        await self._do("delete", kind, f" {grace}" if grace is not None else "")

    async def list(self, kind: Any, labels: dict[str, str]) -> tuple[list[Json], str]:
        await self._do("list", kind)
        return (self.pods if kind is PODS else self.left), "340"

    async def watch(self, kind: Any, labels: dict[str, str], version: str) -> AsyncIterator[tuple[str, Json]]:
        self.calls.append(f"watch {version}")
        while True:
            event = await self.events.get()
            if isinstance(event, OSError):
                raise event
            yield event

    async def aclose(self) -> None:
        self.calls.append("close")


class Rig:
    """A launcher, its API and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pod_launcher, "ClusterApi", ScriptedApi)
        self.clock = ManualClock()
        config = ClusterConfig(namespace="cameras", image="i:1", bus_listen="10.0.0.5:7420")
        self.launcher = PodLauncher(config, self.clock)
        self.api: ScriptedApi = self.launcher._api  # type: ignore[assignment]

    async def settle(self, seconds: float = 0.0) -> None:
        await self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)

    async def happens(self, *events: tuple[str, Json] | OSError) -> None:
        for event in events:
            self.api.events.put_nowait(event)
        await self.settle()

    async def started(self) -> Any:
        worker = await self.launcher.start(SPEC)
        await self.happens(("ADDED", a_pod(NEW, node="")), ("MODIFIED", a_pod(RUNNING)))
        self.api.calls.clear()
        return worker


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    made = Rig(monkeypatch)
    yield made
    await made.launcher.close()


@pytest.fixture
async def ready(rig: Rig) -> Rig:
    await rig.launcher.prepare()
    rig.launcher.sweep([])
    await rig.settle()
    rig.api.calls.clear()
    return rig


async def test_the_secret_is_first_then_the_pod_which_then_owns_it(ready: Rig) -> None:
    worker = await ready.launcher.start(SPEC)
    assert (worker.ref, worker.phase, worker.number) == (REF, EnginePhase.WAITING, 0)
    await ready.settle()
    assert ready.api.calls == ["create Secret", "create Pod", f"patch Secret {NAME}"]
    await ready.happens(("MODIFIED", a_pod(RUNNING)))
    assert (worker.phase, worker.where, worker.exit) == (EnginePhase.RUNNING, "node1", None)


@pytest.mark.parametrize(
    ("failing", "error", "undone"),
    [
        ("create Secret", ApiRefused("no", 403), ["delete Secret"]),
        ("create Pod", ApiRefused("no", 422), ["delete Secret"]),
        ("create Pod", ApiAway("no answer"), ["delete Pod 0", "delete Secret"]),
    ],
)
async def test_what_was_or_may_have_been_made_in_vain_is_undone(
    ready: Rig, failing: str, error: OSError, undone: list[str]
) -> None:
    ready.api.failing[failing] = error
    with pytest.raises(OSError, match=str(error)):
        await ready.launcher.start(SPEC)
    await ready.settle()
    assert [call for call in ready.api.calls if call.startswith("delete")] == undone
    ready.api.failing.clear()
    await ready.happens(("ADDED", a_pod(NEW)))
    assert ready.api.calls[-1] == "delete Pod 0", "it was made after all"


async def test_an_end_is_told_once_and_its_pod_goes(ready: Rig) -> None:
    worker = await ready.started()
    told: list[int] = []
    worker.when_ended(lambda: told.append(1))
    await ready.happens(("MODIFIED", a_pod(ended(3, message="last words"))), ("DELETED", a_pod(ended(3))))
    assert (worker.phase, str(worker.exit), worker.where, told) == (
        EnginePhase.GONE,
        "exited with status 3",
        "node1",
        [1],
    )
    assert (await worker.wait()).code == 3
    assert ready.api.calls == ["delete Pod 0"]


async def test_who_is_asked_gets_its_time_and_who_is_ended_none_however_often_it_takes(ready: Rig) -> None:
    worker = await ready.started()
    worker.ask_to_end(2.5)
    await ready.settle()
    assert (ready.api.calls, worker.phase) == (["delete Pod 3"], EnginePhase.ENDING)
    ready.api.failing["delete Pod"] = ApiAway("no answer")
    worker.end_now()
    await ready.settle()
    worker.forget()
    assert worker.phase is EnginePhase.GONE
    ready.api.failing.clear()
    ready.api.calls.clear()
    await ready.settle(1.0)
    assert ready.api.calls[:1] == ["delete Pod 0"]


async def test_one_that_is_forgotten_is_left_alone(ready: Rig) -> None:
    worker = await ready.started()
    worker.forget()
    await ready.settle(5.0)
    assert ready.api.calls == []


async def test_an_api_server_that_is_away_ends_nobody_and_is_said_once(
    ready: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await ready.started()
    ready.api.failing["list Pod"] = ApiAway("no answer")
    await ready.happens(ApiRefused("too old", 410))
    await ready.settle(60.0)
    assert worker.phase is EnginePhase.RUNNING
    assert caplog.text.count("Pods cannot be followed, workers go on") == 1
    ready.api.pods = [a_pod(RUNNING)]
    ready.api.failing.clear()
    await ready.settle(10.0)
    assert worker.phase is EnginePhase.RUNNING
    assert "answers again" in caplog.text
    ready.api.pods = []
    await ready.happens(ApiRefused("too old", 410))
    assert str(worker.exit) == "taken away (its Pod was deleted)"


async def test_a_broken_watch_is_said_once_until_a_list_succeeds(ready: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ready.api.failing["list Pod"] = ApiAway("nothing listens there")
    await ready.happens(ApiAway("the connection was reset"))
    await ready.settle(60.0)
    said = [record.message for record in caplog.records if record.name.endswith("pod_launcher")]
    assert said == ["Pods cannot be followed, workers go on: the connection was reset"]
    ready.api.failing.clear()
    await ready.settle(10.0)
    assert ready.api.calls[-2:] == ["watch 340", "list Secret"]
    assert caplog.text.count("answers again") == 1


async def test_a_watch_that_fails_while_lists_succeed_is_said_once(
    ready: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the Role lacks `watch`, or a proxy keeps no answer open: each list would count as the end of it."""
    watch = ready.api.watch
    ready.api.calls.clear()

    async def forbidden(*_: Any) -> AsyncIterator[tuple[str, Json]]:
        raise ApiRefused("pods is forbidden", 403)
        yield

    monkeypatch.setattr(ready.api, "watch", forbidden)
    await ready.happens(ApiRefused("pods is forbidden", 403))
    await ready.settle(60.0)
    assert ready.api.calls.count("list Pod") > 5
    said = [record.message for record in caplog.records if record.name.endswith("pod_launcher")]
    assert said == ["Pods cannot be followed, workers go on: pods is forbidden"]
    monkeypatch.setattr(ready.api, "watch", watch)
    await ready.settle(10.0)
    await ready.happens(("BOOKMARK", a_pod(RUNNING)))
    assert caplog.text.count("followed again") == 1


async def test_a_quiet_watch_is_no_outage(ready: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ready.api.calls.clear()
    await ready.happens(ApiSilent("nothing came"))
    assert [call for call in ready.api.calls if "Secret" not in call] == ["list Pod", "watch 340"]
    assert caplog.text == ""


async def test_a_start_without_an_api_server_takes_earlier_workers_for_alive(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_launcher, "FIRST_LIST", 0.2)
    rig.api.failing["list Pod"] = ApiAway("no answer")
    await rig.launcher.prepare()
    assert rig.launcher.living({INSTANCE: REF, "other.1": "elsewhere/x", "local.1": "12:345"}) == [INSTANCE]
    worker = rig.launcher.recall(INSTANCE, REF)
    assert worker is not None
    assert worker.phase is EnginePhase.RUNNING
    assert rig.launcher.recall("other.1", "elsewhere/x") is None
    rig.api.failing.clear()
    await rig.settle(10.0)
    assert str(worker.exit) == "taken away (its Pod was deleted)"
    assert rig.launcher.living({INSTANCE: REF}) == []


async def test_what_an_earlier_supervisor_left_is_adopted_or_swept(rig: Rig) -> None:
    rig.api.pods = [a_pod(RUNNING), a_pod(RUNNING, instance="cam.2")]
    labels = {"nest-relay/instance": "cam.3"}
    owned = {"name": "owned", "labels": labels, "ownerReferences": [{}]}
    ours = {"name": NAME, "labels": {"nest-relay/instance": INSTANCE}}
    rig.api.left = [{"metadata": {"name": "lost", "labels": labels}}, {"metadata": owned}, {"metadata": ours}]
    await rig.launcher.prepare()
    await rig.settle()
    assert "delete Pod 0" not in rig.api.calls, "it is not known yet who was left"
    assert rig.launcher.living({INSTANCE: REF}) == [INSTANCE]
    rig.launcher.sweep([INSTANCE])
    rig.api.calls.clear()
    await rig.settle(1.0)
    assert set(rig.api.calls) == {"list Secret", "delete Pod 0", "delete Secret", f"patch Secret {NAME}"}
    worker = rig.launcher.recall(INSTANCE, REF)
    assert worker is not None
    assert (worker.phase, worker.where) == (EnginePhase.RUNNING, "node1")
    rig.launcher.suspect(worker)
    assert rig.launcher._book.suspects.avoided(rig.clock.now()) == Avoided(lost=("node1",))
    rig.launcher.heard(worker)
    assert rig.launcher._book.suspects.avoided(rig.clock.now()) == Avoided(doubtful=("node1",))


def test_its_kinds_are_those_of_the_core_group() -> None:
    assert (PODS.__name__, SECRETS.__name__) == ("Pod", "Secret")
