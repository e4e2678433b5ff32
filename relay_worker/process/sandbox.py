"""What a worker may still open and connect to, enforced by Landlock as far as the kernel can.

Reading: the interpreter, its libraries and packages, authorities' certificates, the resolver's files, time zones, and
its own directory in /proc. Writing, and starting programs: nothing. TCP: connections to the ports given; nothing is
accepted at a port or an address of its choice. Signals and abstract sockets reach nobody else. Descriptors that are
open already stay usable, among them standard error and the stacks file. The bus's sockets have paths, and connecting to
those is a matter of the directory's mode.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from relay_common.protocol import Stage
from relay_common.tcp_bus import tcp_port
from relay_worker.process.landlock import Files, Ports, Rights, Ruleset, kernel_version, rights, why_not
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

_READ: Final = Files.READ_FILE | Files.READ_DIR
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
_CERTIFICATES: Final = (
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/var/lib/ca-certificates",
)
"""Debian's, Red Hat's, Arch's and SUSE's; private keys are in other directories."""
RESOLVER: Final = tuple(
    Path("/etc") / name for name in ("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services")
)
"""What glibc reads to resolve a name, each time anew when it has changed."""
_SYSTEM: Final = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/self",
    "/proc/stat",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu/online",
)
_DNS: Final = 53
"""TCP as well: answers that do not fit into a datagram."""
_MISSING: Final = {3: "truncation of files", 4: "TCP", 5: "devices", 6: "signals and abstract sockets"}
"""What kernels below each version cannot limit, in words."""


@dataclass(frozen=True)
class Sandbox:
    """What is in force for this process."""

    words: str
    """In words, for the status and the log; beginning with "none" or "off" when nothing is."""
    tcp_ports: list[int] | None = None
    """TCP ports it may connect to; None: any."""
    ca_file: Path | None = None
    _ca_seen: tuple[int, ...] = ()
    _resolver: tuple[Path, ...] = field(default=())

    def outdated(self, stage: Stage) -> str:
        """In words: a file that matters at `stage` and of which only another process can read what it is now; or "".

        A rule holds for a file, not for its name: what replaces /etc/resolv.conf is denied, since all of /etc would
        otherwise have to be allowed. Authorities are read once a process in any case.
        """
        if stage is Stage.TLS and self.ca_file is not None and _identity(self.ca_file) != self._ca_seen:
            return f"{self.ca_file} has changed"
        for path in self._resolver if stage in (Stage.RESOLVE, Stage.PUBLISH, Stage.ICE) else ():
            if path.exists() and not _readable(path):
                return f"{path} was replaced, and this process may read only the file before"
        return ""


def enter(spec: WorkerSpec, version: int | None = None) -> Sandbox:
    """Give up all but what the worker `spec` needs, for good; call it before any thread is started.

    `version` of Landlock: at most the kernel's, which is the default. What the kernel cannot limit stays as it is.
    """
    ca_file = Path(spec.ca_file) if spec.ca_file else None
    seen = _identity(ca_file) if ca_file is not None else ()
    if not spec.landlock:
        return Sandbox("off", None, ca_file, seen)
    try:
        version = min(kernel_version(), version or sys.maxsize)
        handled = rights(version)
        ports = _enforce(handled, spec, ca_file)
    except OSError as error:
        return Sandbox(f"none: {why_not(error)}", None, ca_file, seen)
    words = _words(version)
    if handled.ports:
        words += f"; TCP to {'any port' if ports is None else ', '.join(map(str, ports))}"
    return Sandbox(words, ports, ca_file, seen, tuple(path for path in RESOLVER if _readable(path)))


def available() -> str:
    """What a worker on this kernel would be confined by, in words; nothing is given up."""
    try:
        return _words(kernel_version())
    except OSError as error:
        return f"none: {why_not(error)}"


@functools.cache
def readable() -> tuple[Path, ...]:
    """All that every worker may read; the fork server finds it once for all."""
    found = dict.fromkeys(Path(name) for name in (*_LIBRARIES, *_CERTIFICATES, *_SYSTEM))
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        found[Path(sysconfig.get_path(name))] = None
    found[Path(sys.base_prefix, "lib")] = None
    certificates = ssl.get_default_verify_paths()
    found |= dict.fromkeys(Path(name) for name in (certificates.cafile, certificates.capath) if name)
    found |= dict.fromkeys(path for path in _packages() if not any(path.is_relative_to(one) for one in list(found)))
    found = {path: None for path in found if path.exists()}
    for path in RESOLVER:
        found[path] = None
        real = Path(os.path.realpath(path))
        if real.parent.is_relative_to("/run") and real.parent != Path("/run"):
            found[real.parent] = None  # systemd-resolved and others put a new file into a directory of their own
    return tuple(found)


def _packages() -> list[Path]:
    """Where the imported packages are, which need not be in `site-packages`: each one alone, not what is beside it."""
    found = []
    for name, module in list(sys.modules.items()):
        if "." in name or name == "__main__":
            continue
        places = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
        found += [Path(place) for place in places if place and os.path.isabs(place)]
    return found


def _enforce(handled: Rights, spec: WorkerSpec, ca_file: Path | None) -> list[int] | None:
    """Apply the rules; returns the TCP ports that may be connected to, None for any."""
    ports = _ports(spec) if handled.ports else None
    if ports is None:
        handled = Rights(handled.files, handled.ports & ~Ports.CONNECT_TCP, handled.scopes)
    rules = Ruleset(handled)
    try:
        for path in readable():
            rules.allow(path, _READ)
        rules.allow(Path("/dev/null"), Files.READ_FILE | Files.WRITE_FILE)
        if ca_file is not None:
            rules.allow(ca_file, _READ)
        rules.allow_ports(ports or (), Ports.CONNECT_TCP)
        rules.enforce()
    finally:
        rules.close()
    return ports


def _ports(spec: WorkerSpec) -> list[int] | None:
    if spec.tcp_ports is None:
        return None
    bus = map(tcp_port, (spec.control, spec.stats))
    return sorted({*spec.tcp_ports, _DNS, *filter(None, (*bus, *map(turn_port, spec.ice_servers)))})


def turn_port(url: str) -> int:
    """The TCP port of a TURN server that is reached over TCP or TLS (RFC 7065); 0 for any other ICE server."""
    scheme, _, rest = url.partition(":")
    address, _, query = rest.partition("?")
    transport = parse_qs(query).get("transport", ["udp" if scheme == "turn" else "tcp"])[0]
    if scheme not in ("turn", "turns") or transport != "tcp":
        return 0
    _, _, port = address.rpartition(":") if not address.endswith("]") else ("", "", "")
    return int(port) if port.isdecimal() else 5349 if scheme == "turns" else 3478


def _words(version: int) -> str:
    missing = [what for since, what in _MISSING.items() if version < since]
    return f"Landlock ABI {version}" + (f", which does not limit {', '.join(missing)}" if missing else "")


def _identity(path: Path) -> tuple[int, ...]:
    """What tells a file from one that replaces it, or from its own earlier content; () when there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True
