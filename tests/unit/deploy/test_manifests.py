"""The manifests for Kubernetes and Compose: valid, hardened, and agreeing with each other and with the image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml

from relay_common.config_file import parse
from relay_common.config_local import port_range
from relay_supervisor.fleet.pods.requirements import AMONG_OTHERS, RIGHTS

DEPLOY = Path(__file__).parents[3] / "deploy"
SCHEMAS = "1.37"
"""The version of Kubernetes whose schemas are asked; tests/cluster applies the manifests to 1.20."""
SINGLE = [DEPLOY / "kubernetes/single" / name for name in ("nest-relay.yaml", "secret.example.yaml")]
WORKERS = DEPLOY / "kubernetes/workers/rbac.yaml"


def documents() -> list[dict[str, Any]]:
    return [document for path in SINGLE for document in yaml.safe_load_all(path.read_text())]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def pod() -> dict[str, Any]:
    found: dict[str, Any] = next(d for d in documents() if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    "document", [*documents(), *yaml.safe_load_all(WORKERS.read_text())], ids=lambda document: document["kind"]
)
def test_kubernetes_schemas(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, SCHEMAS, strict=True)


def test_supervisors_of_pods_may_do_what_they_need_and_nothing_else() -> None:
    (role,) = [one for one in yaml.safe_load_all(WORKERS.read_text()) if one["kind"] == "Role"]
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
    assert listen == f"0.0.0.0:{ports['probes']}"
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
