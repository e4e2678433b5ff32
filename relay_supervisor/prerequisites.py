"""What the configuration has to fulfil for `run` to start, beyond its form; `check` reports the same in the same words.

Each rule is a function that raises the ConfigError with which `run` refuses, and changes nothing. What two programs
cannot have at once, addresses and the locks on directories, is tried by `run` when it starts and by `check` at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from relay_common.authorities import public_authorities
from relay_common.cloudflare import require_usable, require_usable_key
from relay_common.config import Config
from relay_common.config_accounts import account_names, relays_of
from relay_common.config_cluster import bound_endpoints
from relay_common.config_mistakes import authorities_problem
from relay_common.errors import ConfigError
from relay_common.wire import require_curve
from relay_supervisor.fleet.pods.requirements import require_pods
from relay_supervisor.google.credentials import client_id_problem, project_id_problem
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.base_path import base_path
from relay_supervisor.http.links import viewer_settings
from relay_supervisor.net import check_listen, overlap, split_listen
from relay_supervisor.otel import require_exporter
from relay_supervisor.state import directories
from relay_worker.process import data_path


class Unfulfilled(NamedTuple):
    """One reason not to start: the key or section that it is about, and the error."""

    key: str
    error: ConfigError


def refusals(config: Config) -> list[Unfulfilled]:
    """Every rule that `config` does not fulfil."""
    found: list[Unfulfilled] = []
    for key, rule in _RULES.items():
        try:
            rule(config)
        except ConfigError as error:
            found.append(Unfulfilled(key, error))
    return found


def require(config: Config, source: str) -> None:
    """Raise one ConfigError with every refusal of `config`, which came from `source`."""
    found = refusals(config)
    if len(found) == 1:
        raise found[0].error
    if found:
        raise ConfigError(f"{source}: {len(found)} problems" + "".join(f"\n  {refusal.error}" for refusal in found))


class Address(NamedTuple):
    """An address to serve: its section and key, host and port, and which of several accounts it is for."""

    key: str
    host: str
    port: int
    account: str = ""


def addresses(config: Config) -> Iterator[Address]:
    """Each address to serve, those left out that are none."""
    for key, listen in (("listen", config.http.listen), ("probe_listen", config.http.probe_listen)):
        if listen:
            with contextlib.suppress(ConfigError):
                yield Address(f"http.{key}", *split_listen(listen, key))
    for account, relay in zip(account_names(config) or [""], relays_of(config), strict=True):
        key = f"cluster.bus_{'bind' if relay.cluster.bus_bind else 'listen'}"
        for endpoint in bound_endpoints(relay.cluster) or ():
            yield Address(key, *split_listen(endpoint.partition("//")[2]), account)


def _accounts(config: Config) -> None:
    for index, nest in enumerate(config.nest):
        label = f"nest[{index}]" if len(config.nest) > 1 else "nest"
        for key, value, problem in (
            ("project_id", nest.project_id, project_id_problem),
            ("client_id", nest.client_id, client_id_problem),
        ):
            if wrong := problem(value):
                # Without the value: it may be the secret.
                raise ConfigError(f"{label}.{key}: {wrong[0].lower()}{wrong[1:]}")


def _cloudflare(config: Config) -> None:
    at = config.cloudflare
    if not at.used:
        return
    require_usable(at.app_id, at.app_secret, at.api_base_url)
    if at.turn.key_id:
        require_usable_key(at.turn.key_id, at.turn.api_token)


def _whip(config: Config) -> None:
    """A wrong table costs its own sink, but not where it is the only one and nothing else is set up."""
    if not (config.cloudflare.used or config.local.addresses or config.whip):
        raise ConfigError(
            "cameras would be published nowhere: no [[whip]] table can be used, [cloudflare] is not set, and "
            "local.listen is empty",
            hint='Correct the table; or, to watch without a server, write listen = "127.0.0.1" into [local]',
        )


def _cameras_authorities(config: Config) -> None:
    """The file that workers read at each connection with a camera: in a cluster that of their image, not ours."""
    file = config.rtsp.ca_file
    if file and not config.cluster.namespace and (why := authorities_problem(file)):
        raise ConfigError(
            f"rtsp.ca_file: {file} {why}; no camera could be connected to over RTSP",
            hint="Name a file of certificates (PEM) that this user may read, or leave it out: the system's "
            "authorities know Google's cameras",
        )


def _listen(config: Config) -> None:
    check_listen(config.http.listen, config.http.token or None)


def _clashes(config: Config) -> None:
    """Two addresses of our own: at the start the second would be said to be another program's."""
    before: list[tuple[str, str, int]] = []
    for key, host, port, _ in addresses(config):
        for other, at, taken in before:
            if port == taken != 0 and overlap(host, at):
                bus = "cluster.bus_" in other + key
                raise ConfigError(
                    f"{other} and {key} would both listen on port {port} of {host}",
                    hint="Choose another port for one of them" + ("; the bus takes two, its own and the next" * bus),
                )
        before.append((key, host, port))


def _viewers(config: Config) -> None:
    try:
        host, _ = split_listen(config.http.listen)
    except ConfigError:
        return  # reported as such
    viewer_settings(config, host)


def _cluster_secrets(config: Config) -> None:
    """What every supervisor has to know alike, and none could make up: a Pod that starts anew has forgotten it."""
    if not config.cluster.namespace:
        return
    known = {"http.token": config.http.token, "viewers.link_secret": config.viewers.link_secret}
    if missing := [key for key, secret in known.items() if not secret]:
        files = " and ".join(f"{key}_file" for key in missing)
        raise ConfigError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set; a relay in a cluster "
            "(cluster.namespace) needs both, so that whichever of its supervisors commands knows clients and links",
            hint=f"Make each with `openssl rand -hex 24 > FILE`, name the file as {files}, and give every supervisor "
            "of the relay the same",
        )


def _proxies(config: Config) -> None:
    TrustedProxies(config.http.trusted_proxies)


def _base_path(config: Config) -> None:
    base_path(config.http.base_path)


def _probes(config: Config) -> None:
    if config.http.probe_listen:
        split_listen(config.http.probe_listen, "probe_listen")


def _authorities() -> None:
    public_authorities()


_RULES: Final[dict[str, Callable[[Config], None]]] = {
    "nest": _accounts,
    "cloudflare": _cloudflare,
    "whip": _whip,
    "rtsp.ca_file": _cameras_authorities,
    "http.listen": _listen,
    "http.probe_listen": _probes,
    "http.trusted_proxies": _proxies,
    "http.base_path": _base_path,
    "addresses": _clashes,
    "viewers": _viewers,
    "workers.data_path": lambda config: data_path.require(config.workers.data_path),
    "cluster": lambda config: require_pods(config.cluster, config.local.addresses),
    "cluster.namespace": _cluster_secrets,
    "otel": lambda config: require_exporter(config.otel),
    "bus": lambda config: require_curve(),
    "authorities": lambda config: _authorities(),
    "paths.state_dir": lambda config: directories.require(config.paths.state(), "state_dir"),
    "paths.runtime_dir": lambda config: directories.require_runtime(config.paths.runtime()),
}
"""The rules by what they are about."""
