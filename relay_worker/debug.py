"""`relay-worker debug`: one pipeline in the foreground, with live statistics and a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
import setproctitle
import uvloop

from relay_common import VERSION, log, protocol
from relay_common.causes import Cause
from relay_common.clock import Clock, LoopClock, SystemClock
from relay_common.cloudflare import BASE_URL, SfuClient
from relay_common.duration_range import DurationRange
from relay_common.errors import RelayError, Remedy
from relay_common.loopback import is_loopback_url
from relay_common.protocol import SinkTarget, Stage, TrackOffer, WorkerState
from relay_common.rendition_messages import SetRendition
from relay_common.secrets import Secret, redact
from relay_common.whip import WhipEndpoint, parse_endpoint
from relay_common.worker_stats import NOT_DECODABLE, WorkerStats, describe_requests, stage_of, uplink_share
from relay_worker.camera.granted import GrantedStream
from relay_worker.debug_sinks import WHIP, DirectSignaling, WhipSignaling, rendition_line, sink_lines
from relay_worker.process import data_path, sandbox
from relay_worker.publish.file import FileSink, NullSink
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.signaling import PublishRefused
from relay_worker.relay import CameraRelay, RelaySettings
from relay_worker.rtsp.transport import client_context

_REQUESTS: Final = {stage.value: stage for stage in (Stage.OPTIONS, Stage.DESCRIBE, Stage.SETUP, Stage.PLAY)}
"""By the state of a session: the request whose answer it waits for."""
_UNANSWERED: Final = (
    "A camera that sleeps takes up to 30 s: let it run longer (--duration). If it stays so, check that RTSP is spoken "
    "at the URL's host and port, and end other clients of this stream"
)
_UNCONNECTED: Final = "Check the URL's host and port; an attempt may take 10 s: let it run longer (--duration)"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="relay-worker")
def cli() -> None:
    """One camera's pipeline alone. Workers of the relay are started by relay-supervisor, not by hand."""


class NoSignaling:
    """For sinks that need no SFU: nothing is ever published."""

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        raise PublishRefused("this sink publishes nothing", retry_after=3600.0)


class Reporter:
    """Listens to the relay and keeps what a verdict needs."""

    def __init__(self) -> None:
        self.stage, self.reason = Stage.NONE, ""
        self.lost = ""
        """Why the relayed stream could not be written to the file."""
        self.failed = asyncio.Event()

    def state_changed(self, state: WorkerState, stage: Stage, reason: str) -> None:
        click.echo(f"state: {state.value}" + (f" ({stage.value}: {redact(reason)})" if reason else ""), err=True)

    def source_failed(self, generation: int, stage: Stage, remedy: Remedy, reason: str) -> None:
        self.stage, self.reason = stage, reason
        self.failed.set()

    def published(self, publication: str, sink: str = "", rids: Sequence[str] = ()) -> None:
        click.echo("published: packets of every track have left", err=True)

    def unpublished(self, publication: str, reason: str, sink: str = "") -> None:
        click.echo(f"publication lost: {redact(reason)}", err=True)


@cli.command("debug")
@click.option(
    "--url", envvar="RELAY_STREAM_URL", help="rtsp:// or rtsps:// URL; better in RELAY_STREAM_URL, or - for stdin."
)
@click.option(
    "--sink",
    default="null",
    show_default=True,
    help="null, file:OUT.mp4, sfu (with RELAY_CLOUDFLARE_APP_ID …) or whip:URL (with RELAY_WHIP_BEARER_TOKEN).",
)
@click.option("--duration", type=DurationRange(min=0.1), help="Seconds to run; without it until Ctrl-C.")
@click.option("--ca-file", default="", help="Certificates to trust instead of the system's authorities.")
@click.option("--no-audio", is_flag=True, help="Relay video only.")
@click.option(
    "--dump",
    "capture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the packets to this pcapng file (12 MiB at most).",
)
@click.option(
    "--renditions",
    type=click.Choice(["off", "keyframes", "smooth"]),
    default="off",
    show_default=True,
    help="Publish smaller pictures as well, as a second layer, as if they were watched; with --sink sfu.",
)
@click.option("--rendition", type=click.Choice(["keyframes", "smooth"]), hidden=True)  # what --renditions was called
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--app-id", envvar="RELAY_CLOUDFLARE_APP_ID", default="", help="Cloudflare app id, for --sink sfu.")
@click.option("--api-base-url", envvar="RELAY_CLOUDFLARE_API_BASE_URL", default="", help="SFU API, for --sink sfu.")
@click.option("--log-level", default="warning", show_default=True, help="debug, info, warning or error.")
def debug(
    url: str | None,
    sink: str,
    duration: float | None,
    ca_file: str,
    no_audio: bool,
    capture: Path | None,
    renditions: str,
    rendition: str | None,
    as_json: bool,
    app_id: str,
    api_base_url: str,
    log_level: str,
) -> None:
    """Play one camera and say at which stage a problem is.

    \b
    RELAY_STREAM_URL='rtsps://…' relay-worker debug --duration 10
    relay-worker debug --url rtsp://192.168.1.20/live --sink file:out.mp4 --duration 30
    relay-worker debug --url rtsp://192.168.1.20/live --dump camera.pcapng --duration 5
    RELAY_CLOUDFLARE_APP_SECRET=… relay-worker debug --url - --app-id … --sink sfu
    relay-worker debug --url rtsp://192.168.1.20/live --sink whip:http://127.0.0.1:8889/door/whip

    The exit code is 0 when video was flowing at the end, 1 when not. The application's secret and the bearer token are
    only ever read from the environment (RELAY_CLOUDFLARE_APP_SECRET, RELAY_WHIP_BEARER_TOKEN).
    """
    # A URL holds a token: take it out of the process list and the environment.
    setproctitle.setproctitle("relay-worker debug")
    os.environ.pop("RELAY_STREAM_URL", None)
    if url == "-":
        url = sys.stdin.readline().strip()
    if not url:
        raise click.UsageError("no stream URL: give --url, set RELAY_STREAM_URL, or pipe it with --url -")
    _check_url(url)
    if log_level not in ("debug", "info", "warning", "error"):
        raise click.UsageError(f"--log-level {log_level}: expected debug, info, warning or error")
    log.configure(log_level)
    secret = os.environ.pop("RELAY_CLOUDFLARE_APP_SECRET", "")
    renditions = rendition or renditions
    _check_sink(sink, renditions, known=bool(app_id and secret))
    token = Secret(os.environ.pop("RELAY_WHIP_BEARER_TOKEN", ""))
    endpoint = _endpoint(sink.removeprefix("whip:"), token) if sink.startswith("whip:") else None
    _check_files(ca_file, capture)
    settings = RelaySettings(
        name="debug",
        audio=not no_audio,
        ca_file=ca_file,
        publisher=PublisherSettings(loopback="127.0.0.1" in api_base_url and endpoint is None),
        sinks=[SinkTarget(name=WHIP, loopback=is_loopback_url(endpoint.url))] if endpoint else [SinkTarget()],
    )
    client = _client(app_id, Secret(secret), api_base_url) if sink == "sfu" else None
    try:
        local = FileSink(Path(sink.removeprefix("file:"))) if sink.startswith("file:") else NullSink()
    except RelayError as error:
        raise click.UsageError(f"--sink: {error}") from None
    _say_what_is_used()
    ok = uvloop.run(_run(Secret(url), settings, local, client or endpoint, duration, as_json, capture, renditions))
    sys.exit(0 if ok else 1)


def _check_sink(sink: str, renditions: str, *, known: bool) -> None:
    """Raise UsageError for a sink that cannot be used; `known`: the SFU's application and its secret are."""
    if sink == "sfu" and not known:
        raise click.UsageError("--sink sfu needs --app-id and RELAY_CLOUDFLARE_APP_SECRET in the environment")
    if renditions != "off" and sink != "sfu":
        raise click.UsageError(f"--renditions {renditions} needs --sink sfu: the small picture is a layer there")
    if sink not in ("null", "sfu") and not sink.startswith(("file:", "whip:")):
        raise click.UsageError(f"--sink {sink}: expected null, sfu, file:OUT.mp4 or whip:URL")


def _say_what_is_used() -> None:
    """What workers have here: of their confinement nothing is used, their data path is."""
    click.echo(f"confinement: off in this command; of the relay's workers here: {sandbox.available()}", err=True)
    try:
        click.echo(f"data path: {data_path.use('auto')}", err=True)
    except RelayError as error:
        raise click.UsageError(str(error)) from None


def _check_url(url: str) -> None:
    """Raise UsageError for what is no stream's URL; without the URL, which may hold a token."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise click.UsageError(
            "the stream URL cannot be read: write rtsp://HOST:PORT/PATH, an IPv6 address in brackets"
        ) from None
    if parts.scheme.lower() not in ("rtsp", "rtsps"):
        what = f"is {parts.scheme}://" if "://" in url else "has no scheme"
        raise click.UsageError(f"the stream URL {what}: a camera's stream is rtsp:// or rtsps:// (RTSP over TLS)")
    if not host:
        raise click.UsageError("the stream URL names no host: write rtsp://HOST:PORT/PATH")


def _endpoint(url: str, token: Secret) -> WhipEndpoint:
    """Raise UsageError for what no offer may be sent to; without the URL, which may hold a secret."""
    try:
        return parse_endpoint(url, token)
    except ValueError as error:
        raise click.UsageError(f"--sink whip:URL: {error}") from None


def _check_files(ca_file: str, capture: Path | None) -> None:
    """Raise UsageError for files that cannot be used, before a camera is asked for anything."""
    try:
        client_context(ca_file or None)
    except ssl.SSLError:
        raise click.UsageError(f"--ca-file {ca_file} holds no certificate (PEM)") from None
    except OSError as error:
        raise click.UsageError(f"--ca-file {ca_file} cannot be read: {error.strerror}") from None
    if capture is not None:
        try:
            capture.touch(mode=0o600)
        except OSError as error:
            raise click.UsageError(f"--dump {capture} cannot be written: {error.strerror}") from None


def _client(app_id: str, secret: Secret, base_url: str) -> SfuClient:
    return SfuClient(app_id, secret, clock=SystemClock(), rng=random.Random(), base_url=base_url or BASE_URL)


async def _run(
    url: Secret,
    settings: RelaySettings,
    local: NullSink,
    at: SfuClient | WhipEndpoint | None,
    duration: float | None,
    as_json: bool,
    capture: Path | None,
    renditions: str,
) -> bool:
    reporter = Reporter()
    direct: DirectSignaling | WhipSignaling | None = None
    if at is not None:
        direct = DirectSignaling(at) if isinstance(at, SfuClient) else WhipSignaling(at, settings.ca_file)
    clock = LoopClock()
    relay = CameraRelay(settings, direct or NoSignaling(), reporter, clock)
    if direct is None:
        relay.publish_to(local)
    relay.rendition.configure(SetRendition(mode=renditions, watched=True, budget=1000.0))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    capturing = relay.start_capture() if capture is not None else None
    relay.play(GrantedStream(1, protocol.Protocol.RTSP, url, clock.wall() + 365 * 86400))
    stats = await _watch(relay, clock, reporter, local, stop, duration, as_json)
    if capture is not None and capturing is not None:
        relay.finish_capture(capturing)
        _write_capture(capture, capturing.file())
    await relay.close()
    local.close()
    flowing = stats.video.frames > 0 and not reporter.failed.is_set() and stats.video.fps > 0 and not local.problem
    reporter.lost = local.problem
    if direct is not None:
        await direct.close()
    stats.instance = stats.camera = "debug"
    if as_json:
        report = {"ok": flowing, "stage": _verdict(stats, reporter, flowing)[0], "stats": msgspec.to_builtins(stats)}
        click.echo(msgspec.json.encode(report).decode())
    else:
        stage, text = _verdict(stats, reporter, flowing)
        for line in sink_lines(stats.sinks if direct is not None else []):
            click.echo(f"sink {line}")
        if stats.rendition is not None:
            click.echo(rendition_line(stats.rendition))
        if stats.counters:
            click.echo("counted: " + " ".join(f"{name}={value}" for name, value in stats.counters.items()))
        click.echo(f"verdict: {text}" if flowing else f"verdict: problem at {stage}: {text}")
    return flowing


def _write_capture(path: Path, pcapng: bytes) -> None:
    try:
        path.touch(mode=0o600)
        path.write_bytes(pcapng)
    except OSError as error:
        click.echo(f"{path} cannot be written: {error.strerror}", err=True)


async def _watch(
    relay: CameraRelay,
    clock: Clock,
    reporter: Reporter,
    local: NullSink,
    stop: asyncio.Event,
    duration: float | None,
    quiet: bool,
) -> WorkerStats:
    end = clock.now() + duration if duration else float("inf")
    stats = relay.stats(clock.now())
    while not (stop.is_set() or reporter.failed.is_set() or local.problem or clock.now() >= end):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(1.0, max(0.01, end - clock.now())))
        relay.tick(clock.now())
        stats = relay.stats(clock.now())
        if not quiet:
            click.echo(_line(stats), err=True)
    return stats


def _line(stats: WorkerStats) -> str:
    video, audio = stats.video, stats.audio
    parts = (
        f"{stats.source:<9}",
        f"video {video.width}x{video.height} {video.fps:5.1f} fps {video.bitrate_in / 1e3:6.0f} kbit/s",
        f"lost {video.lost_in} keyframes {video.keyframes} every {video.keyframe_interval:.1f} s",
        f"audio {audio.codec or 'none'} {audio.bitrate_in / 1e3:.0f} kbit/s",
        f"webrtc {stats.webrtc} out {video.packets_out} rtt {video.rtt * 1e3:.0f} ms",
    )
    return " | ".join(parts)


def _verdict(stats: WorkerStats, reporter: Reporter, flowing: bool) -> tuple[str, str]:
    """Stage and words for what was seen."""
    if reporter.lost:
        return "file", reporter.lost
    if reporter.failed.is_set():
        return reporter.stage.value, _advised(stats, redact(reporter.reason))
    if flowing and stats.requests_in_vain:
        return stage_of(stats).value, f"{NOT_DECODABLE}: {describe_requests(stats)}"
    if flowing:
        share = uplink_share(stats.video)
        return (Stage.SENDING.value, f"video flows, but {share}") if share else (Stage.NONE.value, "video flows")
    waits = _REQUESTS.get(stats.source)
    unanswered = f"the camera has not answered {waits.name}" if waits else ""
    if stats.reason:
        since = f"; since then {unanswered}" if waits is not None and stats.stage is Stage.STREAMING else ""
        return stats.stage.value, _advised(stats, redact(stats.reason) + since)
    if waits is not None:
        return waits.value, f"{unanswered} so far. {_UNANSWERED}"
    if stats.source == "connecting":
        return Stage.CONNECT.value, f"there is no connection with the camera so far. {_UNCONNECTED}"
    if stats.video.packets_in == 0:
        return Stage.STREAMING.value, f"no video packet came (RTSP session: {stats.source})"
    if stats.video.keyframes == 0:
        return Stage.DECODE.value, "packets come, but no keyframe with parameter sets"
    return Stage.STREAMING.value, "video came and stopped"


def _advised(stats: WorkerStats, text: str) -> str:
    """What was seen, with what to do where that is a request without an answer."""
    without_answer = stats.code == Cause.CAMERA_STALLED.value and stats.stage.value in _REQUESTS
    return f"{text}. {_UNANSWERED}" if without_answer else text
