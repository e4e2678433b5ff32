"""What holds for every verb: help with an example, --json, and errors that say what to do, with their exit codes."""

from __future__ import annotations

import ast
import http.server
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from relay_common.simulation import __main__ as simulation
from relay_supervisor.commands.cli import VERBS, cli
from tests.fixtures.product_source import files, nodes

NAMED = ("add", "remove", "enable", "disable", "restart", "keyframe", "snapshot")
ASKING = (*NAMED, "status", "drain", "stop", "reload", "logs")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert f"\n  relay-supervisor {verb}" in result.output


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("run", "dump")])
def test_answers_come_as_json_too(verb: str) -> None:
    assert "--json" in CliRunner().invoke(cli, [verb, "--help"]).output


def test_help_of_the_program_tells_exit_codes_and_completion() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    assert "3 no supervisor answers" in text
    assert "_RELAY_SUPERVISOR_COMPLETE=bash_source" in text
    assert all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", ASKING)
def test_without_a_supervisor_the_exit_code_is_3(verb: str, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(f'[paths]\nruntime_dir = "{tmp_path}"\n[http]\nlisten = "127.0.0.1:9"\n')
    name = ["Front Door"] if verb in NAMED else []
    result = CliRunner().invoke(cli, [verb, *name, "--config", str(config)])
    assert result.exit_code == 3, result.output
    assert "relay-supervisor run" in result.output
    assert str(tmp_path / "http.sock") in result.output


@pytest.mark.parametrize("verb", ["status", "run", "cameras"])
def test_a_configuration_that_is_not_there_or_wrong_is_2(verb: str, tmp_path: Path) -> None:
    missing = CliRunner().invoke(cli, [verb, "--config", str(tmp_path / "missing.toml")])
    assert missing.exit_code == 2
    assert "does not exist" in missing.output
    wrong = tmp_path / "relay.toml"
    wrong.write_text("[http]\nlisten = 8080\n")
    result = CliRunner().invoke(cli, [verb, "--config", str(wrong)])
    assert result.exit_code == 2
    assert "http.listen" in result.output


def test_an_unknown_verb_is_2() -> None:
    assert CliRunner().invoke(cli, ["strat"]).exit_code == 2


@pytest.mark.parametrize("verb", ["status", "check", "stop"])
def test_an_address_that_is_none_is_said_in_words(verb: str, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text('[http]\nlisten = "127.0.0.1:eighty"\n')
    result = CliRunner().invoke(cli, [verb, "--config", str(config)])
    assert result.exit_code in (1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit), "no traceback"


@pytest.mark.parametrize("size", ["big", "9x9", "321x180", "320x181", "62x64", "0x0", "100000x100000", "640x360x2"])
def test_a_size_that_no_simulated_camera_has_is_refused_in_words(size: str) -> None:
    result = CliRunner().invoke(cli, ["demo", "--size", size])
    assert result.exit_code == 2, result.output
    assert f"'{size}' is no picture size: write WIDTHxHEIGHT" in " ".join(result.output.split())


@pytest.mark.parametrize("size", ["big", "62x64", "321x180"])
def test_the_simulators_alone_refuse_it_as_well(size: str) -> None:
    result = CliRunner().invoke(simulation.main, ["--size", size])
    assert result.exit_code == 2, result.output
    assert "--size" in result.output


def test_a_taken_port_is_said_before_the_demo_encodes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(cli, ["demo", "--port", str(port)])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.output
    assert '--port 0 (make demo ARGS="--port 0")' in result.output
    assert "starting" not in result.output
    assert "[http]" not in result.output


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("{tmp}/relay-supervisor", "{tmp}/relay-supervisor"),
        ("{on_path}/relay-supervisor", "relay-supervisor"),
        ("/x/relay_supervisor/__main__.py", f"{sys.executable} -m relay_supervisor"),
        ("/usr/bin/pytest", "relay-supervisor"),
    ],
)
def test_commands_in_messages_can_be_typed(
    argv: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = tmp_path / "bin"
    on_path.mkdir()
    for folder in (tmp_path, on_path):
        (folder / "relay-supervisor").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setattr(sys, "argv", [argv.format(tmp=tmp_path, on_path=on_path)])
    missing = CliRunner().invoke(cli, ["status", "--config", str(tmp_path / "missing.toml")]).output
    assert f"Run `{shown.format(tmp=tmp_path)} auth -c {tmp_path}/missing.toml` to create one" in missing
    monkeypatch.chdir(tmp_path)
    assert f"Run `{shown.format(tmp=tmp_path)} auth` to make one" in CliRunner().invoke(cli, ["check"]).output
    result = CliRunner().invoke(cli, ["check"], env={"RELAY_CONFIG": "other.toml"})
    assert f"Run `{shown.format(tmp=tmp_path)} auth` to make one" in result.output, "it is in the shell already"
    result = CliRunner().invoke(cli, ["check", "-c", "two words.toml"])
    assert f"`{shown.format(tmp=tmp_path)} auth -c 'two words.toml'`" in result.output


def test_a_misspelt_verb_is_corrected() -> None:
    assert "Did you mean 'status'?" in CliRunner().invoke(cli, ["statsu"]).output
    assert "--help" in CliRunner().invoke(cli, ["xyzzy"]).output


def test_no_message_points_at_what_the_wheel_lacks() -> None:
    """The wheel holds the three packages: no docs/, no deploy/, no Makefile."""
    missing = re.compile(r"\b(docs|deploy|tests|findings)/|\bmake (demo|test|quick|unit|wheel)\b|\b(README|Makefile)\b")
    found = {}
    for path in files():
        alone = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}  # docstrings
        for node in nodes(path):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in alone else ""
            if isinstance(text, str) and missing.search(text):
                found[path.name] = text
    assert found.keys() == {"demo.py"}, found  # says so only where make started it


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_said_in_words(tmp_path: Path, unbuffered: str) -> None:
    """As where a job keeps a report on a disk that is full."""
    verb = [sys.executable, "-m", "relay_supervisor", "check", "--config", str(tmp_path / "none.toml")]
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            verb, stdout=full, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3], env=environ
        )
    assert ran.stderr == "Error: The output cannot be written: No space left on device\n"
    assert ran.returncode == 1


@pytest.mark.parametrize("link", ["", "../../stop", "?all=1"])
def test_a_link_that_is_none_reaches_nothing_else(link: str, tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        at = {"RELAY_PATHS_RUNTIME_DIR": str(tmp_path), "RELAY_HTTP_LISTEN": f"127.0.0.1:{server.server_address[1]}"}
        refused = CliRunner().invoke(cli, ["unlink", link], env=at)
        server.shutdown()
    assert refused.exit_code == 1, refused.output
    assert asked == ([f"/api/links/{quote(link, safe='')}"] if link else [])
