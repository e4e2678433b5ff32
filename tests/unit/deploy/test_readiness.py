"""A relay that knows no camera yet is alive and not ready: probes and `docker compose up --wait` rely on it."""

from __future__ import annotations

from pathlib import Path

import httpx

from relay_common import config_file
from relay_supervisor.app import Supervisor
from relay_supervisor.fleet.launcher import ForkServerLauncher

NOWHERE = "http://127.0.0.1:9"


class NoLauncher(ForkServerLauncher):
    """There will be nothing to launch."""

    async def prepare(self) -> None:
        pass


async def test_not_ready_before_the_cameras_are_known(tmp_path: Path) -> None:
    document = {
        "nest": {
            "project_id": "00000000-0000-4000-8000-000000000000",
            "client_id": "x.apps.googleusercontent.com",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "api_base_url": NOWHERE,
            "token_url": NOWHERE,
        },
        "cloudflare": {"app_id": "app", "app_secret": "secret", "api_base_url": NOWHERE},
        "http": {"listen": "127.0.0.1:0"},
        "paths": {"state_dir": str(tmp_path / "state"), "runtime_dir": str(tmp_path / "run")},
    }
    supervisor = Supervisor(config_file.parse(document), launcher=NoLauncher())
    await supervisor.start()
    try:
        async with httpx.AsyncClient(base_url=supervisor.url, trust_env=False) as http:
            assert (await http.get("/livez")).status_code == 200
            reply = await http.get("/readyz")
        assert reply.status_code == 503
        said = {reason["part"]: reason["reason"] for reason in reply.json()["reasons"]}
        assert "listed" in said["discovery"]
    finally:
        await supervisor.stop()
