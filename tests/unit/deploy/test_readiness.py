"""A relay that knows no camera yet is alive and not ready: probes and `docker compose up --wait` rely on it."""

from __future__ import annotations

from pathlib import Path

import httpx

from relay_supervisor.app import Supervisor
from tests.fixtures.offline import NoLauncher, offline_config


async def test_not_ready_before_the_cameras_are_known(tmp_path: Path) -> None:
    supervisor = Supervisor(offline_config(tmp_path), launcher=NoLauncher)
    await supervisor.start()
    try:
        async with httpx.AsyncClient(base_url=supervisor.url, trust_env=False) as http:
            assert (await http.get("/livez")).status_code == 200
            reply = await http.get("/readyz")
        assert reply.status_code == 503
        reasons = {reason["part"]: reason["reason"] for reason in reply.json()["reasons"]}
        assert "listed" in reasons["discovery"]
    finally:
        await supervisor.stop()
