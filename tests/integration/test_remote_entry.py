"""A worker as it runs on another machine: it knows what a file says and what comes over the bus, and ends by itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from relay_supervisor.fleet.keyring import Keyring
from relay_worker.process.launch_file import packed
from relay_worker.process.spec import WorkerSpec
from tests.fixtures.ports import free_ports
from tests.fixtures.remote_workers import ENVIRONMENT, PROGRAM, ROOT, RemoteLauncher
from tests.fixtures.running_relay import SMALL, UNLIMITED, running_relay
from tests.fixtures.tcp_workers import over_tcp

pytestmark = pytest.mark.media

HANGS = """
import sys, time
from relay_worker.process import remote, worker
remote.HANG = 3.0
worker.Worker._report = lambda self, now: time.sleep(90.0)
worker.Worker._say_hello = lambda self: setattr(self, "_welcomed", True) or True
remote.main()
"""
"""A worker whose loop stands still from its first report on."""


async def test_it_plays_by_its_file_and_the_bus_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    launchers: list[RemoteLauncher] = []

    def launcher(directory: Path) -> RemoteLauncher:
        launchers.append(RemoteLauncher(directory))
        return launchers[0]

    options = (*SMALL, "--webrtc", "1", "--unlimited")
    async with running_relay(2, launcher=launcher, options=options, sections=over_tcp() | UNLIMITED) as relay:
        await relay.until_live(within=90.0)
        for camera in relay.supervisor.status().cameras:
            command_line = Path(f"/proc/{camera.worker.pid}/cmdline").read_bytes()
            assert command_line.rstrip(b"\0") == f"relay-worker: {camera.name}".encode()
            member = relay.supervisor.fleet.keyring.named(camera.worker.instance)
            assert member is not None
            assert member.over == "bus over TCP"
            assert camera.worker.confinement
            assert (await relay.supervisor.verbs.snapshot(camera.id)).startswith(b"\xff\xd8")
        said = (launchers[0]._directory / "log").read_text()
        assert "Traceback" not in said
    assert "it uses more memory than it should" not in caplog.text


def run(spec: WorkerSpec, directory: Path, *program: str) -> subprocess.CompletedProcess[str]:
    file = directory / "worker.json"
    file.write_bytes(packed(spec))
    return subprocess.run(
        [*program, str(file)], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def alone() -> WorkerSpec:
    """Parameters of a worker whose supervisor is not there."""
    keyring = Keyring()
    keyring.open()
    control, stats = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    return WorkerSpec(
        camera="c", name="Porch", instance="c.1", control=control, stats=stats, keys=keyring.issue("c.1", "c")
    )


def test_without_supervisor_and_lease_it_ends_in_order(alone: WorkerSpec, tmp_path: Path) -> None:
    ended = run(dataclasses.replace(alone, orphan_grace=0.5), tmp_path, *PROGRAM)
    assert ended.returncode == 0, ended.stderr
    assert "no supervisor and no lease: ending" in ended.stderr


def test_when_its_loop_stands_still_it_says_where_and_ends(alone: WorkerSpec, tmp_path: Path) -> None:
    ended = run(alone, tmp_path, sys.executable, "-c", HANGS)
    assert ended.returncode == 1, ended.stderr
    assert "Timeout (0:00:03" in ended.stderr
    assert "in _beat" in ended.stderr


@pytest.mark.parametrize(
    ("data", "wrong"), [(b"{", "it is no JSON"), (b"{}", "missing required field"), (None, "No such file")]
)
def test_without_usable_parameters_it_says_so(data: bytes | None, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "worker.json"
    if data is not None:
        file.write_bytes(data)
    ended = subprocess.run([*PROGRAM, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{file}: ")
    assert wrong in ended.stderr
    assert "Traceback" not in ended.stderr
