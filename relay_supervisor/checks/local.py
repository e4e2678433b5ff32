"""Checks that need no network: configuration, secret files, directories, listening address, quota log."""

from __future__ import annotations

import contextlib
import errno
import stat
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from relay_common import config_environment, config_file
from relay_common.authorities import named_by_environment
from relay_common.clock import SystemClock
from relay_common.config import Config, LimitsConfig, NestConfig
from relay_common.config_cluster import binding_advice
from relay_common.errors import ConfigError, RelayError
from relay_common.loopback import is_loopback_url
from relay_common.whip import parse_endpoint
from relay_supervisor import prerequisites
from relay_supervisor.checks.report import Finding, failed, of_account, ok, warn
from relay_supervisor.google import grant
from relay_supervisor.google.quota.budget import Budget, Call
from relay_supervisor.google.quota.limits import EXECUTE, limits_from
from relay_supervisor.net import bind, overlap
from relay_supervisor.state.directories import write_error
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import STATE_FILE, Store
from relay_supervisor.status.model import BudgetStatus
from relay_worker.process import data_path, immortal, sandbox

_SECRETS = ("client_secret", "refresh_token", "app_secret", "token")


def configuration(path: Path) -> tuple[list[Finding], Config | None]:
    """Findings on the configuration at `path` and its secret files, and the configuration if it is valid."""
    part = "configuration"
    try:
        config = config_file.load(path)
    except ConfigError as error:
        head, *problems = error.message.splitlines()
        if not problems:
            hint = error.hint if path.exists() else "Run `relay-supervisor auth` to make one"
            return [failed(part, head, hint)], None
        return [failed(part, problem.strip(), f"Correct {path}") for problem in problems], None
    findings = [ok(part, f"{path} is complete")]
    return findings + secret_files(path), config


def secret_files(path: Path) -> list[Finding]:
    """Check that other users of this machine cannot read the secrets."""
    document = tomllib.loads(path.read_text(config_file.ENCODING))
    loose = config_file.loose_secret_files(document, path.parent)
    if _holds_secrets(document) and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        loose.append(str(path))
    if loose:
        return [warn("secret files", f"other users may read {name}", f"chmod 600 {name}") for name in loose]
    return [ok("secret files", "only their owner can read them")]


def _holds_secrets(document: dict[str, object]) -> bool:
    tables = [t for value in document.values() for t in (value if isinstance(value, list) else [value])]
    return any(isinstance(table, dict) and table.keys() & set(_SECRETS) for table in tables)


def environment(environ: Mapping[str, str]) -> list[Finding]:
    """Warn of variables that look like keys of the configuration and are none."""
    return [warn("environment", text) for text in config_environment.unknown(environ)]


def settings(config: Config) -> list[Finding]:
    """What `run` would refuse about the values of a configuration whose form is right."""
    found = prerequisites.refusals(config)
    refused = [failed(key, error.message, error.hint) for key, error in found if not key.startswith("paths.")]
    left_out = "Correct it; until then nothing is published there, and cameras run without it"
    return refused + [failed("whip", mistake, left_out) for mistake in config.whip_mistakes]


def authorities() -> list[Finding]:
    """Whom Google and Cloudflare are checked against, where the environment says so."""
    named = named_by_environment()
    return [ok("authorities", f"Google and Cloudflare are trusted by those of {named} alone")] if named else []


def sinks(config: Config) -> list[Finding]:
    """What there is to say of the [[whip]] tables that can be used."""
    findings = []
    on_demand = [name for name, settings in config.cameras.settings.items() if settings.mode == "on_demand"]
    modes = {config.cameras.renditions, *(settings.renditions for settings in config.cameras.settings.values())}
    for table in config.whip:
        part = f"whip {table.name}"
        endpoint = parse_endpoint(table.url, table.bearer_token)
        one = "{camera}" in table.url or "{name}" in table.url or (table.cameras != "all" and len(table.cameras) == 1)
        if endpoint.overheard and table.bearer_token and not is_loopback_url(table.url):
            text = f"{endpoint.place} is reached without encryption: the bearer token can be overheard in its network"
            findings.append(warn(part, text, "Use https://, or a network that nobody else is in"))
        elif not one:
            text = "several cameras would be published at one URL, where each ends the one before it"
            findings.append(warn(part, text, "Put {camera} or {name} into url, or name a single camera in cameras"))
        elif table.keeps_awake and any(table.takes(name, name) for name in on_demand):
            text = "keeps_awake has on-demand cameras stream all the time, which empties batteries"
            findings.append(warn(part, text, "Leave it out, or limit cameras to those on mains power"))
        elif table.renditions and not modes - {"off", "default"}:
            text = "renditions has it get smaller pictures as well, and no camera makes any"
            findings.append(warn(part, text, "Set renditions in [cameras], or for a camera, or leave it out here"))
        else:
            layers = ", with their smaller picture" if table.renditions else ""
            findings.append(ok(part, f"cameras are published at {endpoint.place}{layers}"))
    return findings


def addresses(config: Config, served: Callable[[str, int], bool]) -> list[Finding]:
    """Check that the addresses can be listened on; `served` tells whether the running supervisor does so already."""
    findings, ours = [], list[tuple[str, int]]()
    with contextlib.ExitStack() as held:  # the second must not be the first
        for part, host, port, account in prerequisites.addresses(config):
            if port and any(port == taken and overlap(host, at) for at, taken in ours):
                continue  # that is said of both, and no other program has it
            ours.append((host, port))
            section, _, key = part.partition(".")
            address = f"{f'[{host}]' if ':' in host else host}:{port}"
            try:
                held.enter_context(bind(host, port, key, section))
                found = ok(part, f"{address} is free" if port else "the kernel chooses a port at the start")
            except ConfigError as error:
                if served(host, port):
                    found = ok(part, f"{address} is served by the running supervisor")
                else:
                    hint = binding_advice(f"tcp://{address}", error.hint) if section == "cluster" else error.hint
                    found = failed(part, error.message, hint)
            findings += of_account([found], account)
    return findings


def directories(config: Config, running: bool) -> list[Finding]:
    """Check that the directories of state and sockets can be used; `running`: by our supervisor."""
    findings, refused = [], dict(prerequisites.refusals(config))
    for key, path in (("state_dir", config.paths.state()), ("runtime_dir", config.paths.runtime())):
        part = f"paths.{key}"
        try:
            if part in refused:
                raise refused[part]
            if not running:
                StateLock(path, key=key).require_free()
        except RelayError as error:
            findings.append(failed(part, error.message, error.hint))
            continue
        if (unwritable := write_error(path)) is not None:
            why = unwritable.strerror or type(unwritable).__name__
            remedy = (
                "Remount it (dmesg tells whether its disk fails)"
                if unwritable.errno == errno.EROFS
                else "Free space there"
            )
            lost = "leases and the quota log" if key == "state_dir" else "what a hung worker was doing"
            text = f"{path} cannot be written ({why}): {lost} would not be saved"
            findings.append(failed(part, text, f"{remedy}, or set {part} to another directory"))
        else:
            findings.append(ok(part, f"{path} is writable" if path.exists() else f"{path} can be made"))
    return findings


def confinement(config: Config) -> Finding:
    """What the kernel confines workers by; without it they work as well, so this never fails."""
    words = "off, as configured" if config.workers.landlock == "off" else sandbox.available()
    return ok("workers.landlock", f"confinement of workers: {words}")


def packets(config: Config) -> list[Finding]:
    """What moves packets; nothing where `run` refuses the setting."""
    if any(key == "workers.data_path" for key, _ in prerequisites.refusals(config)):
        return []
    text = f"data path of workers: {data_path.described(config.workers.data_path)}"
    return [ok("workers.data_path", text)]


def shared_objects(config: Config) -> Finding:
    """How the objects are that workers share; they work either way, so this never fails."""
    text = f"objects that workers share: {immortal.described(config.workers.immortal_objects)}"
    return ok("workers.immortal_objects", text)


def quota(project: str, limits: LimitsConfig, state_dir: Path, running: BudgetStatus | None) -> Finding:
    """Check whether a stream command could be sent now, from the running supervisor or the quota log, where the account
    is called `project`.
    """
    part = "quota"
    if running is not None:
        used, limit, wait = running.used, running.limit, running.hold
    else:
        path = state_dir / STATE_FILE
        if not path.exists():
            return ok(part, "no command has been sent from this machine yet")
        clock = SystemClock()
        store = Store(path, clock, read_only=True).open()
        calls, problem = store.calls(project), store.problem
        store.close()
        if problem:
            return warn(part, problem, "When it starts, the supervisor says in its log what it does about this")
        budget, now = Budget(limits_from(limits)), clock.now()
        budget.restore(calls)
        used = sum(call.call.method == EXECUTE and now - call.sent < 60 for call in calls)
        limit, wait = budget.api.limit, budget.ready_at(Call(EXECUTE), now) - now
    text = f"{used} of {limit} commands used in the last minute"
    if wait > 0:
        return warn(
            part, f"{text}; the next may be sent in {wait:.0f} s", "Nothing to do: the supervisor waits by itself"
        )
    return ok(part, text)


def token_age(nest: NestConfig, state_dir: Path) -> Finding | None:
    """Check the age of the refresh token; None unless `relay-supervisor auth` obtained it here."""
    known = grant.recall(state_dir, nest.refresh_token)
    if known is None:
        return None
    now = time.time()
    warning = grant.warning(known, now)
    if warning:
        return warn(
            "refresh token", warning, "Publish the OAuth consent screen, then run `relay-supervisor auth` again"
        )
    return ok("refresh token", f"granted {(now - known.at) / 86400:.0f} days ago")
