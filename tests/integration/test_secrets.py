"""No secret leaves the places that need it: not in logs, errors, process lists, environments, answers or metrics."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from relay_common.log import ConsoleFormatter, JsonFormatter
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay

pytestmark = pytest.mark.media

STREAM_TOKEN = re.compile(r"auth=(?!\[redacted\])|g\.0\.[\w-]+|ya29\.|1//0|GOCSPX")


def processes(parent_text: str) -> dict[int, str]:
    """Command lines of all processes whose own contain `parent_text`, and their environments, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if parent_text in line:
                found[int(entry.name)] = line + environment
    return found


async def test_nothing_that_can_be_read_holds_a_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Leases of 8 s, so that tokens rotate, and faults, so that errors are told, with everything logged at debug."""
    caplog.set_level(logging.DEBUG)
    sections: dict[str, Any] = {**UNLIMITED, "log": {"level": "debug"}}
    async with running_relay(2, options=(*SMALL, "--lease", "8", "--unlimited"), sections=sections) as relay:
        secrets = {str(v) for k, v in relay.world.endpoints["nest"].items() if k in ("client_secret", "refresh_token")}
        assert len(secrets) == 2
        await relay.until_live()
        pids = {camera.worker.pid for camera in relay.supervisor.status().cameras}
        readable = [text for pid, text in processes("relay-worker").items() if pid in pids]
        assert len(readable) == 2

        await relay.nest("cameras/Front Door/fault", {"kind": "describe_status", "status": 403, "seconds": 4})
        await relay.nest("cameras/Front Door/fault", {"kind": "reset"})
        await relay.nest("cameras/Driveway/fail_commands", {"command": "ExtendRtspStream", "status": 400, "count": 3})
        await asyncio.sleep(9.0)
        url = relay.supervisor.url
        for path in ("/api/cameras", "/api/stats", "/metrics", "/livez", "/readyz", "/"):
            readable.append((await relay.http.get(url + path)).text)
        for camera in relay.supervisor.status().cameras:
            view = await relay.http.post(url + "/api/view", json={"cameras": [camera.id]})
            body = view.json()
            # The offer's own ICE password is the browser's to know; the SFU session and track names are not.
            readable.append(str({key: value for key, value in body.items() if key != "offer"}))
            sessions = {s["session"] for s in (await relay.sfu("sessions"))["sessions"]}
            leaked = [session for session in sessions if session in view.text]
            assert not leaked, view.text[:3000]
        readable += [text for pid, text in processes("relay-worker").items() if pid in pids]

    err = capfd.readouterr().err
    assert "DEBUG" in err, "workers log to standard error at debug level"
    readable.append(err)
    for record in caplog.records:
        readable += [ConsoleFormatter(colour=False).format(record), JsonFormatter().format(record)]
    for text in readable:
        assert not any(secret in text for secret in secrets)
        found = STREAM_TOKEN.search(text)
        assert found is None, text[max(0, found.start() - 200) : found.end() + 50] if found else ""


async def test_state_files_are_private() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        state = relay.world.directory / "state"
        assert state.stat().st_mode & 0o077 == 0
        assert (relay.world.directory / "run").stat().st_mode & 0o077 == 0
        for file in state.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
