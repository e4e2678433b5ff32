"""A worker that is forked only after its supervisor has died ends at once: the next supervisor does not know it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from relay_common.proc import start_ticks

_SUPERVISOR = """
import asyncio, sys
from multiprocessing import forkserver
from pathlib import Path
from relay_supervisor.fleet.processes import fork_server
from relay_worker.process.spec import WorkerSpec

def asked(descriptor, read=forkserver.read_signed):
    print(fork_server._server(), flush=True)
    return read(descriptor)

forkserver.read_signed = asked
fork_server.PRELOAD_REHEARSED = "slow"

async def main():
    bus = f"ipc://{sys.argv[1]}/bus"
    spec = WorkerSpec(camera="c", name="C", instance="c.1", control=bus, stats=bus)
    await fork_server.ForkServerLauncher(Path(sys.argv[1])).start(spec)

asyncio.run(main())
"""


def test_a_worker_whose_supervisor_died_before_it_was_forked_ends_at_once(tmp_path: Path) -> None:
    go = tmp_path / "go"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    server = int(supervisor.stdout.readline())
    started = start_ticks(server)
    supervisor.kill()
    supervisor.wait()
    go.touch()
    stacks, deadline = tmp_path / "c.1.stacks", time.monotonic() + 60.0
    while start_ticks(server) == started and not stacks.exists():
        assert time.monotonic() < deadline, "the fork server neither ends nor forks"
        time.sleep(0.02)
    assert not stacks.exists(), "a worker that nobody knows runs"
