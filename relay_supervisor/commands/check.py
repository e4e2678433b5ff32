"""`relay-supervisor check`: is everything right for `run`?"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec

from relay_common.config import Config
from relay_common.errors import ConfigError
from relay_supervisor.checks import local, remote, stun
from relay_supervisor.checks.report import Finding, Grade
from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import connect, decode
from relay_supervisor.status.model import RelayStatus


@click.command("check")
@click.option("--stun", "stun_server", default="", metavar="HOST:PORT", help="Test UDP with this STUN server.")
@config_option
@json_option
def command(stun_server: str, config_path: Path, as_json: bool) -> None:
    """Say what is wrong with the configuration and the credentials, and how to fix it. Starts no stream.

    Asks Google for a token and for the list of cameras (devices.list, of which five a minute are allowed), and
    Cloudflare for a session that is not used. The exit code is 1 if anything is marked ✗.

    \b
    relay-supervisor check
    relay-supervisor check --config /etc/nest-relay/relay.toml --json
    """
    running = _running(config_path)
    findings, config = local.configuration(config_path)
    if config is not None:
        findings += asyncio.run(_look(config, running, stun_server))
    bad = sum(finding.verdict is Grade.FAILED for finding in findings)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not bad, "findings": findings}).decode())
    else:
        click.echo("\n".join(finding.line() for finding in findings))
        click.echo(f"\n{bad} to fix" if bad else "\nall is well: `relay-supervisor run`")
    sys.exit(1 if bad else 0)


def _running(config_path: Path) -> RelayStatus | None:
    """The status of the supervisor that runs with this configuration; None when none does."""
    try:
        with connect(config_path) as client:
            return decode(client.get("/api/stats"), RelayStatus)
    except (Failure, ConfigError):
        return None


async def _look(config: Config, running: RelayStatus | None, stun_server: str) -> list[Finding]:
    findings = [
        local.listen(config, running=running is not None),
        *local.directories(config),
        local.confinement(config),
    ]
    state_dir = config.paths.state()
    udp = asyncio.ensure_future(stun.reachability(config.cloudflare, stun_server))
    sfu = asyncio.ensure_future(remote.cloudflare(config.cloudflare))
    found, skews, listed = [], [], True
    for nest in config.nest:
        results, devices, skew = await remote.google(nest)
        findings += results
        listed = listed and results[-1].verdict is not Grade.FAILED
        found += devices
        skews.append(skew)
        age = local.token_age(nest, state_dir)
        budgets = running.budgets if running is not None else []
        budget = next((budget for budget in budgets if budget.account == nest.project_id), None)
        findings += [*([age] if age else []), local.quota(nest, config.limits, state_dir, budget)]
    if listed:
        findings += remote.cameras(found, config.cameras, config.nest)
    application, skew = await sfu
    return [*findings, application, await udp, remote.clock([*skews, skew])]
