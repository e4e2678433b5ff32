"""What is known of a relay's Pods, and what is to be done about them, without I/O: times are passed in.

1. A worker is *watched* from before its Pod is made until it has ended or is forgotten. What becomes of it is told
   (`on_change`) by verdicts (`seen.judge`), the last of which is GONE.
2. The list and the watch of Pods are all that is believed. A watched worker that is missing from a list which was asked
   for after its Pod had been accepted has ended. As long as no list has come, nobody has ended.
3. A Pod is deleted (`superfluous`) once its worker has ended, or is to be ended without asking (`doom`), or when it is
   nobody's: neither watched nor being started nor left by an earlier supervisor (`keep`). So a Pod that was created
   although the server's answer was lost does not run beside its successor.
4. A Pod that was given to a node and of which that node's kubelet says nothing for `UNACKNOWLEDGED` seconds
   (`overdue`) is given up: the node may be dead. A camera to which that happens again waits twice as long each time, so
   that slow nodes make no storm of restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.pods.seen import DELETED, PodVerdict, SeenPod, judge, taken_away
from relay_supervisor.fleet.pods.suspects import Suspects

UNACKNOWLEDGED: Final = 5.0
LONGEST_UNACKNOWLEDGED: Final = 80.0
"""Seconds from when a Pod has a node until that node has to have said something about it."""
_UNKNOWN: Final = PodVerdict(EnginePhase.RUNNING, "the cluster has not said yet what became of it")
_ASKED: Final = PodVerdict(EnginePhase.WAITING, "the cluster has not accepted it yet")
_GONE: Final = PodVerdict(EnginePhase.GONE, exit=Exit(None, DELETED, taken=True))


@dataclass
class _Watched:
    camera: str
    verdict: PodVerdict
    accepted: bool
    """Whether the cluster has its Pod, as far as it has said."""


class Book:
    """The Pods of one relay, by the instance of the worker in each; `on_change` hears of what is watched."""

    def __init__(self, on_change: Callable[[str, PodVerdict], None]) -> None:
        self._on_change = on_change
        self._pods: dict[str, SeenPod] = {}
        self._watched: dict[str, _Watched] = {}
        self._kept: set[str] = set()
        self._doomed: set[str] = set()
        self._bound: dict[str, float] = {}
        """When a node was seen to have been given each Pod of which it has said nothing."""
        self._unacknowledged: Counter[str] = Counter()
        """How often in a row that was in vain, by camera."""
        self.suspects: Final = Suspects()
        """The nodes that are avoided."""
        self._sweeping = False
        self.listed = False
        """Whether it is known which Pods there are."""

    # --- workers ---------------------------------------------------------------------------------------------------

    def expect(self, instance: str, camera: str) -> PodVerdict:
        """Watch a worker whose Pod is about to be asked for."""
        self._watched[instance] = _Watched(camera, _ASKED, accepted=False)
        return _ASKED

    def accepted(self, instance: str, pod: SeenPod, now: float) -> None:
        """The cluster has that Pod; the watch may have told more about it already."""
        if (watched := self._watched.get(instance)) is not None:
            watched.accepted = True
            if instance not in self._pods:
                self.seen(pod, now)

    def failed(self, instance: str) -> None:
        """The Pod was not created, as far as anybody can tell."""
        self._watched.pop(instance, None)
        self._doomed.add(instance)

    def recall(self, instance: str, camera: str) -> PodVerdict | None:
        """Watch a worker that an earlier supervisor started; None when it has ended."""
        if not self.living([instance]):
            return None
        pod = self._pods.get(instance)
        verdict = judge(pod) if pod is not None else _UNKNOWN
        self._watched[instance] = _Watched(camera, verdict, accepted=True)
        return verdict

    def living(self, instances: Iterable[str]) -> list[str]:
        """Those whose Pods have not ended, the oldest first; as long as no list has come all, as they were given."""
        if not self.listed:
            return list(instances)
        found = [self._pods[one] for one in instances if one in self._pods]
        alive = [pod for pod in found if judge(pod).phase is not EnginePhase.GONE]
        return [pod.instance for pod in sorted(alive, key=lambda pod: pod.metadata.creation_timestamp or "")]

    def keep(self, instances: Collection[str]) -> None:
        """Leave the Pods of these alone, and none of others that nobody watches."""
        self._kept.update(instances)
        self._sweeping = True

    def forget(self, instance: str) -> None:
        """Watch a worker no longer; its Pod is left alone, unless it is to be ended."""
        if self._watched.pop(instance, None) is not None:
            self._kept.add(instance)

    def doom(self, instance: str) -> None:
        """Have its Pod deleted without asking, as soon as that can be done."""
        self._doomed.add(instance)

    # --- Pods ------------------------------------------------------------------------------------------------------

    def asked(self) -> frozenset[str]:
        """The workers that a list has to contain which is asked for now, unless they have ended."""
        return frozenset(name for name, watched in self._watched.items() if watched.accepted)

    def all_seen(self, pods: Collection[SeenPod], asked: frozenset[str], now: float) -> None:
        """These Pods there are, and no others; `asked` as when the list was asked for."""
        present = {pod.instance for pod in pods}
        for instance in self._pods.keys() - present:
            self._dropped(instance)
        for pod in pods:
            self.seen(pod, now)
        for instance in asked - present:
            self._tell(instance, _GONE)
        self._doomed &= present | self._watched.keys()
        self.listed = True

    def seen(self, pod: SeenPod, now: float) -> None:
        """A Pod is there, or has changed."""
        instance = pod.instance
        self._pods[instance] = pod
        verdict = judge(pod)
        watched = self._watched.get(instance)
        if pod.node and not pod.acknowledged and verdict.phase is EnginePhase.WAITING:
            self._bound.setdefault(instance, now)
        else:
            if self._bound.pop(instance, None) is not None and pod.acknowledged:
                self.suspects.begun(pod.node)
            if watched is not None and pod.acknowledged:
                del self._unacknowledged[watched.camera]
        self._tell(instance, verdict)

    def deleted(self, pod: SeenPod) -> None:
        """A Pod is gone; `pod` is what it was last."""
        verdict = judge(pod)
        self._dropped(pod.instance)
        if verdict.phase is not EnginePhase.GONE:
            verdict = PodVerdict(EnginePhase.GONE, exit=taken_away(pod))
        self._tell(pod.instance, verdict)

    def resumed(self, now: float) -> None:
        """Nothing was heard of any Pod until now: what nodes have said meanwhile is still unread."""
        self._bound = dict.fromkeys(self._bound, now)

    def pod(self, instance: str) -> SeenPod | None:
        """The Pod of a worker, as it was last."""
        return self._pods.get(instance)

    def nobodys(self, instance: str) -> bool:
        """Whether what was made for a worker is of no use: it has no Pod and will have none."""
        return self.listed and instance not in self._pods and instance not in self._watched

    def superfluous(self) -> list[str]:
        """The workers whose Pods are to be deleted, without waiting for their nodes."""
        return [instance for instance, pod in self._pods.items() if self._is_superfluous(instance, pod)]

    def _is_superfluous(self, instance: str, pod: SeenPod) -> bool:
        if instance in self._doomed or judge(pod).phase is EnginePhase.GONE:
            return True
        return self._sweeping and instance not in self._watched and instance not in self._kept

    def overdue(self, now: float) -> list[str]:
        """Give up the workers whose nodes do not start them, and suspect those nodes; returns their instances."""
        late = [
            instance for instance, since in self._bound.items() if now - since >= self._acknowledge_timeout(instance)
        ]
        for instance in late:
            del self._bound[instance]
            node = self._pods[instance].node
            self.suspects.idle(node, now)
            if (watched := self._watched.get(instance)) is not None:
                self._unacknowledged[watched.camera] += 1
            self.doom(instance)
            exit_ = Exit(None, f"node {node} did not start it", node_failed=True)
            self._tell(instance, PodVerdict(EnginePhase.GONE, where=node, exit=exit_))
        return late

    def _acknowledge_timeout(self, instance: str) -> float:
        watched = self._watched.get(instance)
        times = self._unacknowledged[watched.camera] if watched is not None else 0
        return min(LONGEST_UNACKNOWLEDGED, UNACKNOWLEDGED * 2.0**times)

    def _dropped(self, instance: str) -> None:
        self._pods.pop(instance, None)
        self._bound.pop(instance, None)
        self._doomed.discard(instance)
        self._kept.discard(instance)

    def _tell(self, instance: str, verdict: PodVerdict) -> None:
        watched = self._watched.get(instance)
        if watched is None or watched.verdict == verdict:
            return
        watched.verdict = verdict
        if verdict.phase is EnginePhase.GONE:
            del self._watched[instance]
        self._on_change(instance, verdict)
