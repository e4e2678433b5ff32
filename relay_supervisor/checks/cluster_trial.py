"""Check of a cluster by a Pod that lives for seconds: do nodes pull and run the image, and does a worker reach the bus?

Where a supervisor has the bus, the Pod tries that one, with keys that it accepts and does not listen to. Otherwise the
check listens in its place. The Pod is removed however the check ends; one of a check that was killed by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq
import zmq.asyncio

from relay_common.bus_probe import BusReached, outcome
from relay_common.clock import Clock, SystemClock
from relay_common.config_cluster import ClusterConfig, bound_endpoints, bus_endpoints
from relay_common.engine_waits import WAITS, wait_of
from relay_common.secrets import Secret
from relay_supervisor.checks.report import Finding, failed, ok, warn
from relay_supervisor.fleet.bus_sockets import BusSockets, Doorkeeper
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring, trial_keys
from relay_supervisor.fleet.launcher import EngineError, EnginePhase
from relay_supervisor.fleet.pods.seen import PodVerdict, judge, read_pod
from relay_supervisor.fleet.refusals import Refusals
from relay_supervisor.fleet.zap import ZapHandler
from relay_worker.process.spec import BusKeys, WorkerSpec

if TYPE_CHECKING:
    from relay_supervisor.fleet.pods.api import ClusterApi

_PODS: Final = "worker Pods"
_BUS: Final = "cluster.bus_listen"
_LOOK: Final = 0.3
SETTLED: Final = 6.0
"""Seconds for which the Pod has to wait for the same before that counts as what is wrong."""
_REMEDIES: Final = {
    BusReached.UNKNOWN_NAME: (
        "cannot look that name up",
        "Check the name and the cluster's DNS; a Service has no address while no supervisor commands",
    ),
    BusReached.REFUSED: (
        "finds nothing that listens there",
        "Check cluster.bus_bind and the port, and that a Service leads to the supervisor that commands",
    ),
    BusReached.NO_ROUTE: (
        "has no route to it",
        "Name an address that the nodes reach; a NetworkPolicy or firewall that rejects looks the same",
    ),
    BusReached.SILENT: (
        "gets no answer from there",
        "Something drops it: let Pods with the label nest-relay/instance reach it (NetworkPolicies at both ends, the "
        "machine's firewall), or name another address",
    ),
    BusReached.OTHER_KEY: (
        "is answered by something else than this relay's supervisor",
        "Another program or relay has that address, or the supervisor that runs there has another state than this one",
    ),
    BusReached.UNUSABLE: ("cannot read what it was given", "Report it: that should not happen"),
}
"""What a Pod says of the bus, and what to do."""


async def tried(config: ClusterConfig, state: Path, running: bool, clock: Clock | None = None) -> list[Finding]:
    """Findings of a Pod on image and bus; `running`: a supervisor with this configuration runs, here or elsewhere.

    `state` is the state directory. Ends by CancelledError on SIGTERM.
    """
    from relay_supervisor.fleet.pods.api import ClusterApi  # with libraries that nothing else needs

    bound = bound_endpoints(config)
    assert bound is not None
    there = bus_endpoints(config.bus_listen, ipv6="[" in bound[0])
    assert there is not None
    clock, api = clock or SystemClock(), ClusterApi(config.namespace)
    try:
        with _cancelled_by_sigterm():
            if running or config.replica:
                secret = await _key(api, config, state)
                if not secret:
                    text = "no supervisor of this relay has commanded yet: image and bus are not tried"
                    return [warn(_BUS, text, "Start the relay, then check again")]
                return await _by_pod(api, config, there, trial_keys(secret), clock)
            async with _listening(bound, clock) as keys:
                return await _by_pod(api, config, there, keys, clock)
    except zmq.ZMQError as error:
        return [warn(_BUS, f"not tried from a Pod: this machine cannot listen there ({error.strerror})")]
    except EngineError as error:
        return [failed(_PODS, f"the cluster makes none: {error}", WAITS[wait_of(str(error))].advice)]
    finally:
        await api.aclose()


@contextlib.contextmanager
def _cancelled_by_sigterm() -> Iterator[None]:
    """Have SIGTERM cancel the task, as Ctrl-C does, so that the Pod is removed."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _key(api: ClusterApi, config: ClusterConfig, state: Path) -> Secret:
    """The secret key of the supervisor that has the bus; empty when there is none yet."""
    if config.replica:
        from relay_supervisor.cluster.state_object import StateObject

        return Secret((await StateObject(api, config.identity, "").key()).decode())
    try:
        return Secret((state / KEY_FILE).read_text().strip())
    except OSError:
        return Secret("")


@contextlib.asynccontextmanager
async def _listening(bound: tuple[str, str], clock: Clock) -> AsyncIterator[BusKeys]:
    """Have a bus there that accepts the trial, whose keys these are. Raises zmq.ZMQError."""
    keyring, context = Keyring(), zmq.asyncio.Context()
    keyring.open()
    doorkeeper = Doorkeeper(context, ZapHandler(keyring, Refusals(clock), lambda pid: ""))
    serving = asyncio.create_task(doorkeeper.run())
    sockets = BusSockets("trial", *bound)  # closed with the object
    try:
        sockets.open(context, keyring.secret, clock)
        yield keyring.trial()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        context.destroy(linger=0)


async def _by_pod(
    api: ClusterApi, config: ClusterConfig, there: tuple[str, str], keys: BusKeys, clock: Clock
) -> list[Finding]:
    """Make the Pod, wait for its end, and remove it."""
    from relay_supervisor.fleet.pods.api import PODS, SECRETS
    from relay_supervisor.fleet.pods.template import read_template
    from relay_supervisor.fleet.pods.trial import trial_pod, trial_secret

    await _sweep(api, config.identity, clock)
    template = read_template(config.worker_template, config.image, config.identity)
    instance = f"check.{secrets.token_hex(4)}"
    spec = WorkerSpec(camera="check", name="check", instance=instance, control=there[0], stats=there[1], keys=keys)
    secret, pod = trial_secret(spec, config.identity), trial_pod(spec, config.identity, template)
    name = pod["metadata"]["name"]
    try:
        await api.create(SECRETS, secret)
        await api.create(PODS, pod)
        return _findings(await _outcome(api, config.identity, name, clock), config, template.image)
    finally:
        for kind in (PODS, SECRETS):
            with contextlib.suppress(EngineError):  # the next check sweeps it
                await api.delete(kind, name, 0)


async def _outcome(api: ClusterApi, relay: str, name: str, clock: Clock) -> PodVerdict:
    """What became of the Pod, or what it waits for in vain."""
    from relay_supervisor.fleet.pods.api import PODS
    from relay_supervisor.fleet.pods.trial import LONGEST, TRIAL_LABEL

    began = since = clock.now()
    before = PodVerdict(EnginePhase.WAITING)
    while True:
        found, _ = await api.list(PODS, {TRIAL_LABEL: relay})
        seen = next((judge(read_pod(one)) for one in found if one["metadata"]["name"] == name), None)
        if seen is None:
            return PodVerdict(EnginePhase.GONE, "somebody deleted it")
        now = clock.now()
        if wait_of(seen.reason) is not wait_of(before.reason) or seen.phase is not before.phase:
            since = now
        wrong = seen.phase is EnginePhase.WAITING and not WAITS[wait_of(seen.reason)].usual
        if seen.phase is EnginePhase.GONE or now - began > LONGEST or (wrong and now - since > SETTLED):
            return seen
        before = seen
        await clock.sleep(_LOOK)


def _findings(seen: PodVerdict, config: ClusterConfig, image: str) -> list[Finding]:
    if seen.phase is not EnginePhase.GONE:
        words = seen.reason or f"it has not ended on {seen.where}"
        return [failed(_PODS, f"one that was tried did not run: {words}", WAITS[wait_of(seen.reason)].advice)]
    reached, statistics = outcome(code) if seen.exit and (code := seen.exit.code) is not None else (None, False)
    if reached is None:
        words = f"one that was tried {seen.exit or seen.reason}"
        last = next((line for line in reversed(seen.last_words.splitlines()) if line.strip()), "")
        remedy = (
            "cluster.image has to be of this release; `kubectl describe pod` and `kubectl logs` of a worker say more"
        )
        return [failed(_PODS, f"{words} on {seen.where}{f': {last}' if last else ''}", remedy)]
    findings = [ok(_PODS, f"{seen.where} has {image} and runs it")]
    if reached is BusReached.REACHED:
        return [*findings, ok(_BUS, f"a Pod on {seen.where} reaches {config.bus_listen} and the next port")]
    words, remedy = _REMEDIES[reached]
    at = "the port after that of " if statistics else ""
    return [*findings, failed(_BUS, f"{at}{config.bus_listen}: a Pod on {seen.where} {words}", remedy)]


async def _sweep(api: ClusterApi, relay: str, clock: Clock) -> None:
    """Remove what checks have left behind that were killed."""
    from relay_supervisor.fleet.pods.api import PODS, SECRETS
    from relay_supervisor.fleet.pods.trial import TRIAL_LABEL, is_orphan

    for kind in (PODS, SECRETS):
        for one in (await api.list(kind, {TRIAL_LABEL: relay}))[0]:
            if is_orphan(one["metadata"], clock.wall()):
                await api.delete(kind, one["metadata"]["name"], 0)
