"""The command line of the supervisor: its verbs, and the options they share.

Exit codes: 0 done, 1 it did not work, 2 wrong usage or configuration, 3 no supervisor answers.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from relay_common import VERSION, config_file
from relay_common.config import Config
from relay_common.errors import ConfigError, RelayError
from relay_common.secrets import redact

_NAME: Final = "relay-supervisor"
_COMMAND: Final = re.compile(rf"`{_NAME} ([a-z]*)")
_ACCOUNT: Final = "relay_supervisor.account"
_CHOSEN: Final = "relay_supervisor.config"
"""Where contexts keep the path that was given with `-c`."""

VERBS = (
    "run",
    "demo",
    "auth",
    "check",
    "cameras",
    "status",
    "add",
    "remove",
    "enable",
    "disable",
    "restart",
    "keyframe",
    "snapshot",
    "links",
    "unlink",
    "drain",
    "stop",
    "reload",
    "logs",
    "dump",
    "move",
)


_FOR_ALL_ACCOUNTS: Final = ("run", "demo", "auth", "check")
"""Verbs that are never for one account."""
OF_ONE_CAMERA = frozenset(("add", "remove", "enable", "disable", "restart", "keyframe"))
"""Verbs that take a camera's name and nothing else: the rows of `camera_verbs.VERBS`."""


def program() -> str:
    """This program as it can be typed here: by its name if a shell finds it, else as it was started."""
    started = Path(sys.argv[0] or _NAME)
    found = shutil.which(_NAME)
    if started.name == _NAME and not (found and started.exists() and os.path.samefile(found, started)):
        return str(started)
    if started.name == "__main__.py" and started.parent.name == "relay_supervisor":
        return f"{sys.executable} -m relay_supervisor"
    return _NAME


def typed(text: str) -> str:
    """`text` with the commands in it as they can be typed here; they are written `relay-supervisor VERB`.

    Where this one was given a configuration with `-c`, the others get it, too.
    """
    context = click.get_current_context(silent=True)
    chosen = context.meta.get(_CHOSEN) if context is not None else None

    def command(found: re.Match[str]) -> str:
        option = f" -c {shlex.quote(str(chosen))}" if chosen and found[1] in VERBS and found[1] != "demo" else ""
        return f"`{program()} {found[1]}{option}"

    return _COMMAND.sub(command, text)


class Failure(click.ClickException):
    """An error for people, with one of the exit codes documented above."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(redact(typed(message)))
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Exit code of the process."""
        return self._exit_code


class VerbGroup(click.Group):
    """Finds each verb in `relay_supervisor.commands`, importing only the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        if cmd_name in OF_ONE_CAMERA:
            verbs = importlib.import_module("relay_supervisor.commands.camera_verbs")
            command = verbs.make_command(cmd_name)
        else:
            command = importlib.import_module(f"relay_supervisor.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else typed("`relay-supervisor --help` lists the verbs.")
            raise click.UsageError(f"There is no verb {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Failure(str(error), exit_code=2) from None
        except RelayError as error:
            raise Failure(str(error)) from None
        except OSError as error:
            # What a verb writes elsewhere it tells of itself. A closed pipe is click's, and these two write much else.
            if error.errno == errno.EPIPE or error.filename is not None or ctx.invoked_subcommand in ("run", "demo"):
                raise
            # What is still buffered would fail once more at the end, with words of the interpreter's own.
            if sys.stdout is sys.__stdout__:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise Failure(f"The output cannot be written: {error.strerror}") from None


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="relay-supervisor")
@click.option("--account", default="", metavar="NAME", help="Ask that one of several accounts (nest.account).")
@click.pass_context
def cli(context: click.Context, account: str) -> None:
    """Relays Google Nest cameras to the web, live, one process per camera.

    \b
    Try it without any account:      relay-supervisor demo
    Set it up with your cameras:     relay-supervisor auth
                                     relay-supervisor check
                                     relay-supervisor run
    While it runs:                   relay-supervisor status --watch

    \b
    Exit codes: 0 done, 1 it did not work, 2 wrong usage or configuration, 3 no supervisor answers.
    Several accounts (nest.account): relay-supervisor --account home logs
    Completion: eval "$(_RELAY_SUPERVISOR_COMPLETE=bash_source relay-supervisor)" in ~/.bashrc
                eval "$(_RELAY_SUPERVISOR_COMPLETE=zsh_source relay-supervisor)"  in ~/.zshrc
                _RELAY_SUPERVISOR_COMPLETE=fish_source relay-supervisor | source  in fish
    """
    if account and context.invoked_subcommand in _FOR_ALL_ACCOUNTS:
        raise click.UsageError(f"--account {account}: {context.invoked_subcommand!r} is for all accounts; leave it out")
    context.meta[_ACCOUNT] = account


def chosen_account() -> str:
    """The account that was named with `--account`; "" for none."""
    context = click.get_current_context(silent=True)
    return str(context.meta.get(_ACCOUNT, "")) if context is not None else ""


def _remember(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        context.meta[_CHOSEN] = value
    return value


config_option = click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="RELAY_CONFIG",
    default="relay.toml",
    show_default=True,
    callback=_remember,
    help="Configuration file (TOML). Any key can also be set as RELAY_SECTION_KEY in the environment.",
)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def load(path: Path) -> Config:
    """The configuration at `path`; mistakes end the command with exit code 2."""
    return config_file.load(path)
