"""The Pods and Secrets that are made: restricted, with nothing secret outside the Secret, as the template says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.fleet.pods.manifest import grace, owned_by, pod_name, pod_of, secret_of
from relay_supervisor.fleet.pods.suspects import Avoided
from relay_supervisor.fleet.pods.template import read_template
from relay_worker.process.launch_file import unpacked
from relay_worker.process.spec import BusKeys, WorkerSpec

SPEC = WorkerSpec(
    camera="2a9226a5",
    name="Front Door",
    instance="2a9226a5.10c16786",
    control="tcp://10.0.0.5:7420",
    stats="tcp://10.0.0.5:7421",
    keys=BusKeys(public="p-key", secret=Secret("hidden-key"), supervisor="s-key"),
)
IMAGE = "registry.example/nest-relay:0.1.0"
LABELS = {
    "nest-relay/relay": "home",
    "nest-relay/instance": "2a9226a5.10c16786",
    "nest-relay/camera": "2a9226a5",
}
NAME = "home-2a9226a5-10c16786"


def written(directory: Path, text: str) -> str:
    (directory / "worker.yaml").write_text(text)
    return str(directory / "worker.yaml")


def made(file: str = "", image: str = IMAGE, **more: Any) -> dict[str, Any]:
    return pod_of(SPEC, "home", read_template(file, image, "home"), **more)


def test_the_secret_holds_all_and_the_pod_nothing_secret() -> None:
    secret, pod = secret_of(SPEC, "home"), made()
    assert unpacked(base64.b64decode(secret["data"]["worker.json"])) == SPEC
    assert secret["metadata"] == {"name": NAME, "labels": LABELS}
    for word in ("hidden-key", "p-key", "s-key", "10.0.0.5", "Front Door"):
        assert word not in json.dumps(pod)
    (volume,) = pod["spec"]["volumes"]
    assert volume["secret"]["secretName"] == NAME == pod["metadata"]["name"] == pod_name("home", SPEC.instance)
    (worker,) = pod["spec"]["containers"]
    assert worker["volumeMounts"] == [{"name": volume["name"], "mountPath": "/run/nest-relay", "readOnly": True}]
    assert worker["command"] == ["python", "-m", "relay_worker.process.remote"]
    assert "env" not in worker
    (owner,) = owned_by(NAME, "u")["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": NAME, "uid": "u"}


def test_without_a_template_it_fits_the_restricted_standard() -> None:
    """Pod Security Standards, "Restricted": what has to be set, and what may not be."""
    pod = made()
    spec, (worker,) = pod["spec"], pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == LABELS
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert worker["image"] == IMAGE
    assert worker["resources"]["requests"].keys() == {"cpu", "memory"}
    assert spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    assert all("tolerationSeconds" not in one for one in spec["tolerations"]), (
        "its supervisor judges it, not the engine"
    )
    assert "affinity" not in spec


def test_what_the_template_says_stands_and_the_rest_is_filled_in(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        metadata: {labels: {team: cameras}}
        spec:
          priorityClassName: high
          securityContext: {runAsUser: 2000}
          tolerations: []
          topologySpreadConstraints: []
          containers:
            - name: beside
              image: other
            - name: worker
              image: mine:1
              resources: {limits: {memory: 1Gi}}
              volumeMounts: [{name: ca, mountPath: /etc/ca}]
          volumes: [{name: ca, configMap: {name: ca}}]
        """,
    )
    pod = made(file, image="")
    spec, (beside, worker) = pod["spec"], pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == LABELS | {"team": "cameras"}
    assert (spec["priorityClassName"], spec["tolerations"], spec["topologySpreadConstraints"]) == ("high", [], [])
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (2000, True)
    assert beside == {"name": "beside", "image": "other"}
    assert (worker["image"], worker["resources"]) == ("mine:1", {"limits": {"memory": "1Gi"}})
    assert [one["name"] for one in worker["volumeMounts"]] == ["ca", "nest-relay-worker"]
    assert [one["name"] for one in spec["volumes"]] == ["ca", "nest-relay-worker"]
    assert made(file)["spec"]["containers"][1]["image"] == IMAGE, "cluster.image comes first"
    assert made(file, image="") == pod, "one worker's Pod leaves no trace in the next one's"


def test_nodes_that_are_avoided_are_the_last_choice_and_never_none(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "spec: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]}}}",
    )
    for template, before in (("", []), (file, [{"weight": 1}])):
        plain = made(template)["spec"].get("affinity", {}).get("nodeAffinity", {})
        assert plain.get("preferredDuringSchedulingIgnoredDuringExecution", []) == before
        # Those that live and are doubtful are still better than any that is lost, however many these are.
        avoid = Avoided(lost=("node1", "node3"), doubtful=("node2",))
        affinity = made(template, avoid=avoid)["spec"]["affinity"]["nodeAffinity"]
        wishes = [
            {
                "weight": weight,
                "preference": {
                    "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": nodes}]
                },
            }
            for weight, nodes in ((100, ["node1", "node3"]), (25, ["node1", "node3", "node2"]))
        ]
        assert affinity == {"preferredDuringSchedulingIgnoredDuringExecution": [*before, *wishes]}
    assert made(avoid=Avoided(lost=("node1",)))["spec"]["topologySpreadConstraints"] == [], (
        "it would choose the node that is empty now"
    )
    file = written(tmp_path, "spec: {topologySpreadConstraints: [{whenUnsatisfiable: DoNotSchedule}]}")
    assert made(file, avoid=Avoided(doubtful=("node1",)))["spec"]["topologySpreadConstraints"] == [
        {"whenUnsatisfiable": "DoNotSchedule"}
    ]


def test_a_template_for_several_relays_spreads_each_ones_workers(tmp_path: Path) -> None:
    selector = "labelSelector: {matchLabels: {nest-relay/relay: nest-relay, team: cameras}}"
    file = written(tmp_path, f"spec: {{topologySpreadConstraints: [{{{selector}}}, {{maxSkew: 2}}]}}")
    assert made(file)["spec"]["topologySpreadConstraints"] == [
        {"labelSelector": {"matchLabels": {"nest-relay/relay": "home", "team": "cameras"}}},
        {"maxSkew": 2},
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "is neither YAML nor JSON"),
        ("spec: [\nx: }", r"is neither YAML nor JSON \(line \d\)"),
        ("- a", "holds no Pod"),
        ("kind: Deployment", "this is no Pod"),
        ("spec: 3", "spec is no table"),
        ("metadata: {name: x}", "each worker's Pod has its own"),
        ("spec: {restartPolicy: Always}", "spec.restartPolicy has to be Never"),
        ("spec: {automountServiceAccountToken: true}", "spec.automountServiceAccountToken has to be false"),
        ("spec: {containers: [{name: relay}]}", "has none with the name 'worker'"),
        ("spec: {containers: []}", "has none with the name 'worker'"),
        ("spec: {containers: [{name: worker}]}", "no image is given: set cluster.image"),
    ],
)
def test_what_makes_no_workers_pod_is_refused(text: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cluster.worker_template: .*worker.yaml.*{wrong}"):
        made(written(tmp_path, text), image="")


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster.worker_template: .*absent.yaml cannot be read: No such file"):
        made(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(("within", "seconds"), [(0.0, 1), (0.3, 1), (1.0, 1), (2.1, 3)])
def test_who_is_asked_to_end_is_never_forced(within: float, seconds: int) -> None:
    assert grace(within) == seconds
