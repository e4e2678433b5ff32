"""`python -m relay_common.simulation`: run the simulators in their own process.

Prints one line of JSON with every address and credential when ready, and runs until SIGTERM, SIGINT, or the end of
standard input if that is a pipe (the parent has exited).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import click

from relay_common.simulation.camera.camera import CameraSettings
from relay_common.simulation.camera.media import LEAST_SIDE
from relay_common.simulation.google.quota import UNLIMITED, Limits
from relay_common.simulation.world import World, WorldConfig

_SOUNDS: Final[dict[str, dict[str, Any] | None]] = {
    "mono": {},
    "stereo": {"rate": 48_000, "channels": 2, "bitrate": 96_000},
    "opus": {"rate": 48_000, "codec": "opus"},
    "none": None,
}


@click.command()
@click.option("--cameras", default=6, show_default=True, help="How many cameras.")
@click.option("--size", default="640x360", show_default=True, help="Picture size, WxH.")
@click.option("--bitrate", default=0, help="Video bit/s; 0: by size.")
@click.option("--fps", default=30, show_default=True, help="Pictures a second.")
@click.option("--lease", default=300.0, show_default=True, help="Lifetime of a stream in seconds.")
@click.option("--workdir", type=click.Path(file_okay=False, exists=True, path_type=Path), help="For the CA file.")
@click.option("--seed", default=0, show_default=True, help="Seed for everything random.")
@click.option("--describe-delay", default=0.3, show_default=True, help="Seconds that a first DESCRIBE takes.")
@click.option("--shared-clip", is_flag=True, help="All cameras show the same clip: starts faster.")
@click.option("--webrtc", default=0, show_default=True, help="How many cameras, the last ones, speak WebRTC only.")
@click.option("--doorbells", default=0, show_default=True, help="How many of those are battery doorbells.")
@click.option("--second-client", type=click.Choice(["refuse", "replace"]), help="What a camera does with one.")
@click.option("--unlimited", is_flag=True, help="No command quota (for benchmarks).")
@click.option("--any-play", is_flag=True, help="PLAY without Range starts media, too (Google then sends nothing).")
@click.option("--flash", is_flag=True, help="A flash and a beep each second, for lip-sync measurements.")
@click.option("--high", is_flag=True, help="H.264 High profile.")
@click.option("--sound", type=click.Choice(list(_SOUNDS)), default="mono", show_default=True, help="Cameras' audio.")
@click.option("--plain", is_flag=True, help="RTSP without TLS.")
@click.option("--collect-after", default=30.0, show_default=True, help="Seconds until the SFU drops a silent track.")
@click.option("--sfu-variant", default="{}", help='SFU behaviour, as JSON, such as {"switch_at_keyframes": false}.')
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--only", type=click.Choice(["all", "nest", "sfu"]), default="all", help="Run only this part.")
@click.option("--no-sfu", is_flag=True, help="The same as --only nest.")
def main(
    cameras: int,
    size: str,
    bitrate: int,
    fps: int,
    lease: float,
    workdir: Path | None,
    seed: int,
    describe_delay: float,
    shared_clip: bool,
    webrtc: int,
    doorbells: int,
    second_client: Literal["refuse", "replace"] | None,
    unlimited: bool,
    any_play: bool,
    flash: bool,
    high: bool,
    sound: str,
    plain: bool,
    collect_after: float,
    sfu_variant: str,
    host: str,
    only: Literal["all", "nest", "sfu"],
    no_sfu: bool,
) -> None:
    """Run the Nest, camera and SFU simulators until stopped."""
    try:
        width, height = (int(side) for side in size.split("x"))
    except ValueError:
        raise click.BadParameter(f"{size!r} is not WIDTHxHEIGHT", param_hint="--size") from None
    if min(width, height) < LEAST_SIDE or width % 2 or height % 2:
        raise click.BadParameter(f"{size!r}: both must be even and at least {LEAST_SIDE}", param_hint="--size")
    with tempfile.TemporaryDirectory(prefix="relay-simulation-") as temporary:
        config = WorldConfig(
            workdir=workdir or Path(temporary),
            cameras=cameras,
            width=width,
            height=height,
            bitrate=bitrate,
            fps=fps,
            lease=lease,
            seed=seed,
            describe_delay=describe_delay,
            shared_clip=shared_clip,
            webrtc=webrtc,
            doorbells=doorbells,
            second_client=second_client or "",
            limits=UNLIMITED if unlimited else Limits(),
            tls=not plain,
            collect_after=collect_after,
            sfu=_variant(sfu_variant),
            host=host,
            adjust=lambda index, settings: _adjust(
                settings, any_play=any_play, flash=flash, high=high, sound=_SOUNDS[sound]
            ),
            only="nest" if no_sfu else only,
        )
        asyncio.run(_serve(config))


def _variant(text: str) -> dict[str, Any]:
    try:
        wanted = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--sfu-variant") from None
    if not isinstance(wanted, dict):
        raise click.BadParameter("not an object", param_hint="--sfu-variant")
    return wanted


def _adjust(
    settings: CameraSettings,
    *,
    any_play: bool,
    flash: bool,
    high: bool,
    sound: dict[str, Any] | None,
) -> CameraSettings:
    settings = replace(settings, needs_range=not any_play)
    if high:
        settings = replace(settings, video=replace(settings.video, profile="high"))
    if sound is None:
        settings = replace(settings, audio=None)
    elif settings.audio is not None:
        settings = replace(settings, audio=replace(settings.audio, **sound))
    if flash and settings.audio is not None:
        video, audio = replace(settings.video, pattern="flash"), replace(settings.audio, pattern="beep")
        settings = replace(settings, video=video, audio=audio)
    return settings


async def _serve(config: WorldConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _stop_with_parent(loop, stop)
    world = World(config)
    starting = asyncio.create_task(world.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return
    await starting
    try:
        print(json.dumps(world.endpoints()), flush=True)
        await stopping
    finally:
        await world.stop()


def _stop_with_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)


if __name__ == "__main__":
    main()
