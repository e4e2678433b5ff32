"""What a process still can after it has confined itself, by every version of Landlock that this kernel offers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_worker.process import sandbox
from relay_worker.process.landlock import ADDED, NEWEST, Files, Ports, Scopes, rights
from relay_worker.process.sandbox import turn_port
from relay_worker.process.spec import WorkerSpec

NONE = sandbox.available().startswith("none")
confined = pytest.mark.skipif(NONE, reason=f"confinement: {sandbox.available()}")

SCRIPT = """
import json, os, socket, sys, time
from pathlib import Path
from relay_common.protocol import Stage
from relay_worker.process import sandbox
from relay_worker.process.confine import confine
from relay_worker.process.spec import WorkerSpec

here = Path(sys.argv[1])
sandbox.RESOLVER = (here / "resolver" / "resolv.conf",)
sandbox.readable()

def enter(version, **spec):
    confine()
    spec = {"tcp_ports": (443,), "ice_servers": ("turns:turn.example?transport=tcp",)} | spec
    spec = WorkerSpec(camera="c", name="C", instance="i", control="ipc:///x/c", stats="ipc:///x/s", **spec)
    began = time.perf_counter()
    return sandbox.enter(spec, version), time.perf_counter() - began

def can(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True

def tcp(bind):
    with socket.socket() as one:
        if bind:
            one.bind(("127.0.0.1", 0))
        one.listen()

def unix(verb, name):
    with socket.socket(socket.AF_UNIX) as one:
        getattr(one, verb)(str(here / name))

def try_version(version):
    box, _ = enter(version)
    return {
        "bind": can(lambda: tcp(True)), "listen": can(lambda: tcp(False)),
        "connect to path": can(lambda: unix("connect", "listener")), "bind path": can(lambda: unix("bind", "mine")),
        "words": box.words, "ports": box.tcp_ports, "read": can((here / "secret").read_text),
        "write": can(lambda: (here / "new").write_text("")), "truncate": can(lambda: os.truncate(here / "secret", 6)),
        "move": can(lambda: os.rename(here / "secret", here / "resolver" / "secret")),
    }

def try_replaced():
    authorities, resolver = here / "ca.pem", here / "resolver" / "resolv.conf"
    box, _ = enter(None, ca_file=str(authorities))
    before = [box.outdated(stage) for stage in Stage]
    os.write(go, b"x")
    os.read(done, 1)
    return {"before": before, "after": {stage.value: box.outdated(stage) for stage in Stage if box.outdated(stage)}}

def in_child(work, *given, meanwhile=lambda: None):
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(work(*given)).encode())
        os._exit(0)
    os.close(writing)
    meanwhile()
    with open(reading, "rb") as pipe:
        return json.load(pipe)

def replace():
    os.read(ready, 1)
    for file in (here / "ca.pem", here / "resolver" / "resolv.conf"):
        (here / "new").write_text("something else")
        os.rename(here / "new", file)
    os.write(replaced, b"x")

listener = socket.socket(socket.AF_UNIX)
listener.bind(str(here / "listener"))
listener.listen()
ready, go = os.pipe()
done, replaced = os.pipe()
versions = {version: in_child(try_version, version) for version in map(int, sys.argv[2:])}
off = in_child(lambda: enter(None, landlock=False)[0].words)
times = [in_child(lambda: enter(None)[1]) for _ in range(10)]
files = in_child(try_replaced, meanwhile=replace)
print(json.dumps({"versions": versions, "off": off, "times": times, "files": files}))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What children of one process could do after confining themselves, each by another version."""
    here = tmp_path_factory.mktemp("sandbox")
    (here / "resolver").mkdir()
    for name in ("secret", "ca.pem", "resolver/resolv.conf"):
        (here / name).write_text("secret")
    command = [sys.executable, "-c", SCRIPT, str(here), *map(str, ADDED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_version_knows_what_the_ones_before_it_know() -> None:
    assert rights(0) == rights(-1)
    assert Files(rights(1).files) & Files.REFER == 0
    assert [rights(number).files.bit_length() for number in (1, 2, 3, 4, 5, 6, 7)] == [13, 14, 15, 15, 16, 16, 16]
    assert [rights(number).ports for number in (3, 4, 7)] == [0, *[Ports.BIND_TCP | Ports.CONNECT_TCP] * 2]
    assert [rights(number).scopes for number in (5, 6)] == [0, Scopes.ABSTRACT_UNIX_SOCKET | Scopes.SIGNAL]
    assert rights(NEWEST + 5) == rights(NEWEST)


@confined
def test_every_version_denies_what_it_can_and_says_what_it_cannot(tried: dict[str, Any]) -> None:
    newest = int(sandbox.available().split()[2].strip(","))
    for number, found in tried["versions"].items():
        version = min(int(number), newest)
        assert found["words"].startswith(f"Landlock ABI {version}")
        assert (found["read"], found["write"], found["move"]) == (False, False, False)
        assert found["truncate"] == (version < 3) == ("truncation of files" in found["words"])
        assert (found["ports"] is None) == (version < 4) == ("TCP, devices" in found["words"])
        assert found["ports"] in (None, [53, 443, 5349])
        assert ("signals and abstract sockets" in found["words"]) == (version < 6)
    assert tried["off"] == "off"


@confined
def test_nothing_listens_where_others_could_know_it(tried: dict[str, Any]) -> None:
    """What docs/security.md says that Landlock does not limit is not limited, and the rest of the same kind is."""
    for found in tried["versions"].values():
        limited = found["ports"] is not None
        assert (found["bind"], found["listen"]) == (not limited, True), "to listen alone takes a port of the kernel's"
        assert (found["connect to path"], found["bind path"]) == (True, False), "as the bus's sockets are reached"


@confined
def test_files_that_were_replaced_are_noticed_where_they_matter(tried: dict[str, Any]) -> None:
    files = tried["files"]
    assert set(files["before"]) == {""}
    assert set(files["after"]) == {"tls", "resolve", "publish", "ice"}
    assert "ca.pem has changed" in files["after"]["tls"]
    assert "resolv.conf was replaced" in files["after"]["resolve"]


@confined
def test_confinement_takes_less_than_five_milliseconds(tried: dict[str, Any]) -> None:
    assert min(tried["times"]) < 0.005, tried["times"]


def test_what_may_be_read_holds_no_directory_of_others() -> None:
    broad = {Path(name) for name in ("/", "/etc", "/home", "/root", "/run", "/tmp", "/var", "/proc", "/sys", "/dev")}
    for path in sandbox.readable():
        assert path not in broad
        assert not Path(__file__).is_relative_to(path / "relay_supervisor")
    root = Path(sandbox.__file__).parents[2]
    assert root not in sandbox.readable()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("stun:stun.example:3478", 0),
        ("turn:turn.example", 0),
        ("turn:turn.example:80?transport=udp", 0),
        ("turn:turn.example?transport=tcp", 3478),
        ("turn:turn.example:80?transport=tcp", 80),
        ("turns:turn.example", 5349),
        ("turns:[2001:db8::1]:443?transport=tcp", 443),
        ("turns:[2001:db8::1]?transport=tcp", 5349),
    ],
)
def test_ports_of_turn_servers_reached_over_tcp(url: str, port: int) -> None:
    assert turn_port(url) == port


@pytest.mark.parametrize(
    ("ends", "ports", "allowed"),
    [
        (("tcp://10.0.0.5:7420", "tcp://[fd00::5]:7421"), (443,), [53, 443, 7420, 7421]),
        (("ipc:///run/7420:7420", "ipc:///run/s"), (443,), [53, 443]),
        (("tcp://10.0.0.5:7420", "tcp://10.0.0.5:7421"), None, None),
    ],
)
def test_ports_of_the_bus_over_tcp(
    ends: tuple[str, str], ports: tuple[int, ...] | None, allowed: list[int] | None
) -> None:
    spec = WorkerSpec(camera="c", name="C", instance="i", control=ends[0], stats=ends[1], tcp_ports=ports)
    assert sandbox._ports(spec) == allowed
