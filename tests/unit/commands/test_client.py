"""How the command line finds the supervisor and the camera that is meant."""

from __future__ import annotations

import http.server
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay_common import config_file
from relay_common.config import HttpConfig, PathsConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.commands.cli import Failure, cli
from relay_supervisor.commands.client import CameraSummary, RelayClient, connect, pick, require_writable

CAMERAS = [
    CameraSummary(id="3f9a01c2", name="Front Door", device="…abcdEFGH"),
    CameraSummary(id="00c0ffee", name="Garage", device="…xxxx0001"),
    CameraSummary(id="0ddba11d", name="Garage", device="…xxxx0002"),
]


@pytest.mark.parametrize("name", ["Front Door", "front door", "3f9a01c2", "AVPHwE-long-device-id-abcdEFGH"])
def test_a_camera_is_meant_by_name_id_or_device(name: str) -> None:
    assert pick(CAMERAS, name).id == "3f9a01c2"


def test_two_cameras_of_one_name_need_an_id() -> None:
    with pytest.raises(Failure, match=r"00c0ffee.*0ddba11d") as failure:
        pick(CAMERAS, "garage")
    assert failure.value.exit_code == 1


def test_a_misspelt_name_is_corrected() -> None:
    with pytest.raises(Failure, match="Did you mean 'Front Door'"):
        pick(CAMERAS, "frnt door")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer a-token-of-24-characters"
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler] = _Handler) -> Iterator[int]:
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_file_that_cannot_be_written_is_said_before_anything_is_asked_for(tmp_path: Path) -> None:
    for fine in ("-", str(tmp_path / "x.pcapng"), "x.pcapng"):
        require_writable(fine)
    with pytest.raises(Failure, match="there is no directory /nonexistent"):
        require_writable("/nonexistent/x.pcapng")
    if os.getuid():
        with pytest.raises(Failure, match="permission denied"):
            require_writable("/proc/x.pcapng")


def test_without_a_socket_it_is_tcp_with_the_token(tmp_path: Path) -> None:
    paths = PathsConfig(runtime_dir=str(tmp_path))
    with serving() as port:
        # The last one is not an address as the kernel lists it: like a name, it has to be resolved.
        for host in ("0.0.0.0", "127.0.0.1", "localhost", "127.1"):
            http = HttpConfig(listen=f"{host}:{port}", token=Secret("a-token-of-24-characters"))
            with RelayClient(paths, http) as client:
                assert client.get("/api/stats") == b"{}", host
        listen = f"0.0.0.0:{port}"
        with RelayClient(paths, HttpConfig(listen=listen)) as client, pytest.raises(Failure, match="token") as failure:
            client.get("/api/stats")
        assert failure.value.exit_code == 2


def test_a_token_that_cannot_be_sent_is_named_and_not_shown(tmp_path: Path) -> None:
    """The HTTP library quotes such a header in its error."""
    with serving() as port:
        http = HttpConfig(listen=f"127.0.0.1:{port}", token=Secret("schlüssel-aus-umlauten"))
        with RelayClient(PathsConfig(runtime_dir=str(tmp_path)), http) as client, pytest.raises(ConfigError) as error:
            client.get("/api/stats")
    assert "characters that cannot be sent" in str(error.value)
    assert "umlauten" not in str(error.value)


@pytest.mark.parametrize("verb", ["run", "check", "auth", "demo"])
def test_a_verb_for_all_accounts_takes_none_by_name(verb: str) -> None:
    refused = CliRunner().invoke(cli, ["--account", "home", verb])
    assert refused.exit_code == 2
    assert f"--account home: '{verb}' is for all accounts" in refused.output


@pytest.mark.parametrize(
    ("code", "words"), [("not_found", "leave out --account ho/me"), ("unknown_account", "has no account ho/me")]
)
def test_an_account_that_is_not_there_is_named(tmp_path: Path, code: str, words: str) -> None:
    asked: list[str] = []

    class Handler(_Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = f'{{"error": {{"code": "{code}", "message": "Not Found"}}}}'.encode()
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as port:
        http = HttpConfig(listen=f"127.0.0.1:{port}")
        client = RelayClient(PathsConfig(runtime_dir=str(tmp_path)), http, "ho/me")
        with client, pytest.raises(Failure, match=words) as failure:
            client.get("/api/stats")
    assert failure.value.exit_code == 2
    assert asked == ["/accounts/ho%2Fme/api/stats"]


OTHERS = """
import os, socket
os.setuid(54321)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    print("ASKED", connection.recv(65536), flush=True)
    connection.close()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start another user's process")
def test_the_token_is_not_sent_to_another_users_process(tmp_path: Path) -> None:
    paths = PathsConfig(runtime_dir=str(tmp_path / "run"), state_dir=str(tmp_path / "state"))
    stranger = subprocess.Popen([sys.executable, "-c", OTHERS], stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout is not None
        http = HttpConfig(
            listen=f"127.0.0.1:{int(stranger.stdout.readline())}", token=Secret("a-token-of-24-characters")
        )
        with RelayClient(paths, http) as client, pytest.raises(Failure, match="the token was not sent") as failure:
            client.get("/api/stats")
        assert failure.value.exit_code == 3
        assert "uid 54321" in str(failure.value)
    finally:
        stranger.kill()
    assert stranger.stdout.read() == "", "it was asked"
    stranger.wait()


def test_secrets_that_a_client_may_not_read_do_not_hinder_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        '[nest]\nclient_secret_file = "nowhere"\n[http]\ntoken_file = "nowhere"\n[paths]\nruntime_dir = "/r"\n'
    )
    paths, http = config_file.load_interface(file, {"RELAY_HTTP_LISTEN": "127.0.0.1:9000"})
    assert paths.socket() == Path("/r/http.sock")
    assert (http.listen, bool(http.token)) == ("127.0.0.1:9000", False)


def test_a_file_that_is_no_toml_still_says_where_the_supervisor_is(tmp_path: Path) -> None:
    """Who has just broken it wants to know how the relay is, and has it reload the mended one."""
    file, said = tmp_path / "relay.toml", list[str]()
    interface = '[paths]\nruntime_dir = "/r"\n  [http] # where\nlisten = "127.0.0.1:9001"\n'
    file.write_text(f'{interface}[nest]\nclient_id = "one" "two"\n')
    with pytest.raises(config_file.NotToml), connect(file, tell=None):
        pass
    with (
        connect(file, tell=said.append) as client,
        pytest.raises(Failure, match=r"/r/http\.sock or http://127\.0\.0\.1:9001"),
    ):
        client.get("/livez")
    assert said[0].startswith(f"{file} is not valid TOML")
    assert said[0].endswith("is asked nevertheless, at /r/http.sock")
    file.write_bytes(interface.replace("/r", "/s").encode() + b'[http.more]\nx = "\xff')
    paths, http = config_file.salvage_interface(file, {})
    assert (str(paths.socket()), http.listen) == ("/s/http.sock", "127.0.0.1:9001")
    file.write_text("[paths]\nruntime_dir = /r\n")
    assert config_file.salvage_interface(file, {"RELAY_PATHS_RUNTIME_DIR": "/e"})[0].socket() == Path("/e/http.sock")
    file.write_text("[paths]\nruntime_dri = '/r'\n[")
    with pytest.raises(ConfigError, match="runtime_dir"):
        config_file.salvage_interface(file, {})
