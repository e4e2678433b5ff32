"""The manifests for Kubernetes and Compose: valid, hardened, and agreeing with each other and with the image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml

from relay_common.config_accounts import relays_of
from relay_common.config_cluster import ClusterConfig
from relay_common.config_file import parse
from relay_common.config_local import port_range
from relay_supervisor.cluster.replica import COMMANDS_LABEL, command_labels
from relay_supervisor.fleet.pods.manifest import pod_of
from relay_supervisor.fleet.pods.requirements import AMONG_OTHERS, RIGHTS
from relay_supervisor.fleet.pods.seen import INSTANCE_LABEL
from relay_supervisor.fleet.pods.template import read_template
from relay_worker.process.spec import WorkerSpec

DEPLOY = Path(__file__).parents[3] / "deploy"
SCHEMAS = "1.37"
"""The version of Kubernetes whose schemas are asked; tests/cluster applies the manifests to 1.20."""
SINGLE = [DEPLOY / "kubernetes/single" / name for name in ("nest-relay.yaml", "secret.example.yaml")]
CLUSTER = DEPLOY / "kubernetes"
APPLIED = ("namespace.yaml", "rbac.yaml", "supervisor.yaml")
MORE = ("accounts.yaml", "worker.yaml", "secret.example.yaml")
CURRENT = ("current/disruption.yaml", "current/network.yaml")


def read(*paths: Path) -> list[dict[str, Any]]:
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def documents() -> list[dict[str, Any]]:
    return read(*SINGLE)


def of_cluster(kind: str) -> list[dict[str, Any]]:
    """What is applied to a cluster, of one kind."""
    return [one for one in read(*(CLUSTER / name for name in (*APPLIED, *CURRENT))) if one["kind"] == kind]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def pod() -> dict[str, Any]:
    found: dict[str, Any] = next(d for d in documents() if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    "document",
    [*documents(), *read(*(CLUSTER / name for name in (*APPLIED, *CURRENT, *MORE)))],
    ids=lambda document: document["kind"],
)
def test_kubernetes_schemas(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, SCHEMAS, strict=True)


def test_supervisors_of_pods_may_do_what_they_need_and_nothing_else() -> None:
    (role,) = of_cluster("Role")
    allowed: list[tuple[str, tuple[str, ...]]] = []
    for rule in role["rules"]:
        ((group,), (resource,)) = rule["apiGroups"], rule["resources"]
        allowed.append((".".join(filter(None, (resource, group))), tuple(rule["verbs"])))
        assert len(rule) == 3
    assert allowed == [*RIGHTS.items(), *AMONG_OTHERS.items()]


def test_the_secret_holds_what_the_pod_reads() -> None:
    secret = next(d for d in documents() if d["kind"] == "Secret")
    (container,) = pod()["containers"]
    read = {Path(entry["value"]).name for entry in container["env"] if entry["name"].endswith("_FILE")}
    assert set(secret["stringData"]) == read
    assert {volume["secret"]["secretName"] for volume in pod()["volumes"] if "secret" in volume} == {"nest-relay"}


def test_engines_ask_the_address_that_is_for_probes() -> None:
    """It answers while the dashboard's port is busy. Compose and plain Docker use the image's own check."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    of_image = re.search(r"RELAY_HTTP_PROBE_LISTEN=127\.0\.0\.1:(\d+)", dockerfile)
    assert of_image is not None
    assert f"http://127.0.0.1:{of_image[1]}/livez" in dockerfile.partition("HEALTHCHECK")[2]
    (container,) = pod()["containers"]
    listen = next(entry["value"] for entry in container["env"] if entry["name"] == "RELAY_HTTP_PROBE_LISTEN")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert listen == f"[$(POD_IP)]:{ports['probes']}"
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez", "liveness": "/livez", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {"probes"}


def test_every_mount_has_its_volume() -> None:
    statefulset = next(d for d in documents() if d["kind"] == "StatefulSet")
    claims = {claim["metadata"]["name"] for claim in statefulset["spec"]["volumeClaimTemplates"]}
    (container,) = pod()["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod()["volumes"]} | claims


def test_users_and_directories_agree_with_the_image() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user is not None
    context = pod()["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == tuple(map(int, user.groups()))
    mounted = {mount["mountPath"] for mount in pod()["containers"][0]["volumeMounts"]}
    directories = dict(re.findall(r"(RELAY_PATHS_\w+_DIR)=(\S+)", dockerfile))
    assert len(directories) == 2
    # Below the mount, never the mount itself: that may belong to root, and we make ours private.
    assert {str(Path(directory).parent) for directory in directories.values()} <= mounted


def test_what_the_image_has_compiled_is_used_whatever_time_its_source_has(tmp_path: Path) -> None:
    """A builder may round the times of files, and nothing can be compiled and kept where nothing may be written."""
    instructions = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    (last,) = [one for one in instructions if one.startswith("RUN /opt/nest-relay/bin/pip install --no-deps")]
    *_, place = compiling = last.split(" && ")[-1].split()[1:]
    assert place == "/opt/nest-relay/lib"
    module = tmp_path / "module.py"
    module.write_text("print('compiled')")
    subprocess.run([sys.executable, *compiling[:-1], str(tmp_path)], check=True)
    module.write_text("print('from its source')")
    said = subprocess.run([sys.executable, "-c", "import module"], cwd=tmp_path, capture_output=True, check=True)
    assert said.stdout == b"compiled\n"


def test_every_service_is_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is published to other machines"


def test_what_compose_shows_for_watching_at_home_is_a_configuration(compose: dict[str, Any]) -> None:
    """It stands in comments, as it opens ports to the network."""
    shown = (DEPLOY / "compose.yaml").read_text()
    environment = dict(re.findall(r"# +(RELAY_LOCAL_\w+): (.+)", shown))
    assert len(environment) == 3
    variables = {name: yaml.safe_load(value) for name, value in environment.items()}
    nest = {key: f"{uuid4()}" for key in ("project_id", "client_id", "client_secret", "refresh_token")}
    nest["client_id"] += ".apps.googleusercontent.com"
    local = parse({"nest": nest}, variables).local
    assert local is not None
    assert (local.addresses, local.announce) == (["0.0.0.0"], ["192.168.1.10"])
    ports = port_range(local.udp_ports)
    assert ports is not None
    assert len(ports) == 20
    (published,) = re.findall(r"# ports: (\[.+\])", shown)
    assert f"192.168.1.10:{local.udp_ports}:{local.udp_ports}/udp" in yaml.safe_load(published)


def test_compose_mounts_exist_and_secrets_are_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= compose["secrets"].keys(), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./relay.toml":
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            elif not source.startswith("./"):
                assert source in compose["volumes"], f"{name}: {source}"


# --- on a whole cluster ---------------------------------------------------------------------------------------------


def supervisor() -> dict[str, Any]:
    (deployment,) = of_cluster("Deployment")
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def given(name: str) -> str:
    """What the supervisors' environment says."""
    (container,) = supervisor()["containers"]
    entry = next(one for one in container["env"] if one["name"] == name)
    return str(entry.get("value", entry.get("valueFrom")))


def test_the_cluster_applies_every_file() -> None:
    (kustomization,) = read(CLUSTER / "kustomization.yaml")
    assert kustomization["resources"] == list(APPLIED)
    assert kustomization["components"] == ["current"]
    (component,) = read(CLUSTER / "current/kustomization.yaml")
    assert [f"current/{name}" for name in component["resources"]] == list(CURRENT)
    (namespace,) = of_cluster("Namespace")
    assert namespace["metadata"]["name"] == kustomization["namespace"]


def test_the_binding_s_account_gets_another_namespace_along_with_the_rest() -> None:
    """kustomize changes a subject's namespace only where its account is among the manifests, with the same one."""
    namespace = yaml.safe_load((CLUSTER / "kustomization.yaml").read_text())["namespace"]
    (account,), (binding,) = of_cluster("ServiceAccount"), of_cluster("RoleBinding")
    (subject,) = binding["subjects"]
    assert account["metadata"]["namespace"] == subject["namespace"] == namespace
    assert account["metadata"]["name"] == subject["name"]


def test_supervisors_and_workers_have_the_same_image() -> None:
    (kustomization,) = read(CLUSTER / "kustomization.yaml")
    (generated,), (image,) = kustomization["configMapGenerator"], kustomization["images"]
    named = f"{image['newName']}:{image['newTag']}"
    assert generated["literals"] == [f"image={named}"]
    assert supervisor()["containers"][0]["image"] == named


def test_the_cluster_s_secret_holds_what_supervisors_read() -> None:
    (secret,) = read(CLUSTER / "secret.example.yaml")
    (container,) = supervisor()["containers"]
    files = {Path(entry["value"]).name for entry in container["env"] if entry["name"].endswith("_FILE")}
    assert set(secret["stringData"]) == files
    assert {"http_token", "link_secret"} <= files, "without them no other supervisor could go on"


def test_what_supervisors_are_told_fits_the_services_and_ports() -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in of_cluster("Service")}
    name, _, port = given("RELAY_CLUSTER_BUS_LISTEN").rpartition(":")
    bus = services[name.partition(".")[0]]
    (container,) = supervisor()["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert [(one["port"], ports[one["targetPort"]]) for one in bus["ports"]] == [(int(port) + n,) * 2 for n in (0, 1)]
    assert given("RELAY_CLUSTER_BUS_BIND") == f"[$(POD_IP)]:{ports['bus']}"
    assert given("RELAY_CLUSTER_PEER_LISTEN") == f"[$(POD_IP)]:{ports['peers']}"
    assert all(spec["selector"] == {COMMANDS_LABEL: ClusterConfig().identity} for spec in services.values())
    settings = {f"RELAY_CLUSTER_{key.upper()}" for key in ClusterConfig.__struct_fields__}
    assert {one["name"] for one in container["env"] if one["name"].startswith("RELAY_CLUSTER_")} <= settings


def test_accounts_are_found_where_their_services_are() -> None:
    table = {"project_id": "p", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    nests = [table | {"account": name, "ports": port} for name, port in (("home", 7420), ("shop", 7424))]
    listen = given("RELAY_CLUSTER_BUS_LISTEN").replace("$(RELAY_CLUSTER_NAMESPACE)", "nest-relay")
    cluster = {"namespace": "nest-relay", "image": "i", "replica": "r", "bus_listen": listen}
    config = parse({"nest": nests, "cluster": cluster | {"peer_listen": "10.0.0.5:7422"}, "local": {"listen": "::1"}})
    every, *_ = documents_of_accounts = read(CLUSTER / "accounts.yaml")
    services = {one["metadata"]["name"]: one["spec"] for one in documents_of_accounts if one["kind"] == "Service"}
    policy = documents_of_accounts[-1]["spec"]
    (deployment,) = of_cluster("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert every["spec"]["selector"] == labels == policy["podSelector"]["matchLabels"]
    for relay in relays_of(config):
        host, _, port = relay.cluster.bus_listen.rpartition(":")
        bus = services.pop(host.partition(".")[0])
        assert bus["selector"] == command_labels(relay.cluster.identity)[1]
        assert [(one["port"], one["targetPort"]) for one in bus["ports"]] == [(int(port) + n,) * 2 for n in (0, 1)]
    assert list(services) == [every["metadata"]["name"]]
    workers, supervisors = policy["ingress"]
    assert workers["from"][0]["podSelector"]["matchExpressions"] == [{"key": INSTANCE_LABEL, "operator": "Exists"}]
    assert supervisors["from"][0]["podSelector"]["matchLabels"] == labels
    assert [one["port"] for rule in policy["ingress"] for one in rule["ports"]] == [7424 + n for n in range(4)]


def test_the_shipped_worker_is_what_the_product_fills_in() -> None:
    """Whoever changes the file sees all of it; whoever leaves something out gets it."""
    file = CLUSTER / "worker.yaml"
    spec = WorkerSpec(camera="c", name="c", instance="c.1", control="", stats="")
    identity = ClusterConfig().identity
    written, bare = (pod_of(spec, identity, read_template(f, "image", identity)) for f in (str(file), ""))
    assert written["spec"].pop("priorityClassName") == of_cluster("PriorityClass")[0]["metadata"]["name"]
    assert written == bare


def test_nobody_but_supervisors_gets_a_token_of_the_api() -> None:
    assert supervisor()["serviceAccountName"] == of_cluster("ServiceAccount")[0]["metadata"]["name"]
    (worker,) = read(CLUSTER / "worker.yaml")
    assert worker["spec"]["automountServiceAccountToken"] is False


def test_policies_and_the_budget_select_what_there_is() -> None:
    (deployment,) = of_cluster("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (budget,) = of_cluster("PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == labels
    workers, supervisors = of_cluster("NetworkPolicy")
    assert workers["spec"]["podSelector"]["matchExpressions"] == [{"key": INSTANCE_LABEL, "operator": "Exists"}]
    assert "ingress" not in workers["spec"], "nobody connects to a worker"
    assert supervisors["spec"]["podSelector"]["matchLabels"] == labels
    open_ports = [one["port"] for rule in supervisors["spec"]["ingress"] for one in rule["ports"]]
    (container,) = supervisor()["containers"]
    assert set(open_ports) == {one["name"] for one in container["ports"]} - {"probes"}


def test_supervisors_run_as_the_image_s_user_without_privileges() -> None:
    (container,), (single,) = supervisor()["containers"], pod()["containers"]
    assert supervisor()["securityContext"] == pod()["securityContext"]
    for key in ("securityContext", "startupProbe", "livenessProbe", "readinessProbe"):
        assert container[key] == single[key], key
