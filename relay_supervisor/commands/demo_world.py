"""The built-in simulators in their own processes, for the real supervisor to run against."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_common import config_file
from relay_common.config import Config
from relay_common.errors import RelayError

START_TIMEOUT: Final = 60.0
"""Seconds for a simulator to start: it encodes the cameras' clips first."""
STOP_TIMEOUT: Final = 2.0
_LONGEST: Final = 70
"""Characters that the path of the directory for temporary files may have: those of sockets are bounded."""


@dataclass
class DemoWorld:
    """Running simulators, and the configuration that points at them."""

    endpoints: dict[str, Any]
    directory: Path
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    def document(self, **sections: dict[str, Any]) -> dict[str, Any]:
        """A configuration document for this world; `sections` add to it or override it key by key."""
        known = self.endpoints
        document: dict[str, dict[str, Any]] = {
            "nest": known["nest"],
            "rtsp": known["rtsp"],
            "http": {"listen": "127.0.0.1:0"},
            "paths": {"state_dir": str(self.directory / "state"), "runtime_dir": str(self.directory / "run")},
            "log": {"level": "warning"},
        }
        if "cloudflare" in known:
            document["cloudflare"] = known["cloudflare"]
        for name, keys in sections.items():
            document[name] = document.get(name, {}) | keys
        return document

    def config(self, **sections: dict[str, Any]) -> Config:
        """The checked configuration."""
        return config_file.parse(self.document(**sections), source="demo")


@contextlib.asynccontextmanager
async def demo_world(
    cameras: int = 6,
    size: str = "640x360",
    options: Sequence[str] = (),
    sfu_options: Sequence[str] = (),
    sfu_command: Sequence[str] = (),
    *,
    sfu: bool = True,
) -> AsyncIterator[DemoWorld]:
    """Start the simulators (Nest and cameras in one process, the SFU in another) and stop them afterwards.

    `options` and `sfu_options` are passed to the respective `python -m relay_common.simulation`. Raises RelayError when
    one does not start. `sfu_command`, such as `nsenter`, runs the SFU's process; without `sfu` there is none. All
    is in a temporary directory that is removed.
    """
    shorter = "/tmp" if len(tempfile.gettempdir()) > _LONGEST and Path("/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="relay-", dir=shorter) as name:
        world = DemoWorld({}, Path(name))
        nest = ["--only", "nest", "--cameras", str(cameras), "--size", size, "--workdir", name, *options]
        starting = [_start(world, nest)]
        if sfu:
            starting.append(_start(world, ["--only", "sfu", *sfu_options], sfu_command))
        try:
            started = await asyncio.gather(*starting)
            for endpoints in started:
                control = world.endpoints.get("control", {}) | endpoints.pop("control", {})
                world.endpoints |= endpoints | {"control": control}
            yield world
        finally:
            await asyncio.gather(*map(_stop, world.processes))


async def _start(world: DemoWorld, options: list[str], command: Sequence[str] = ()) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *command,
        sys.executable,
        "-m",
        "relay_common.simulation",
        *options,
        stdin=asyncio.subprocess.PIPE,  # its end tells the simulator that we are gone, for whatever reason
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C must only reach us; the simulators are stopped in order
    )
    world.processes.append(process)
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT)
        endpoints = json.loads(line)
    except (TimeoutError, ValueError):
        raise RelayError("a simulator did not start", hint="Its own messages are above") from None
    assert isinstance(endpoints, dict)
    return endpoints


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            process.kill()
        await process.wait()
