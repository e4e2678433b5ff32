"""What `check` finds without Google and Cloudflare."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from aioice import stun as codec

from relay_common.clock import SystemClock
from relay_common.config import (
    CamerasConfig,
    CameraSettings,
    CloudflareConfig,
    ClusterConfig,
    Config,
    HttpConfig,
    LimitsConfig,
    NestConfig,
    PathsConfig,
    WhipConfig,
    WorkersConfig,
)
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.checks import local, remote, stun
from relay_supervisor.checks.report import Finding, Grade, ok
from relay_supervisor.commands import check
from relay_supervisor.google.models import Device, Listing
from relay_supervisor.google.quota.budget import Call
from relay_supervisor.google.quota.limits import EXECUTE
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import BudgetStatus, RelayStatus, Totals
from relay_worker.process import immortal, sandbox
from tests.fixtures.ports import free_ports

NEST = NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))
REAL = CloudflareConfig(app_id="app", app_secret=Secret("secret"))


def config(tmp_path: Path, listen: str = "127.0.0.1:0") -> Config:
    paths = PathsConfig(state_dir=str(tmp_path / "state"), runtime_dir=str(tmp_path / "run"))
    return Config(nest=[NEST], cloudflare=REAL, http=HttpConfig(listen=listen), paths=paths)


@pytest.mark.parametrize(
    ("more", "grade", "said"),
    [
        ({}, Grade.OK, "cameras are published at https://studio.example:443"),
        ({"url": "https://studio.example/whip"}, Grade.WARNING, "several cameras would be published at one URL"),
        ({"url": "https://studio.example/whip", "cameras": ["Door"]}, Grade.OK, "cameras are published"),
        ({"url": "http://192.168.1.9/{name}", "bearer_token": Secret("t0ken")}, Grade.WARNING, "can be overheard"),
        ({"url": "http://127.0.0.1:1984/{name}", "bearer_token": Secret("t0ken")}, Grade.OK, "http://127.0.0.1:1984"),
        ({"keeps_awake": True}, Grade.WARNING, "empties batteries"),
        ({"keeps_awake": True, "cameras": ["Yard"]}, Grade.OK, "cameras are published"),
        ({"keeps_awake": True, "cameras": ["Door"]}, Grade.WARNING, "empties batteries"),
        ({"renditions": True}, Grade.OK, "published at https://studio.example:443, with their smaller picture"),
    ],
)
def test_what_there_is_to_say_of_a_whip_server(tmp_path: Path, more: dict[str, Any], grade: Grade, said: str) -> None:
    table = WhipConfig(**{"name": "studio", "url": "https://studio.example/{name}", **more})
    yard = CameraSettings(renditions="keyframes")
    cameras = CamerasConfig(settings={"Door": CameraSettings(mode="on_demand"), "Yard": yard})
    (finding,) = local.sinks(msgspec.structs.replace(config(tmp_path), whip=[table], cameras=cameras))
    assert (finding.part, finding.verdict) == ("whip studio", grade)
    assert said in finding.text
    assert "t0ken" not in finding.text + finding.remedy


def test_a_whip_server_cannot_get_smaller_pictures_that_no_camera_makes(tmp_path: Path) -> None:
    table = WhipConfig(name="studio", url="https://studio.example/{name}", renditions=True)
    (finding,) = local.sinks(msgspec.structs.replace(config(tmp_path), whip=[table]))
    assert (finding.verdict, "no camera makes any" in finding.text) == (Grade.WARNING, True)


def test_a_missing_or_wrong_configuration_says_how_to_go_on(tmp_path: Path) -> None:
    findings, nothing = local.configuration(tmp_path / "relay.toml")
    assert nothing is None
    assert "relay-supervisor auth" in findings[0].remedy
    file = tmp_path / "relay.toml"
    file.write_text('[nest]\nproject_id = "p"\n[cloudflare]\nap_id = "x"\n')
    findings, nothing = local.configuration(file)
    assert nothing is None
    assert {finding.verdict for finding in findings} == {Grade.FAILED}
    assert any("nest.client_id is missing" in finding.text for finding in findings)
    assert any("Did you mean app_id?" in finding.text for finding in findings)


def test_secrets_that_others_may_read_are_told(tmp_path: Path) -> None:
    file, secret = tmp_path / "relay.toml", tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o640)
    file.write_text('[nest]\nrefresh_token = "r"\nclient_secret_file = "secret"\n')
    file.chmod(0o644)
    assert [finding.remedy for finding in local.secret_files(file)] == [f"chmod 600 {secret}", f"chmod 600 {file}"]
    secret.chmod(0o600)
    file.chmod(0o600)
    assert [finding.verdict for finding in local.secret_files(file)] == [Grade.OK]
    file.write_text(file.read_text(), "utf-8-sig")  # as an editor of Windows does
    assert [finding.verdict for finding in local.secret_files(file)] == [Grade.OK]


def test_an_address_that_is_taken_is_ours_or_anothers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        both = config(tmp_path, address)
        both = msgspec.structs.replace(both, http=HttpConfig(listen=address, probe_listen="127.0.0.1:0"))
        one, other = local.addresses(both, lambda host, port: False)
        assert (one.part, one.verdict, other.part, other.verdict) == (
            *("http.listen", Grade.FAILED),
            *("http.probe_listen", Grade.OK),
        )
        assert "another port" in one.remedy
        assert "running supervisor" in local.addresses(both, lambda host, port: True)[0].text
    assert [finding.text for finding in local.addresses(both, lambda host, port: True)] == [
        f"{address} is free",
        "the kernel chooses a port at the start",
    ]


def test_an_address_of_our_own_is_not_said_to_be_another_programs(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    both = msgspec.structs.replace(
        config(tmp_path, address), http=HttpConfig(listen=address, probe_listen=address)
    )  # fmt: skip
    (only,) = local.addresses(both, lambda host, port: False)
    assert (only.part, only.verdict) == ("http.listen", Grade.OK), "that there are two of them is said elsewhere"


def test_both_ports_of_the_bus_are_tried(tmp_path: Path) -> None:
    ports = free_ports(2)
    settings = msgspec.structs.replace(
        config(tmp_path, "127.0.0.1:0"), cluster=ClusterConfig(bus_listen=f"127.0.0.1:{ports[0]}")
    )
    with socket.create_server(("127.0.0.1", ports[1])):
        _, first, second = local.addresses(settings, lambda host, port: False)
    assert (first.part, first.text) == ("cluster.bus_listen", f"127.0.0.1:{ports[0]} is free")
    assert (second.part, second.verdict) == ("cluster.bus_listen", Grade.FAILED)
    assert second.text.startswith(f"[cluster] bus_listen: cannot listen on 127.0.0.1:{ports[1]} (")
    assert second.remedy.endswith("choose another port in [cluster] bus_listen")


def test_the_bus_needs_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path)
    assert "bus" not in {finding.part for finding in local.settings(settings)}
    monkeypatch.setattr("zmq.has", lambda capability: False)
    (finding,) = [finding for finding in local.settings(settings) if finding.part == "bus"]
    assert (finding.verdict, "without CURVE" in finding.text) == (Grade.FAILED, True)


def test_directories(tmp_path: Path) -> None:
    assert [finding.text for finding in local.directories(config(tmp_path), running=False)] == [
        f"{tmp_path}/state can be made",
        f"{tmp_path}/run can be made",
    ]
    assert list(tmp_path.iterdir()) == [], "to look changes nothing"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path / "state"], check=True)
    try:
        subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path}/state/x"], check=False, capture_output=True)
        state, run = local.directories(config(tmp_path), running=False)
        assert state.verdict is Grade.FAILED
        assert "No space left on device" in state.text
        assert "Free space" in state.remedy
        assert run.verdict is Grade.OK
        # The relay starts all the same, and says that nothing is saved.
        lock = StateLock(tmp_path / "state")
        lock.acquire()
        lock.release()
    finally:
        subprocess.run(["umount", tmp_path / "state"], check=True)


def test_what_confines_workers_is_told_and_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "none: the kernel has no Landlock")
    found = local.confinement(config(tmp_path))
    assert (found.verdict, found.text) == (Grade.OK, "confinement of workers: none: the kernel has no Landlock")
    without = msgspec.structs.replace(config(tmp_path), workers=WorkersConfig(landlock="off"))
    assert local.confinement(without).text == "confinement of workers: off, as configured"


def test_how_the_shared_objects_are_is_told_and_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for why, words in (("", "immortal"), ("another interpreter", "counted (another interpreter)")):
        monkeypatch.setattr(immortal, "unsupported", lambda why=why: why)
        found = local.shared_objects(config(tmp_path))
        assert (found.verdict, found.text) == (Grade.OK, f"objects that workers share: {words}")
    without = msgspec.structs.replace(config(tmp_path), workers=WorkersConfig(immortal_objects="off"))
    assert local.shared_objects(without).text == "objects that workers share: counted, as configured"


def test_quota_is_read_from_the_log_of_an_earlier_supervisor(tmp_path: Path) -> None:
    limits = LimitsConfig(commands_per_minute=2)
    assert "no command" in local.quota(NEST.project_id, limits, tmp_path, None).text
    clock = SystemClock()
    store = Store(tmp_path / "relay.sqlite3", clock).open()
    for number in range(2):
        store.write_call("p", str(number), Call(EXECUTE, "GenerateRtspStream", "d"), clock.now() - 5, clock.now() - 4)
    store.close()
    found = local.quota(NEST.project_id, limits, tmp_path, None)
    assert found.verdict is Grade.WARNING
    assert found.text.startswith("2 of 2 commands used")
    assert local.quota(NEST.project_id, LimitsConfig(), tmp_path, None).verdict is Grade.OK


def test_a_state_that_a_newer_relay_wrote_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "relay.sqlite3"
    Store(path, SystemClock()).open().close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    assert local.quota(NEST.project_id, LimitsConfig(), tmp_path, None).verdict is Grade.WARNING
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: before}


@pytest.mark.parametrize(
    ("skews", "verdict", "words"),
    [
        ([0.4, None], Grade.OK, "within"),
        ([None], Grade.WARNING, "not tested"),
        ([1.0, -30.0], Grade.WARNING, "30 s ahead of"),
        ([400.0], Grade.FAILED, "400 s behind"),
    ],
)
def test_clock(skews: list[float | None], verdict: Grade, words: str) -> None:
    found = remote.clock(skews)
    assert found.verdict is verdict
    assert words in found.text


class _StunServer(asyncio.DatagramProtocol):
    """Answers the second request of each client, as if the first had been lost."""

    def __init__(self) -> None:
        self.requests = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.requests += 1
        if self.requests < 2:
            self._transport.sendto(b"not STUN", addr)
            return
        request = codec.parse_message(data)
        answer = codec.Message(
            message_method=codec.Method.BINDING,
            message_class=codec.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.7", 4711)
        self._transport.sendto(bytes(answer), addr)


async def test_udp_is_asked_again_and_tells_our_address() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_StunServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    found = await stun.reachability(REAL, f"127.0.0.1:{port}")
    transport.close()
    assert found.verdict is Grade.OK
    assert "203.0.113.7:4711" in found.text


async def test_udp_that_is_not_answered_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stun, "_WAIT", 0.02)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        found = await stun.reachability(REAL, f"127.0.0.1:{silent.getsockname()[1]}")
    assert found.verdict is Grade.FAILED
    assert "firewall" in found.remedy
    unknown = await stun.reachability(REAL, "no.such.host.invalid:3478")
    assert unknown.verdict is Grade.WARNING
    assert "not tested" in unknown.text
    simulator = CloudflareConfig(app_id="a", app_secret=Secret("s"), api_base_url="http://127.0.0.1:1/v1")
    assert "simulator" in (await stun.reachability(simulator)).text


def test_of_several_accounts_each_finding_says_whose_it_is() -> None:
    nests = [msgspec.structs.replace(NEST, project_id=project) for project in ("p", "q")]
    door = Device("enterprises/p/devices/door", "door", "CAMERA", "Door", (Protocol.RTSP,))
    named = CamerasConfig(settings={"Dorr": CameraSettings()})
    listings = [Listing([door]), Listing([], streamless=("Bell",))]
    found = remote.cameras(listings, named, nests, ["home", "shop"])
    assert [(one.account, one.verdict) for one in found] == [
        ("home", Grade.OK),
        ("shop", Grade.WARNING),
        ("shop", Grade.WARNING),
        ("", Grade.FAILED),
    ]
    assert click.unstyle(found[0].line()) == "✓ Google cameras of home: 1 found: Door (RTSP)"
    assert "/p/" in found[3].remedy
    assert "/q/" in found[3].remedy
    (nothing,) = remote.cameras([Listing([])], CamerasConfig(), [NEST], [""])
    assert click.unstyle(nothing.line()).startswith("✗ Google cameras: none is shared with this project")
    both = remote.cameras([Listing([])] * 2, CamerasConfig(), nests, ["home", "shop"])
    assert [(one.account, one.verdict) for one in both] == [("home", Grade.FAILED), ("shop", Grade.FAILED)]


def test_the_ports_of_each_account_are_said_to_be_its_own(tmp_path: Path) -> None:
    first = free_ports(8).start
    nests = [
        msgspec.structs.replace(NEST, account=name, ports=port) for name, port in (("home", first), ("shop", first + 4))
    ]
    cluster = ClusterConfig(namespace="cameras", identity="relay", replica="a", bus_listen="127.0.0.1:7420")
    both = msgspec.structs.replace(config(tmp_path), nest=nests, cluster=cluster)
    found = local.addresses(both, lambda host, port: False)
    assert [one.account for one in found] == ["", "home", "home", "shop", "shop"]


async def test_check_asks_for_each_account_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nests = [msgspec.structs.replace(NEST, project_id="p") for _ in range(2)]
    both = msgspec.structs.replace(config(tmp_path), nest=nests)

    async def google(nest: NestConfig) -> tuple[list[Finding], Listing, float | None]:
        return [ok("Google token", "well")], Listing([]), 0.0

    monkeypatch.setattr(remote, "google", google)
    budgets = [BudgetStatus(account=name, used=used, limit=10) for name, used in (("p", 3), ("p#2", 7))]
    running = RelayStatus(version="", at=0.0, uptime=0.0, totals=Totals(), budgets=budgets, cameras=[])
    found, _, _ = await check._google(both, running)
    assert [(one.account, one.text) for one in found if one.part == "quota"] == [
        ("p", "3 of 10 commands used in the last minute"),
        ("p#2", "7 of 10 commands used in the last minute"),
    ]
    assert [one.account for one in found if one.part == "Google token"] == ["p", "p#2"]


@pytest.mark.parametrize(
    ("date", "sent", "received", "skew"),
    [
        (100.0, 100.2, 100.4, 0.0),
        (100.0, 100.2, 109.0, 0.0),
        (103.0, 100.2, 109.0, 0.0),
        (110.0, 100.0, 104.0, 6.0),
        (90.0, 100.0, 104.0, -9.0),
    ],
)
def test_a_late_answer_is_no_wrong_clock(date: float, sent: float, received: float, skew: float) -> None:
    """On a machine without a free processor `check` called a clock wrong that was right."""
    assert remote._skew(date, sent, received) == pytest.approx(skew)
