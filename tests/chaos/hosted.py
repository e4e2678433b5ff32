"""The relay in a process of its own (`host.py`), started, observed, killed and asked from here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from relay_common.proc import start_ticks
from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from relay_supervisor.status.model import RelayStatus
from tests.chaos.host import ENDPOINTS, SOCKET
from tests.chaos.world import Sight, sights, small_file_system
from tests.fixtures.control_interface import ControlInterface
from tests.fixtures.product_source import ROOT

TITLE = "relay-worker: "
_LONGEST_LINE = 8 << 20
_SUSPENDED = 600.0
"""Seconds for which a supervisor may be suspended."""


class HostError(Exception):
    """The relay's process cannot be asked, or a request failed there."""


@dataclass
class Hosted(ControlInterface):
    """One relay, its world, and the last observation of each camera."""

    world: DemoWorld
    http: httpx.AsyncClient
    log: Path
    process: asyncio.subprocess.Process | None = None
    sights: dict[str, Sight] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    """What the relay says of its own health."""
    unauthorized: bool = False
    """Whether the relay says that it can send no command at all."""
    url: str = ""
    google: dict[str, Any] = field(default_factory=dict)
    """What the simulated Google has counted (`GET /control/commands`)."""
    workers: dict[int, int] = field(default_factory=dict)
    """Start times of all workers ever seen, by pid."""
    _writer: asyncio.StreamWriter | None = None
    _answers: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _connected: asyncio.Event = field(default_factory=asyncio.Event)
    _heard: dict[str, float] = field(default_factory=dict)
    _asked: asyncio.Task[dict[str, Any]] | None = None
    """The request for what the relay says of itself that is not answered yet."""

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start the supervisor; returns when it serves."""
        self._connected.clear()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.host", str(self.world.directory)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.world.directory,  # which all its processes keep: see `processes`
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        await asyncio.wait_for(self._connected.wait(), 60.0)

    async def ask(self, do: str, within: float = 10.0, **more: Any) -> dict[str, Any]:
        """Have a request answered; raises HostError when it failed, or was not answered in time."""
        if self._writer is None:
            raise HostError("the supervisor is not connected")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"id": number, "do": do, **more}).encode() + b"\n")
        try:
            told: dict[str, Any] = await asyncio.wait_for(answer, within)
        except TimeoutError:
            raise HostError(f"no answer to {do} within {within:.0f} s") from None
        finally:
            del self._answers[number]
        if "error" in told:
            raise HostError(f"{do} {more}: {told['error']}")
        return told

    async def _says(self) -> dict[str, Any]:
        """What the relay says of itself.

        What is not answered yet is waited for, and not asked again: a supervisor that was suspended would answer a
        dozen requests at once, and its memory be judged by that.
        """
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self.ask("look", _SUSPENDED))
            self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(self._asked), 10.0)
        except TimeoutError:
            raise HostError("the supervisor does not answer") from None

    async def look(self) -> dict[str, Sight]:
        """Observe every camera at the relay, at Google and at the SFU; raises HostError while the relay is away."""
        told, sfu, google = await asyncio.gather(self._says(), self.sfu("sessions"), self.nest("commands"))
        status = msgspec.convert(told["status"], RelayStatus)
        cameras, self.unauthorized = status.cameras, any(budget.auth_error for budget in status.budgets)
        self.reasons, self.url, self.google = told["reasons"], told["url"], google
        self.sights = sights(cameras, told["located"], sfu, google, self._heard)
        for camera in cameras:
            if pid := camera.worker.pid:
                self.workers.setdefault(pid, start_ticks(pid))
        return self.sights

    @property
    def live(self) -> int:
        """Cameras that are healthy in the last observation."""
        return sum(sight.healthy for sight in self.sights.values())

    def generates(self) -> Counter[str]:
        """Generate commands that have reached Google, by camera."""
        return Counter(one["device"] for one in self.google["commands"] if one["command"].startswith("Generate"))

    def processes(self) -> dict[int, str]:
        """All worker processes of this relay, adopted ones included: camera names by pid."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    title = (entry / "cmdline").read_bytes().rstrip(b"\0 ").decode(errors="replace")
                    if title.startswith(TITLE) and (entry / "cwd").readlink() == self.world.directory:
                        found[int(entry.name)] = title.removeprefix(TITLE)
        return found

    async def kill(self) -> None:
        """kill -9 of the supervisor alone."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Stop the supervisor by hanging up, and kill whatever is left of its workers."""
        if self._writer is not None:
            self._writer.close()
        if self.process is not None and self.process.returncode is None:
            try:
                await asyncio.wait_for(self.process.wait(), 20.0)
            except TimeoutError:
                await self.kill()
        for pid, started in self.workers.items():
            if started and start_ticks(pid) == started:
                os.kill(pid, signal.SIGKILL)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle the connection of a supervisor that has just started."""
        self._writer = writer
        self._connected.set()
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                told = json.loads(line)
                answer = self._answers.get(told["id"])
                if answer is not None and not answer.done():
                    answer.set_result(told)
        if self._writer is writer:
            self._writer = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(HostError("the supervisor hung up"))


@contextlib.asynccontextmanager
async def hosted(
    cameras: int, log: Path, size: str, options: Sequence[str], sfu_options: Sequence[str]
) -> AsyncIterator[Hosted]:
    """A relay that is not started yet, in a world of `cameras` cameras; its log is written to the file `log`."""
    async with demo_world(cameras, size, options, sfu_options) as world, httpx.AsyncClient(timeout=30.0) as http:
        (world.directory / ENDPOINTS).write_text(json.dumps(world.endpoints))
        relay = Hosted(world, http, log)
        server = await asyncio.start_unix_server(relay.converse, str(world.directory / SOCKET), limit=_LONGEST_LINE)
        with small_file_system(world.directory / "state"):
            try:
                yield relay
            finally:
                await relay.stop()
                server.close()
