"""A supervisor in a process of its own, on which the rows of the matrix are inflicted from outside.

`python -m tests.chaos.host DIRECTORY` runs the relay of the world in DIRECTORY (`endpoints.json`), with the product's
own log on standard error, until the peer of the Unix socket `host.sock` there, to which it connects, hangs up. Requests
and answers are JSON, one a line: `{"id", "do", ...}` is answered by `{"id", ...}` or `{"id", "error"}`. `do` is one of

    look       what the relay says of itself
    inflict    a row of the matrix on a camera: "row", "camera"
    relieve    the same row's relief
    clock      set the clock: "offset" in seconds
    names      have no name resolved, or have them resolved again: "gone"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec

from relay_common import log
from relay_common.clock import SystemClock
from relay_common.tasks import Tasks
from relay_supervisor import memory
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import DemoWorld
from relay_supervisor.loop_errors import LoopErrors
from tests.chaos.rows import ROWS
from tests.chaos.world import Chaos, SteppedClock
from tests.fixtures.no_names import google_by_name, no_names
from tests.fixtures.running_relay import RunningRelay

SOCKET = "host.sock"
ENDPOINTS = "endpoints.json"
_ROWS = {row.name: row for row in ROWS}


class Host:
    """Answers requests. Every row finds here what it finds in the matrix's own world."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._nameless = contextlib.ExitStack()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what `request` asks; what goes wrong is part of the answer."""
        try:
            return {"id": request["id"], **await self._do(**request)}
        except Exception as error:
            return {"id": request["id"], "error": f"{type(error).__name__}: {error}"}

    async def _do(
        self, do: str, row: str = "", camera: str = "", offset: float = 0.0, gone: bool = False, **_: Any
    ) -> dict[str, Any]:
        supervisor = self._chaos.relay.supervisor
        match do:
            case "look":
                reasons = [part.reason for part in supervisor.health().reasons]
                located, url = self._chaos.located(), supervisor.url
                return {"status": supervisor.status(), "located": located, "reasons": reasons, "url": url}
            case "inflict":
                await self._chaos.look()  # some rows need to know where the camera is published
                await _ROWS[row].inflict(self._chaos, camera)
            case "relieve":
                relieve = _ROWS[row].relieve
                assert relieve is not None
                await relieve(self._chaos, camera)
            case "clock":
                self._chaos.clock.offset = offset
            case "names" if gone:
                self._nameless.enter_context(no_names())
            case "names":
                self._nameless.close()
            case _:
                raise ValueError(f"unknown request {do!r}")
        return {}


async def serve(directory: Path) -> None:
    """Run the relay until the other side hangs up."""
    world = DemoWorld(json.loads((directory / ENDPOINTS).read_text()), directory)
    config = world.config(log={"level": "info"}, **google_by_name(world))
    log.configure(config.log.level, config.log.format)
    asyncio.get_running_loop().set_exception_handler(LoopErrors(SystemClock()))
    clock = SteppedClock()
    async with httpx.AsyncClient(timeout=10.0) as http:
        supervisor = Supervisor(config, clock=clock)
        relay = RunningRelay(supervisor, world, http)
        state = config.paths.state()
        host = Host(Chaos(relay, clock, state, small=os.path.ismount(state)))
        await supervisor.start()
        try:
            await _converse(host, directory / SOCKET)
        finally:
            await supervisor.stop()


async def _converse(host: Host, socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    tasks = Tasks(logging.getLogger(__name__), "a request failed")

    async def reply(request: dict[str, Any]) -> None:
        writer.write(msgspec.json.encode(await host.answer(request)) + b"\n")
        await writer.drain()

    try:
        while line := await reader.readline():
            tasks.spawn(reply(json.loads(line)))
    finally:
        await tasks.aclose()
        writer.close()


if __name__ == "__main__":
    memory.settle()  # as `relay-supervisor run` does
    asyncio.run(serve(Path(sys.argv[1])))
    log.flush()
    os._exit(0)  # as it does, too
