"""`check` of a cluster that cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay_common.config_cluster import ClusterConfig
from relay_supervisor.checks.cluster import cluster
from relay_supervisor.checks.report import Grade

IN_PODS = ClusterConfig(namespace="cameras", image="i:1", bus_listen="10.0.0.5:7420")


async def test_workers_of_this_machine_need_no_cluster() -> None:
    assert await cluster(ClusterConfig()) == []


@pytest.mark.parametrize("key", ["image", "worker_template"])
async def test_what_only_pods_have_is_said_to_be_unused_without_a_namespace(key: str) -> None:
    (found,) = await cluster(ClusterConfig(**{key: "registry.example/nest-relay:1"}))
    assert (found.part, found.verdict) == (f"cluster.{key}", Grade.WARNING)
    assert found.text == "not used: cluster.namespace is not set, so that workers run on this machine"


async def test_without_a_cluster_it_says_where_one_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    (found,) = await cluster(IN_PODS)
    assert found.verdict is Grade.FAILED
    assert found.text.startswith("cluster.namespace: no cluster is configured")
    assert "KUBECONFIG" in found.remedy


async def test_an_api_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    server = f"https://127.0.0.1:{unused_tcp_port}"
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "hidden"}}],
    }
    (tmp_path / "config").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (found,) = await cluster(IN_PODS)
    assert found.verdict is Grade.FAILED
    assert found.text == (
        f"{server}: the cluster's API server does not answer: the connection was refused: nothing listens there"
    )
