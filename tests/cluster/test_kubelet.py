"""What the test kubelet plays of a true one: restarts, probes, images and security contexts."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.api import Api, Json
from tests.cluster.engine import RELAY_IMAGE, Cluster
from tests.cluster.pods import a_pod, beats, exit_code, of, phase, run, waiting

pytestmark = pytest.mark.timeout(400)


async def test_an_image_that_is_not_to_be_had_is_named_as_the_reason(api: Api, namespace: str) -> None:
    await api.create(f"{namespace}/pods", a_pod("imageless", container={"image": "absent.invalid/relay:1"}))
    await api.until(f"{namespace}/pods/imageless", lambda pod: waiting(pod) == "ImagePullBackOff")


async def test_what_shall_always_run_is_started_again(cluster: Cluster, api: Api, namespace: str) -> None:
    def restarts(pod: Json) -> int:
        return int((pod["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0))

    pod = await run(api, namespace, a_pod("always", restartPolicy="Always"))
    node, uid = of(cluster, pod)
    assert await beats(cluster, pod)
    name = namespace.rpartition("/")[2]
    node.signal(f"{name}/always", signal.SIGTERM)
    again = await api.until(f"{namespace}/pods/always", lambda pod: restarts(pod) == 1 and phase("Running")(pod))
    assert again["metadata"]["uid"] == uid
    assert await beats(cluster, pod)
    node.signal(f"{name}/always", signal.SIGKILL)
    await api.until(f"{namespace}/pods/always", lambda pod: waiting(pod) == "CrashLoopBackOff")


CONFINED: Final = """
id -u; id -g; id -G; grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status
touch /var/tmp/relay-test 2>/dev/null && exit 9
relay-worker --help >/run/data/help || exit 8
stat -c '%a %g' /run/data/help
python -c 'import relay_worker; print(relay_worker.__file__)'
"""


async def test_a_container_gets_no_more_than_its_security_context(cluster: Cluster, api: Api, namespace: str) -> None:
    of_pod = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10002, "fsGroup": 10003}
    of_container = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "image": f"{RELAY_IMAGE}:1.2.3",
        "securityContext": of_container,
        "volumeMounts": [{"name": "data", "mountPath": place} for place in ("/run/data", "/tmp")],
    }
    volumes = [{"name": "data", "emptyDir": {}}]
    pod = a_pod("confined", CONFINED, volumes=volumes, securityContext=of_pod, container=container)
    await api.create(f"{namespace}/pods", pod)
    ended = await api.until(f"{namespace}/pods/confined", lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))
    node, uid = of(cluster, ended)
    assert exit_code(ended) == 0, node.log(uid)
    assert node.log(uid).splitlines() == [
        "10001",
        "10002",
        "10002 10003",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "644 10003",
        "/opt/nest-relay/source/relay_worker/__init__.py",
    ]


async def test_root_is_refused_where_it_must_not_be(api: Api, namespace: str) -> None:
    await api.create(f"{namespace}/pods", a_pod("rooted", securityContext={"runAsNonRoot": True}))
    await api.until(f"{namespace}/pods/rooted", lambda pod: waiting(pod) == "CreateContainerConfigError")


FILES: Final = """
import http.server, socketserver  # not `python -m http.server`, which asks for its name first, where no name server is
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("", 8099), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


async def test_probes_say_when_a_container_has_started_is_ready_and_hangs(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    def status(pod: Json) -> tuple[bool, bool, int]:
        (found,) = pod["status"].get("containerStatuses") or [{}]
        return found.get("started", False), found.get("ready", False), found.get("restartCount", 0)

    def probe(name: str, failures: int) -> Json:
        asked = {"path": f"/{name}", "port": "files"}
        return {"httpGet": asked, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": failures}

    container = {
        "command": ["python", "-c", FILES],
        "workingDir": "/run/files",
        "ports": [{"name": "files", "containerPort": 8099}],
        "volumeMounts": [{"name": "files", "mountPath": "/run/files"}],
        "startupProbe": probe("started", 300),
        "livenessProbe": probe("alive", 2),
        "readinessProbe": probe("ready", 1),
    }
    volumes = [{"name": "files", "hostPath": {"path": str(tmp_path)}}]
    path = f"{namespace}/pods/probed"
    spec: Json = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "volumes": volumes}
    await run(api, namespace, a_pod("probed", container=container, **spec))
    await asyncio.sleep(3)
    assert status(await api.get(path)) == (False, False, 0)  # what is not yet started does not hang
    for name in ("alive", "started"):
        (tmp_path / name).touch()
    await api.until(path, lambda pod: status(pod) == (True, False, 0))
    (tmp_path / "ready").touch()
    await api.until(path, lambda pod: status(pod) == (True, True, 0))
    (tmp_path / "ready").unlink()
    await api.until(path, lambda pod: status(pod) == (True, False, 0))
    (tmp_path / "ready").touch()
    (tmp_path / "alive").unlink()
    await api.until(path, lambda pod: status(pod)[2] >= 1)
    (tmp_path / "alive").touch()
    await api.until(path, lambda pod: status(pod)[:2] == (True, True))
