"""What `check` says of [local]: on this machine's real sockets, with the cameras counted by the test."""

from __future__ import annotations

import socket

from relay_common.config import CloudflareConfig, Config, HttpConfig, LocalConfig, NestConfig
from relay_common.secrets import Secret
from relay_supervisor.checks.report import Finding, Grade
from relay_supervisor.checks.viewing import local_viewing

NEST = NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))
REAL = CloudflareConfig(app_id="app", app_secret=Secret("secret"))
ELSEWHERE = "192.0.2.10"


def found(
    local: LocalConfig, cameras: int | None = 2, *, http: HttpConfig | None = None, running: bool = False
) -> list[Finding]:
    config = Config(nest=[NEST], cloudflare=REAL, local=local, http=http or HttpConfig())
    return local_viewing(config, cameras, running)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_nothing_is_said_while_it_is_off() -> None:
    assert found(LocalConfig(udp_ports="1-2", announce=["192.168.1.10"])) == []


def test_this_machine_alone_or_others() -> None:
    loopback = only(found(LocalConfig(listen="127.0.0.1")))
    assert (loopback.verdict, loopback.part) == (Grade.OK, "local")
    assert "by this machine alone" in loopback.text
    reachable = HttpConfig(listen="0.0.0.0:8080", token=Secret("0123456789abcdef"))
    others = only(found(LocalConfig(listen="0.0.0.0", announce=["192.168.1.10"]), http=reachable))
    assert (others.verdict, "at 192.168.1.10, by others" in others.text) == (Grade.OK, True)


def test_an_address_that_is_not_this_machines() -> None:
    finding = found(LocalConfig(listen=ELSEWHERE))[0]
    assert (finding.part, finding.verdict) == ("local.listen", Grade.FAILED)
    assert ELSEWHERE in finding.text


def test_fewer_ports_than_cameras() -> None:
    finding = only(found(LocalConfig(listen="127.0.0.1", udp_ports="20001-20003"), cameras=5))
    assert (finding.part, finding.verdict) == ("local.udp_ports", Grade.FAILED)
    assert "3 ports for 5 cameras" in finding.text
    assert "20001-20005" in finding.remedy
    assert only(found(LocalConfig(listen="127.0.0.1", udp_ports="20001-20003"), cameras=None)).verdict is Grade.OK


def test_a_port_that_another_program_has() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        local = LocalConfig(listen="127.0.0.1", udp_ports=str(port))
        finding = only(found(local, cameras=1))
        assert (finding.part, finding.verdict) == ("local.udp_ports", Grade.WARNING)
        assert str(port) in finding.text
        assert only(found(local, cameras=1, running=True)).verdict is Grade.OK, "our own workers may have it"


def test_addresses_that_do_not_fit_what_is_listened_on() -> None:
    one_port = only(found(LocalConfig(listen="127.0.0.1", announce=["127.0.0.1:7000"])))
    assert "each camera has its own" in one_port.text
    local = LocalConfig(listen="127.0.0.1", udp_ports="20001", announce=["127.0.0.1:7000"])
    assert only(found(local, cameras=1)).verdict is Grade.OK
    kept = found(LocalConfig(listen="127.0.0.1", announce=["192.168.1.10"]))[0]
    assert "workers listen on this machine alone" in kept.text
    other_kind = found(LocalConfig(listen="0.0.0.0", announce=["fd00::10"]))[0]
    assert "it names IPv6 addresses, and listen has none" in other_kind.text


def test_viewers_elsewhere_have_to_reach_the_http_interface() -> None:
    local = LocalConfig(listen="0.0.0.0", announce=["192.168.1.10"])
    alone = only(found(local))
    assert (alone.part, alone.verdict) == ("local.listen", Grade.WARNING)
    assert "http.listen is 127.0.0.1:8080 only" in alone.text
    assert only(found(local, http=HttpConfig(trusted_proxies=["127.0.0.1"]))).verdict is Grade.OK
