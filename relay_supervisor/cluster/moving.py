"""A relay moved from one machine to a cluster, or back: its leases, quota log, bus key and overrides are carried over.

Whoever runs it there finds what a supervisor finds that was started again: streams that go on are extended, and none
is generated that is still there. Workers are ended first: a camera may serve one client only.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from relay_common.clock import Clock
from relay_common.errors import RelayError
from relay_common.files import write_private
from relay_supervisor.cluster.cluster_database import image_of, unpacked
from relay_supervisor.cluster.election import is_lone
from relay_supervisor.cluster.objects import Objects
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.cluster.replica import command_labels
from relay_supervisor.cluster.state_object import StateObject
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.fleet.launcher import EnginePhase, Launcher
from relay_supervisor.fleet.pods.api import PODS, ResourceKind
from relay_supervisor.fleet.pods.seen import RELAY_LABEL, SeenPod, judge, read_pod
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import STATE_FILE, Store

WITHIN: Final = 30.0
"""Seconds for the workers to end."""
_GRACE: Final = 1
_LOOK: Final = 0.2
BEFORE: Final = ".before"
"""What is appended to the name of a state file that is replaced."""


class Emptied(Objects, Protocol):
    """A namespace whose workers can be ended. Methods raise ApiAway and ApiRefused."""

    async def delete(self, kind: ResourceKind, name: str, grace: int | None = None) -> None:
        """Delete an object, in `grace` seconds; nothing happens when it is gone."""
        ...


async def to_cluster(
    objects: Objects,
    relay: str,
    state: Path,
    overrides: Path,
    launcher: Launcher,
    clock: Clock,
    *,
    replace: bool = False,
) -> int:
    """Carry the state of a relay that was stopped into the cluster; returns how many workers it had.

    Its workers that were kept on this machine, by `launcher`, are ended. `overrides` is where people's switching on and
    off is kept. With `replace` what the cluster has of this relay is overwritten. Raises RelayError; nothing is changed
    then.
    """
    file, own = state / STATE_FILE, OwnLog(state)
    # In the name of the last that was alone here: so whoever takes the Lease after it knows that this is its log.
    there = StateObject(objects, relay, own.last if is_lone(own.last) else secrets.token_hex(8))
    with _stopped(state):
        if not file.exists():
            raise RelayError(f"There is no state in {state}: nothing to carry over")
        if not image_of(file):
            raise RelayError(f"{file} cannot be read")
        await _nobody_commands(objects, relay)
        if not replace and await there.kept():
            raise RelayError(f"The cluster has a state of {relay} already", hint="Overwrite it with --replace")
        held = await _end_workers(state, launcher, clock)
        keyring = Keyring(state / KEY_FILE)
        keyring.open()
        await there.claim(keyring.secret.reveal().encode())
        await there.save(image_of(file))
        if overrides.exists():
            await there.save_overrides(overrides.read_bytes())
        return held


async def from_cluster(objects: Emptied, relay: str, state: Path, overrides: Path, clock: Clock) -> int:
    """Carry the state of a relay, whose supervisors have ended, from the cluster to this machine; returns the number of
    workers that were ended there.

    A state file that is here already is kept beside it. Raises RelayError; nothing is changed here then.
    """
    file, there = state / STATE_FILE, StateObject(objects, relay, secrets.token_hex(8))
    with _stopped(state):
        await _nobody_commands(objects, relay)
        if not await there.kept():  # what is not there is not to be made by a claim
            raise RelayError(f"The cluster has no state of {relay}")
        claimed = await there.claim(b"")
        try:
            image = unpacked(claimed.content)
        except zlib.error as error:
            raise RelayError(f"The state of {relay} in the cluster cannot be read: {error}") from error
        ended = await _end_pods(objects, relay, clock)
        with contextlib.suppress(FileNotFoundError):
            file.rename(file.with_name(file.name + BEFORE))
        for rest in ("-wal", "-shm"):  # of the file that was here
            file.with_name(file.name + rest).unlink(missing_ok=True)
        write_private(file, image)
        write_private(state / KEY_FILE, claimed.key + b"\n")
        OwnLog(state).begin(claimed.before)
        if claimed.overrides:
            write_private(overrides, claimed.overrides)
        return ended


@contextlib.contextmanager
def _stopped(state: Path) -> Iterator[None]:
    """Hold the state directory; raises RelayError while a supervisor does."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = StateLock(state)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _nobody_commands(objects: Objects, relay: str) -> None:
    found = [read_pod(pod) for labels in command_labels(relay) for pod in (await objects.list(PODS, labels))[0]]
    for pod in found:
        if not _ended_for_good(pod):
            raise RelayError(
                f"{pod.metadata.name} still commands {relay}",
                hint="`kubectl scale deployment nest-relay --replicas=0`, and wait",
            )


def _ended_for_good(pod: SeenPod) -> bool:
    """Whether it was deleted and nothing of it runs: its node may take minutes to let go of what is left of it."""
    states = [one.state for one in pod.status.container_statuses or ()]
    ended = all(state is not None and state.terminated is not None for state in states)
    return bool(pod.metadata.deletion_timestamp and states and ended)


async def _end_workers(state: Path, launcher: Launcher, clock: Clock) -> int:
    """End the workers that the state names, and count them."""
    store = Store(state / STATE_FILE, clock).open()
    try:
        workers = store.workers()
    finally:
        store.close()
    kept = [handle for one in workers if (handle := launcher.recall(one.instance, one.ref)) is not None]
    for handle in kept:
        handle.end_now()
    try:
        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*(handle.wait() for handle in kept))
    except TimeoutError:
        stuck = ", ".join(str(handle.number) for handle in kept if handle.exit is None)
        raise RelayError(f"Workers have not ended within {WITHIN:.0f} s: processes {stuck}", hint="Try again") from None
    return len(workers)


async def _end_pods(objects: Emptied, relay: str, clock: Clock) -> int:
    """Delete the workers' Pods, and wait until no worker runs.

    A Pod may be there for longer: kubelet 1.20 keeps one until its sandbox is removed, up to two minutes
    (kubernetes/kubernetes#97288).
    """
    found = await _pods(objects, relay)
    for pod in found:
        await objects.delete(PODS, pod.metadata.name, _GRACE)
    until = clock.now() + WITHIN
    while left := [pod for pod in await _pods(objects, relay) if judge(pod).phase is not EnginePhase.GONE]:
        if clock.now() > until:
            where = ", ".join(f"{pod.metadata.name} on {pod.node or 'no node'}" for pod in left)
            raise RelayError(
                f"Workers of {relay} have not ended within {WITHIN:.0f} s: {where}",
                hint="Try again; if such a node is lost, `kubectl delete pod NAME --force --grace-period=0` first",
            )
        await clock.sleep(_LOOK)
    return len(found)


async def _pods(objects: Objects, relay: str) -> list[SeenPod]:
    return [read_pod(pod) for pod in (await objects.list(PODS, {RELAY_LABEL: relay}))[0]]
