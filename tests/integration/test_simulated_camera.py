"""The simulated home over real sockets, used by independent clients: FFmpeg for RTSP, httpx for Google's API."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import datetime
import json
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
import pytest

from relay_common.simulation.camera.camera import CameraSettings
from relay_common.simulation.camera.faults import parse_fault
from relay_common.simulation.camera.rtsp_wire import Credentials
from relay_common.simulation.google.failures import failure
from relay_common.simulation.google.quota import UNLIMITED
from relay_common.simulation.world import World, WorldConfig, camera_name

pytestmark = pytest.mark.media

DOOR, DRIVEWAY = camera_name(0), camera_name(1)


class Google:
    """A client of the SDM API."""

    def __init__(self, http: httpx.AsyncClient, nest: dict[str, str]) -> None:
        self.http, self.nest = http, nest
        self.token = ""
        self.devices: dict[str, str] = {}

    async def sign_in(self) -> None:
        form = {name: self.nest[name] for name in ("client_id", "client_secret", "refresh_token")}
        answer = await self.http.post(self.nest["token_url"], data={"grant_type": "refresh_token", **form})
        self.token = answer.json()["access_token"]
        listed = await self.get(f"enterprises/{self.nest['project_id']}/devices")
        for device in listed.json()["devices"]:
            self.devices[device["traits"]["sdm.devices.traits.Info"]["customName"]] = device["name"]

    async def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.http.get(f"{self.nest['api_base_url']}/{path}", headers=headers)

    async def execute(self, camera: str, command: str, **params: str) -> httpx.Response:
        body = {"command": f"sdm.devices.commands.CameraLiveStream.{command}", "params": params}
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.nest['api_base_url']}/{self.devices[camera]}:executeCommand"
        return await self.http.post(url, headers=headers, json=body)

    async def generate(self, camera: str = DOOR) -> dict[str, Any]:
        answer = await self.execute(camera, "GenerateRtspStream")
        assert answer.status_code == 200, answer.text
        results: dict[str, Any] = answer.json()["results"]
        return results


class Rtsp:
    """A bare RTSP client that can misbehave where FFmpeg cannot."""

    def __init__(self, url: str, ca_file: str) -> None:
        self.url, self._context = url, ssl.create_default_context(cafile=ca_file)
        self.session = self.base = ""

    async def __aenter__(self) -> Rtsp:
        address = urlsplit(self.url)
        self.reader, self.writer = await asyncio.open_connection(
            address.hostname, address.port, ssl=self._context, limit=1 << 20
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.writer.transport.abort()

    async def request(self, method: str, url: str, **headers: str) -> tuple[int, dict[str, str]]:
        lines = [f"{method} {url} RTSP/1.0", "CSeq: 9", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        while (first := await self.reader.readexactly(1)) == b"$":
            await self._skip_frame()
        head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *fields = head.strip().split("\r\n")
        answer = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        await self.reader.readexactly(int(answer.get("content-length", 0)))
        return int(status.split()[1]), answer

    async def describe(self) -> int:
        status, headers = await self.request("DESCRIBE", self.url)
        self.base = headers.get("content-base", "")
        return status

    async def play(self, **headers: str) -> int:
        assert await self.describe() == 200
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
        _, answer = await self.request("SETUP", self.base + "trackID=0", Transport=transport)
        self.session = answer["session"].split(";")[0]
        self.transport = answer["transport"]
        status, _ = await self.request("PLAY", self.base, Session=self.session, **headers)
        return status

    async def frame(self) -> None:
        """Read one interleaved frame."""
        assert await self.reader.readexactly(1) == b"$"
        await self._skip_frame()

    async def frames(self) -> None:
        """Read interleaved frames until the connection fails."""
        while True:
            await self.frame()

    async def ended(self) -> float:
        """Read media until the server ends the connection; the Unix time at which it did."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65_536):
                pass
        return time.time()

    async def _skip_frame(self) -> None:
        header = await self.reader.readexactly(3)
        await self.reader.readexactly(int.from_bytes(header[1:], "big"))


def small(index: int, settings: CameraSettings) -> CameraSettings:
    video = dataclasses.replace(settings.video, width=160, height=120, seconds=2.0, gop=0.5, phase=0.0)
    return dataclasses.replace(settings, video=video, describe_delay=0.0)


@contextlib.asynccontextmanager
async def home(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[World, Google]]:
    options = {"cameras": 2, "limits": UNLIMITED, "adjust": small, "only": "nest", **options}
    async with World(WorldConfig(workdir=tmp_path, **options)) as world, httpx.AsyncClient(timeout=20) as http:
        google = Google(http, world.endpoints()["nest"])
        await google.sign_in()
        yield world, google


def ca_file(world: World) -> str:
    return str(world.endpoints()["rtsp"]["ca_file"])


def watch(url: str, options: dict[str, str], pictures: int) -> tuple[collections.Counter[str], list[tuple[int, int]]]:
    """Play a URL with FFmpeg until `pictures` have been decoded: frames by kind, and picture sizes in order."""
    seen: collections.Counter[str] = collections.Counter()
    sizes: list[tuple[int, int]] = []
    with av.open(url, options={"rtsp_transport": "tcp", **options}, timeout=20) as container:
        for packet in container.demux():
            for frame in packet.decode():
                seen[packet.stream.type] += 1
                if isinstance(frame, av.VideoFrame) and (frame.width, frame.height) not in sizes[-1:]:
                    sizes.append((frame.width, frame.height))
            if seen["video"] >= pictures:
                break
    return seen, sizes


async def play(world: World, google: Google, pictures: int = 30) -> collections.Counter[str]:
    url = (await google.generate())["streamUrls"]["rtspUrl"]
    options = {"tls_verify": "1", "ca_file": ca_file(world)}
    seen, _ = await asyncio.to_thread(watch, url, options, pictures)
    return seen


async def test_ffmpeg_plays_both_tracks_over_verified_tls(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        seen = await play(world, google, 60)
        assert seen["audio"] >= 20
        report = world.home.report()[0]
        assert report["packets"]["video"] >= 60
        assert report["sender_reports"] >= 2
        assert report["generates"] == 1


async def test_a_certificate_nobody_vouched_for_is_refused(tmp_path: Path) -> None:
    async with home(tmp_path) as (_, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        address = urlsplit(url)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(address.hostname, address.port, ssl=ssl.create_default_context())


async def test_ffmpeg_logs_in_with_digest_over_plain_tcp(tmp_path: Path) -> None:
    def locked(index: int, settings: CameraSettings) -> CameraSettings:
        return dataclasses.replace(small(index, settings), credentials=Credentials("user", "pass"))

    async with home(tmp_path, tls=False, adjust=locked) as (world, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        seen, _ = await asyncio.to_thread(watch, url.replace("rtsp://", "rtsp://user:pass@"), {}, 10)
        assert seen["video"] >= 10
        assert world.home.report()[0]["refused"] == {"401": 1}


async def test_ffmpeg_follows_a_change_of_parameters_through_b_frames(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        await world.home.inflict(DOOR, parse_fault("b_frames"))
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        watching = asyncio.create_task(asyncio.to_thread(watch, url, {}, 120))
        while world.home.report()[0]["frames"]["video"] < 30:
            await asyncio.sleep(0.02)
        await world.home.inflict(DOOR, parse_fault("parameters", width=96, height=64))
        _, sizes = await watching
        assert sizes == [(160, 120), (96, 64)]


async def test_one_client_per_url(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        async with Rtsp(url, ca_file(world)) as first:
            assert await first.play(Range="npt=0.000-") == 200
            async with Rtsp(url, ca_file(world)) as second:
                assert await second.describe() == 403
            await first.frame()
            await first.request("TEARDOWN", first.base, Session=first.session)
            async with Rtsp(url, ca_file(world)) as third:
                assert await third.describe() == 200


async def test_tokens_at_the_edge(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        results = await google.generate()
        url = results["streamUrls"]["rtspUrl"]
        extended = await google.execute(DOOR, "ExtendRtspStream", streamExtensionToken=results["streamExtensionToken"])
        base = url.partition("?")[0]
        for candidate, status in (
            (url, 403),
            (base, 401),
            (base.replace("sdm_live_stream/", "sdm_live_stream/x") + "?auth=g.0.x", 404),
            (f"{base}?auth={extended.json()['results']['streamToken']}", 200),
        ):
            async with Rtsp(candidate, ca_file(world)) as client:
                assert await client.describe() == status


def expiry(results: dict[str, Any]) -> float:
    """When a stream ends, as Unix time."""
    return datetime.datetime.fromisoformat(results["expiresAt"]).timestamp()


async def test_expiry_cuts_and_extension_keeps(tmp_path: Path) -> None:
    async with home(tmp_path, lease=3.0) as (world, google):
        doomed, kept = await google.generate(DOOR), await google.generate(DRIVEWAY)
        async with (
            Rtsp(doomed["streamUrls"]["rtspUrl"], ca_file(world)) as first,
            Rtsp(kept["streamUrls"]["rtspUrl"], ca_file(world)) as second,
        ):
            await first.play(Range="npt=0.000-")
            await second.play(Range="npt=0.000-")
            ends = asyncio.create_task(second.ended())
            await asyncio.sleep(1.0)
            token = kept["streamExtensionToken"]
            answer = await google.execute(DRIVEWAY, "ExtendRtspStream", streamExtensionToken=token)
            assert answer.status_code == 200
            assert expiry(answer.json()["results"]) > max(expiry(doomed), expiry(kept)) + 0.5
            assert await first.ended() >= expiry(doomed)
            assert await ends >= expiry(answer.json()["results"])
        first_report, second_report = world.home.report()
        assert first_report["sessions_cut"] == second_report["sessions_cut"] == {"expired": 1}
        late = await google.execute(DOOR, "ExtendRtspStream", streamExtensionToken=doomed["streamExtensionToken"])
        assert late.json()["error"]["status"] == "NOT_FOUND"


async def test_stop_cuts_at_once(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        results = await google.generate()
        async with Rtsp(results["streamUrls"]["rtspUrl"], ca_file(world)) as client:
            await client.play(Range="npt=0.000-")
            token = results["streamExtensionToken"]
            await google.execute(DOOR, "StopRtspStream", streamExtensionToken=token)
            await client.ended()
        assert world.home.report()[0]["sessions_cut"] == {"stopped": 1}


async def test_no_range_brings_no_media(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        async with Rtsp(url, ca_file(world)) as client:
            assert await client.play() == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.8):
                    await client.frame()
            status, _ = await client.request("OPTIONS", client.base, Session=client.session)
            assert status == 200
        assert world.home.report()[0]["keepalives"] == 1


async def test_a_silent_client_loses_its_session_and_the_server_may_choose_channels(tmp_path: Path) -> None:
    def strict(index: int, settings: CameraSettings) -> CameraSettings:
        return dataclasses.replace(small(index, settings), session_timeout=1.0, interleaved="server")

    async with home(tmp_path, adjust=strict) as (world, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        async with Rtsp(url, ca_file(world)) as client:
            await client.play(Range="npt=0.000-")
            assert client.transport.endswith("interleaved=10-11")
            await client.ended()
        assert world.home.report()[0]["sessions_cut"] == {"timeout": 1}


async def test_a_stream_warms_up_once(tmp_path: Path) -> None:
    def slow(index: int, settings: CameraSettings) -> CameraSettings:
        return dataclasses.replace(small(index, settings), describe_delay=1.0)

    async with home(tmp_path, adjust=slow) as (world, google):
        url = (await google.generate())["streamUrls"]["rtspUrl"]
        loop = asyncio.get_running_loop()
        taken = []
        for _ in range(2):
            async with Rtsp(url, ca_file(world)) as client:
                started = loop.time()
                assert await client.describe() == 200
                taken.append(loop.time() - started)
        assert taken[0] >= 0.99 > taken[1]


async def test_faults_and_failures_over_the_control_interface(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        control = world.endpoints()["control"]["nest"]

        async def order(path: str, **body: Any) -> httpx.Response:
            return await google.http.post(f"{control}/{path}", json=body)

        assert (await order(f"cameras/{DOOR}/fault", kind="describe_status", status=404)).status_code == 200
        results = await google.generate()
        async with Rtsp(results["streamUrls"]["rtspUrl"], ca_file(world)) as client:
            assert await client.describe() == 404
            assert (await order(f"cameras/{DOOR}/clear")).status_code == 200
            assert await client.play(Range="npt=0.000-") == 200
            await order(f"cameras/{DOOR}/fault", kind="reset")
            with pytest.raises(ConnectionResetError):
                await client.frames()
        await order(f"cameras/{DOOR}/fail_commands", command="ExtendRtspStream", status=409, count=1)
        token = results["streamExtensionToken"]
        conflict = await google.execute(DOOR, "ExtendRtspStream", streamExtensionToken=token)
        assert (conflict.status_code, conflict.json()["error"]["status"]) == (409, "ABORTED")
        await order(f"cameras/{DOOR}/device", offline=True, renamed="Back Door")
        offline = (await google.generate())["streamUrls"]["rtspUrl"]
        async with Rtsp(offline, ca_file(world)) as client:
            assert await client.describe() == 404
        await order("oauth", expire_tokens=True)
        assert (await google.execute(DOOR, "GenerateRtspStream")).status_code == 401

        commands = (await google.http.get(f"{control}/commands")).json()
        assert [entry["status"] for entry in commands["commands"]] == [200, 409, 200]
        assert commands["most_in_any_minute"] == 3
        first = (await google.http.get(f"{control}/cameras")).json()["cameras"][0]
        assert (first["display_name"], first["refused"], first["sessions_cut"]) == (
            "Back Door",
            {"404": 2},
            {"reset": 1},
        )
        assert (await order("cameras/Nowhere/fault", kind="reset")).status_code == 404
        unknown = await order(f"cameras/{DOOR}/fault", kind="melt")
        assert unknown.status_code == 400
        assert "unknown fault 'melt'" in unknown.json()["error"]


async def test_pages_limits_and_bodies_over_http(tmp_path: Path) -> None:
    async with home(tmp_path) as (world, google):
        world.home.backend.page_size = 1
        path = f"enterprises/{google.nest['project_id']}/devices"
        first = (await google.get(path)).json()
        second = (await google.get(f"{path}?pageToken={first['nextPageToken']}")).json()
        assert [page["devices"][0]["name"] for page in (first, second)] == list(google.devices.values())
        assert "nextPageToken" not in second
        one = (await google.get(google.devices[DOOR])).json()
        assert one["traits"]["sdm.devices.traits.CameraLiveStream"]["supportedProtocols"] == ["RTSP"]
        assert (await google.get("enterprises/other/devices")).status_code == 404
        world.home.fail_commands(DOOR, failure(500, raw_body="<html>Error</html>"))
        broken = await google.execute(DOOR, "GenerateRtspStream")
        assert (broken.status_code, broken.text) == (500, "<html>Error</html>")
        assert (await google.execute(DOOR, "MakeCoffee")).status_code == 404
        bad = await google.http.post(
            f"{google.nest['api_base_url']}/{google.devices[DOOR]}:executeCommand", content=b"x"
        )
        assert bad.status_code == 400


@pytest.mark.parametrize("end", ["signal", "orphaned"])
async def test_the_process_says_where_it_is_and_leaves_quickly(tmp_path: Path, end: str) -> None:
    arguments = ["--cameras", "1", "--size", "160x120", "--no-sfu", "--workdir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "relay_common.simulation",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    endpoints = json.loads(await process.stdout.readline())
    assert endpoints["cameras"] == [DOOR]
    assert [path.name for path in tmp_path.iterdir()] == ["simulation-ca.pem"]
    if end == "signal":
        process.send_signal(signal.SIGTERM)
    else:
        process.stdin.close()
    async with asyncio.timeout(15):
        assert await process.wait() == 0
    assert not list(tmp_path.iterdir())
