"""Every verb, used on a supervisor that relays simulated cameras; the tests share it and leave it as it was."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest
from click.testing import CliRunner

from relay_common.proc import start_ticks
from relay_supervisor.commands.cli import cli
from tests.fixtures import pcapng
from tests.fixtures.cli_world import CliWorld, invoke, live_cli_world

pytestmark = pytest.mark.media

PROJECT = "5cd39b4c-0000-4000-8000-51a1a7edf00d"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliWorld]:
    with live_cli_world(tmp_path_factory.mktemp("cli"), "--cameras", "2", names=("Front_Door", "Driveway")) as world:
        yield world


def test_the_socket_needs_no_token_and_is_private(world: CliWorld) -> None:
    socket = world.directory / "run" / "http.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as client:
        assert client.get("/api/stats").status_code == 200
        # A page in a browser cannot reach a Unix socket, but both entrances have the same rule.
        assert client.post("/api/reload", headers={"Origin": "http://evil.example"}).status_code == 403


def test_status(world: CliWorld) -> None:
    text = world.type("status").output
    assert "2 of 2 cameras live" in text
    assert "Front Door" in text
    status = world.json("status")
    assert [camera["state"] for camera in status["cameras"]] == ["live", "live"]


def test_links_are_listed_and_revoked(world: CliWorld) -> None:
    assert "no link is valid" in world.type("links").output
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(world.directory / "run" / "http.sock"))) as client:
        camera = client.get("http://localhost/api/cameras").json()["cameras"][0]
        made = client.post(f"http://localhost/api/cameras/{camera['id']}/link", json={"seconds": 3600}).json()
    listed = world.type("links").output
    assert made["id"] in listed
    assert camera["name"] in listed
    assert "signature" not in listed
    assert f"{made['id']}: revoked" in world.type("unlink", made["id"]).output
    (link,) = world.json("links")["links"]
    assert (link["id"], link["revoked_at"] > 0) == (made["id"], True)
    assert world.type("unlink", "none").exit_code == 1


def test_status_is_watched_until_interrupted(world: CliWorld) -> None:
    command = [sys.executable, "-m", "relay_supervisor", "status", "--watch", "--config", str(world.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        shown = itertools.takewhile(lambda line: "Driveway" not in line, watching.stdout)
        assert any("Front Door" in line for line in shown)
        assert any("Front Door" in line for line in watching.stdout), "shown again"
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(30) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


def test_cameras_of_the_running_supervisor_and_of_google(world: CliWorld) -> None:
    known = world.json("cameras")["cameras"]
    assert {camera["name"] for camera in known} == {"Front Door", "Driveway"}
    assert known[0]["protocol"] == "RTSP"
    asked = world.type("cameras", "--ask-google")
    assert "asking Google" in asked.stderr
    assert "Driveway" in asked.stdout
    assert "320x180" in asked.stdout


def test_snapshot_is_a_picture_of_the_camera(world: CliWorld, tmp_path: Path) -> None:
    file = tmp_path / "door.jpg"
    result = world.type("snapshot", "front door", "-o", str(file))
    assert result.exit_code == 0, result.output
    with av.open(str(file)) as picture:
        frame = next(picture.decode(video=0))
    assert (frame.width, frame.height) == (320, 180)
    # A black or grey frame would have almost no spread of brightness.
    luma = bytes(frame.planes[0])
    assert max(luma) - min(luma) > 60
    as_argument = tmp_path / "again.jpg"
    assert world.type("snapshot", "front door", str(as_argument)).exit_code == 0
    assert as_argument.read_bytes()[:2] == b"\xff\xd8"
    unwritable = world.type("snapshot", "Driveway", "-o", str(tmp_path / "missing" / "x.jpg"))
    assert unwritable.exit_code == 1
    assert "Name another file" in unwritable.output


def test_dump_holds_dialogue_and_media_but_no_credentials(world: CliWorld, tmp_path: Path) -> None:
    file = tmp_path / "door.pcapng"
    result = world.type("dump", "Front Door", str(file), "--duration", "2")
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    packets = pcapng.read(file.read_bytes())
    dialogue = b"".join(packet.data for packet in packets if packet.protocol == 6)
    assert b"DESCRIBE rtsps://" in dialogue
    assert b"m=video" in dialogue
    assert b"auth=[redacted]" in dialogue
    assert b"g.0." not in dialogue
    came, left = ([p.data for p in packets if p.port == port] for port in (5000, 6000))
    assert len(came) > 30
    assert len(left) > 30
    for sent in (came, left):
        assert len({data[8:12] for data in sent}) == 1, "one SSRC"
        numbers = [int.from_bytes(data[2:4], "big") for data in sent]
        assert all((b - a) & 0xFFFF == 1 for a, b in itertools.pairwise(numbers))
    assert {p.port for p in packets if p.protocol == 17} >= {5002, 6002}, "sound too"
    assert [p.at for p in packets] == sorted(p.at for p in packets)
    assert abs(packets[-1].at - time.time()) < 60


def test_the_worker_alone_captures_too(world: CliWorld, tmp_path: Path) -> None:
    nest = world.endpoints["nest"]
    form = {key: nest[key] for key in ("client_id", "client_secret", "refresh_token")} | {"grant_type": "refresh_token"}
    token = httpx.post(nest["token_url"], data=form).json()["access_token"]
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}) as google:
        devices = f"{nest['api_base_url']}/enterprises/{PROJECT}/devices"
        name = google.get(devices).json()["devices"][0]["name"]
        body = {"command": "sdm.devices.commands.CameraLiveStream.GenerateRtspStream", "params": {}}
        answer = google.post(f"{nest['api_base_url']}/{name}:executeCommand", json=body)
    url = answer.json()["results"]["streamUrls"]["rtspUrl"]
    file = tmp_path / "alone.pcapng"
    options = ["--url", "-", "--ca-file", world.endpoints["rtsp"]["ca_file"], "--duration", "3", "--dump", str(file)]
    command = [sys.executable, "-m", "relay_worker", "debug", *options]
    ended = subprocess.run(command, input=url, text=True, capture_output=True, timeout=90)
    assert ended.returncode == 0, ended.stdout
    packets = pcapng.read(file.read_bytes())
    assert packets[0].data.startswith(b"OPTIONS ")
    assert sum(packet.port == 5000 for packet in packets) > 30
    assert b"auth=g" not in file.read_bytes()


def test_a_camera_that_there_is_not_is_named_by_every_call_beside_those_there_are(world: CliWorld) -> None:
    socket = world.directory / "run" / "http.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as client:
        known = [camera["id"] for camera in client.get("/api/cameras").json()["cameras"]]
        paths = client.get("/api/openapi.json").json()["paths"]
        calls = [(method, path) for path in paths for method in paths[path] if path.startswith("/api/cameras/{id}/")]
        assert len(calls) >= 9
        replies = {
            f"{method} {path}": client.request(method, path.replace("{id}", "nowhere"), json={})
            for method, path in calls
        }
        replies["logs"] = client.get("/api/logs", params={"camera": "nowhere"})
        for call, reply in replies.items():
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (404, "unknown_camera"), call
            assert error["message"] == "There is no camera with the id 'nowhere'"
            assert all(camera in error["hint"] for camera in known), call
        wrong = client.post("/api/debug", json={"categories": ["rstp"]})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "bad_request")
        assert "rtsp" in wrong.json()["error"]["message"]
        assert client.delete("/api/links/nowhere").json()["error"]["code"] == "unknown_link"


def test_names_of_cameras_are_completed(world: CliWorld) -> None:
    words = f"relay-supervisor snapshot --config {world.config} dr"
    env = {"_RELAY_SUPERVISOR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}
    result = CliRunner().invoke(cli, prog_name="relay-supervisor", env=env)
    assert "Driveway" in result.output
    assert "Front" not in result.output


def test_disable_holds_and_enable_brings_the_camera_back(world: CliWorld) -> None:
    pid = world.workers()["Front Door"]
    changed = world.json("disable", "driveway")
    assert changed == {"id": changed["id"], "name": "Driveway", "running": False, "why_not": changed["why_not"]}
    world.until_state(Driveway="disabled")
    overrides = json.loads((world.directory / "state" / "overrides.json").read_text())
    assert overrides[changed["id"]] == {"name": "Driveway", "enabled": False}
    # A camera that is switched off gives no picture, and its state is reported.
    assert "Driveway has no worker" in world.type("snapshot", "Driveway").output
    assert "disabled by hand" in world.type("status").output
    assert "it is being relayed" in world.type("enable", "Driveway").output
    world.until_state(Driveway="live")
    assert json.loads((world.directory / "state" / "overrides.json").read_text()) == {}
    assert world.workers()["Front Door"] == pid


def test_remove_and_add(world: CliWorld) -> None:
    assert "removed by hand" in world.type("remove", "Driveway").output
    world.until_state(Driveway="disabled")
    # No listing has to be requested first to find the camera.
    assert world.json("add", "DRIVEWAY")["running"] is True
    world.until_state(Driveway="live")


def test_add_asks_google_for_a_camera_that_is_not_known(world: CliWorld) -> None:
    device = f"{world.endpoints['control']['nest']}/cameras/Driveway/device"
    httpx.post(device, json={"renamed": "Carport"}).raise_for_status()
    try:
        assert "There is no camera 'Carport'" in world.type("enable", "Carport").output
        result = world.type("add", "Carport")
        assert result.exit_code == 0, result.output
    finally:
        httpx.post(device, json={"renamed": "Driveway"}).raise_for_status()
    assert world.type("add", "Driveway").exit_code == 0
    world.until_state(Driveway="live")


def test_a_misspelt_secret_is_warned_of_and_reaches_no_child(world: CliWorld) -> None:
    assert "RELAY_CLOUDFLARE_APP_SECRT is no key" in (world.directory / "supervisor.log").read_text()
    assert world.process is not None
    # The fork server and what it needs: workers overwrite theirs with their title, and have the fork server's.
    children = [file.read_text().split() for file in Path(f"/proc/{world.process.pid}/task").glob("*/children")]
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pids in children for pid in pids]
    assert any(b"PATH=" in environment for environment in environments)
    assert not any(b"a-misspelt-secret" in environment for environment in environments)


def restarts(world: CliWorld) -> dict[str, float]:
    """Replaced workers by cause, as the metrics count them; those without any left out."""
    text = httpx.get(f"http://127.0.0.1:{world.port}/metrics").text
    counted = re.findall(r'^relay_restarts_total\{cause="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {cause: float(number) for cause, number in counted if float(number)}


def test_restart_replaces_the_worker_and_keyframe_asks(world: CliWorld) -> None:
    before, counted = world.workers()["Driveway"], restarts(world)
    assert world.type("restart", "Driveway").exit_code == 0
    world.until(lambda: world.workers()["Driveway"] not in (0, before), 20, "another worker")
    world.until_state(Driveway="live")
    assert restarts(world) == counted | {"requested": counted.get("requested", 0.0) + 1.0}, "once, and as what it was"
    asked = world.type("keyframe", "Driveway")
    assert asked.exit_code == 0
    assert "RTSP has no way to ask" in asked.output


def test_logs_hold_lines_of_workers_and_debug_can_be_switched(world: CliWorld) -> None:
    assert "worker started" in world.type("logs").output
    serious = world.type("logs", "--level", "warning", "--json").stdout.splitlines()
    assert not {json.loads(line)["level"] for line in serious} & {"debug", "info"}
    wanted = {"worker.rtsp.session", "worker.media.track_input", "relay.sdp", "common.cloudflare.client"}
    wanted |= {"supervisor.google.api", "supervisor.fleet.bus"}
    try:
        assert "rtsp" in world.type("logs", "-n", "1", "--debug", "rtsp,rtp,sdp,sfu,nest,bus").output
        world.type("restart", "Front Door")
        world.type("add", "Nowhere")

        def told() -> set[str]:
            lines = map(json.loads, world.type("logs", "-n", "4000", "--json").stdout.splitlines())
            return {line["logger"] for line in lines if line["level"] == "debug"}

        world.until(lambda: wanted <= told(), 20, "debug lines of every subsystem")
        of_one = list(map(json.loads, world.type("logs", "front door", "--json").stdout.splitlines()))
        assert {line["camera"] for line in of_one} == {"Front Door"}
        assert any(line["worker"] and line["logger"] == "worker.rtsp.session" for line in of_one)
        assert "ice-pwd:[redacted]" in "".join(line["text"] for line in of_one)
    finally:
        assert "debug lines: none" in world.type("logs", "-n", "1", "--debug", "none").output
    world.until_state(Front_Door="live")
    wrong = world.type("logs", "--debug", "rstp")
    assert wrong.exit_code == 2
    assert "rtsp" in wrong.output


def test_reload_applies_cameras_and_log_and_names_the_rest(world: CliWorld) -> None:
    assert "nothing has changed" in world.type("reload").output
    workers = world.workers()
    before = world.config.read_text()
    try:
        world.cameras = {"include": ["Front Door"]}
        world.write_config(log_level="warning")
        world.config.write_text(world.config.read_text().replace(f"127.0.0.1:{world.port}", "127.0.0.1:1"))
        report = world.json("reload")
        assert report["applied"] == ["cameras.include", "log.level"]
        assert report["restart"] == ["http.listen"]
        world.until_state(Driveway="disabled", Front_Door="live")
        assert world.workers()["Front Door"] == workers["Front Door"]
        world.config.write_text(f"{before}\n[nest")
        broken = world.type("reload")
        assert broken.exit_code == 2, broken.output
        status = world.type("status")
        assert status.exit_code == 0, status.output
        assert "is not valid TOML" in status.stderr
        assert "Front Door" in status.stdout
    finally:
        world.cameras = {}
        world.config.write_text(before)
    # SIGHUP does the same.
    assert world.process is not None
    world.process.send_signal(signal.SIGHUP)
    world.until_state(Driveway="live")


def test_drain_stops_all_cameras_and_ends_on_request(world: CliWorld) -> None:
    drained = world.json("drain")
    assert drained == {"draining": True, "left": []}
    world.until(lambda: not any(world.workers().values()), 30, "no worker")
    assert "the relay is drained" in world.type("status").output
    assert world.json("drain", "--off")["draining"] is False
    world.until_state(Driveway="live", Front_Door="live")


def test_check_finds_all_well_and_counts_what_is_not(world: CliWorld) -> None:
    report = world.type("check", "--json")
    assert report.exit_code == 0, report.output
    findings = {finding["part"]: finding for finding in json.loads(report.stdout)["findings"]}
    # The environment's are those of CI: RELAY_REQUIRE_BROWSER.
    noted = {part for part, finding in findings.items() if finding["verdict"] != "ok"} - {"environment"}
    assert noted == {"UDP to the SFU"}
    assert "not tested" in findings["UDP to the SFU"]["text"]
    assert "Front Door" in findings["Google cameras"]["text"]
    assert findings["http.listen"]["text"] == f"127.0.0.1:{world.port} is served by the running supervisor"
    assert world.process is not None
    assert f"the supervisor is running (pid {world.process.pid})" in world.type("check").output
    assert "`relay-supervisor run`" not in world.type("check").output
    before = world.config.read_text()
    try:
        world.config.write_text(
            before.replace("[cameras]", '[cameras]\ninclude = ["Front Dor"]').replace('"secret"', '"another"')
        )
        (world.directory / "refresh_token").write_text("1//0revoked-refresh-token")
        (world.directory / "refresh_token").chmod(0o644)
        result = world.type("check")
    finally:
        world.config.write_text(before)
        (world.directory / "refresh_token").write_text(world.endpoints["nest"]["refresh_token"])
        (world.directory / "refresh_token").chmod(0o600)
    assert result.exit_code == 1
    lines = result.output
    assert "chmod 600" in lines
    assert "invalid_grant" in lines
    assert f"partnerconnections/{PROJECT}/auth" in lines
    assert "✗ Cloudflare app" in lines


def test_check_beside_a_running_relay_looks_at_what_a_restart_would_find(world: CliWorld) -> None:
    """An address of another program is not ours because a supervisor runs."""
    before = world.config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        try:
            world.config.write_text(before.replace("[http]", f'[http]\nprobe_listen = "{address}"'))
            result = world.type("check")
        finally:
            world.config.write_text(before)
    assert result.exit_code == 1
    assert f"[http] probe_listen: cannot listen on {address}" in result.output
    assert "1 to fix; the supervisor is running" in result.output


def test_check_names_cameras_that_google_does_not_show(world: CliWorld) -> None:
    before = world.config.read_text()
    try:
        world.config.write_text(before.replace("[cameras]", '[cameras]\ninclude = ["Front Dor"]'))
        result = world.type("check")
    finally:
        world.config.write_text(before)
    assert result.exit_code == 1
    assert "the configuration names 'Front Dor', but Google shows no such camera" in result.output
    assert "Did you mean 'Front Door'?" in result.output
    assert "cannot be granted" in result.output


def test_check_tells_of_a_camera_that_google_lists_without_a_stream(world: CliWorld) -> None:
    device = f"{world.endpoints['control']['nest']}/cameras/Driveway/device"
    httpx.post(device, json={"traitless": True}).raise_for_status()
    try:
        result = world.type("check")
    finally:
        httpx.post(device, json={"traitless": False}).raise_for_status()
    assert result.exit_code == 0, "the relay keeps what it knows of the camera"
    assert "(CAMERA) without a live stream" in result.output
    assert "3rd generation" in result.output


def test_auth_from_nothing_to_a_configuration(world: CliWorld, tmp_path: Path) -> None:
    nest = world.endpoints["nest"]
    config = tmp_path / "new" / "relay.toml"
    typed = [
        "123456789012",  # a Cloud project number
        "my-cameras-4711",  # a Cloud project id
        PROJECT,
        nest["client_secret"],  # the wrong one of the two
        nest["client_id"],
        "1//0not-a-client-secret",
        nest["client_secret"],
        "n",  # not published
        f"https://nestservices.google.com/partnerconnections/{PROJECT}/auth",  # the link instead of where it leads
        "https://www.google.com/?code=4/used-up&scope=x",
        "https://www.google.com/?code=4/simulated-code&scope=https://www.googleapis.com/auth/sdm.service",
        "app",
        "app-secret",
    ]
    result = invoke(
        *("auth", "--config", str(config), "--api-base-url", nest["api_base_url"], "--token-url", nest["token_url"]),
        input="".join(f"{line}\n" for line in typed),
        env={"RELAY_PATHS_STATE_DIR": str(tmp_path / "state"), "RELAY_PATHS_RUNTIME_DIR": str(tmp_path / "none")},
    )
    assert result.exit_code == 0, result.output
    said = result.output
    for hint in ("number of a Google Cloud project", "id of a Google Cloud project", "7 days", "go through to the end"):
        assert hint in said
    assert "invalid_grant" in said
    assert "Front Door" in result.stdout
    for secret in ("google_client_secret", "google_refresh_token", "cloudflare_app_secret"):
        assert stat.S_IMODE((config.parent / "secrets" / secret).stat().st_mode) == 0o600
    assert nest["refresh_token"] not in said
    again = invoke("cameras", "--config", str(config), env={"RELAY_PATHS_RUNTIME_DIR": str(tmp_path / "none")})
    assert "Driveway" in again.output, again.output


@pytest.mark.parametrize("asked", [True, False])
def test_auth_without_a_cloudflare_account(world: CliWorld, tmp_path: Path, asked: bool) -> None:
    nest = world.endpoints["nest"]
    config = tmp_path / "relay.toml"
    environ = {
        "RELAY_PATHS_STATE_DIR": str(tmp_path / "state"),
        "RELAY_PATHS_RUNTIME_DIR": str(tmp_path / "run"),
        "RELAY_NEST_CLIENT_SECRET": nest["client_secret"],
    }
    options = ["auth", "--config", str(config), "--published", "--code", "4/simulated-code", "--project-id", PROJECT]
    options += ["--api-base-url", nest["api_base_url"], "--token-url", nest["token_url"]]
    options += ["--client-id", nest["client_id"], *([] if asked else ["--home", "127.0.0.1"])]
    typed = "home\n198.51.100.7\n\n" if asked else ""  # an address of another machine, then the default
    result = invoke(*options, input=typed, env=environ)
    assert result.exit_code == 0, result.output
    assert ("198.51.100.7 is not an address of this machine" in result.output) is asked
    assert "open http://127.0.0.1:8080" in result.output
    checked = invoke("check", "--config", str(config), "--json", env=environ | {"RELAY_HTTP_LISTEN": "127.0.0.1:0"})
    assert checked.exit_code == 0, checked.output
    findings = {finding["part"]: finding["text"] for finding in json.loads(checked.stdout)["findings"]}
    assert "by this machine alone" in findings["local"]
    assert "not published at Cloudflare" in findings["cloudflare"]
    again = invoke(*options, *([] if not asked else ["--home", "127.0.0.1"]), input="", env=environ)
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_auth_that_is_interrupted_after_the_grant_has_saved_it(world: CliWorld, tmp_path: Path) -> None:
    nest = world.endpoints["nest"]
    config = tmp_path / "relay.toml"
    environ = {
        "RELAY_PATHS_STATE_DIR": str(tmp_path / "state"),
        "RELAY_PATHS_RUNTIME_DIR": str(tmp_path / "none"),
        "RELAY_NEST_CLIENT_SECRET": nest["client_secret"],
    }
    options = ("auth", "--config", str(config), "--published", "--code", "4/simulated-code")
    urls = ("--api-base-url", nest["api_base_url"], "--token-url", nest["token_url"])
    wrong = PROJECT.replace("-0000-", "-9999-")
    ids = ("--project-id", wrong, "--client-id", nest["client_id"])
    result = invoke(*options, *urls, *ids, input="", env=environ)
    assert result.exit_code == 1
    assert f"Fill in [cloudflare] in {config}" in result.output
    token = tmp_path / "secrets" / "google_refresh_token"
    assert token.read_text().strip() == nest["refresh_token"]
    assert f'project_id = "{wrong}"' in config.read_text()
    # Another id is written into the file, and so is another secret.
    (tmp_path / "secrets" / "google_client_secret").write_text("GOCSPX-mistyped")
    again = invoke(*options, "--yes", "--project-id", PROJECT, env=environ)
    assert again.exit_code == 0, again.output
    assert "Front Door" in again.output
    assert f'project_id = "{PROJECT}"' in config.read_text()
    assert wrong not in config.read_text()
    assert (tmp_path / "secrets" / "google_client_secret").read_text().strip() == nest["client_secret"]


def test_auth_asks_before_it_has_anything_to_lose(world: CliWorld, tmp_path: Path) -> None:
    before = (world.directory / "refresh_token").read_text()
    result = world.type("auth", "--testing", "--code", "4/simulated-code", input="n\n")
    assert result.exit_code == 1
    assert "Google has granted access" not in result.output.replace("when Google has granted access", "")
    assert (world.directory / "refresh_token").read_text() == before


def test_auth_renews_a_running_supervisor_without_a_restart(world: CliWorld) -> None:
    workers = world.workers()
    (world.directory / "refresh_token").write_text("1//0revoked-refresh-token")
    try:
        assert world.json("reload")["applied"] == ["nest.refresh_token"]
        world.type("add", "Nowhere")  # asks Google, which refuses the token
        world.until(lambda: "invalid_grant" in world.json("status")["budgets"][0]["auth_error"], 20, "the refusal")
        result = world.type("auth", "--yes", "--testing", "--code", "4/simulated-code")
        assert result.exit_code == 0, result.output
        assert "The running supervisor uses it now" in result.output
    finally:
        (world.directory / "refresh_token").write_text(world.endpoints["nest"]["refresh_token"])
    world.until(lambda: not world.json("status")["budgets"][0]["auth_error"], 20, "the account works again")
    assert world.workers() == workers
    grants = world.directory / "state" / "grants.json"
    aged = json.loads(grants.read_text())
    assert world.endpoints["nest"]["refresh_token"] not in grants.read_text()
    aged[-1]["at"] = time.time() - 6.5 * 86400
    grants.write_text(json.dumps(aged))
    world.type("reload")
    assert "expires in about 12 hours" in world.type("status").output
    assert "expires in about 12 hours" in world.type("check").output
    grants.unlink()
    world.type("reload")


def test_stop_keeping_workers_then_stop(world: CliWorld) -> None:
    workers = world.workers()
    assert "the workers keep running" in world.type("stop", "--keep-workers").output
    assert world.process is not None
    assert world.process.wait(30) == 0
    nobody = world.type("status")
    assert nobody.exit_code == 3
    assert "relay-supervisor run" in nobody.output
    assert all(start_ticks(pid) for pid in workers.values())
    world.start()
    world.until_state(Driveway="live", Front_Door="live")
    assert world.workers() == workers
    assert world.type("stop").exit_code == 0
    assert world.process.wait(30) == 0
    assert not any(start_ticks(pid) for pid in workers.values())
    assert os.listdir(world.directory / "run") == []
