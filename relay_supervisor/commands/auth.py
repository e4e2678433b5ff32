"""`relay-supervisor auth`: Google's set-up, step by step."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import msgspec

from relay_common.clock import SystemClock
from relay_common.config import NestConfig
from relay_common.config_mistakes import overheard
from relay_common.errors import ConfigError, RelayError
from relay_common.loopback import is_loopback
from relay_common.secrets import Secret
from relay_supervisor.commands import home, setup_files
from relay_supervisor.commands.cli import Failure, config_option, json_option, typed
from relay_supervisor.commands.client import connect
from relay_supervisor.google import credentials, grant
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.leases.account import open_api
from relay_supervisor.google.models import Device
from relay_supervisor.google.oauth import REDIRECT_URI, authorize_url

_DEFAULTS: Final = NestConfig(project_id="-", client_id="-", client_secret=Secret(""), refresh_token=Secret(""))
_FIRST: Final = f"""\
Before the first time, in a browser where the Google account that owns the cameras is signed in:
  1. console.cloud.google.com: make a project and enable the Smart Device Management API.
  2. There, OAuth consent screen: External; fill in name and e-mail; then "Publish app". Left in "Testing", the
     authorisation expires after 7 days.
  3. There, Credentials: make an OAuth client of type Web application with the redirect URI {REDIRECT_URI}
  4. console.nest.google.com/device-access: pay US$5 once and make a project with that client id. Events can stay off.
"""
_TESTING: Final = (
    'With the consent screen in "Testing" this authorisation expires in 7 days: `status` and `check` warn before that. '
    'Better: "Publish app" on the consent screen (no verification is needed), then run `relay-supervisor auth` again.'
)


@click.command("auth")
@click.option("--project-id", help="Device Access project id (a UUID).")
@click.option("--client-id", help="OAuth client id.")
@click.option("--code", metavar="URL", help="The address you landed on, or its code, instead of being asked for it.")
@click.option("--published/--testing", default=None, help="State of the OAuth consent screen, instead of being asked.")
@click.option(
    "--home", "at_home", metavar="ADDRESS", help="Without Cloudflare: watch at this address of the machine only."
)
@click.option("--yes", "-y", is_flag=True, help="Replace existing files without asking.")
@click.option("--api-base-url", default=None, help="Another SDM API, for simulators.")
@click.option("--token-url", default=None, help="Another token endpoint, for simulators.")
@config_option
@json_option
def command(
    project_id: str | None,
    client_id: str | None,
    code: str | None,
    published: bool | None,
    at_home: str | None,
    yes: bool,
    api_base_url: str | None,
    token_url: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Authorise the relay with Google, and write the configuration.

    Asks for what is missing, says where to find it, and tells the three kinds of "project" apart. Writes the
    configuration if there is none, and one file (mode 0600) for each secret. With a complete configuration it only
    renews the authorisation, which a running supervisor picks up without a restart. The client secret can also come
    from RELAY_NEST_CLIENT_SECRET.

    \b
    relay-supervisor auth
    relay-supervisor auth --home 127.0.0.1
    relay-supervisor auth --config /etc/nest-relay/relay.toml
    relay-supervisor auth --code 'https://www.google.com/?code=4/0Ab…&scope=…'
    """
    existing = setup_files.read(config_path)
    _check_home(at_home, existing, config_path)
    base = config_path.parent
    if not existing.document:
        _say(_FIRST)
    nest = _settings(existing, base, project_id, client_id, api_base_url, token_url)
    if published is None:
        published = click.confirm('Is the OAuth consent screen published ("In production")?', default=False, err=True)
    if not published:
        _say(click.style(_TESTING, fg="yellow"))
    files = setup_files.SetupFiles(config_path, existing)
    # Whatever has to be asked is asked before Google's link is opened: what it grants is written at once, so that an
    # interrupt cannot lose it.
    _may_replace(files.replaced(nest), yes)
    nest = msgspec.structs.replace(nest, refresh_token=_authorise(nest, code))
    notes = files.write(nest)
    grant.remember(existing.state_dir, nest.refresh_token, time.time(), published=published)
    _say("Google has granted access.")
    for note in notes:
        _say(note)
    if not existing.document and at_home is not None:
        _home(files, nest, at_home)
    elif not existing.document:
        _cloudflare(files, nest, yes)
    devices = asyncio.run(_cameras(nest))
    reloaded = _tell_supervisor(config_path)
    if as_json:
        report = {"config": str(config_path), "reloaded": reloaded, "cameras": [_report(one) for one in devices]}
        click.echo(msgspec.json.encode(report).decode())
        return
    _list_cameras(devices)
    _say("The running supervisor uses it now." if reloaded else "Next: `relay-supervisor check`")


def _settings(
    existing: setup_files.Existing,
    base: Path,
    project_id: str | None,
    client_id: str | None,
    api_base_url: str | None,
    token_url: str | None,
) -> NestConfig:
    """The settings from options, configuration and prompts, checked; without a refresh token."""
    nest = NestConfig(
        project_id=_value(
            "Device Access project id",
            project_id or existing.nest("project_id"),
            credentials.project_id_problem,
            "--project-id",
        ),
        client_id=_value(
            "OAuth client id", client_id or existing.nest("client_id"), credentials.client_id_problem, "--client-id"
        ),
        client_secret=Secret(
            _value(
                "OAuth client secret",
                os.environ.get("RELAY_NEST_CLIENT_SECRET") or existing.secret("client_secret", base),
                credentials.client_secret_problem,
                "RELAY_NEST_CLIENT_SECRET",
                hidden=True,
            )
        ),
        refresh_token=Secret(""),
        api_base_url=api_base_url or existing.nest("api_base_url") or _DEFAULTS.api_base_url,
        token_url=token_url or existing.nest("token_url") or _DEFAULTS.token_url,
    )
    for key in ("api_base_url", "token_url"):
        if wrong := overheard("nest", key, nest):
            raise Failure(wrong, 2)
    return nest


def _list_cameras(devices: list[Device]) -> None:
    click.echo(f"{len(devices)} cameras:")
    for device in devices:
        click.echo(f"  {device.display_name:<24} {device.protocol.value:<8} {device.resolution}")
    if not devices:
        click.echo("  none: open the link again and switch on the home and its cameras")


def _value(what: str, given: str, problem: Callable[[str], str], option: str, *, hidden: bool = False) -> str:
    """The given value, or one prompted for until its form is right; `option` gives another than the file's."""
    if given and (wrong := problem(given.strip())):
        raise Failure(f"{what}: {wrong}. Give the right one with {option}: it replaces the one in the file", 2)
    while not given:
        answer = str(click.prompt(what, hide_input=hidden, err=True)).strip()
        if wrong := problem(answer):
            _say(click.style(wrong, fg="yellow"))
        else:
            given = answer
    return given.strip()


def _authorise(nest: NestConfig, code: str | None) -> Secret:
    """The refresh token for the given code, or for what is pasted until it works."""
    if code is None:
        _say(
            "\nOpen this link in the browser, as the Google account that owns the cameras. Switch on the home and\n"
            'every camera, go past "Google hasn\'t verified this app" (Advanced, Go to …), allow, and allow again:\n\n'
            f"  {authorize_url(nest.project_id, nest.client_id)}\n\n"
            "You land on Google's start page: copy its whole address."
        )
    while True:
        pasted = code if code is not None else click.prompt("Address or code", err=True)
        try:
            return credentials.exchange(
                credentials.find_code(str(pasted)),
                client_id=nest.client_id,
                client_secret=nest.client_secret,
                token_url=nest.token_url,
            )
        except RelayError as error:
            if code is not None:
                raise
            _say(click.style(str(error), fg="yellow"))


async def _cameras(nest: NestConfig) -> list[Device]:
    """Call devices.list, which also completes the link on Google's side."""
    api, tokens, http = open_api(nest, SystemClock())
    try:
        return await api.devices()
    except NestError as error:
        raise Failure(f"The authorisation is saved, but the cameras cannot be listed: {error}") from None
    finally:
        await tokens.aclose()
        await http.aclose()


def _may_replace(present: list[Path], yes: bool) -> None:
    """Ask whether the secret files that exist may be replaced."""
    for path in present:
        if not yes and not click.confirm(f"Replace {path} when Google has granted access?", default=True, err=True):
            raise Failure(f"{path} has to be replaced: move it away, or name another configuration with --config")


def _cloudflare(files: setup_files.SetupFiles, nest: NestConfig, yes: bool) -> None:
    """Ask for the application at Cloudflare and write it too; it can be filled in later, or done without."""
    later = f"Fill in [cloudflare] in {files.path}, from dash.cloudflare.com, Realtime > SFU."
    _say('\nNo Cloudflare account: write "home" to watch at home only. It can be added at any time.')
    try:
        app_id = click.prompt("Cloudflare Realtime SFU app id (Enter: later)", default="", show_default=False, err=True)
        if str(app_id).strip().strip('"').lower() == "home":
            _home(files, nest, home.ask_address())
            return
    except click.Abort:
        _say(f"\n{later}")
        raise
    app_id = str(app_id).strip()
    if not app_id:
        _say(later)
        return
    secret = Secret(click.prompt("Cloudflare app secret", hide_input=True, err=True).strip())
    _may_replace([files.app_secret] if files.app_secret.exists() else [], yes)
    files.write_cloudflare(nest, app_id, secret)


def _check_home(address: str | None, existing: setup_files.Existing, path: Path) -> None:
    """Refuse an address that is not this machine's, and a configuration that is written already."""
    if address is None:
        return
    if wrong := home.address_problem(address):
        raise click.BadParameter(wrong, param_hint="--home")
    if existing.document:
        raise Failure(f'{path} is there already: write listen = "{address}" into its [local], and run `check`', 2)


def _home(files: setup_files.SetupFiles, nest: NestConfig, address: str) -> None:
    """Write that cameras are watched at this address of the machine, and not at Cloudflare."""
    others = not is_loopback(address)
    token = Secret(secrets.token_hex(24) if others else "")
    files.write_home(nest, address, home.http_listen(address), token, Secret(secrets.token_hex(24)))
    signing_in = f", and sign in with the token in {files.http_token}" if others else ""
    _say(f"When it runs, open http://{home.http_listen(address)}{signing_in}.")


def _tell_supervisor(path: Path) -> bool:
    """Reload a running supervisor, if there is one; returns whether it did."""
    try:
        with connect(path) as client:
            client.post("/api/reload")
    except (Failure, ConfigError):
        return False
    return True


def _report(device: Device) -> dict[str, str]:
    return {"name": device.display_name, "protocol": device.protocol.value, "resolution": str(device.resolution)}


def _say(text: str) -> None:
    """Print to standard error: standard output is for the result."""
    click.echo(typed(text), err=True)
