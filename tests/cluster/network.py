"""Machines on a bridge: network namespaces that nothing but descriptors of this process holds.

This machine has one end of a pair of devices, at the first address of a /24; the bridge is in a namespace of its own,
and each node in another. So all of it goes when this process does, however it ends, and no setting of this machine is
touched. It takes root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_STP_DISABLED, _STP_FORWARDING = 0, 3  # linux/if_bridge.h
_FIRST_NODE: Final = 10
_SINK: Final = "sink0"
"""A device of a node that swallows what it is given: half of a pair, of which the other half belongs to nobody."""
_TABLE: Final = 77
"""Of routes that lead there."""


def not_permitted() -> str | None:
    """Why there can be no such network here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    wanting = [name for name in ("ip", "bridge", "nsenter", "unshare", "setpriv") if shutil.which(name) is None]
    if wanting:
        return f"{', '.join(wanting)} not found (apt install iproute2 util-linux)"
    return None if _permitted() else "namespaces are not permitted here, in spite of root"


def _permitted() -> bool:
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Network:
    """`gateway` is this machine's address, which all nodes reach; `close` removes everything."""

    def __init__(self) -> None:
        self._nodes: dict[int, int] = {}
        self._sinks: set[int] = set()
        self._device = f"kube{os.getpid()}"
        self._switch = _new_namespace()
        try:
            _ip(None, f"link add {self._device} type veth peer name up0 netns {_path(self._switch)}")
            # The kernel's number for the device is free on this machine, and so makes a network that is.
            network = socket.if_nametoindex(self._device) % 256
            self._prefix, self._of_pods = f"198.19.{network}", f"198.18.{network}"  # RFC 2544: for tests of networks
            self.gateway = f"{self._prefix}.1"
            _ip(None, f"addr add {self.gateway}/24 dev {self._device}", f"link set dev {self._device} up")
            # This machine may be a router (Docker makes it one): nothing of the nodes is forwarded.
            Path(f"/proc/sys/net/ipv4/conf/{self._device}/forwarding").write_text("0")
            up = [f"link set dev {name} up" for name in ("lo", "br0", "up0")]
            _ip(_path(self._switch), "link add br0 type bridge", "link set dev up0 master br0", *up)
        except BaseException:
            self.close()
            raise

    def add_node(self, number: int) -> tuple[str, str]:
        """The namespace's path and the address of a new node, from 1 on."""
        self._nodes[number] = namespace = _new_namespace()
        node, port, address = _path(namespace), f"port{number}", self._address(number)
        _ip(_path(self._switch), f"link add {port} type veth peer name eth0 netns {node}")
        _ip(_path(self._switch), f"link set dev {port} master br0", f"link set dev {port} up")
        # The same in each life of the node, so that nobody has to learn it again.
        hardware = f"link set dev eth0 address 02:00:00:00:00:{number:02x}"
        addresses = ("link set dev lo up", hardware, f"addr add {address}/24 dev eth0", "link set dev eth0 up")
        _ip(node, *addresses, f"route add default via {self.gateway}")
        return node, address

    @property
    def all_pods(self) -> str:
        """The addresses of Pods that have their own, as a network."""
        return f"{self._of_pods}.0/24"

    def pods(self, number: int) -> str:
        """Those of one node: three nodes may have Pods with addresses of their own."""
        assert 0 < number < 4
        return f"{self._of_pods}.{64 * number}/26"

    def route_pods(self, number: int) -> None:
        """Have this machine, the node and the other nodes reach each other's Pods."""
        _ip(None, f"route replace {self.pods(number)} via {self._address(number)} dev {self._device}")
        others = [other for other in (1, 2, 3) if other != number]
        routes = [f"route add {self.pods(other)} via {self._address(other)}" for other in others]
        _ip(self.place(number), *routes)

    def _address(self, number: int) -> str:
        return f"{self._prefix}.{_FIRST_NODE + number}"

    def place(self, number: int) -> str:
        """The path of a node's namespace, while this process lives."""
        return _path(self._nodes[number])

    def processes(self, number: int) -> list[int]:
        """The processes in a node's namespace, by their numbers here."""
        namespace, found = os.fstat(self._nodes[number]).st_ino, []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if (process / "ns" / "net").stat().st_ino == namespace:
                    found.append(int(process.name))
        return found

    def remove_node(self, number: int) -> None:
        """Without a word to those whom it was connected with; nothing may run in it any more."""
        _ip(_path(self._switch), f"link del dev port{number}")
        os.close(self._nodes.pop(number))
        self._sinks.discard(number)

    def partition(self, number: int, *, cut: bool = True) -> None:
        """Carry no packet to or from a node any more, in silence; or do so again."""
        state = str(_STP_DISABLED if cut else _STP_FORWARDING)
        command = ["bridge", "link", "set", "dev", f"port{number}", "state", state]
        subprocess.run(["nsenter", f"--net={_path(self._switch)}", *command], check=True)

    def block(self, number: int, port: int, *, cut: bool = True) -> None:
        """Carry nothing between a node and TCP port `port` of others, or its own one, in silence; or do so again."""
        node = _path(self._nodes[number])
        sink = [
            f"link add {_SINK} type veth peer name {_SINK}end",
            f"link set dev {_SINK} arp off",
            *(f"link set dev {end} up" for end in (_SINK, f"{_SINK}end")),
            f"route add default dev {_SINK} table {_TABLE}",
        ]
        if cut and number not in self._sinks:
            _ip(node, *sink)
            self._sinks.add(number)
        change = "add" if cut else "del"
        _ip(node, *(f"rule {change} ipproto tcp {end} {port} lookup {_TABLE}" for end in ("dport", "sport")))

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # there is none yet
            _ip(None, f"link del dev {self._device}")
        while self._nodes:
            os.close(self._nodes.popitem()[1])
        os.close(self._switch)


def _new_namespace() -> int:
    """A descriptor that holds a new network namespace."""
    # unshare(2) moves one thread, which ends with the pool.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_unshared).result()


def _unshared() -> int:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _path(namespace: int) -> str:
    return f"/proc/{os.getpid()}/fd/{namespace}"


def _ip(namespace: str | None, *lines: str) -> None:
    """iproute2's commands, one a line, here or in a namespace. Raises CalledProcessError with what it says."""
    enter = () if namespace is None else ("nsenter", f"--net={namespace}")
    text = "\n".join(lines) + "\n"
    subprocess.run([*enter, "ip", "-batch", "-"], input=text, text=True, check=True, capture_output=True)
