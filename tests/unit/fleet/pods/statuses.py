"""Pods as API servers have them. Unless said otherwise they are of Kubernetes 1.20.2 with the test kubelet of
`tests/cluster`, shortened by times and addresses."""

from __future__ import annotations

import copy
from typing import Any, Final

Json = dict[str, Any]

INSTANCE: Final = "2a9226a5.10c16786"
NODE: Final = "node1"


def a_pod(status: Json, *, node: str = NODE, instance: str = INSTANCE, **metadata: Any) -> Json:
    """A worker's Pod with that status."""
    known = {
        "name": f"nest-relay-{instance.replace('.', '-')}",
        "uid": f"uid-{instance}",
        "resourceVersion": "340",
        "creationTimestamp": "2026-11-29T12:48:13Z",
        "labels": {"nest-relay/relay": "nest-relay", "nest-relay/instance": instance, "nest-relay/camera": "2a9226a5"},
    }
    spec = {"containers": [{"name": "worker"}]} | ({"nodeName": node} if node else {})
    return {"metadata": known | metadata, "spec": spec, "status": copy.deepcopy(status)}


def _conditions(ready: str) -> list[Json]:
    kinds = {"Initialized": "True", "ContainersReady": ready, "Ready": ready, "PodScheduled": "True"}
    return [{"type": kind, "status": status, "lastProbeTime": None} for kind, status in kinds.items()]


def _begun(phase: str, state: Json) -> Json:
    """The status of a Pod whose kubelet has taken it up."""
    container = {
        "name": "worker",
        "state": state,
        "lastState": {},
        "ready": "running" in state,
        "restartCount": 0,
        "image": "registry.example/nest-relay:0.1.0",
        "imageID": "",
    }
    return {
        "phase": phase,
        "conditions": _conditions("True" if "running" in state else "False"),
        "startTime": "2026-11-29T12:48:13Z",
        "containerStatuses": [container],
        "qosClass": "Burstable",
    }


def ended(code: int, reason: str = "Error", **more: str) -> Json:
    times = {"startedAt": "2026-11-29T12:48:13Z", "finishedAt": "2026-11-29T12:48:14Z"}
    return _begun(
        "Succeeded" if code == 0 else "Failed", {"terminated": {"exitCode": code, "reason": reason} | times | more}
    )


def waits(reason: str, message: str | None = None) -> Json:
    return _begun("Pending", {"waiting": {"reason": reason} | ({"message": message} if message else {})})


NEW: Final[Json] = {"phase": "Pending", "qosClass": "Burstable"}
"""Just created; bound to a node and not taken up by its kubelet it is the same."""
RUNNING: Final = _begun("Running", {"running": {"startedAt": "2026-11-29T12:48:13Z"}})
UNSCHEDULABLE: Final[Json] = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient cpu.",
        }
    ],
    "qosClass": "Burstable",
}
NO_IMAGE: Final = waits("ImagePullBackOff", 'Back-off pulling image "absent.invalid/x:1"')
CREATING: Final = waits("ContainerCreating")

EVICTED: Final[Json] = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: memory. ",
    "startTime": "2026-11-29T12:48:13Z",
}
"""As a true kubelet writes it (pkg/kubelet/eviction)."""
DISRUPTED: Final[Json] = RUNNING | {
    "conditions": [
        *RUNNING["conditions"],
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        },
    ]
}
"""As since 1.26 (Pod disruption conditions)."""
INITIALISING: Final[Json] = CREATING | {
    "initContainerStatuses": [{"name": "before", "state": {"waiting": {"reason": "ErrImagePull"}}}],
    "containerStatuses": [{"name": "worker", "state": {"waiting": {"reason": "PodInitializing"}}}],
}
"""As a true kubelet writes it."""
BOOKMARK: Final[Json] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"resourceVersion": "12746", "creationTimestamp": None},
    "spec": {"containers": None},
    "status": {},
}
"""The object of a watch's bookmark, as every version writes it."""
