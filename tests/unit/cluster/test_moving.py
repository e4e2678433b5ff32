"""A relay moved from a machine into a cluster and back: what it knows goes along, and its workers end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from relay_common.clock import ManualClock, SystemClock
from relay_common.errors import RelayError
from relay_common.proc import process_ref, start_ticks
from relay_supervisor.cameras.overrides import FILE as OVERRIDES
from relay_supervisor.cluster import moving
from relay_supervisor.cluster.cluster_database import ClusterDatabase
from relay_supervisor.cluster.moving import BEFORE, WITHIN, from_cluster, to_cluster
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.cluster.replica import ACCOUNT_COMMANDS, COMMANDS_LABEL
from relay_supervisor.cluster.state_object import StateObject
from relay_supervisor.fleet.keyring import KEY_FILE
from relay_supervisor.fleet.pods.api import PODS, ResourceKind
from relay_supervisor.fleet.pods.seen import CONTAINER, RELAY_LABEL
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from relay_supervisor.fleet.processes.process import WorkerProcess
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import STATE_FILE, SavedWorker, Store
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects
from tests.unit.state.test_power_loss import lease

HELD = msgspec.structs.replace(lease(1), granted=SystemClock().now(), expires=SystemClock().now() + 3000.0)


class Namespace(ClusterConnection):
    """One from which objects can be deleted, too."""

    def __init__(self) -> None:
        self.objects = ClusterObjects()
        super().__init__(self.objects, lambda: asyncio.sleep(0))
        self.keeps: dict[str, dict[str, Any]] = {}
        """Pods that are there after they were deleted, with what their node says of their container then."""

    async def delete(self, kind: ResourceKind, name: str, grace: int | None = None) -> None:
        if name in self.keeps:
            self.ending(name, self.keeps[name])
        else:
            self.objects.held.pop((kind.__name__, name), None)

    def ending(self, name: str, state: dict[str, Any]) -> None:
        statuses = [{"name": CONTAINER, "state": state}]
        change = {"metadata": {"deletionTimestamp": "2026-11-30T10:00:00Z"}, "status": {"containerStatuses": statuses}}
        self.objects.patch(PODS.__name__, name, change)

    def pod(self, name: str, **labels: str) -> None:
        self.objects.create(PODS.__name__, {"metadata": {"name": name, "labels": labels}})


class Box:
    """A machine whose relay has been stopped, its worker kept."""

    def __init__(self, folder: Path) -> None:
        self.state, self.clock = folder / "state", SystemClock()
        self.launcher = ForkServerLauncher(folder)
        self.state.mkdir()
        self.key = bytes(zmq.curve_keypair()[1])
        (self.state / KEY_FILE).write_bytes(self.key + b"\n")
        (self.state / OVERRIDES).write_bytes(b"{}")
        with self.store() as store:
            store.save_lease("acct", HELD)
            store.write_call(
                "acct", "1", Command(verb=Verb.EXTEND, camera="cam", device="d").call, self.clock.now(), None
            )
        self.start_worker()

    def start_worker(self) -> None:
        self.worker = subprocess.Popen(["sleep", "600"])
        started = start_ticks(self.worker.pid)
        assert started is not None
        with self.store() as store:
            store.save_worker(SavedWorker("cam.1", "cam", process_ref(self.worker.pid, started)))

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(self.state / STATE_FILE, self.clock).open()
        yield store
        store.close()

    async def leaves(self, cluster: Namespace, **how: Any) -> int:
        return await to_cluster(cluster, "relay", self.state, self.state / OVERRIDES, self.launcher, self.clock, **how)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.worker.kill()
    made.worker.wait()


async def test_leases_quota_log_and_key_go_into_the_cluster_and_the_workers_end(box: Box) -> None:
    cluster = Namespace()
    assert await box.leaves(cluster) == 1
    assert box.worker.wait(10) == -9
    found = await StateObject(cluster, "relay", "a supervisor there").claim(b"another")
    assert found.key == box.key
    assert found.overrides == b"{}"
    database = ClusterDatabase(found.content, StateObject(cluster, "relay", "s"), box.clock, in_command=lambda: True)
    there = Store(database, box.clock, boot="s").open()
    assert [(one.camera, one.stream.url) for one in there.leases("acct")] == [(HELD.camera, HELD.stream.url)]
    assert len(there.calls("acct")) == 1
    await database.aclose(0.0)


async def test_what_the_cluster_has_is_overwritten_only_if_that_is_said(box: Box) -> None:
    cluster = Namespace()
    await box.leaves(cluster)
    await StateObject(cluster, "relay", "a supervisor there").claim(b"")
    box.start_worker()
    held = copy.deepcopy(cluster.objects.held)
    with pytest.raises(RelayError, match="has a state of relay already"):
        await box.leaves(cluster)
    cluster.pod("supervisor", **{COMMANDS_LABEL: "relay"})
    with pytest.raises(RelayError, match="supervisor still commands relay"):
        await box.leaves(cluster, replace=True)
    await cluster.delete(PODS, "supervisor")
    assert cluster.objects.held == held, "whoever commands there is not deposed"
    assert box.worker.poll() is None
    await box.leaves(cluster, replace=True)


async def test_whoever_is_next_knows_whose_log_was_carried_over(box: Box) -> None:
    """Else the minute before would be taken for used up."""
    cluster = Namespace()
    OwnLog(box.state).begin("machine/1")
    await box.leaves(cluster)
    assert (await StateObject(cluster, "relay", "there").claim(b"")).before == "machine/1"
    await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock)
    assert OwnLog(box.state).knows("there")
    box.start_worker()
    await box.leaves(cluster, replace=True)
    claimed = await StateObject(cluster, "relay", "again").claim(b"")
    assert claimed.before not in ("there", "machine/1"), "the session of one that stood by is nobody else's"


async def test_a_key_that_is_missing_is_made(box: Box) -> None:
    (box.state / KEY_FILE).unlink()
    cluster = Namespace()
    await box.leaves(cluster)
    assert zmq.curve_public(await StateObject(cluster, "relay", "s").key())


async def test_and_back(box: Box) -> None:
    cluster = Namespace()
    await box.leaves(cluster)
    cluster.pod("worker", **{RELAY_LABEL: "relay"})
    cluster.pod("anothers", **{RELAY_LABEL: "other"})
    with box.store() as store:
        store.forget_lease("acct", HELD.camera)
    (box.state / OVERRIDES).unlink()  # what is here is out of date
    cluster.pod("supervisor", **{f"{ACCOUNT_COMMANDS}relay": "true"})
    with pytest.raises(RelayError, match="supervisor still commands relay"):
        await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock)
    await cluster.delete(PODS, "supervisor")
    assert await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock) == 1
    assert [name for kind, name in cluster.objects.held if kind == PODS.__name__] == ["anothers"]
    assert (box.state / KEY_FILE).read_bytes().strip() == box.key
    assert (box.state / OVERRIDES).read_bytes() == b"{}"
    assert (box.state / (STATE_FILE + BEFORE)).exists()
    with box.store() as store:
        assert [one.camera for one in store.leases("acct")] == [HELD.camera]
        assert len(store.calls("acct")) == 1


async def test_what_has_ended_is_not_waited_for_until_its_pod_is_gone(box: Box) -> None:
    """Kubelet 1.20 keeps a Pod for up to two minutes after its containers have ended."""
    cluster, ended = Namespace(), {"terminated": {"exitCode": 137}}
    await box.leaves(cluster)
    cluster.pod("worker", **{RELAY_LABEL: "relay"})
    cluster.pod("supervisor", **{COMMANDS_LABEL: "relay"})
    cluster.keeps["worker"] = ended
    cluster.ending("supervisor", {"running": {}})
    with pytest.raises(RelayError, match="supervisor still commands relay"):
        await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock)
    cluster.ending("supervisor", ended)
    assert await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock) == 1


async def test_a_worker_that_does_not_end_is_named_with_its_node_and_nothing_is_changed(box: Box) -> None:
    cluster, clock = Namespace(), ManualClock()
    await box.leaves(cluster)
    cluster.pod("worker", **{RELAY_LABEL: "relay"})
    cluster.objects.patch(PODS.__name__, "worker", {"spec": {"nodeName": "node2"}})
    cluster.keeps["worker"] = {"running": {}}
    before = (box.state / STATE_FILE).read_bytes()
    moving = asyncio.create_task(from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, clock))
    await clock.advance(WITHIN + 1.0)
    with pytest.raises(RelayError, match="have not ended within 30 s: worker on node2"):
        await moving
    assert (box.state / STATE_FILE).read_bytes() == before


async def test_a_process_that_does_not_end_is_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "WITHIN", 0.1)
    monkeypatch.setattr(WorkerProcess, "end_now", lambda handle: None)
    with pytest.raises(RelayError, match=f"not ended within 0 s: processes {box.worker.pid}"):
        await box.leaves(Namespace())


async def test_a_relay_that_runs_is_not_moved(box: Box) -> None:
    cluster, lock = Namespace(), StateLock(box.state)
    lock.acquire()
    with pytest.raises(RelayError, match="Stop it first"):
        await box.leaves(cluster)
    with pytest.raises(RelayError, match="Stop it first"):
        await from_cluster(cluster, "relay", box.state, box.state / OVERRIDES, box.clock)
    lock.release()
    assert box.worker.poll() is None
    assert cluster.objects.held == {}


async def test_there_has_to_be_something(tmp_path: Path) -> None:
    cluster, launcher, clock = Namespace(), ForkServerLauncher(tmp_path), SystemClock()
    with pytest.raises(RelayError, match="nothing to carry over"):
        await to_cluster(cluster, "relay", tmp_path, tmp_path / OVERRIDES, launcher, clock)
    with pytest.raises(RelayError, match="has no state of relay"):
        await from_cluster(cluster, "relay", tmp_path, tmp_path / OVERRIDES, clock)
    assert cluster.objects.held == {}, "a state without a key would be found by the next supervisor there"
