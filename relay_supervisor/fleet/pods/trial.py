"""A worker's Pod that is made to try things, for `relay-supervisor check`: image, nodes, and the way to the bus.

It is made of the workers' template and has their labels but the relay's: no supervisor takes it for one of its workers,
and what a network policy says of them holds for it. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from relay_supervisor.fleet.pods.manifest import CAMERA_LABEL, pod_of, secret_of
from relay_supervisor.fleet.pods.seen import CONTAINER, RELAY_LABEL
from relay_supervisor.fleet.pods.template import Template
from relay_worker.process.spec import WorkerSpec

TRIAL_LABEL: Final = "nest-relay/trial"
"""Of the Pod and its Secret; its value is the relay's identity."""
COMMAND: Final = ["python", "-m", "relay_worker.process.probe"]
LONGEST: Final = 120
"""Seconds that it may last, its image's way to the node included; then its node ends it by itself."""
ORPHANED: Final = 2.0 * LONGEST
"""Seconds after which one that is still there was left behind; clocks may differ."""


def trial_secret(spec: WorkerSpec, relay: str) -> dict[str, Any]:
    """The Secret that it reads."""
    return _tried(secret_of(spec, relay), relay)


def trial_pod(spec: WorkerSpec, relay: str, template: Template) -> dict[str, Any]:
    """The Pod, which runs once."""
    pod = _tried(pod_of(spec, relay, template), relay)
    pod["spec"]["activeDeadlineSeconds"] = LONGEST
    worker = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    worker["command"] = COMMAND
    worker.pop("args", None)
    return pod


def is_orphan(metadata: Mapping[str, Any], wall: float) -> bool:
    """Whether a trial's object, found at `wall` (Unix seconds), was left behind by a check that was killed."""
    try:
        made = datetime.datetime.fromisoformat(str(metadata.get("creationTimestamp"))).timestamp()
    except ValueError:
        return False
    return wall - made > ORPHANED


def _tried(body: dict[str, Any], relay: str) -> dict[str, Any]:
    labels = body["metadata"]["labels"]
    for label in (RELAY_LABEL, CAMERA_LABEL):
        labels.pop(label, None)
    labels[TRIAL_LABEL] = relay
    return body
