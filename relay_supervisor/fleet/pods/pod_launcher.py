"""Starts workers as Pods, and follows them: the edge around `book.py`.

An API server that is away ends no worker: what is known of it stays, what it was to be told is told when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final

import msgspec

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.config_cluster import ClusterConfig
from relay_common.pauses import PauseDetector
from relay_common.tasks import Tasks
from relay_supervisor.fleet.launcher import Handle
from relay_supervisor.fleet.pods.api import PODS, SECRETS, ApiAway, ApiRefused, ApiSilent, ClusterApi
from relay_supervisor.fleet.pods.book import Book
from relay_supervisor.fleet.pods.handle import PodWorker
from relay_supervisor.fleet.pods.manifest import grace, owned_by, pod_name, pod_of, secret_of
from relay_supervisor.fleet.pods.seen import INSTANCE_LABEL, RELAY_LABEL, PodVerdict, SeenPod, read_pod
from relay_supervisor.fleet.pods.template import read_template
from relay_supervisor.supervise import Loops
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

FIRST_LIST: Final = 5.0
"""Seconds for which a start waits to hear which workers there are; without it those of earlier times count as alive."""
LOOK: Final = 0.5
"""Seconds between looks at what is due."""
LAST_CALLS: Final = 2.0
"""Seconds at the end for the cluster to be told of Pods to delete."""
_AGAIN: Final = (0.5, 5.0)
"""Shortest and longest pause in seconds between attempts to reach the API server."""


class PodLauncher:
    """Starts each worker as a Pod of `config.namespace` (`Launcher`), and ends it, while `may_change` says yes.

    Raises ConfigError.
    """

    remote = True

    def __init__(self, config: ClusterConfig, clock: Clock, may_change: Callable[[], bool] = lambda: True) -> None:
        self._relay, self._clock = config.identity, clock
        self._template = read_template(config.worker_template, config.image, config.identity)
        self._api = ClusterApi(config.namespace, may_change)
        self._book = Book(self._tell)
        self._workers: dict[str, PodWorker] = {}
        self._loops, self._tasks = Loops(clock), Tasks(log, "a call of the cluster failed")
        self._ending: set[str] = set()
        """Workers whose Pods are being deleted at once."""
        self._known = asyncio.Event()
        self._away = ""
        """Why the API server cannot be asked, while it cannot."""
        self._logged = ""
        """What of that was logged last: where only a watch fails, it would be each time that a list has succeeded."""

    # --- Launcher --------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        self._loops.start("Pods", self._follow)
        self._loops.start("Pods that are due", self._look)
        try:
            async with asyncio.timeout(FIRST_LIST):
                await self._known.wait()
        except TimeoutError:
            log.error("which workers there are is not known (%s): all count as alive", self._away or "no answer yet")

    async def start(self, spec: WorkerSpec) -> PodWorker:
        instance, name = spec.instance, pod_name(self._relay, spec.instance)
        worker = PodWorker(self, instance, self._ref(name), self._book.expect(instance, spec.camera))
        self._workers[instance] = worker  # before its Pod exists: the watch may overtake the answer
        try:
            await self._api.create(SECRETS, secret_of(spec, self._relay))
            avoid = self._book.suspects.avoided(self._clock.now())
            pod = await self._api.create(PODS, pod_of(spec, self._relay, self._template, avoid))
        except BaseException as error:
            self._book.failed(instance)
            self._workers.pop(instance, None)
            certain = isinstance(error, ApiRefused)
            self._tasks.spawn(self._undo(name, pod=not certain))
            raise
        accepted = read_pod(pod)
        self._book.accepted(instance, accepted, self._clock.now())
        self._tasks.spawn(self._insist(self._api.patch(SECRETS, name, owned_by(name, accepted.metadata.uid))))
        return worker

    def recall(self, instance: str, ref: str) -> PodWorker | None:
        if ref != self._ref(pod_name(self._relay, instance)):
            return None
        verdict = self._book.recall(instance, instance.partition(".")[0])
        if verdict is None:
            return None
        worker = self._workers[instance] = PodWorker(self, instance, ref, verdict)
        return worker

    def living(self, refs: Mapping[str, str]) -> list[str]:
        ours = [one for one, ref in refs.items() if ref == self._ref(pod_name(self._relay, one))]
        return self._book.living(ours)

    def suspect(self, handle: Handle) -> None:
        self._book.suspects.silent(handle.where, self._clock.now())

    def heard(self, handle: Handle) -> None:
        self._book.suspects.heard(handle.where)

    def sweep(self, instances: Collection[str]) -> None:
        self._book.keep(instances)
        self._tasks.spawn(self._sweep_secrets())

    async def close(self) -> None:
        self._delete_superfluous()
        await self._loops.aclose()
        await self._tasks.aclose(within=LAST_CALLS)
        await self._api.aclose()

    # --- for handles -----------------------------------------------------------------------------------------------

    def end(self, instance: str, within: float | None) -> None:
        if within is None:
            self._book.doom(instance)
            self._delete_now(instance)
        else:
            self._tasks.spawn(self._delete(instance, grace(within)))

    def forget(self, instance: str) -> None:
        self._book.forget(instance)
        self._workers.pop(instance, None)

    def _tell(self, instance: str, verdict: PodVerdict) -> None:
        if (worker := self._workers.get(instance)) is not None:
            worker.now(verdict)
            if worker.exit is not None:
                del self._workers[instance]

    # --- following -------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """List all Pods, then follow what happens to them; again from the list where that cannot go on."""
        backoff, version = Backoff(*_AGAIN), ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self._reached()
                async for event, found in self._api.watch(PODS, self._labels, version):
                    backoff.reset()
                    if self._logged:
                        log.warning("Pods are followed again")
                    self._logged = ""
                    version = _version(found) or version
                    self._take(event, found)
            except ApiRefused as error:
                if not (error.too_old and version):
                    self._missed(str(error), listed=bool(version))
                    await self._clock.sleep(backoff.next_delay())
                version = ""
            except ApiAway as error:
                watched, version = bool(version), ""  # of a watch nobody knows whether the server is there: of a list
                if isinstance(error, ApiSilent) and watched:
                    continue
                self._missed(str(error), listed=watched)
                await self._clock.sleep(backoff.next_delay())

    async def _list(self) -> str:
        asked = self._book.asked()
        found, version = await self._api.list(PODS, self._labels)
        self._book.all_seen([pod for one in found if (pod := _read(one)) is not None], asked, self._clock.now())
        self._known.set()
        self._tasks.spawn(self._sweep_secrets())
        return version

    def _take(self, event: str, found: dict[str, Any]) -> None:
        pod = _read(found) if event != "BOOKMARK" else None
        if pod is None:
            return
        if event == "DELETED":
            self._book.deleted(pod)
        else:
            self._book.seen(pod, self._clock.now())
        self._delete_superfluous()

    def _reached(self) -> None:
        if self._away:
            if not self._logged:
                log.warning("the cluster's API server answers again")
            self._book.resumed(self._clock.now())
        self._away = ""

    def _missed(self, why: str, *, listed: bool) -> None:
        """Neither a list nor a watch came of it; `listed`: a list did before."""
        if why != self._logged and not (self._away and not listed):
            log.error("Pods cannot be followed, workers go on: %s", why)
        self._logged, self._away = why if listed else "", why

    async def _look(self) -> None:
        pauses = PauseDetector(LOOK)
        while True:
            now = self._clock.now()
            if pauses.observe(now):
                self._book.resumed(now)
            if not self._away:
                for instance in self._book.overdue(now):
                    log.error("a node has not begun with the worker that it was given", extra={"instance": instance})
                self._delete_superfluous()
            await self._clock.sleep(LOOK)

    # --- deleting --------------------------------------------------------------------------------------------------

    def _delete_superfluous(self) -> None:
        for instance in self._book.superfluous():
            self._delete_now(instance)

    def _delete_now(self, instance: str) -> None:
        if instance not in self._ending:
            self._ending.add(instance)
            self._tasks.spawn(self._delete(instance, 0))

    async def _delete(self, instance: str, seconds: int) -> None:
        try:
            await self._api.delete(PODS, pod_name(self._relay, instance), seconds)
        except OSError as error:
            log.warning("the worker's Pod cannot be deleted now: %s", error, extra={"instance": instance})
        finally:
            if not seconds:
                self._ending.discard(instance)

    async def _undo(self, name: str, *, pod: bool) -> None:
        """Delete what was, or may have been, made for a worker that was not started."""
        if pod:
            await self._insist(self._api.delete(PODS, name, 0))
        await self._insist(self._api.delete(SECRETS, name))

    async def _sweep_secrets(self) -> None:
        """See to the Secrets that no Pod owns: their supervisor was interrupted between two calls."""
        try:
            found, _ = await self._api.list(SECRETS, self._labels)
            for one in found:
                if not one["metadata"].get("ownerReferences"):
                    await self._settle_secret(one["metadata"])
        except OSError as error:
            log.warning("Secrets of workers that are gone cannot be deleted now: %s", error)

    async def _settle_secret(self, metadata: Mapping[str, Any]) -> None:
        instance = metadata["labels"].get(INSTANCE_LABEL, "")
        if self._book.nobodys(instance):
            await self._api.delete(SECRETS, metadata["name"])
        elif (pod := self._book.pod(instance)) is not None:
            await self._api.patch(SECRETS, metadata["name"], owned_by(pod.metadata.name, pod.metadata.uid))

    async def _insist(self, call: Coroutine[Any, Any, object]) -> None:
        """Make a call whose failure costs little: what it leaves is swept at the next list."""
        try:
            await call
        except OSError as error:
            log.warning("%s", error)

    # --- names -----------------------------------------------------------------------------------------------------

    @property
    def _labels(self) -> dict[str, str]:
        return {RELAY_LABEL: self._relay}

    def _ref(self, name: str) -> str:
        return f"{self._api.namespace}/{name}"


def _read(found: dict[str, Any]) -> SeenPod | None:
    """A Pod, if it is one of a worker."""
    try:
        pod = read_pod(found)
    except msgspec.ValidationError as error:
        log.error("a Pod cannot be read: %s", error)
        return None
    return pod if pod.instance else None


def _version(found: dict[str, Any]) -> str:
    return str((found.get("metadata") or {}).get("resourceVersion") or "")
