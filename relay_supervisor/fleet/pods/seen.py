"""What a Pod's status means for the worker in it, without I/O.

Of a Pod only what is needed is read, and leniently: an API server of another version writes more, and writes null where
a list is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from relay_supervisor.fleet.launcher import EnginePhase, Exit

INSTANCE_LABEL: Final = "nest-relay/instance"
RELAY_LABEL: Final = "nest-relay/relay"
"""Labels of all that a relay makes in the cluster: which worker it is of, and which relay's."""
CONTAINER: Final = "worker"
"""What the worker's container is called, beside which there may be others."""
LONGEST_REASON: Final = 300
"""Characters of the engine's words that are passed on."""
_SIGNALLED: Final = 128
"""Exit codes above it tell the signal that ended a container's process."""
DELETED: Final = "its Pod was deleted"
_LOST: Final = "ContainerStatusUnknown"
"""What a kubelet gives for a container that it has lost, with an exit code that means nothing."""


class _Part(msgspec.Struct, rename="camel"):
    pass


class Metadata(_Part):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Spec(_Part):
    node_name: str | None = None


class Waiting(_Part):
    reason: str | None = None
    message: str | None = None


class Terminated(_Part):
    exit_code: int = 0
    reason: str | None = None
    message: str | None = None


class ContainerState(_Part):
    waiting: Waiting | None = None
    running: dict[str, Any] | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part):
    name: str = ""
    state: ContainerState | None = None


class Condition(_Part):
    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class Status(_Part):
    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    start_time: str | None = None
    conditions: list[Condition] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None


class SeenPod(_Part):
    """A Pod as the API server has it, as far as it matters here."""

    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)
    status: Status = msgspec.field(default_factory=Status)

    @property
    def instance(self) -> str:
        """The worker in it; "" for a Pod that is none of a relay's."""
        return (self.metadata.labels or {}).get(INSTANCE_LABEL, "")

    @property
    def node(self) -> str:
        return self.spec.node_name or ""

    @property
    def acknowledged(self) -> bool:
        """Whether its node's kubelet has said anything about it."""
        return self.status.start_time is not None or self.status.container_statuses is not None

    def condition(self, type_: str, status: str) -> Condition | None:
        """The condition of that type, where it has that status."""
        found = (one for one in self.status.conditions or () if (one.type, one.status) == (type_, status))
        return next(found, None)


@dataclass(frozen=True)
class PodVerdict:
    """What a Pod's status means: as `Handle` says it."""

    phase: EnginePhase
    reason: str = ""
    where: str = ""
    exit: Exit | None = None
    last_words: str = ""
    """What the worker wrote last before it failed, where its node has passed it on."""


def read_pod(pod: Mapping[str, Any]) -> SeenPod:
    """A Pod from the API's JSON; raises msgspec.ValidationError for what cannot be one."""
    return msgspec.convert(pod, SeenPod)


def judge(pod: SeenPod) -> PodVerdict:
    """What its status means, by the first rule that fits."""
    rule = next(rule for rule in RULES if rule.fits(pod))
    ended = _terminated(pod)
    return PodVerdict(
        rule.phase,
        rule.reason(pod)[:LONGEST_REASON],
        pod.node,
        _exit(pod) if rule.phase is EnginePhase.GONE else None,
        (ended.message or "") if ended is not None and ended.exit_code else "",
    )


class Rule(NamedTuple):
    """One line of the table."""

    fits: Callable[[SeenPod], object]
    phase: EnginePhase
    reason: Callable[[SeenPod], str]


def _worker(pod: SeenPod) -> ContainerState | None:
    """The state of the worker's container; None before its node has said anything of it."""
    return next((one.state for one in pod.status.container_statuses or () if one.name == CONTAINER), None)


def _terminated(pod: SeenPod) -> Terminated | None:
    state = _worker(pod)
    return state.terminated if state is not None else None


def _running(pod: SeenPod) -> bool:
    state = _worker(pod)
    return state is not None and state.running is not None


def _waiting(pod: SeenPod) -> Waiting | None:
    """Why a container of it waits; first those that come before the worker's."""
    for status in pod.status.init_container_statuses or ():
        if status.state is not None and status.state.waiting is not None:
            return status.state.waiting
    state = _worker(pod)
    return state.waiting if state is not None else None


def _exit(pod: SeenPod) -> Exit:
    ended = _terminated(pod)
    known = ended if ended is not None and ended.reason != _LOST else None
    code = known.exit_code if known is not None else None
    if code is not None and code > _SIGNALLED:
        code = _SIGNALLED - code
    if pod.metadata.deletion_timestamp:
        return taken_away(pod, code)
    if known is None:
        return Exit(None, (_words(pod.status.reason, pod.status.message) or (_LOST if ended else ""))[:LONGEST_REASON])
    usual = known.reason in ("Completed", "Error", None)
    return Exit(code, "" if usual else known.reason or "")


def taken_away(pod: SeenPod, code: int | None = None) -> Exit:
    """The end of a worker whose Pod was deleted while it ran: evicted, drained, preempted, or by somebody."""
    return Exit(code, _deleted(pod)[:LONGEST_REASON], taken=True)


def _words(reason: str | None, message: str | None) -> str:
    return ": ".join(filter(None, (reason, message)))


def _of_waiting(pod: SeenPod) -> str:
    waiting = _waiting(pod)
    return _words(waiting.reason, waiting.message) if waiting is not None else ""


def _of_condition(type_: str, status: str, otherwise: str = "") -> Callable[[SeenPod], str]:
    def reason(pod: SeenPod) -> str:
        found = pod.condition(type_, status)
        return (_words(found.reason, found.message) if found is not None else "") or otherwise

    return reason


def _nothing(pod: SeenPod) -> str:
    return ""


# Since 1.26 it says which of evicted, drained and preempted it is.
_deleted: Final = _of_condition("DisruptionTarget", "True", DELETED)


RULES: Final = (
    # Other containers of the Pod may go on; the worker's end is what counts.
    Rule(_terminated, EnginePhase.GONE, _nothing),
    Rule(lambda pod: pod.status.phase in ("Succeeded", "Failed"), EnginePhase.GONE, _nothing),
    Rule(lambda pod: pod.metadata.deletion_timestamp, EnginePhase.ENDING, _deleted),
    Rule(_running, EnginePhase.RUNNING, _nothing),
    Rule(_waiting, EnginePhase.WAITING, _of_waiting),
    # Its node was lost from sight, in old versions; what runs there nobody knows.
    Rule(lambda pod: pod.status.phase in ("Running", "Unknown"), EnginePhase.RUNNING, _nothing),
    Rule(lambda pod: pod.acknowledged, EnginePhase.WAITING, lambda pod: f"node {pod.node} prepares it"),
    Rule(lambda pod: pod.node, EnginePhase.WAITING, lambda pod: f"node {pod.node} has not begun with it"),
    Rule(lambda pod: True, EnginePhase.WAITING, _of_condition("PodScheduled", "False", "no node has been chosen yet")),
)
"""The table: the first rule that fits a Pod says in which phase its worker is, and why."""
