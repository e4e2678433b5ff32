"""The Pod with which `check` tries image and bus: what is made of its end, and that it never stays behind."""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from relay_common.bus_probe import STATISTICS, BusReached, outcome
from relay_common.clock import ManualClock, SystemClock
from relay_common.config_cluster import ClusterConfig, bus_endpoints
from relay_common.engine_waits import WAITS, EngineWait
from relay_supervisor.checks import cluster_trial
from relay_supervisor.checks.cluster_trial import SETTLED, tried
from relay_supervisor.checks.report import Finding, Grade
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.fleet.pods import api
from relay_supervisor.fleet.pods.api import PODS, ApiAway, ApiRefused
from relay_supervisor.fleet.pods.seen import INSTANCE_LABEL, RELAY_LABEL
from relay_supervisor.fleet.pods.trial import LONGEST, ORPHANED, TRIAL_LABEL
from relay_worker.process import probe
from relay_worker.process.spec import WorkerSpec
from tests.fixtures.ports import free_ports
from tests.unit.fleet.pods.statuses import CREATING, NEW, NO_IMAGE, RUNNING, UNSCHEDULABLE, Json, a_pod, ended

RELAY = "nest-relay"


class Jumping(ManualClock):
    """Time passes as soon as somebody waits for it."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self._now += seconds


class Cluster:
    """Stands for `ClusterApi`: its Pod goes through `statuses`, and stays in the last."""

    def __init__(self, *statuses: Json) -> None:
        self.statuses = list(statuses)
        self.there: dict[str, dict[str, Json]] = {"Pod": {}, "Secret": {}}
        self.made: list[Json] = []
        self.failing: dict[str, OSError] = {}

    def __call__(self, namespace: str) -> Cluster:
        return self

    async def create(self, kind: Any, body: Json, *, dry: bool = False) -> Json:
        if (error := self.failing.get(f"create {kind.__name__}")) is not None:
            raise error
        self.made.append(body)
        self.there[kind.__name__][body["metadata"]["name"]] = body
        return body

    async def delete(self, kind: Any, name: str, grace: int | None = None) -> None:
        await asyncio.sleep(0)
        if (error := self.failing.get(f"delete {kind.__name__}")) is not None:
            raise error
        self.there[kind.__name__].pop(name, None)

    async def list(self, kind: Any, labels: dict[str, str], name: str = "") -> tuple[list[Json], str]:
        found = [body for made, body in self.there[kind.__name__].items() if name in ("", made)]
        if kind is PODS and self.made:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            node = "" if status in (NEW, UNSCHEDULABLE) else "node1"
            found = [{**a_pod(status, node=node), "metadata": one["metadata"]} for one in found]
        return [one for one in found if one["metadata"]["labels"].items() >= labels.items()], "1"

    async def aclose(self) -> None: ...

    @property
    def left(self) -> list[str]:
        return [name for found in self.there.values() for name in found]


def config(**more: str) -> ClusterConfig:
    first = free_ports(2)[0]
    return ClusterConfig(
        **{"namespace": "cameras", "image": "registry.example/i:1", "bus_listen": f"127.0.0.1:{first}"} | more
    )


async def found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, state: Path, *, running: bool = False, **more: str
) -> list[Finding]:
    monkeypatch.setattr(api, "ClusterApi", cluster)
    return await tried(config(**more), state, running, Jumping())


async def test_image_and_bus_are_well_where_the_pod_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Cluster(NEW, CREATING, RUNNING, ended(0, "Completed"))
    image, bus = await found(cluster, monkeypatch, tmp_path)
    assert (image.verdict, image.text) == (Grade.OK, "node1 has registry.example/i:1 and runs it")
    assert bus.verdict is Grade.OK
    assert "a Pod on node1 reaches 127.0.0.1:" in bus.text
    assert cluster.left == []
    _, pod = cluster.made
    labels = pod["metadata"]["labels"]
    assert labels[TRIAL_LABEL] == RELAY
    assert RELAY_LABEL not in labels, "its supervisor would take it for an unknown worker"
    assert INSTANCE_LABEL in labels, "policies for workers hold for it"
    (container,) = pod["spec"]["containers"]
    assert container["command"][-1] == "relay_worker.process.probe"
    assert pod["spec"]["activeDeadlineSeconds"] == LONGEST


@pytest.mark.parametrize(
    ("status", "words", "advice"),
    [
        (NO_IMAGE, "ImagePullBackOff", WAITS[EngineWait.IMAGE_NOT_PULLED].advice),
        (UNSCHEDULABLE, "Insufficient cpu", WAITS[EngineWait.INSUFFICIENT_CPU].advice),
        (CREATING, "ContainerCreating", WAITS[EngineWait.PREPARING].advice),
        (RUNNING, "it has not ended on node1", WAITS[EngineWait.OTHER].advice),
        (
            ended(1, message="No module named relay_worker.process.probe"),
            "exited with status 1 on node1: No mod",
            "cluster.im",
        ),
        (ended(128, "StartError"), "StartError", "cluster.image has to be of this release"),
    ],
)
async def test_what_keeps_the_pod_from_its_end_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: Json, words: str, advice: str
) -> None:
    cluster = Cluster(NEW, status)
    (image,) = await found(cluster, monkeypatch, tmp_path)
    assert (image.part, image.verdict) == ("worker Pods", Grade.FAILED)
    assert words in image.text
    assert image.remedy.startswith(advice)
    assert cluster.left == []


@pytest.mark.parametrize("reached", [one for one in BusReached if one is not BusReached.REACHED])
async def test_why_the_bus_is_not_reached_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reached: BusReached
) -> None:
    image, bus = await found(Cluster(NEW, ended(int(reached))), monkeypatch, tmp_path)
    assert image.verdict is Grade.OK
    assert (bus.part, bus.verdict) == ("cluster.bus_listen", Grade.FAILED)
    assert cluster_trial._REMEDIES[reached] == (bus.text.partition("node1 ")[2], bus.remedy)
    if reached is not BusReached.UNUSABLE:
        _, bus = await found(Cluster(ended(int(reached) + STATISTICS)), monkeypatch, tmp_path)
        assert bus.text.startswith("the port after that of 127.0.0.1:")


def test_other_exit_codes_mean_nothing() -> None:
    assert [outcome(code)[0] for code in (1, -9, 25, 29, 40, 137)] == [None] * 6


async def test_where_there_is_no_supervisor_the_check_listens_itself() -> None:
    listen = config().bus_listen
    bound = bus_endpoints(listen)
    assert bound is not None
    async with cluster_trial._listening(bound, SystemClock()) as keys:
        gc.collect()
        spec = WorkerSpec(camera="check", name="check", instance="check.1", control=bound[0], stats=bound[1], keys=keys)
        assert await probe.tried(spec, 60.0) == BusReached.REACHED


async def test_a_wait_that_passes_is_no_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node may be added, and a first pull fail."""
    waits = [UNSCHEDULABLE] * int(SETTLED * 2) + [NO_IMAGE] * int(SETTLED * 2)
    image, _ = await found(Cluster(NEW, *waits, ended(0, "Completed")), monkeypatch, tmp_path)
    assert image.verdict is Grade.OK


async def test_where_a_supervisor_has_the_bus_it_is_that_one_which_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def listens(*_: object) -> None:
        raise AssertionError("the supervisor's ports are its own")

    monkeypatch.setattr(cluster_trial, "_listening", listens)
    (warned,) = await found(Cluster(NEW), monkeypatch, tmp_path, running=True)
    assert (warned.verdict, "has commanded yet" in warned.text) == (Grade.WARNING, True)
    Keyring(tmp_path / KEY_FILE).open()
    cluster = Cluster(ended(0, "Completed"))
    assert [one.verdict for one in await found(cluster, monkeypatch, tmp_path, running=True)] == [Grade.OK, Grade.OK]
    (warned,) = await found(Cluster(NEW), monkeypatch, tmp_path, replica="a")
    assert warned.verdict is Grade.WARNING, "what a Secret says counts, where there are several"


async def test_what_the_cluster_refuses_and_an_address_that_is_not_ours_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster(NEW)
    cluster.failing["create Pod"] = ApiRefused('the cluster refuses it: pods "x" is forbidden: exceeded quota: q', 403)
    (refused,) = await found(cluster, monkeypatch, tmp_path)
    assert (refused.verdict, "exceeded quota" in refused.text) == (Grade.FAILED, True)
    assert refused.remedy == WAITS[EngineWait.QUOTA_EXCEEDED].advice
    assert cluster.left == [], "nor the Secret"
    (warned,) = await found(Cluster(NEW), monkeypatch, tmp_path, bus_listen="192.0.2.1:7420")
    assert (warned.verdict, "cannot listen there" in warned.text) == (Grade.WARNING, True)


@pytest.mark.parametrize("how", ["cancel", "SIGTERM"])
async def test_it_is_removed_however_the_check_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    cluster = Cluster(RUNNING)
    checking = asyncio.create_task(found(cluster, monkeypatch, tmp_path))
    while not cluster.there["Pod"]:
        await asyncio.sleep(0)
    if how == "cancel":  # as Ctrl-C does
        checking.cancel()
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert cluster.left == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_what_could_not_be_removed_is_removed_by_a_later_check_and_nothing_younger(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster(ended(0, "Completed"))
    cluster.failing["delete Pod"] = ApiAway("the cluster's API server does not answer")
    assert [one.verdict for one in await found(cluster, monkeypatch, tmp_path)] == [Grade.OK, Grade.OK]
    (left,) = cluster.left
    cluster.failing.clear()
    pod = cluster.there["Pod"][left]
    for age, stays in ((ORPHANED - 10.0, True), (ORPHANED + 10.0, False)):
        made = datetime.datetime.fromtimestamp(ManualClock().wall() - age, datetime.UTC)
        pod["metadata"]["creationTimestamp"] = f"{made:%Y-%m-%dT%H:%M:%SZ}"
        await found(cluster, monkeypatch, tmp_path)
        assert (left in cluster.left) is stays
