"""Why Kubernetes lets a worker's Pod wait, as a fixed enumeration: its words, the code, and what a person can do.

The words are the scheduler's, the kubelet's and the API server's; they differ a little from version to version, and
names and numbers stand in them, so codes are what metrics carry. Values are an interface and never change; new ones go
last. A test holds docs/reasons.md against the table.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple


class EngineWait(enum.Enum):
    """Codes of what a worker waits for, or why its Pod is not even taken."""

    QUOTA_EXCEEDED = "quota_exceeded"
    NOT_ALLOWED = "not_allowed"
    POD_SECURITY = "pod_security"
    NAMESPACE_ABSENT = "namespace_absent"
    NOT_ADMITTED = "not_admitted"
    API_AWAY = "api_away"
    INSUFFICIENT_CPU = "insufficient_cpu"
    INSUFFICIENT_MEMORY = "insufficient_memory"
    NO_ROOM = "no_room"
    CORDONED = "cordoned"
    TAINTED = "tainted"
    SPREAD = "spread"
    VOLUME = "volume"
    NOT_MATCHING = "not_matching"
    NO_NODES = "no_nodes"
    GATED = "gated"
    IMAGE_NEVER_PULLED = "image_never_pulled"
    IMAGE_NOT_PULLED = "image_not_pulled"
    IMAGE_NAME = "image_name"
    CONFIG_MISSING = "config_missing"
    NOT_CREATED = "not_created"
    PREPARING = "preparing"
    NODE_SILENT = "node_silent"
    NOT_PLACED = "not_placed"
    NOT_ACCEPTED = "not_accepted"
    OTHER = "other"


class WaitText(NamedTuple):
    """A row of the table; the first whose `words` (a regular expression) are found in the engine's is meant."""

    words: str
    example: str
    """As an engine says it."""
    advice: str
    usual: bool = False
    """Whether every start has a moment of it, so that nothing is wrong yet."""


_DESCRIBE: Final = "If it stays, `kubectl describe pod` of its Pod says what is missing"

# fmt: off
WAITS: Final[dict[EngineWait, WaitText]] = {
    EngineWait.QUOTA_EXCEEDED: WaitText(
        r"exceeded quota", "forbidden: exceeded quota: cameras, requested: pods=1",
        "Raise the namespace's ResourceQuota (`kubectl describe quota`), or relay fewer cameras"),
    EngineWait.NOT_ALLOWED: WaitText(
        r"forbidden: User|cannot create resource", "pods is forbidden: User … cannot create resource",
        "Give the supervisor's account its Role (rbac.yaml): `relay-supervisor check` names the rights that it lacks"),
    EngineWait.POD_SECURITY: WaitText(
        r"violates PodSecurity|PodSecurityPolicy", "violates PodSecurity \"restricted:latest\"",
        "Take out of cluster.worker_template what the namespace's Pod Security Standard forbids"),
    EngineWait.NAMESPACE_ABSENT: WaitText(
        r"namespaces \".*\" not found|is being terminated", "namespaces \"cameras\" not found",
        "Make the namespace (`kubectl apply -f namespace.yaml`), or correct cluster.namespace"),
    EngineWait.NOT_ADMITTED: WaitText(
        r"is forbidden|denied the request|is invalid|PriorityClass|the cluster refuses it",
        "admission webhook … denied the request",
        "Correct cluster.worker_template, or what the namespace admits: `relay-supervisor check` tries it"),
    EngineWait.API_AWAY: WaitText(
        r"API server (does not|did not|fails)", "the cluster's API server does not answer",
        "See to the cluster's control plane; workers that run go on, and this one is started when it is back"),
    EngineWait.INSUFFICIENT_CPU: WaitText(
        r"Insufficient cpu", "0/3 nodes are available: 3 Insufficient cpu",
        "Add a node, or have workers request less CPU (worker_template): `kubectl describe nodes` shows what is taken"),
    EngineWait.INSUFFICIENT_MEMORY: WaitText(
        r"Insufficient memory", "0/3 nodes are available: 3 Insufficient memory",
        "Add a node, or have workers request less memory (worker_template; 64Mi is little already)"),
    EngineWait.NO_ROOM: WaitText(
        r"Insufficient |Too many pods|free ports", "0/3 nodes are available: 3 Too many pods",
        "Add a node, or raise what the named ones may hold: kubelets take 110 Pods unless told otherwise"),
    EngineWait.CORDONED: WaitText(
        r"were unschedulable", "0/3 nodes are available: 3 node(s) were unschedulable",
        "Let nodes take Pods again (`kubectl uncordon NODE`), or add one"),
    EngineWait.TAINTED: WaitText(
        r"\btaint", "0/3 nodes are available: 3 node(s) had taint {gpu: }, that the pod didn't tolerate",
        "Tolerate the taint in cluster.worker_template, or remove it; where that is not-ready, see to its kubelet"),
    EngineWait.SPREAD: WaitText(
        r"topology spread", "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints",
        "Loosen topologySpreadConstraints in cluster.worker_template (whenUnsatisfiable: ScheduleAnyway)"),
    EngineWait.VOLUME: WaitText(
        r"(?i:volume)", "pod has unbound immediate PersistentVolumeClaims",
        "See to the volumes that cluster.worker_template names: `kubectl describe pod`"),
    EngineWait.NOT_MATCHING: WaitText(
        r"didn't match", "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector",
        "Correct nodeSelector or affinity in cluster.worker_template, or label the nodes that are meant"),
    EngineWait.NO_NODES: WaitText(
        r"no nodes available", "no nodes available to schedule pods", "Add a node: `kubectl get nodes` shows none"),
    EngineWait.GATED: WaitText(
        r"SchedulingGated", "SchedulingGated: Scheduling is blocked due to non-empty scheduling gates",
        "Have whoever set the Pod's schedulingGates remove them"),
    EngineWait.IMAGE_NEVER_PULLED: WaitText(
        r"ErrImageNeverPull", "ErrImageNeverPull: Container image is not present with pull policy of Never",
        "Load the image onto every node, or let nodes pull it (imagePullPolicy in cluster.worker_template)"),
    EngineWait.IMAGE_NOT_PULLED: WaitText(
        r"ErrImagePull|ImagePullBackOff|RegistryUnavailable|ImageInspectError",
        "ImagePullBackOff: Back-off pulling image",
        "Check cluster.image, that nodes reach its registry, and may pull there (imagePullSecrets in worker_template)"),
    EngineWait.IMAGE_NAME: WaitText(
        r"InvalidImageName", "InvalidImageName", "Correct cluster.image: it is no name of an image"),
    EngineWait.CONFIG_MISSING: WaitText(
        r"CreateContainerConfigError", "CreateContainerConfigError: configmap \"relay-ca\" not found",
        "Make the ConfigMap or Secret that cluster.worker_template names, in the workers' namespace"),
    EngineWait.NOT_CREATED: WaitText(
        r"CreateContainerError|RunContainerError|CrashLoopBackOff", "CreateContainerError",
        "`kubectl describe pod` says what the node cannot do; correct cluster.worker_template, or see to the node"),
    EngineWait.PREPARING: WaitText(
        r"ContainerCreating|PodInitializing|prepares it", "ContainerCreating", _DESCRIBE, usual=True),
    EngineWait.NODE_SILENT: WaitText(
        r"has not begun with it", "node node1 has not begun with it",
        "Nothing: another node is chosen within seconds. If it stays, see to that node's kubelet", usual=True),
    EngineWait.NOT_PLACED: WaitText(
        r"no node has been chosen", "no node has been chosen yet",
        "If it stays, see to the cluster's scheduler: `kubectl -n kube-system get pods`", usual=True),
    EngineWait.NOT_ACCEPTED: WaitText(
        r"has not accepted it", "the cluster has not accepted it yet",
        "If it stays, see to the cluster's API server", usual=True),
    EngineWait.OTHER: WaitText(r"", "anything else", _DESCRIBE),
}
"""The table, in the order in which the rows are tried."""
# fmt: on

_COMPILED: Final = [(wait, re.compile(text.words)) for wait, text in WAITS.items()]


def wait_of(words: str) -> EngineWait:
    """The code of what an engine says; OTHER for what this version does not know."""
    return next(wait for wait, pattern in _COMPILED if pattern.search(words))


def reference() -> list[str]:
    """The lines of docs/reasons.md on it."""
    lines = [
        "## Why a Pod waits",
        "",
        "With workers as Pods (`cluster.namespace`) the detail of `worker_waits` and `worker_unstarted` is Kubernetes'",
        "own words, and the advice that of the first row in which they are. The code is `worker.waits` of a camera in",
        "the status, and the label `reason` of `relay_workers_waiting` and `relay_camera_worker_waits`. Where it says",
        '"if it stays", every start has a moment of that.',
        "",
        "| code | for example | what to do |",
        "|---|---|---|",
    ]
    return lines + [f"| `{wait.value}` | {text.example} | {text.advice} |" for wait, text in WAITS.items()]
