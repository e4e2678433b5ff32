"""[local]: which addresses and ports are accepted, and what is said about the others."""

from __future__ import annotations

from typing import Any

import pytest

from relay_common import config_file
from relay_common.announced import announced
from relay_common.config import Config, LocalConfig
from relay_common.config_local import port_range
from relay_common.errors import ConfigError
from relay_supervisor.operations.reload import compare, merged


def parsed(environ: dict[str, str] | None = None, **local: Any) -> Config:
    document: dict[str, Any] = {
        "nest": {"project_id": "p", "client_id": "c", "client_secret": "hush", "refresh_token": "1//hush-hush"},
        "cloudflare": {"app_id": "a", "app_secret": "cf-hush"},
        "local": local,
    }
    return config_file.parse(document, environ if environ is not None else {})


def test_it_is_off_unless_it_is_told_where_to_listen() -> None:
    assert parsed().local == LocalConfig()
    assert parsed().local.addresses == []


def test_one_address_or_several() -> None:
    assert parsed(listen="127.0.0.1").local.addresses == ["127.0.0.1"]
    both = parsed(listen=["192.168.1.10", "fd00::10"], announce=["203.0.113.7"]).local
    assert both.addresses == ["192.168.1.10", "fd00::10"]
    assert both.announced == ["203.0.113.7"]
    assert parsed(listen="::1").local.announced == ["::1"]


def test_the_environment_sets_it() -> None:
    environ = {
        "RELAY_LOCAL_LISTEN": "0.0.0.0",
        "RELAY_LOCAL_UDP_PORTS": "8560-8579",
        "RELAY_LOCAL_ANNOUNCE": '["192.168.1.10"]',
        "RELAY_LOCAL_VIEWERS": "2",
    }
    local = parsed(environ).local
    assert local == LocalConfig(listen="0.0.0.0", udp_ports="8560-8579", announce=["192.168.1.10"], viewers=2)


def test_ports() -> None:
    assert port_range("") is None
    assert port_range("8560") == range(8560, 8561)
    assert port_range(" 8560 - 8599 ") == range(8560, 8600)
    for text in ("8599-8560", "0-5", "1-65536", "many", "8560,8561", "8560-"):
        with pytest.raises(ValueError):
            port_range(text)


def test_announced_addresses() -> None:
    assert announced("192.168.1.10") == ("192.168.1.10", 0)
    assert announced("192.168.1.10:7000") == ("192.168.1.10", 7000)
    assert announced("fd00::10") == ("fd00::10", 0)
    assert announced("[fd00::10]:7000") == ("fd00::10", 7000)
    for text in ("home.example", "192.168.1.10:0", "192.168.1.10:x", "[fd00::10]", "[fd00::10]:99999", ""):
        with pytest.raises(ValueError):
            announced(text)


@pytest.mark.parametrize(
    ("local", "mistake"),
    [
        ({"listen": "0.0.0.0"}, "local.listen means every address of this machine"),
        ({"listen": "localhost"}, "local.listen has 'localhost'; expected an address"),
        ({"listen": ["127.0.0.1:8560"]}, "without a port"),
        ({"listen": "224.0.0.1"}, "which is no machine's address"),
        ({"listen": "::1", "announce": ["home.example"]}, "a name is not enough"),
        ({"listen": "::1", "announce": ["0.0.0.0"]}, "no viewer can send to that address"),
        ({"udp_ports": "8599-8560"}, "local.udp_ports is '8599-8560'; expected ports such as"),
        ({"udp_ports": 8560}, 'write udp_ports = "8560"'),
        ({"viewers": 0}, "local.viewers is an integer 0"),
        ({"allowed_origins": ["https://home.example/"]}, "which is no origin"),
        ({"allowed_origins": ["*"]}, "which is no origin"),
        ({"lisen": "::1"}, "local.lisen is not a key. Did you mean listen?"),
    ],
)
def test_mistakes(local: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(**local)
    assert mistake in str(refused.value)


def test_a_reload_takes_it_over_at_once() -> None:
    old, new = parsed(), parsed(listen="127.0.0.1", udp_ports="8560-8561")
    assert compare(old, new).applied == ["local.listen", "local.udp_ports"]
    assert merged(old, new).local == new.local


def test_cloudflare_may_be_left_out_where_cameras_can_be_watched_elsewhere() -> None:
    nest = {"project_id": "p", "client_id": "c", "client_secret": "hush", "refresh_token": "1//hush-hush"}
    assert not config_file.parse({"nest": nest, "local": {"listen": "127.0.0.1"}}, {}).cloudflare.used
    studio = {"name": "studio", "url": "https://studio.example/whip/{camera}"}
    assert not config_file.parse({"nest": nest, "whip": [studio]}, {}).cloudflare.used
    with pytest.raises(ConfigError) as nowhere:
        config_file.parse({"nest": nest}, {})
    assert "cloudflare.app_id is missing" in str(nowhere.value)
    assert 'listen = "127.0.0.1" into [local]' in str(nowhere.value)
    half = {"nest": nest, "local": {"listen": "127.0.0.1"}, "cloudflare": {"app_id": "a"}}
    with pytest.raises(ConfigError) as incomplete:
        config_file.parse(half, {})
    assert "cloudflare.app_secret is missing" in str(incomplete.value)
