"""What is made in the cluster for one worker: a Secret with its parameters, and its Pod, without the API.

Everything that is secret is in the Secret: the Pod's spec, its environment, labels and annotations can be read by
many more.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

from relay_supervisor.fleet.pods.seen import CONTAINER, INSTANCE_LABEL, RELAY_LABEL
from relay_supervisor.fleet.pods.suspects import Avoided
from relay_supervisor.fleet.pods.template import Template
from relay_worker.process.launch_file import packed
from relay_worker.process.remote import FILE
from relay_worker.process.spec import WorkerSpec

CAMERA_LABEL: Final = "nest-relay/camera"
_VOLUME: Final = "nest-relay-worker"
_HOSTNAME: Final = "kubernetes.io/hostname"
_WISH: Final = "ScheduleAnyway"
_ALIVE: Final = 100
"""Weight of the preference for nodes that are not lost: the heaviest that there is."""
_UNDOUBTED: Final = 25
"""Of that for nodes of which there is no doubt either."""
_NONE: Final = Avoided()


def pod_name(relay: str, instance: str) -> str:
    """What the Pod of a worker is called, and its Secret."""
    return f"{relay}-{instance.replace('.', '-')}"


def secret_of(spec: WorkerSpec, relay: str) -> dict[str, Any]:
    """The Secret that a worker reads when it starts."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": pod_name(relay, spec.instance), "labels": _labels(spec, relay)},
        "type": "Opaque",
        "immutable": True,
        "data": {FILE.name: base64.b64encode(packed(spec)).decode()},
    }


def pod_of(spec: WorkerSpec, relay: str, template: Template, avoid: Avoided = _NONE) -> dict[str, Any]:
    """The Pod of a worker. The scheduler prefers other nodes to those in `avoid`, doubtful ones to lost ones, and takes
    these if there are no others.
    """
    pod, name = template.pod(), pod_name(relay, spec.instance)
    pod["metadata"]["name"] = name
    pod["metadata"]["labels"] |= _labels(spec, relay)
    body = pod["spec"]
    volume = {"name": _VOLUME, "secret": {"secretName": name, "defaultMode": 0o440}}
    body["volumes"] = [*(body.get("volumes") or ()), volume]
    worker = next(one for one in body["containers"] if one["name"] == CONTAINER)
    mount = {"name": _VOLUME, "mountPath": str(FILE.parent), "readOnly": True}
    worker["volumeMounts"] = [*(worker.get("volumeMounts") or ()), mount]
    body.setdefault("topologySpreadConstraints", [_spread(relay)])
    if avoid:
        _prefer_others(body, avoid)
    return pod


def owned_by(name: str, uid: str) -> dict[str, Any]:
    """The change to a worker's Secret with which it goes when that Pod does."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return {"metadata": {"ownerReferences": [owner]}}


def grace(within: float) -> int:
    """Whole seconds for a Pod to end in order; none would be the force that is used for lost nodes."""
    return max(1, math.ceil(within))


def _labels(spec: WorkerSpec, relay: str) -> dict[str, str]:
    return {RELAY_LABEL: relay, INSTANCE_LABEL: spec.instance, CAMERA_LABEL: spec.camera}


def _spread(relay: str) -> dict[str, Any]:
    """A node that is lost takes as few cameras with it as can be."""
    return {
        "maxSkew": 1,
        "topologyKey": _HOSTNAME,
        "whenUnsatisfiable": _WISH,
        "labelSelector": {"matchLabels": {RELAY_LABEL: relay}},
    }


def _prefer_others(body: dict[str, Any], avoid: Avoided) -> None:
    """A preference and no requirement: one worker that hangs is no lost node, and one lost node may be all there is.

    The wish to be spread would outweigh it: a node that has just lost its Pods is the emptiest of all. It is one wish
    for all lost nodes: if each of ten had its own, any of them would fulfil nine, which is nearly as good as ten.
    """
    spread = body.get("topologySpreadConstraints") or []
    body["topologySpreadConstraints"] = [one for one in spread if one.get("whenUnsatisfiable") != _WISH]
    affinity = body["affinity"] = dict(body.get("affinity") or {})
    nodes = affinity["nodeAffinity"] = dict(affinity.get("nodeAffinity") or {})
    key, wishes = "preferredDuringSchedulingIgnoredDuringExecution", []
    if avoid.lost:
        wishes.append(_wish_for_others(avoid.lost, _ALIVE))
    if avoid.doubtful:
        wishes.append(_wish_for_others((*avoid.lost, *avoid.doubtful), _UNDOUBTED))
    nodes[key] = [*(nodes.get(key) or ()), *wishes]


def _wish_for_others(nodes: Sequence[str], weight: int) -> dict[str, Any]:
    rule = {"key": _HOSTNAME, "operator": "NotIn", "values": list(nodes)}
    return {"weight": weight, "preference": {"matchExpressions": [rule]}}
