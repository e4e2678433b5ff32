"""Worker processes: forked from a preloaded server, each its own session leader, and small; and one run by hand."""

from __future__ import annotations

import asyncio
import json
import multiprocessing.forkserver
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher, _kill_fork_server
from relay_worker.camera.granted import GrantedStream
from relay_worker.process import immortal
from relay_worker.process.entry import LOOKUPS
from relay_worker.process.spec import WorkerSpec
from relay_worker.process.worker import Worker
from tests.fixtures.running_relay import SMALL, running_relay
from tests.fixtures.whip_server import TOKEN, WhipServer

pytestmark = pytest.mark.media

MAX_PSS = 30 * 1024
"""KiB; a worker that imported the media stack itself takes 60 MB."""


def proportional_set_size(pid: int) -> int:
    """PSS of a process in KiB."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found.group(1))


def of_its_own(directory: Path) -> ForkServerLauncher:
    """A launcher whose server is not the one that an earlier test of this process started, with other settings."""
    _kill_fork_server()
    getattr(multiprocessing.forkserver._forkserver, "_stop")()  # noqa: B009
    return ForkServerLauncher(directory)


async def test_workers_share_the_media_stack_and_lead_their_own_sessions(caplog: pytest.LogCaptureFixture) -> None:
    async with running_relay(3, launcher=of_its_own) as relay:
        await relay.until_live()
        for camera in relay.supervisor.status().cameras:
            pid = camera.worker.pid
            assert os.getsid(pid) == pid
            title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
            assert title == f"relay-worker: {camera.name}"
            assert proportional_set_size(pid) < MAX_PSS
            threads = [(task / "comm").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
            assert len(threads) <= 3 + LOOKUPS, f"its own, two of ZeroMQ's and those for look-ups: {threads}"
            assert camera.worker.immortal_objects == (immortal.unsupported() or "immortal")
        assert not [r for r in caplog.records if "did not inherit" in r.getMessage()]


async def test_a_worker_nobody_wants_ends_itself_and_one_with_a_lease_does_not(tmp_path: Path) -> None:
    spec = WorkerSpec(
        camera="c",
        name="Porch",
        instance="c.1",
        control=f"ipc://{tmp_path}/control.sock",
        stats=f"ipc://{tmp_path}/stats.sock",
        orphan_grace=1.0,
    )
    began = time.monotonic()
    await asyncio.wait_for(Worker(spec, preloaded=True).run(), 20.0)
    assert time.monotonic() - began > 1.0

    leased = Worker(spec, preloaded=True)
    url = Secret("rtsp://127.0.0.1:9/nothing-listens-here")
    leased._relay.play(GrantedStream(1, Protocol.RTSP, url, expires_at=time.time() + 4.0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running := asyncio.ensure_future(leased.run())), 3.0)
    await asyncio.wait_for(running, 20.0)


async def stream_url(http: httpx.AsyncClient, nest: dict[str, Any]) -> str:
    """A fresh RTSP URL of the first camera, as Google would return it."""
    form = {key: nest[key] for key in ("client_id", "client_secret", "refresh_token")}
    token = (await http.post(nest["token_url"], data=form | {"grant_type": "refresh_token"})).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    base, project = nest["api_base_url"], nest["project_id"]
    devices = (await http.get(f"{base}/enterprises/{project}/devices", headers=headers)).json()["devices"]
    command = {"command": "sdm.devices.commands.CameraLiveStream.GenerateRtspStream", "params": {}}
    answer = (await http.post(f"{base}/{devices[0]['name']}:executeCommand", headers=headers, json=command)).json()
    url: str = answer["results"]["streamUrls"]["rtspUrl"]
    return url


async def debug(*options: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run `relay-worker debug --json`; its exit code and report."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay_worker", "debug", "--json", *options),
        stdout=subprocess.PIPE,
        env=os.environ | environment,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60.0)
    assert process.returncode is not None
    return process.returncode, json.loads(out)


async def test_one_pipeline_by_hand(tmp_path: Path) -> None:
    """`relay-worker debug` with each sink, and its verdict on a URL that does not work."""
    async with demo_world(1, "320x180", SMALL) as world, httpx.AsyncClient() as http:
        nest, cloudflare = world.endpoints["nest"], world.endpoints["cloudflare"]
        ca = ["--ca-file", world.endpoints["rtsp"]["ca_file"]]
        movie = tmp_path / "out.mp4"
        url = await stream_url(http, nest)
        code, report = await debug("--sink", f"file:{movie}", "--duration", "6", *ca, RELAY_STREAM_URL=url)
        assert code == 0
        assert report["ok"]
        assert report["stats"]["video"]["frames"] > 60
        assert decoded(movie) > 50

        secrets = {
            "RELAY_CLOUDFLARE_APP_ID": cloudflare["app_id"],
            "RELAY_CLOUDFLARE_APP_SECRET": cloudflare["app_secret"],
            "RELAY_CLOUDFLARE_API_BASE_URL": cloudflare["api_base_url"],
        }
        url = await stream_url(http, nest)
        code, report = await debug("--sink", "sfu", "--duration", "7", *ca, RELAY_STREAM_URL=url, **secrets)
        assert code == 0
        assert report["stats"]["webrtc"] == "connected"
        assert report["stats"]["video"]["packets_out"] > 60

        async with WhipServer() as whip:
            code, report = await debug(
                *("--sink", f"whip:{whip.url.replace('{name}', 'door')}", "--duration", "7", *ca),
                RELAY_STREAM_URL=await stream_url(http, nest),
                RELAY_WHIP_BEARER_TOKEN=TOKEN,
            )
            assert code == 0, report
            (found,) = report["stats"]["sinks"]
            assert (found["name"], found["live"], len(whip.ended)) == ("whip", True, 1)
            assert found["video_packets"] > 60

        code, report = await debug(
            "--sink", "file:/dev/full", "--duration", "8", *ca, RELAY_STREAM_URL=await stream_url(http, nest)
        )
        assert (code, report["stage"]) == (1, "file"), "a full disk is not the camera's fault"

        stale = re.sub(r"auth=.*", "auth=g.0.stale", url)
        code, report = await debug("--duration", "15", *ca, RELAY_STREAM_URL=stale)
        assert code == 1
        assert report["stage"] == "describe"

        code, report = await debug("--duration", "3", RELAY_STREAM_URL=url)
        assert code == 1
        assert report["stage"] == "tls", "a certificate nobody vouches for is refused"
        assert "--ca-file" in report["stats"]["reason"]


def decoded(movie: Path) -> int:
    """Number of video frames that a decoder finds in the file."""
    import av

    with av.open(str(movie)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
        return sum(1 for _ in container.decode(video=0))
