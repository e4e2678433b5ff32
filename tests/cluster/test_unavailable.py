"""Where there can be no cluster, its tests are skipped and say why; where none may be skipped, they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cluster import binaries, network
from tests.cluster.engine import running_cluster


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, with every program, where tests may be skipped: all but one of that holds in each test."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(network, "_permitted", lambda: True)
    monkeypatch.setattr(binaries, "missing", lambda: None)
    monkeypatch.delenv("RELAY_REQUIRE_CLUSTER", raising=False)


def skipped(folder: Path) -> str:
    with pytest.raises(pytest.skip.Exception) as why, running_cluster(folder):
        pass
    return str(why.value)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as missing:
        missing.setattr(binaries, "missing", lambda: "it is not built")
        assert skipped(tmp_path) == "it is not built"
    with monkeypatch.context() as missing:
        missing.setattr(network, "_permitted", lambda: False)
        assert "not permitted" in skipped(tmp_path)
    with monkeypatch.context() as missing:
        missing.setattr(shutil, "which", lambda name: None if name == "bridge" else name)
        assert skipped(tmp_path) == "bridge not found (apt install iproute2 util-linux)"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert skipped(tmp_path) == "network namespaces take root"


def test_where_none_may_be_missing_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("RELAY_REQUIRE_CLUSTER", "1")
    with (
        pytest.raises(pytest.fail.Exception, match="take root, and RELAY_REQUIRE_CLUSTER=1"),
        running_cluster(tmp_path),
    ):
        pass
