"""Whatever `run` refuses, `check` reports in the same words: broken configurations, through both real commands."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from click.testing import CliRunner, Result

from relay_common.authorities import public_authorities
from relay_supervisor.commands.cli import cli
from relay_supervisor.prerequisites import _RULES
from relay_supervisor.state.lock import StateLock
from relay_worker import native
from tests.fixtures.ports import free_port
from tests.fixtures.supervisor_process import toml

pytestmark = pytest.mark.slow

Document = dict[str, dict[str, Any]]
IN_PODS = {"namespace": "cameras", "image": "nest-relay:1", "bus_listen": "127.0.0.1:7420"}
TOKEN = "a-token-of-24-characters"


class Refusing(http.server.BaseHTTPRequestHandler):
    """Google and Cloudflare, where the credentials are wrong: nothing is tried again."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def made(tmp_path: Path, cloud: str) -> Document:
    """A configuration that `run` accepts."""
    return {
        "nest": {
            "project_id": "5cd39b4c-0000-4000-8000-51a1a7edf00d",
            "client_id": "123456789012-abcdef.apps.googleusercontent.com",
            "client_secret": "GOCSPX-0123456789abcdefghijklmnopqr",
            "refresh_token": "1//0refresh",
            "api_base_url": cloud,
            "token_url": cloud,
        },
        "cloudflare": {"app_id": "app", "app_secret": "secret", "api_base_url": cloud},
        "http": {"listen": "127.0.0.1:0"},
        "paths": {"state_dir": str(tmp_path / "state"), "runtime_dir": str(tmp_path / "run")},
    }


VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("nest", {"project_id": "123456789012"}, "number of a Google Cloud project"),
    ("nest", {"project_id": "my-cameras-4711"}, "id of a Google Cloud project"),
    ("nest", {"client_id": "5cd39b4c-0000-4000-8000-51a1a7edf00d"}, "Device Access project id"),
    ("nest", {"client_secret": ""}, "expected a non-empty string"),
    ("nest", {"client_secret_file": "nowhere"}, "both set"),
    ("nest", {"token_url": "http://example.com/"}, "https://"),
    ("nest", {"api_base_url": "http://192.0.2.7/v1"}, "https://"),
    ("nest", {"api_base_url": "https://[::1"}, "not a URL"),
    ("cloudflare", {"api_base_url": "http://example.com/"}, "https://"),
    ("cloudflare", {"app_id": 5}, "an integer 5"),
    ("cloudflare", {"app_id": ""}, "length"),
    ("cloudflare", {"app_secret": "two words"}, "characters that cannot be sent"),
    ("cloudflare", {"ap_id": "x"}, "Did you mean app_id?"),
    ("cloudflare", {"ice_servers": "stun:host"}, "expected an array"),
    ("cluster", IN_PODS | {"worker_template": "/nowhere/worker.yaml"}, "worker.yaml cannot be read"),
    ("cluster", IN_PODS, "http.token and viewers.link_secret are not set; a relay in a cluster"),
    ("cluster", {"replica": "a"}, "cluster.namespace is not set"),
    ("cluster", IN_PODS | {"namespace": "Cameras"}, "expected lower-case letters"),
    ("rtsp", {"connect_timeout": 0}, "expected a number > 0"),
    ("rtsp", {"read_timeout": "30"}, "read_timeout = 30.0"),
    ("rtsp", {"ca_file": "/nowhere/ca.pem"}, "rtsp.ca_file: /nowhere/ca.pem cannot be read: No such file or directory"),
    ("rtsp", {"ca_file": "relay.toml"}, "relay.toml holds no certificate (PEM)"),
    ("cameras", {"include": True}, "display names"),
    ("cameras", {"settings": 5}, 'cameras.settings is not a key: write [cameras."NAME"]'),
    ("http", {"listen": "19100"}, "127.0.0.1:19100"),
    ("http", {"listen": 19100}, "an integer"),
    ("http", {"listen": "0.0.0.0:0"}, "there is no [http] token"),
    ("http", {"token": "short"}, "shorter than 16"),
    ("http", {"token": "schlüssel-aus-umlauten"}, "token holds characters that cannot be sent"),
    ("http", {"listen": "no..name:80", "token": TOKEN}, "no address with a port"),
    ("http", {"listen": "192.0.2.1:8080", "token": TOKEN}, "cannot listen on 192.0.2.1:8080"),
    ("http", {"listen": "127.0.0.1:99999"}, "no address with a port"),
    ("http", {"probe_listen": "8081"}, "probe_listen is '8081'"),
    ("http", {"probe_listen": "192.0.2.1:8081"}, "probe_listen: cannot listen"),
    ("http", {"trusted_proxies": ["proxy"]}, "neither an address nor a network"),
    ("http", {"trusted_proxies": "127.0.0.1"}, "expected an array"),
    ("http", {"base_path": "cameras"}, "which is no path"),
    ("http", {"base_path": "//evil.example"}, "which is no path"),
    ("http", {"base_path": "/api/relay"}, "has something at that path"),
    ("viewers", {"access": "token"}, "there is no [http] token"),
    ("viewers", {"access": "everyone"}, "one of"),
    ("viewers", {"link_secret": "short"}, "link_secret is shorter"),
    ("viewers", {"frame_ancestors": ["home.example; script-src *"]}, "no origin"),
    ("limits", {"share": 2.0}, "share"),
    ("workers", {"memory_limit_mb": "much"}, "memory_limit_mb = 200"),
    ("log", {"level": "loud"}, "one of"),
    ("otel", {"endpoint": "127.0.0.1:4318"}, "otel.endpoint is not the base URL"),
    ("otel", {"interval": 0.1}, "interval = 15.0"),
    ("paths", {"state_dir": "relay.toml"}, "not a directory"),
    ("paths", {"state_dir": "relay.toml/state"}, "not a directory"),
    ("paths", {"runtime_dir": "r" * 91}, "too long for a socket path"),
    ("htpp", {"listen": "127.0.0.1:0"}, "Did you mean http?"),
]
"""Section, what is set there, and words of the refusal; relative directories start at that of the configuration."""


def change(section: str, values: dict[str, Any], made: Document, directory: Path) -> None:
    for key, value in values.items():
        made.setdefault(section, {})[key] = str(directory / value) if section == "paths" else value


@contextlib.contextmanager
def several_at_once(directory: Path, made: Document) -> Iterator[str]:
    made["http"] |= {"listen": "80", "probe_listen": "81", "trusted_proxies": ["x"]}
    made["otel"] = {"endpoint": "collector"}
    made["nest"]["project_id"] = "123456789012"
    yield "5 problems"


@contextlib.contextmanager
def a_key_missing(directory: Path, made: Document) -> Iterator[str]:
    del made["cloudflare"]["app_secret"]
    yield "RELAY_CLOUDFLARE_APP_SECRET"


@contextlib.contextmanager
def from_the_environment(directory: Path, made: Document) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAY_RTSP_READ_TIMEOUT", "soon")
        patch.setenv("RELAY_HTTP_LISTEN", "19100")
        yield "environment variable RELAY_RTSP_READ_TIMEOUT: rtsp.read_timeout"


@contextlib.contextmanager
def an_address_taken(key: str, directory: Path, made: Document) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made["http"][key] = f"127.0.0.1:{taken.getsockname()[1]}"
        yield f"[http] {key}: cannot listen on"


@contextlib.contextmanager
def one_address_twice(directory: Path, made: Document) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    made["http"] |= {"listen": address, "probe_listen": address}
    yield "http.listen and http.probe_listen would both listen on port"


@contextlib.contextmanager
def an_address_of_the_bus(directory: Path, made: Document) -> Iterator[str]:
    """Its statistics are at the port after its own."""
    port = free_port()
    made["http"] |= {"listen": f"0.0.0.0:{port}", "token": TOKEN}
    made["cluster"] = {"bus_listen": f"127.0.0.1:{port - 1}"}
    yield f"http.listen and cluster.bus_listen would both listen on port {port} of 127.0.0.1"


@contextlib.contextmanager
def another_supervisor(key: str, directory: Path, made: Document) -> Iterator[str]:
    taken = Path(made["paths"][key])
    taken.mkdir()
    lock = StateLock(taken, key=key)
    lock.acquire()
    try:
        yield f"another supervisor (pid {os.getpid()}) is using {taken}"
    finally:
        lock.release()


@contextlib.contextmanager
def a_link_as_runtime_dir(directory: Path, made: Document) -> Iterator[str]:
    (directory / "elsewhere").mkdir()
    (directory / "run").symlink_to(directory / "elsewhere")
    yield "a symbolic link"


@contextlib.contextmanager
def a_link_to_nothing_as_state_dir(directory: Path, made: Document) -> Iterator[str]:
    (directory / "state").symlink_to(directory / "missing")
    yield "cannot be used"


@contextlib.contextmanager
def a_strangers_runtime_dir(directory: Path, made: Document) -> Iterator[str]:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    (directory / "run").mkdir()
    os.chown(directory / "run", 54321, -1)
    yield "belongs to another user (uid 54321)"


@contextlib.contextmanager
def a_libzmq_without_curve(directory: Path, made: Document) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zmq, "has", lambda capability: False)
        yield "libzmq was built without CURVE"


@contextlib.contextmanager
def compiled_without_a_compiler(directory: Path, made: Document) -> Iterator[str]:
    made["workers"] = {"data_path": "compiled"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(native, "_found", None)
        patched.setattr(native, "_why_not", "it was installed without a C compiler")
        yield "workers.data_path is compiled, and the compiled data path is not there"


@contextlib.contextmanager
def nowhere_to_publish(directory: Path, made: Document) -> Iterator[str]:
    del made["cloudflare"]
    made["whip"] = {"name": "studio", "url": "ftp://studio.example/"}
    yield "cameras would be published nowhere"


@contextlib.contextmanager
def watching_from_workers_in_a_cluster(directory: Path, made: Document) -> Iterator[str]:
    made["cluster"], made["local"] = dict(IN_PODS), {"listen": "127.0.0.1"}
    yield "has no address that they could reach"


@contextlib.contextmanager
def links_in_a_cluster_that_a_restart_ends(directory: Path, made: Document) -> Iterator[str]:
    made["cluster"] = dict(IN_PODS)
    made["http"]["token"] = TOKEN
    yield "viewers.link_secret is not set; a relay in a cluster (cluster.namespace) needs both"


@contextlib.contextmanager
def authorities_that_are_none(directory: Path, made: Document) -> Iterator[str]:
    file = directory / "authorities.pem"
    file.write_text("no certificate")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SSL_CERT_FILE", str(file))
        public_authorities.cache_clear()
        yield f"the authorities of SSL_CERT_FILE={file} cannot be used: it holds no certificate (PEM)"
    public_authorities.cache_clear()


SITUATIONS: list[Callable[[Path, Document], contextlib.AbstractContextManager[str]]] = [
    several_at_once,
    a_key_missing,
    from_the_environment,
    functools.partial(an_address_taken, "listen"),
    functools.partial(an_address_taken, "probe_listen"),
    one_address_twice,
    an_address_of_the_bus,
    functools.partial(another_supervisor, "state_dir"),
    functools.partial(another_supervisor, "runtime_dir"),
    a_link_as_runtime_dir,
    a_link_to_nothing_as_state_dir,
    a_strangers_runtime_dir,
    watching_from_workers_in_a_cluster,
    links_in_a_cluster_that_a_restart_ends,
    a_libzmq_without_curve,
    compiled_without_a_compiler,
    nowhere_to_publish,
    authorities_that_are_none,
]
"""What the values alone do not show: sets it up, yields words of the refusal, and clears up."""


def started(number: int, frame: object) -> None:
    raise AssertionError("`run` was not refused")


def both(directory: Path, made: Document, text: str = "") -> tuple[Result, Result]:
    """What `run` and `check` say about a configuration."""
    file = directory / "relay.toml"
    file.touch(mode=0o600)
    file.write_text(text or toml(made))
    previous = signal.signal(signal.SIGALRM, started)
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    try:
        return tuple(  # type: ignore[return-value]
            CliRunner().invoke(cli, [verb, "--config", str(file), *more])
            for verb, more in (("run", []), ("check", ["--json"]))
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def agree(ran: Result, checked: Result, words: str) -> None:
    """Both refuse, and each thing that `run` says is among what `check` finds."""
    assert ran.exit_code in (1, 2), (ran.output, ran.exception)
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert words in ran.output
    assert checked.exit_code == 1, checked.output
    bad = [finding for finding in json.loads(checked.stdout)["findings"] if finding["verdict"] == "failed"]
    found = {form for f in bad for form in (f["text"], f"{f['text']}. {f['remedy']}")}
    head, *problems = ran.output.strip().removeprefix("Error: ").splitlines()
    for said in [problem.strip() for problem in problems] or [head]:
        assert said in found, f"{said!r} is not among {sorted(found)}"


@pytest.mark.parametrize(
    ("section", "values", "words"), VALUES, ids=[f"{row[0]}-{'-'.join(row[1])}-{n}" for n, row in enumerate(VALUES)]
)
def test_what_run_refuses_check_reports(
    section: str, values: dict[str, Any], words: str, tmp_path: Path, made: Document
) -> None:
    change(section, values, made, tmp_path)
    agree(*both(tmp_path, made), words)


@pytest.mark.parametrize("situation", SITUATIONS, ids=[str(number) for number in range(len(SITUATIONS))])
def test_what_stands_in_runs_way_check_sees(
    situation: Callable[[Path, Document], contextlib.AbstractContextManager[str]], tmp_path: Path, made: Document
) -> None:
    with situation(tmp_path, made) as words:
        agree(*both(tmp_path, made), words)


@pytest.mark.parametrize("text", ["[nest\n", "client_id = abc"])
def test_what_is_not_toml_is_said_alike(text: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    agree(*both(tmp_path, {}, text), str(file))


def test_every_rule_has_a_row() -> None:
    """A rule that no row breaks could say something else in `check`, or be forgotten there."""
    situations = {"bus": a_libzmq_without_curve, "workers.data_path": compiled_without_a_compiler}
    situations |= {"whip": nowhere_to_publish, "addresses": an_address_of_the_bus}
    situations |= {"authorities": authorities_that_are_none}
    broken = {key for key, situation in situations.items() if situation in SITUATIONS}
    broken |= {section for section, _, _ in VALUES} | {
        f"{section}.{key}" for section, keys, _ in VALUES for key in keys
    }
    assert _RULES.keys() <= broken
