"""A supervisor that may not command changes nothing in the cluster, and does not even ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay_supervisor.fleet.pods.api import PODS, ApiAway, ClusterApi


async def test_who_may_not_command_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    config = tmp_path / "kubeconfig"
    names = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}
    server = {"server": f"http://127.0.0.1:{unused_tcp_port}"}
    config.write_text(
        json.dumps(names | {"clusters": [{"name": "c", "cluster": server}], "users": [{"name": "u", "user": {}}]})
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    may_change = [False]
    api = ClusterApi("cameras", lambda: may_change[0])
    try:
        for change in (
            lambda: api.create(PODS, {"metadata": {"name": "one"}}),
            lambda: api.patch(PODS, "one", {}),
            lambda: api.delete(PODS, "one", 0),
        ):
            with pytest.raises(ApiAway, match="another supervisor may be in command"):
                await change()
        may_change[0] = True
        with pytest.raises(ApiAway, match="does not answer"):
            await api.delete(PODS, "one", 0)
    finally:
        await api.aclose()
