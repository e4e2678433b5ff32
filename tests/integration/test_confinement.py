"""A running worker has no privilege or descriptor that it does not need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.running_relay import running_relay

pytestmark = pytest.mark.media


async def test_a_worker_has_given_up_privileges_and_inherited_nothing() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        (camera,) = relay.supervisor.status().cameras
        process = Path(f"/proc/{camera.worker.pid}")
        status = (process / "status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = {line[:25].strip(): line[25:].split()[:2] for line in (process / "limits").read_text().splitlines()}
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max open files"] == ["512", "512"]
        opened = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
        state = str(relay.supervisor.config.paths.state())
        assert not [name for name in opened if name.startswith(state)], "the leases' database"
        assert len(opened) < 64, opened
        environment = (process / "environ").read_text()
        assert "SECRET" not in environment
