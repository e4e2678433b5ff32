"""Every command that the documentation shows works as it stands there, on a running relay in a sandbox.

What cannot be run here is in `NOT_RUN`, each with the reason and, where something else runs it, with that. Text between
backticks that is no complete command (`relay-supervisor dump`) at least names a verb that there is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from starlette.routing import Route

from relay_common.config import SECTIONS, keys_of
from relay_common.simulation.control import routes as google_control
from relay_common.simulation.sfu.control import routes as sfu_control
from relay_common.simulation.sfu.simulator import SfuSimulator
from relay_common.simulation.world import World, WorldConfig
from relay_supervisor.commands.cli import cli
from relay_worker.debug import cli as worker
from tests.fixtures.cli_world import CliWorld, invoke, live_cli_world
from tests.fixtures.doc_commands import PAGES, ROOT, Shown, blocks, configurations, inline

pytestmark = pytest.mark.media

NOT_RUN: Final = {
    r"make demo.*|relay-supervisor demo": "ends by Ctrl-C only: tests/integration/test_survival.py",
    r".venv/bin/python -m relay_common.simulation .*": "runs already: tests/fixtures/cli_world.py",
    r"make test": "this is a part of it",
    r"make (test-)?cluster": "builds Kubernetes, and runs tests/cluster/test_manifests.py on it",
    r"make wheel.*": "builds in the source tree: tests/integration/test_wheel.py builds and tries the wheel",
    r"relay-supervisor auth": "asks a person questions: tests/integration/test_cli.py",
    r"relay-supervisor run( -c relay.toml)?": "is what the others are run on: tests/fixtures/cli_world.py",
    r"relay-supervisor stop --keep-workers.*": "would end the relay here: tests/integration/test_cli.py",
    r"relay-worker debug.*": "needs the URL of a stream: tests/unit/worker/test_debug.py",
    r"pipx install .*": "downloads from PyPI: tests/integration/test_wheel.py installs the wheel",
    r"sudo python3 -m venv .*|sudo /opt/nest-relay/bin/pip .*": "downloads from PyPI: deploy/check-containers.sh",
    r"sudo (systemctl|systemd-sysusers).*|journalctl .*": "needs systemd as the first process: nothing runs it",
    r"(sudo )?docker .*|sudo deploy/check-containers.sh": "needs a container engine: deploy/check-containers.sh",
    r"sudo chown .*": "needs root, to give files away: deploy/check-containers.sh",
    r"relay-supervisor --account \S+ .*": "needs a cluster with several accounts: tests/unit/http/test_accounts.py",
    r"relay-supervisor move (to|from)-cluster": "needs a cluster: tests/cluster/test_move.py",
    r"cd .*|(sed .* \| )?kubectl .*|cp (../)+relay.toml .*": "on a cluster: tests/cluster/test_manifests.py",
}
"""Patterns of whole commands, with the reason and the file that stands in for it."""
ENDLESS: Final = ("--watch", "--follow", " -f")
"""Options of commands that go on until they are interrupted."""
VERB_ALONE: Final = frozenset(("dump",))
"""Verbs that the text names without their arguments."""
_VENV: Final = re.compile(r"(sudo )?(\.venv|/opt/nest-relay)/bin/(?=relay-)")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliWorld]:
    with live_cli_world(tmp_path_factory.mktemp("docs"), "--cameras", "1", names=("Front_Door",)) as world:
        yield world


def plain(command: str) -> str:
    """A command without the directory of the program, which differs from page to page."""
    return _VENV.sub("", command)


def reason(command: str) -> str:
    """Why a command is not run; empty when it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, plain(command))), "")


def filled_in(command: str, world: CliWorld) -> str:
    """A command with this relay's port and paths, and a camera's name in place of NAME."""
    text = plain(command).replace("127.0.0.1:8080", f"127.0.0.1:{world.port}")
    text = re.sub(r"\b(NAME|CAMERA)\b", "'Front Door'", text)
    if text.startswith("relay-supervisor"):
        return text.replace(" -c /etc/nest-relay/relay.toml", "")
    return text.removeprefix("sudo ").replace("/etc/", f"{world.directory}/etc/").replace("deploy/", f"{ROOT}/deploy/")


def outcome(command: str, world: CliWorld) -> str:
    """Run a command in the sandbox; returns what is wrong, empty when it worked."""
    words = shlex.split(command)
    if words[0] == "relay-supervisor" and command.endswith(ENDLESS):
        return _interrupted(words[1:], world)
    if words[0] == "relay-supervisor":
        if words[1:2] and words[1] in VERB_ALONE and len(words) == 2:
            words.append("--help")
        result = invoke(*words[1:])
        return "" if result.exit_code == 0 else f"exit code {result.exit_code}: {result.output}"
    if shutil.which(words[0]) is None and not os.environ.get("RELAY_REQUIRE_BROWSER"):
        return ""  # what .ci/run installs, another machine may lack
    control = {name.upper(): address for name, address in world.endpoints["control"].items()}
    environ = os.environ | {"HOME": str(world.directory)} | control
    shell = subprocess.run(
        ["sh", "-ec", command], cwd=world.directory, env=environ, input="x", capture_output=True, text=True, timeout=60
    )
    return "" if shell.returncode == 0 else f"exit code {shell.returncode}: {shell.stdout}{shell.stderr}"


def _interrupted(arguments: list[str], world: CliWorld) -> str:
    """What is wrong with a command that goes on until it is interrupted, once it has said something."""
    program = [sys.executable, "-m", "relay_supervisor", *arguments]
    with subprocess.Popen(program, cwd=world.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        return "" if running.wait(30) == 0 and first else (first + rest).decode()


def test_every_command_works(world: CliWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.directory)
    for name in ("systemd/system", "sysusers.d", "nest-relay"):
        (world.directory / "etc" / name).mkdir(parents=True)
    shown: dict[str, Shown] = {}
    for one in [*blocks(), *inline()]:
        if not reason(one.text):
            shown.setdefault(filled_in(one.text, world), one)
    # What takes the camera away comes last.
    order = sorted(shown, key=lambda command: any(f" {verb} " in command for verb in ("restart", "disable")))
    wrong = {shown[command]: said for command in order if (said := outcome(command, world))}
    assert wrong == {}
    assert len(order) > 25, "commands were found"


def test_each_reason_is_needed_and_points_at_a_file() -> None:
    everything = [plain(one.text) for one in [*blocks(), *inline()]]
    for pattern, why in NOT_RUN.items():
        assert any(re.fullmatch(pattern, command) for command in everything), f"{pattern} stands on no page"
        for file in re.findall(r"(?:tests|deploy)/\S+\.\w+", why):
            assert (ROOT / file).exists(), file
    assert {one.page for one in [*blocks(), *inline()]} == set(PAGES)


def test_programs_that_are_not_run_take_the_options_that_are_shown() -> None:
    for one in [*blocks(), *inline()]:
        program, *words = shlex.split(plain(one.text).partition(" && ")[0])
        if program not in ("relay-supervisor", "relay-worker") or not reason(one.text) or not words:
            continue
        group = cli if program == "relay-supervisor" else worker
        while words[0].startswith("-"):  # what is said before the verb
            (option,) = (parameter for parameter in group.params if words[0] in parameter.opts)
            del words[: 1 if option.is_flag else 2]  # type: ignore[attr-defined]
        verb = group.get_command(None, words[0])  # type: ignore[arg-type]
        assert verb is not None, one
        known = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words[1:] if word.startswith("-")} <= known, one


@pytest.mark.parametrize("shown", configurations(), ids=lambda shown: Path(shown.page).stem)
def test_configuration_that_is_shown_has_keys_that_there_are(shown: Shown) -> None:
    lines = [line for line in shown.text.splitlines() if not line.startswith("<")]
    for name, found in tomllib.loads("\n".join(lines)).items():
        for key, value in (found[0] if isinstance(found, list) else found).items():
            section, keys = (f"{name}.{key}", value) if isinstance(value, dict) else (name, {key: value})
            assert keys.keys() <= keys_of(SECTIONS[section]), shown


def test_the_simulators_control_interface_is_described(tmp_path: Path) -> None:
    described = set(re.findall(r"`((?:GET|POST) /control\S*)`", (ROOT / "docs/simulators.md").read_text()))
    world = World(WorldConfig(workdir=tmp_path))
    served = [*google_control(world._make_home()), *sfu_control(SfuSimulator())]
    assert described == {
        f"{method} {route.path}"
        for route in served
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
