"""The uplink blocked by a firewall, a name server that stops answering, a wrong clock: named by every surface.

They are inflicted for real, on a machine of the test's own as far as network, name service and clock go: the rows
(verdict_network_rows.py) run in a network and a mount namespace, with the simulators, under Debian's libfaketime.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.media, pytest.mark.timeout(400)]

ROWS = Path(__file__).with_name("verdict_network_rows.py")
NAMESPACES = ("unshare", "--net", "--mount")
INSIDE = """
set -e
ip link set lo up
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
shift
exec "$@"
"""


def missing() -> str:
    """What this machine lacks for it; empty when nothing."""
    for tool, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{tool} is not installed (apt install {package})"
    if not faketime():
        return "libfaketime is not installed (apt install libfaketime)"
    tried = subprocess.run([*NAMESPACES, "iptables", "-L", "-n"], capture_output=True, text=True, check=False)
    return f"no namespace with a firewall is permitted here (root): {tried.stderr.strip()}" if tried.returncode else ""


def faketime() -> str:
    """Path of the library; empty without one."""
    return next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")


def test_every_surface_names_what_is_wrong_with_the_machine(tmp_path: Path) -> None:
    if lacking := missing():
        if os.environ.get("RELAY_REQUIRE_NAMESPACES"):
            pytest.fail(f"RELAY_REQUIRE_NAMESPACES is set, and {lacking}")
        pytest.skip(lacking)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    (tmp_path / "hosts").write_text("")
    (tmp_path / "clock").write_text("+0s")
    environment = os.environ | {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    pytest_of_rows = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(ROWS)]
    inside = subprocess.run(
        [*NAMESPACES, "sh", "-c", INSIDE, "sh", str(tmp_path), *pytest_of_rows],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=380.0,
        check=False,
    )
    print(inside.stdout)
    assert inside.returncode == 0, inside.stdout + inside.stderr
