"""What everything is measured on: simulators in processes of their own, and the relay as a person would run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from relay_common.proc import start_ticks
from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.fixtures.control_interface import ControlInterface

SIZE: Final = "1280x720"
BITRATE: Final = 2_200_000
_OPTIONS: Final = ("--shared-clip", "--unlimited", "--lease", "3600", "--any-play")
_LIMITS: Final = ("commands_per_minute", "device_commands_per_minute", "camera_per_minute", "camera_per_hour")


class BenchError(Exception):
    """A part could not be measured; the text says why."""


@dataclass
class Relay:
    """`relay-supervisor run` in a child process, and its workers."""

    stage: Stage
    config: Path
    names: list[str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    tree: Path | None = None
    """Source tree of another version, with its packages in `.venv`; None means this one."""
    seen: dict[int, int] = field(default_factory=dict)
    """Start times of every worker ever seen, by pid: what must be gone at the end."""
    spawned: float = 0.0
    url: str = ""
    """Of its HTTP interface."""

    async def start(self) -> None:
        """Start the supervisor; raises BenchError when it does not serve within a minute."""
        outside = ("RELAY_", "PYTHONPATH") if self.tree is not None else ("RELAY_",)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
        python = sys.executable if self.tree is None else str(self.tree / ".venv" / "bin" / "python")
        self.spawned = time.monotonic()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(python, "-m", "relay_supervisor", "run", "--config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=self.tree,  # where `-m` looks first
                start_new_session=True,
            )
        assert self.process.stderr is not None
        async with asyncio.timeout(60.0):
            while line := (await self.process.stderr.readline()).decode():
                self._note(line)
                if line.startswith("dashboard: "):
                    self.url = line.split()[1]
                    self.stage.spawn(self._drain(self.process.stderr))
                    return
        raise BenchError(f"the supervisor did not start: {self.tail()}")

    async def cameras(self) -> dict[str, dict[str, Any]]:
        """The status of each camera, by name, as /api/stats has it."""
        body = (await self.stage.http.get(f"{self.url}/api/stats")).json()
        found = {camera["name"]: camera for camera in body["cameras"] if camera["name"] in self.names}
        for camera in found.values():
            if pid := camera["worker"]["pid"]:
                self.seen.setdefault(pid, start_ticks(pid))
        return found

    async def until(self, wanted: Callable[[dict[str, dict[str, Any]]], bool], within: float, what: str) -> float:
        """Wait for a state of the cameras; returns the monotonic time at which it was seen, or raises BenchError."""
        deadline = time.monotonic() + within
        cameras: dict[str, dict[str, Any]] = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                cameras = await self.cameras()
                if len(cameras) == len(self.names) and wanted(cameras):
                    return time.monotonic()
            await asyncio.sleep(0.05)
        states = ", ".join(f"{name} {c['state']} pid {c['worker']['pid']} {c['reason']}" for name, c in cameras.items())
        raise BenchError(f"after {within:.0f} s still not: {what}; {states or self.tail()}")

    async def until_live(self, within: float = 60.0) -> float:
        """Wait until all cameras are live."""
        return await self.until(lambda found: all(c["state"] == "live" for c in found.values()), within, "all live")

    async def pids(self) -> dict[str, int]:
        """The workers' process ids, by camera name."""
        return {name: int(camera["worker"]["pid"]) for name, camera in (await self.cameras()).items()}

    async def tracks(self, kind: str = "video") -> dict[str, dict[str, Any]]:
        """What the SFU has received of each camera: the newest session's track, by camera name."""
        ids = {camera["id"]: name for name, camera in (await self.cameras()).items()}
        sessions = (await self.stage.sfu("sessions"))["sessions"]
        found: dict[str, dict[str, Any]] = {}
        for session in sorted(sessions, key=lambda s: -float(s["age"])):
            for track in session["published"]:
                for camera, name in ids.items():
                    if track["active"] and track["name"].endswith(f"{camera}-{kind}"):
                        found[name] = {**track, "session": session["session"]}
        return found

    def kill(self) -> None:
        """kill -9 of the supervisor alone."""
        assert self.process is not None
        self.process.kill()

    async def stop(self) -> None:
        """Stop it as a service manager would; whatever is left after that is killed."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 20.0)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        for pid, started in self.seen.items():
            if started and start_ticks(pid) == started:
                os.kill(pid, signal.SIGKILL)

    def tail(self) -> str:
        """The last lines of its log, in one."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " / ".join(lines[-3:])

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._note(line.decode(errors="replace"))

    def _note(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(line)


@dataclass
class Stage(ControlInterface):
    """The simulators, their control interfaces, and a way to get streams without the relay."""

    world: DemoWorld
    http: httpx.AsyncClient
    data_path: str = "auto"
    _runs: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """All cameras there are."""
        return list(self.world.endpoints["cameras"])

    @property
    def ca_file(self) -> str:
        """The authority that signed the cameras' certificate."""
        return str(self.world.endpoints["rtsp"]["ca_file"])

    @contextlib.asynccontextmanager
    async def relay(
        self,
        cameras: int,
        *,
        audio: bool = True,
        tree: Path | None = None,
        local: bool = False,
        sfu: bool = True,
        renditions: str = "off",
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> AsyncIterator[Relay]:
        """Run the relay for the first `cameras` cameras, in directories of its own; all of it is gone afterwards.

        With `local` its workers answer viewers on loopback, without `sfu` it publishes nowhere. `renditions` says which
        small pictures they make. `sections` replaces keys of the configuration, or adds them.
        """
        self._runs += 1
        home = self.world.directory / f"run{self._runs}"
        home.mkdir()
        names = self.names[:cameras]
        document = self.world.document(
            limits=dict.fromkeys(_LIMITS, 10_000),
            cameras={"include": names, **{name: {"audio": audio} for name in names}},
            paths={"state_dir": str(home / "state"), "runtime_dir": str(home / "run")},
        )
        if tree is None and self.data_path != "auto":
            document["workers"] = {"data_path": self.data_path}
        if local:
            document["local"] = {"listen": "127.0.0.1"}
        if renditions != "off":
            document["cameras"]["renditions"] = renditions
        if not sfu:
            del document["cloudflare"]
        for section, keys in (sections or {}).items():
            document[section] = {**document.get(section, {}), **keys}
        config = home / "relay.toml"
        config.write_text(to_toml(document))
        config.chmod(0o600)
        relay = Relay(self, config, names, home / "log", tree=tree)
        try:
            await relay.start()
            yield relay
        finally:
            await relay.stop()

    async def streams(self, cameras: int) -> list[str]:
        """RTSPS URLs of the first cameras, got from Google's (simulated) API as anyone would get them."""
        nest = self.world.endpoints["nest"]
        grant = {
            "grant_type": "refresh_token",
            **{key: nest[key] for key in ("client_id", "client_secret", "refresh_token")},
        }
        token = (await self.http.post(nest["token_url"], data=grant)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        devices = f"{nest['api_base_url']}/enterprises/{nest['project_id']}/devices"
        listed = (await self.http.get(devices, headers=headers)).json()["devices"]
        by_name = {device["traits"]["sdm.devices.traits.Info"]["customName"]: device["name"] for device in listed}
        urls = []
        for name in self.names[:cameras]:
            command = {"command": "sdm.devices.commands.CameraLiveStream.GenerateRtspStream", "params": {}}
            url = f"{nest['api_base_url']}/{by_name[name]}:executeCommand"
            reply = (await self.http.post(url, json=command, headers=headers)).json()
            urls.append(str(reply["results"]["streamUrls"]["rtspUrl"]))
        return urls

    def spawn(self, work: Any) -> None:
        """Run `work` beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def stage(
    cameras: int, *, dribble: bool = False, webrtc: bool = False, bitrate: int = BITRATE, data_path: str = "auto"
) -> AsyncIterator[Stage]:
    """Start the simulators for `cameras` cameras at 720p (`bitrate` in bit/s), and stop them afterwards.

    With `dribble` the cameras write every RTP packet by itself (a TLS record each) instead of a frame at a time, with
    `webrtc` they all speak WebRTC. `data_path` is what workers of this tree use.
    """
    options = (*_OPTIONS, "--bitrate", str(bitrate), *(("--webrtc", str(cameras)) if webrtc else ()))
    async with demo_world(cameras, SIZE, options) as world, httpx.AsyncClient(timeout=30.0) as http:
        made = Stage(world, http, data_path)
        for name in made.names if dribble else ():
            await made.nest(f"cameras/{name}/fault", {"kind": "dribble"})
        yield made


def to_toml(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """`document` as TOML; JSON's scalars, arrays and quoted keys are TOML's."""
    plain = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in document.items() if isinstance(value, Mapping)}
    lines: Iterable[str] = (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in plain.items())
    header = [f"[{'.'.join(map(json.dumps, path))}]"] if path else []
    return "\n".join([*header, *lines, *(to_toml(table, (*path, key)) for key, table in tables.items())])
