"""Pods for tests of the engine, and what becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from tests.cluster.api import WAIT_SECONDS, Api, ApiRefused, Json
from tests.cluster.engine import Cluster, ClusterNode

LASTS: Final = "trap 'echo asked to end; exit 7' TERM; while :; do echo beat; sleep 0.1; done"
"""For a Pod that says that it lives, and ends when it is asked to."""


def a_pod(name: str, script: str = LASTS, **spec: Any) -> Json:
    container = {
        "name": "it",
        "image": "this-machine",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
    }
    container |= spec.pop("container", {})
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container]} | spec
    return {"metadata": {"name": name, "labels": {"app": "it"}}, "spec": spec}


def phase(wanted: str) -> Callable[[Json], bool]:
    return lambda found: bool(found["status"].get("phase") == wanted)


def exit_code(pod: Json) -> int:
    return int(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"])


def waiting(pod: Json) -> str | None:
    """Why its container waits."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    reason = statuses[0].get("state", {}).get("waiting", {}).get("reason")
    return None if reason is None else str(reason)


def of(cluster: Cluster, pod: Json) -> tuple[ClusterNode, str]:
    """The node of a Pod, and the Pod's uid."""
    node = next(node for node in cluster.nodes if node.name == pod["spec"]["nodeName"])
    return node, pod["metadata"]["uid"]


async def run(api: Api, namespace: str, pod: Json) -> Json:
    """Create a Pod, and return it once it runs."""
    await api.create(f"{namespace}/pods", pod)
    return await api.until(f"{namespace}/pods/{pod['metadata']['name']}", phase("Running"))


async def last_words(cluster: Cluster, api: Api, path: str, pod: Json, within: float = WAIT_SECONDS) -> str:
    """What a Pod has written when it is gone: a true kubelet removes that with it. Raises TimeoutError."""
    (node, uid), text, deadline = of(cluster, pod), "", time.monotonic() + within
    while time.monotonic() < deadline:
        text = node.log(uid) or text
        try:
            await api.get(path)
        except ApiRefused as error:
            if error.code != 404:
                raise
            return text
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{path} is after {within} s still there")


async def beats(cluster: Cluster, pod: Json, within: float = 60) -> bool:
    """Whether a Pod with `LASTS` lives."""
    node, uid = of(cluster, pod)
    before = node.log(uid).count("beat")
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        if node.log(uid).count("beat") > before + 1:
            return True
    return False
