"""What workers as Pods need, and that nothing of it is loaded where they are processes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from relay_common.config import Config
from relay_common.config_cluster import ClusterConfig
from relay_common.config_file import parse
from relay_supervisor import prerequisites
from relay_supervisor.commands.cli import cli
from tests.fixtures.product_source import ROOT

NEST = {"project_id": "p", "client_id": "c", "client_secret": "s", "refresh_token": "t"}
IN_PODS = {"namespace": "cameras", "image": "i:1", "bus_listen": "10.0.0.5:7420"}


def refused(**sections: object) -> dict[str, str]:
    config = parse({"nest": NEST, "cloudflare": {"app_id": "a", "app_secret": "s"}} | sections)
    return {one.key: str(one.error) for one in prerequisites.refusals(config)}


def test_watching_from_workers_in_a_cluster_is_refused_with_the_reason() -> None:
    local = {"listen": "127.0.0.1"}
    assert "has no address that they could reach" in refused(local=local, cluster=IN_PODS)["cluster"]
    assert "cluster" not in refused(local=local, cluster=IN_PODS | {"namespace": ""})
    assert "cluster" not in refused(cluster=IN_PODS)


def test_a_template_that_cannot_be_used_is_refused() -> None:
    assert "cannot be read" in refused(cluster=IN_PODS | {"worker_template": "/nowhere/worker.yaml"})["cluster"]
    assert "cluster" not in refused(cluster={"worker_template": "/nowhere/worker.yaml"}), "it is not used"


def test_without_the_client_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the client library for Kubernetes is not installed" in refused(cluster=IN_PODS)["cluster"]
    assert "cluster" not in refused()


def test_nothing_of_it_is_loaded_on_one_machine() -> None:
    program = (
        "import sys, relay_supervisor.app, relay_supervisor.commands.run, relay_supervisor.commands.check; "
        "print(*{'lightkube', 'httpx2', 'yaml', 'relay_supervisor.fleet.pods.pod_launcher'} & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def test_absent_means_off() -> None:
    assert ClusterConfig().namespace == ""
    assert msgspec.structs.replace(Config(nest=[])).cluster == ClusterConfig()


@pytest.mark.parametrize("options", [("--namespace", "Bad_Name"), ("--identity", "a" * 41), ("--namespace", "..")])
def test_move_refuses_what_can_be_no_name(tmp_path: Path, options: tuple[str, str]) -> None:
    """A namespace becomes part of each address that is asked."""
    config = tmp_path / "relay.toml"
    config.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in table.items())
            for name, table in (("nest", NEST), ("cloudflare", {"app_id": "a", "app_secret": "s"}))
        )
    )
    ran = CliRunner().invoke(cli, ["move", "to-cluster", "--config", str(config), *options])
    assert ran.exit_code == 2
    assert f"cluster.{options[0].removeprefix('--')} is {options[1]!r}" in ran.output
