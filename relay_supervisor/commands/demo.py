"""`relay-supervisor demo`: the whole relay against built-in simulators."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from typing import Final

import click
import msgspec

from relay_common import log
from relay_common.duration_range import DurationRange
from relay_common.errors import ConfigError
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.cli import Failure, program
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.net import bind
from relay_supervisor.status.model import RelayStatus
from relay_worker.process import data_path

_HOST: Final = "127.0.0.1"
_LEAST_SIDE: Final = 64
"""Pixels of a simulated picture's width or height at least."""


class CameraReport(msgspec.Struct):
    """One camera in the report of `demo --json`."""

    name: str
    state: str
    video_frames: int
    audio_frames: int
    packets: int
    generates: int
    extends: int
    restarts: int
    protocol: str
    """RTSP or WEB_RTC."""


class DemoReport(msgspec.Struct):
    """What `demo --json` prints; `budget` is the most commands in any 60 seconds."""

    cameras: list[CameraReport]
    budget: int
    ok: bool


@click.command("demo")
@click.option("--cameras", type=click.IntRange(1, 40), default=6, show_default=True, help="How many cameras.")
@click.option("--size", default="640x360", show_default=True, metavar="WxH", help="Picture size, e.g. 1280x720.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Dashboard; 0: any free one."
)
@click.option("--duration", type=DurationRange(min=1), help="Seconds to run; default: until Ctrl-C.")
@click.option(
    "--lease", type=DurationRange(min=2), default=300.0, show_default=True, help="Lifetime of a stream in seconds."
)
@click.option("--local", is_flag=True, help="Watch at the relay itself, without Cloudflare or its simulator.")
@click.option(
    "--renditions",
    type=click.Choice(["off", "keyframes", "smooth"]),
    default="off",
    show_default=True,
    help="A smaller picture of each camera for small tiles, made of its keyframes alone, or smooth.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", show_default=True
)
def command(
    cameras: int,
    size: str,
    port: int,
    duration: float | None,
    lease: float,
    local: bool,
    renditions: str,
    as_json: bool,
    log_level: str,
) -> None:
    """Relay simulated cameras, live, to a web page.

    A third of the cameras speak WebRTC, as most current Nest models do, the others RTSP.
    Starts a Nest API with cameras, an SFU, and the real supervisor against them, all on this machine. With --duration
    the exit code is 0 only if every camera was live at the end.

    \b
    relay-supervisor demo
    relay-supervisor demo --cameras 12 --size 1280x720
    relay-supervisor demo --local
    relay-supervisor demo --renditions keyframes
    relay-supervisor demo --duration 30 --json
    """
    _require_size(size)
    _require_free(port)
    log.configure(log_level)
    sections = {"http": {"listen": f"{_HOST}:{port}"}, "log": {"level": log_level}}
    if renditions != "off":
        sections["cameras"] = {"renditions": renditions}
    if local:
        sections["local"] = {"listen": _HOST}
    report = asyncio.run(_run(cameras, size, lease, duration, sections, quiet=as_json))
    if report is None:
        return
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    elif duration is not None:
        click.echo(f"{sum(c.state == 'live' for c in report.cameras)} of {cameras} cameras live at the end")
    sys.exit(0 if report.ok or duration is None else 1)


def _require_free(port: int) -> None:
    """Refuse a taken port before anything is encoded, with the option that chooses another."""
    try:
        bind(_HOST, port).close()
    except ConfigError as error:
        problem = error.message.removeprefix("[http] listen: ")
        by_make = ' (make demo ARGS="--port 0")' if "MAKELEVEL" in os.environ else ""
        raise Failure(
            f"{problem}: choose another port with --port, or any free one with --port 0{by_make}", 2
        ) from None


def _require_size(size: str) -> None:
    """Raise BadParameter for a picture size that the simulated cameras cannot have."""
    found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size)
    if found is None or any(int(side) < _LEAST_SIDE or int(side) % 2 for side in found.groups()):
        raise click.BadParameter(
            f"{size!r} is no picture size: write WIDTHxHEIGHT in even numbers of pixels from {_LEAST_SIDE} on",
            param_hint="--size",
        )


async def _run(
    cameras: int, size: str, lease: float, duration: float | None, sections: dict[str, dict[str, str]], *, quiet: bool
) -> DemoReport | None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _say(quiet, f"starting {cameras} simulated cameras ({size})…")
    if lost := data_path.lost():
        _say(quiet, lost)
    async with contextlib.AsyncExitStack() as stack:
        starting = asyncio.ensure_future(
            stack.enter_async_context(
                demo_world(
                    cameras, size, ["--lease", str(lease), "--webrtc", str(cameras // 3)], sfu="local" not in sections
                )
            )
        )
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return None
        world = starting.result()
        supervisor = Supervisor(world.config(**sections))
        await supervisor.start()
        try:
            _say(quiet, f"dashboard: {supervisor.url}\nCtrl-C stops everything")
            runtime = supervisor.config.paths.runtime()
            _say(quiet, f"other verbs: RELAY_PATHS_RUNTIME_DIR={runtime} {program()} status --watch")
            requested = asyncio.ensure_future(supervisor.verbs.stop_requested.wait())
            await asyncio.wait((stopped, requested), timeout=duration, return_when=asyncio.FIRST_COMPLETED)
            requested.cancel()
            report = _report(supervisor.status(), cameras)
        finally:
            await supervisor.stop()
    return report


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        click.echo(text)
        sys.stdout.flush()


def _report(status: RelayStatus, expected: int) -> DemoReport:
    cameras = [
        CameraReport(
            name=camera.name,
            state=camera.state,
            video_frames=camera.video.frames,
            audio_frames=camera.audio.frames,
            packets=camera.video.packets_out + camera.audio.packets_out,
            generates=camera.lease.generates,
            extends=camera.lease.extends,
            restarts=camera.worker.restarts,
            protocol=camera.lease.protocol,
        )
        for camera in status.cameras
    ]
    ok = len(cameras) == expected and all(camera.state == "live" for camera in cameras)
    return DemoReport(cameras=cameras, budget=max((b.peak for b in status.budgets), default=0), ok=ok)
