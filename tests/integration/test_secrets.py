"""No secret leaves the places that need it: not in logs, errors, process lists, environments, answers or metrics."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_supervisor.commands.demo_world import demo_world
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay
from tests.fixtures.supervisor_process import supervisor, until_live

pytestmark = pytest.mark.media

STREAM_TOKEN = re.compile(r"auth=(?!\[redacted\])|g\.0\.[\w-]+|ya29\.|1//0|GOCSPX")


def processes(pids: set[int]) -> dict[int, str]:
    """Command lines and environments of processes, by pid."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            parts = (Path(f"/proc/{pid}/{part}").read_bytes() for part in ("cmdline", "environ"))
            found[pid] = b" ".join(parts).decode(errors="replace")
    return found


async def test_nothing_that_can_be_read_holds_a_secret(tmp_path: Path, unused_tcp_port: int) -> None:
    """Leases of 8 s, so that tokens rotate, and faults, so that errors are reported, everything logged at debug."""
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{unused_tcp_port}"
    turn = {"key_id": "key", "api_token": "turn-token-of-the-test"}
    sections: dict[str, Any] = {**UNLIMITED, "cloudflare.turn": turn, "log": {"level": "debug", "format": "json"}}
    options = (*SMALL, "--lease", "8", "--unlimited")
    async with demo_world(2, "320x180", options) as world, httpx.AsyncClient(timeout=20) as http:
        nest = world.endpoints["nest"]
        secrets = {nest["client_secret"], nest["refresh_token"], world.endpoints["cloudflare"]["app_secret"] + '"'}
        secrets |= {turn["api_token"]}
        control = world.endpoints["control"]
        await http.post(f"{control['sfu']}/turn", json=turn | {"urls": ["turn:127.0.0.1:9"], "secret": "s"})
        async with supervisor(world, unused_tcp_port, log_file=log, **sections) as process:
            live = await until_live(http, unused_tcp_port, 2, 40.0)
            pids = {camera["worker"]["pid"] for camera in live["cameras"]}
            readable = list(processes(pids | {process.pid}).values())
            assert len(readable) == 3

            faults = f"{control['nest']}/cameras"
            await http.post(f"{faults}/Front Door/fault", json={"kind": "describe_status", "status": 403})
            await http.post(f"{faults}/Front Door/fault", json={"kind": "reset"})
            refusal = {"command": "ExtendRtspStream", "status": 400, "count": 3}
            await http.post(f"{faults}/Driveway/fail_commands", json=refusal)
            async with asyncio.timeout(60.0):
                while "403" not in log.read_text():
                    await asyncio.sleep(0.2)
            await http.post(f"{faults}/Front Door/clear", json={})
            await asyncio.sleep(9.0)
            await until_live(http, unused_tcp_port, 2, 60.0)
            for path in ("/api/cameras", "/api/stats", "/metrics", "/livez", "/readyz", "/api/logs", "/"):
                readable.append((await http.get(url + path)).text)
            for camera in live["cameras"]:
                view = (await http.post(url + "/api/view", json={"cameras": [camera["id"]]})).json()
                # The browser may know the offer's ICE password and its own TURN credential, but not the relay's, nor
                # the SFU session ids.
                issued = (await http.get(f"{control['sfu']}/turn")).json()["issued"]
                assert issued[-1] in str(view)
                assert issued[0] not in str(view)
                readable.append(str({key: view[key] for key in view.keys() - {"offer", "ice_servers"}}))
                secrets.add(next(server["credential"] for server in view["ice_servers"] if "credential" in server))
                sessions = {s["session"] for s in (await http.get(f"{control['sfu']}/sessions")).json()["sessions"]}
                assert not any(session in str(view) for session in sessions)
            readable += processes(pids).values()

    lines = log.read_text()
    assert '"level":"debug"' in lines
    readable.append(lines)
    for text in readable:
        assert not any(secret in text for secret in secrets)
        found = STREAM_TOKEN.search(text)
        assert found is None, text[max(0, found.start() - 200) : found.end() + 50] if found else ""


async def test_state_files_are_private() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        state = relay.world.directory / "state"
        assert state.stat().st_mode & 0o077 == 0
        run = relay.world.directory / "run"
        assert run.stat().st_mode & 0o077 == 0
        assert list(run.glob("*.stacks")), "the worker's file"
        for file in [*state.iterdir(), *run.iterdir()]:
            assert file.stat().st_mode & 0o077 == 0, file
