"""`relay-supervisor check`: is everything right for `run`?"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click
import msgspec

from relay_common.config import Config
from relay_common.config_accounts import account_names, projects_of, relays_of, spoken_accounts
from relay_common.errors import ConfigError
from relay_supervisor import prerequisites
from relay_supervisor.checks import cluster, cluster_trial, local, remote, renditions, stun, viewing
from relay_supervisor.checks.report import Finding, Grade, of_account, ok
from relay_supervisor.commands import listener
from relay_supervisor.commands.cli import Failure, config_option, json_option, typed
from relay_supervisor.commands.client import connect, decode
from relay_supervisor.google.models import Device
from relay_supervisor.net import resolve
from relay_supervisor.state.lock import holder_of
from relay_supervisor.status.model import RelayStatus


@click.command("check")
@click.option("--stun", "stun_server", default="", metavar="HOST:PORT", help="Test UDP with this STUN server.")
@config_option
@json_option
def command(stun_server: str, config_path: Path, as_json: bool) -> None:
    """Say what is wrong with the configuration and the credentials, and how to fix it. Starts no stream.

    Asks Google for a token and for the list of cameras (devices.list, of which five a minute are allowed), and
    Cloudflare for a session that is not used. With workers as Pods it makes one, for seconds, which tries the image
    and the way to the bus, and disturbs no supervisor. The exit code is 1 if anything is marked ✗.

    \b
    relay-supervisor check
    relay-supervisor check --config /etc/nest-relay/relay.toml --json
    """
    running = _running(config_path)
    findings = local.environment(os.environ)
    found, config = local.configuration(config_path)
    findings += found
    pid = holder_of(config.paths.runtime()) if config is not None and running is not None else 0
    if config is not None:
        try:
            findings += asyncio.run(_look(config, running, pid, stun_server))
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)
    bad = sum(finding.verdict is Grade.FAILED for finding in findings)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not bad, "findings": findings}).decode())
    else:
        click.echo(typed("\n".join(finding.line() for finding in findings)))
        click.echo(typed(f"\n{_summary(bad, running, pid)}"))
    sys.exit(1 if bad else 0)


def _summary(bad: int, running: RelayStatus | None, pid: int) -> str:
    if running is None:
        return f"{bad} to fix" if bad else "all is well: `relay-supervisor run`"
    runs = f"the supervisor is running{f' (pid {pid})' if pid else ''}"
    return f"{bad} to fix; {runs}" if bad else f"all is well, and {runs}"


def _running(config_path: Path) -> RelayStatus | None:
    """The status of the supervisor that runs with this configuration; None when none does."""
    try:
        with connect(config_path, tell=lambda text: None) as client:
            return decode(client.get("/api/stats"), RelayStatus)
    except (Failure, ConfigError):
        return None


async def _look(config: Config, running: RelayStatus | None, pid: int, stun_server: str) -> list[Finding]:
    """All checks of a configuration whose form is right; `pid` is that of the running supervisor if it is known."""

    def served(host: str, port: int) -> bool:
        # One that answers from another machine, or whose files we may not see, is believed.
        return running is not None and listener.serves(pid, resolve(host, port), port) is not False

    findings = [*local.settings(config), *local.sinks(config), *local.addresses(config, served)]
    findings += [*local.directories(config, running is not None), local.confinement(config), *local.packets(config)]
    findings.append(local.shared_objects(config))
    refused = {refusal.key for refusal in prerequisites.refusals(config)}
    if "authorities" in refused:
        return findings  # nobody outside can be asked
    findings += local.authorities()
    if "cluster" not in refused:
        relays = relays_of(config)
        of_cluster = await cluster.cluster(relays[0].cluster)
        if of_cluster and not any(finding.verdict is Grade.FAILED for finding in of_cluster):
            for account, relay in zip(account_names(config) or [""], relays, strict=True):  # each has a bus of its own
                tried = await cluster_trial.tried(relay.cluster, relay.paths.state(), running is not None)
                of_cluster += of_account(tried, account)
        findings += of_cluster
    used = config.cloudflare.used
    udp = asyncio.ensure_future(stun.reachability(config.cloudflare, stun_server)) if used or stun_server else None
    sfu = asyncio.ensure_future(_cloudflare(config)) if used and "cloudflare" not in refused else None
    on_google, skews, devices = await _google(config, running) if "nest" not in refused else ([], [], None)
    cameras = [one for one in devices or () if config.cameras.included(one.display_name, one.id)]
    findings += viewing.local_viewing(config, None if devices is None else len(cameras), running is not None)
    findings += renditions.smaller_pictures(config, devices)
    findings += on_google
    if sfu is not None:
        found, skew = await sfu
        findings += found
        skews.append(skew)
    if not used and "cloudflare" not in refused:
        findings.append(ok("cloudflare", "not used: cameras are not published at Cloudflare"))
    return [*findings, *([await udp] if udp is not None else []), remote.clock(skews)]


async def _cloudflare(config: Config) -> tuple[list[Finding], float | None]:
    """What Cloudflare says about the application and the TURN key; and the clock's skew towards it in seconds."""
    (application, skew), turn = await asyncio.gather(
        remote.cloudflare(config.cloudflare), remote.turn(config.cloudflare)
    )
    return [application, *([turn] if turn else [])], skew


async def _google(
    config: Config, running: RelayStatus | None
) -> tuple[list[Finding], list[float | None], list[Device] | None]:
    """What Google says about every account: findings, the clock's skew towards each in seconds, and the cameras (None
    when it did not list them).
    """
    findings: list[Finding] = []
    listings, skews, listed = [], [], True
    state_dir, names = config.paths.state(), spoken_accounts(config)
    for nest, name, project in zip(config.nest, names, projects_of(config.nest), strict=True):
        results, listing, skew = await remote.google(nest)
        listed = listed and results[-1].verdict is not Grade.FAILED
        listings.append(listing)
        skews.append(skew)
        age = local.token_age(nest, state_dir)
        budgets = running.budgets if running is not None else []
        budget = next((budget for budget in budgets if budget.whose in (name, project)), None)
        results += [*([age] if age else []), local.quota(project, config.limits, state_dir, budget)]
        findings += of_account(results, name)
    if not listed:
        return findings, skews, None
    findings += remote.cameras(listings, config.cameras, config.nest, names)
    return findings, skews, [device for listing in listings for device in listing.devices]
