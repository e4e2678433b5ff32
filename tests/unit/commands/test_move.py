"""`move` where there are several accounts in the cluster: which of them the relay of this machine becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay_common.config_cluster import ClusterConfig
from relay_supervisor.commands import move
from relay_supervisor.commands.cli import cli

ONE = """[[nest]]
project_id = "00000000-0000-4000-8000-000000000000"
client_id = "x.apps.googleusercontent.com"
client_secret = "secret"
refresh_token = "refresh"
"""


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Path]]:
    asked: list[tuple[str, str, Path]] = []

    async def _move(where: str, cluster: ClusterConfig, state: Path, *_: Any) -> move._Moved:
        asked.append((where, cluster.identity, state))
        return move._Moved(0)

    monkeypatch.setattr(move, "_move", _move)
    return asked


def typed(folder: Path, nest: str, *words: str) -> str:
    file = folder / "relay.toml"
    file.write_text(f'{nest}\n[cloudflare]\napp_id = "a"\napp_secret = "b"\n[paths]\nstate_dir = "{folder}"\n')
    words = (*words, "--config", str(file))
    return CliRunner().invoke(cli, words).output


def test_an_account_is_a_relay_of_its_own(tmp_path: Path, moved: list[tuple[str, str, Path]]) -> None:
    typed(tmp_path, ONE, "move", "to-cluster")
    said = typed(tmp_path, ONE, "--account", "home", "move", "to-cluster")
    assert "start it there now" in said
    typed(tmp_path, ONE, "--account", "shop", "move", "from-cluster", "--identity", "cams")
    identities = [("to-cluster", "nest-relay"), ("to-cluster", "nest-relay-home"), ("from-cluster", "cams-shop")]
    assert moved == [(where, identity, tmp_path) for where, identity in identities]


def test_the_configuration_of_the_cluster_is_told_from_that_of_the_relay_here(
    tmp_path: Path, moved: list[tuple[str, str, Path]]
) -> None:
    several = f'{ONE}account = "home"\nports = 7420\n'
    said = typed(tmp_path, several, "--account", "home", "move", "to-cluster")
    assert "not that of the relay here" in said
    assert "--account home move to-cluster" in said
    assert moved == []
