"""The Pod that every worker's is made of: the operator's file, completed by what a worker needs, without the API.

What the file says stands, but for what would let a worker be restarted in place or speak to the API server.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from relay_common.errors import ConfigError
from relay_supervisor.fleet.pods.seen import CONTAINER, RELAY_LABEL

COMMAND: Final = ["python", "-m", "relay_worker.process.remote"]
USER: Final = 10001
"""The image's user."""

_UNTOLERATED: Final = ("unreachable", "not-ready")
"""Taints for which the engine would evict a worker, in five minutes. Its supervisor hears it, or does not."""
_POD: Final[Mapping[str, Any]] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": 5,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "tolerations": [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute"} for taint in _UNTOLERATED
    ],
}
_CONTAINER: Final[Mapping[str, Any]] = {
    "command": COMMAND,
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    # So that the stacks of one that ended because its loop stood still outlast its Pod.
    "terminationMessagePolicy": "FallbackToLogsOnError",
}
_FIXED: Final = {"restartPolicy": "Never", "automountServiceAccountToken": False}
"""What a template may not say otherwise: a worker that ended is followed by another one, with other keys; and it has no
business with the API server."""


class Template:
    """The Pod that workers' Pods are made of; see `read_template`."""

    def __init__(self, pod: Mapping[str, Any]) -> None:
        self._pod = pod

    @property
    def image(self) -> str:
        """The image of the worker's container."""
        return str(_worker(self._pod)["image"])

    def pod(self) -> dict[str, Any]:
        """A copy, to be filled in for one worker."""
        return copy.deepcopy(dict(self._pod))


def read_template(file: str, image: str, relay: str) -> Template:
    """The template in `file` (YAML or JSON; "" for none), with `image` for the worker if that is not empty.

    `relay` is the relay's label. Raises ConfigError for what makes no worker's Pod.
    """
    written = _parsed(Path(file).expanduser()) if file else {}
    try:
        return Template(_completed(written, image, relay))
    except _Unusable as error:
        where = f"cluster.worker_template: {file}: " if file else "cluster.image: "
        raise ConfigError(f"{where}{error}") from None


class _Unusable(Exception):
    """Why a template makes no worker's Pod."""


def _parsed(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cluster.worker_template: {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError(f"cluster.worker_template: {path} is neither YAML nor JSON{line}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"cluster.worker_template: {path} holds no Pod")
    return found


def _completed(written: dict[str, Any], image: str, relay: str) -> dict[str, Any]:
    pod = {"apiVersion": "v1", "kind": "Pod"} | copy.deepcopy(written)
    if (pod["apiVersion"], pod["kind"]) != ("v1", "Pod"):
        raise _Unusable("this is no Pod (apiVersion v1, kind Pod)")
    metadata, spec = _table(pod, "metadata"), _table(pod, "spec")
    if "name" in metadata:
        raise _Unusable("metadata.name cannot be given: each worker's Pod has its own")
    _table(metadata, "labels")[RELAY_LABEL] = relay
    for key, value in _FIXED.items():
        if spec.get(key, value) != value:
            raise _Unusable(f"spec.{key} has to be {str(value).lower() if value is False else value}")
    _fill(spec, _POD)
    containers = spec.setdefault("containers", [{"name": CONTAINER}])
    worker = next((one for one in containers if isinstance(one, dict) and one.get("name") == CONTAINER), None)
    if worker is None:
        raise _Unusable(f"spec.containers has none with the name {CONTAINER!r}")
    if image:
        worker["image"] = image
    if not worker.get("image"):
        raise _Unusable("no image is given: set cluster.image, or image in the template")
    _fill(worker, _CONTAINER)
    _spread_among_its_own(spec, relay)
    return pod


def _spread_among_its_own(spec: dict[str, Any], relay: str) -> None:
    """Have a wish to be spread that names a relay's label mean this one: several accounts have one template."""
    for wish in spec.get("topologySpreadConstraints") or ():
        selector = wish.get("labelSelector") if isinstance(wish, dict) else None
        labels = selector.get("matchLabels") if isinstance(selector, dict) else None
        if isinstance(labels, dict) and RELAY_LABEL in labels:
            labels[RELAY_LABEL] = relay


def _table(above: dict[str, Any], key: str) -> dict[str, Any]:
    found = above.setdefault(key, {})
    if not isinstance(found, dict):
        raise _Unusable(f"{key} is no table")
    return found


def _fill(given: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Add what is missing, also within tables that are there."""
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(given.get(key), dict) and key != "resources":
            _fill(given[key], value)
        else:
            given.setdefault(key, copy.deepcopy(value))


def _worker(pod: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    return found
