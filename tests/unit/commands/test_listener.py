"""Whose process listens: real sockets of our own, and the kernel's table with another user's in it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from relay_supervisor.commands.listener import owners, serves, trusted

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000"


@pytest.mark.parametrize(
    ("bind", "ask"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")]
)
def test_our_own_listener_is_ours(bind: str, ask: str) -> None:
    with socket.create_server((bind, 0)) as server:
        port = server.getsockname()[1]
        assert owners(ask, port) == {os.getuid()}
        assert serves(os.getpid(), ask, port) is True
        assert serves(os.getpid(), "127.0.0.3", port) is (bind == "0.0.0.0")
        assert serves(os.getppid(), ask, port) in (False, None)
        assert serves(0, ask, port) is None
        assert owners("a-name", port) == set()


def test_a_listener_of_ipv6_takes_ipv4_as_well() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        assert owners("127.0.0.1", server.getsockname()[1]) == {os.getuid()}
        assert owners("::1", server.getsockname()[1]) == {os.getuid()}


def test_nobody_listens_where_nobody_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert owners("127.0.0.2", port) == set()
    assert owners("127.0.0.1", port) == set()


def test_a_connection_is_no_listener(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(HEAD + f"   0: 0100007F:1F90 0100007F:C350 01 {REST}  1000        0 1\n")
    assert owners("127.0.0.1", 8080, [table]) == set()
    table.write_text(HEAD + f"   0: 0100007F:1F90 00000000:0000 0A {REST}  1000        0 1\n")
    assert owners("127.0.0.1", 8080, [table, tmp_path / "missing"]) == {1000}
    assert owners("127.0.0.1", 8081, [table]) == set()


def test_root_we_and_the_owner_of_the_state_may_know_the_token(tmp_path: Path) -> None:
    assert trusted([0, os.getuid()], tmp_path, tmp_path / "missing")
    assert not trusted([0, 54321], tmp_path)
    if os.getuid() == 0:
        os.chown(tmp_path, 54321, -1)
        assert trusted([54321], tmp_path)
