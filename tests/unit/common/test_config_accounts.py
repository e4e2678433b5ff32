"""Accounts that are spread over supervisors: each is a relay of its own, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay_common import config_file
from relay_common.config import Config
from relay_common.config_accounts import account_names, of_account, projects_of, relays_of, spoken_accounts
from relay_common.errors import ConfigError

CLUSTER = {
    "namespace": "cameras",
    "image": "registry.example/nest-relay:0.1.0",
    "identity": "relay",
    "bus_listen": "relay-bus.cameras.svc:7420",
    "bus_bind": "[::1]:7420",
    "replica": "relay-a",
    "peer_listen": "[fd00::5]:7422",
}


def nest(account: str = "", ports: int = 0) -> dict[str, Any]:
    table = {"project_id": "p", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    return table | ({"account": account} if account else {}) | ({"ports": ports} if ports else {})


def parsed(*nests: dict[str, Any], **cluster: str) -> Config:
    sections = {
        "nest": list(nests),
        "cluster": CLUSTER | cluster,
        "local": {"listen": "127.0.0.1"},
        "http": {"base_path": "/cams/", "probe_listen": "127.0.0.1:1"},
        "paths": {"state_dir": "/state", "runtime_dir": "/run/r"},
    }
    return config_file.parse(sections)


def test_each_has_its_own_names_ports_directories_and_path() -> None:
    config = parsed(nest("home", 7420), nest("shop", 7424))
    assert account_names(config) == ["home", "shop"]
    shop = of_account(config, "shop")
    assert relays_of(config)[1] == shop
    assert [one.account for one in shop.nest] == ["shop"]
    cluster = shop.cluster
    assert cluster.identity == "relay-shop"
    assert cluster.bus_listen == "relay-bus-shop.cameras.svc:7424"
    assert (cluster.bus_bind, cluster.peer_listen) == ("[::1]:7424", "[fd00::5]:7426")
    assert (shop.paths.state(), shop.paths.runtime()) == (Path("/state/shop"), Path("/run/r/shop"))
    assert (shop.http.base_path, shop.http.probe_listen) == ("/cams/accounts/shop", "")


@pytest.mark.parametrize(
    ("listen", "of_home"),
    [("bus:7420", "bus-home:7424"), ("10.0.0.5:7420", "10.0.0.5:7424"), ("[fd00::5]:7420", "[fd00::5]:7424")],
)
def test_only_a_name_has_the_accounts_added(listen: str, of_home: str) -> None:
    assert of_account(parsed(nest("home", 7424), bus_listen=listen), "home").cluster.bus_listen == of_home


def test_without_names_all_is_one_relay_as_before() -> None:
    config = parsed(nest(), nest(), bus_listen="10.0.0.5:7420")
    assert account_names(config) == []
    assert relays_of(config) == [config]


@pytest.mark.parametrize(
    ("nests", "cluster", "words"),
    [
        ([nest("home", 7420), nest()], {}, "nest.account is missing"),
        ([nest("home", 7420), nest("home", 7430)], {}, "nest.account is the same"),
        ([nest("Home", 7420)], {}, "nest.account is 'Home'"),
        ([nest("h" * 40, 7420)], {}, "too long a name"),
        ([nest("home"), nest("shop", 7424)], {}, "nest.ports is not set for home"),
        ([nest("shop", 7423), nest("home", 7420)], {}, "home and shop would share ports"),
        ([nest("home", 7420)], {"replica": "", "peer_listen": ""}, "cluster.replica is not set"),
    ],
)
def test_what_is_wrong_is_said(nests: list[dict[str, Any]], cluster: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(*nests, **cluster)
    assert words in str(caught.value)


def test_the_last_account_may_end_at_the_last_port() -> None:
    assert of_account(parsed(nest("home", 65532)), "home").cluster.peer_listen == "[fd00::5]:65534"
    with pytest.raises(ConfigError):
        parsed(nest("home", 65533))


def test_what_people_are_told_that_accounts_are_called() -> None:
    assert spoken_accounts(parsed(nest("home", 7420), nest("shop", 7424))) == ["home", "shop"]
    others = [nest() | {"project_id": project} for project in ("p", "q", "p")]
    assert spoken_accounts(parsed(*others)) == projects_of(parsed(*others).nest) == ["p", "q", "p#2"]
    assert spoken_accounts(parsed(nest())) == [""], "of one nothing is said"
