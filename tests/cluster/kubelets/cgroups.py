"""A node's part of the machine's cgroups (v1), in which all that runs on it is confined and found.

Kubernetes 1.20 knows cgroup v1 well and v2 hardly. A node has one cgroup of its own in each hierarchy, which is the
root of what it sees (a cgroup namespace), so that its kubelet may do there as on a machine of its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
HIERARCHIES: Final = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
_PREFIX: Final = "relay-cluster-"
_IDLE_SHARES: Final = 340
"""Of 1024 that each session of processes has under the kernel's autogroups, idle or not. Three nodes are as one."""
_GONE_SECONDS: Final = 10.0


def missing() -> str | None:
    """Why there can be no true node here; None where there can."""
    if wanting := [name for name in HIERARCHIES if not (ROOT / name / "cgroup.procs").exists()]:
        return f"true kubelets of Kubernetes 1.20 take cgroup v1, each hierarchy by itself: no {', '.join(wanting)}"
    return None


class Cgroup:
    """Made at once, in each hierarchy; named by this process, so that a later one finds what a killed one left."""

    def __init__(self, name: str) -> None:
        sweep()
        self._name = f"{_PREFIX}{os.getpid()}-{name}"
        for hierarchy in HIERARCHIES:
            self._in(hierarchy).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # a new one has none
            (self._in("cpuset") / file).write_text((ROOT / "cpuset" / file).read_text())
        if os.sched_getscheduler(0) == os.SCHED_IDLE:  # of a group the kernel does not ask what its processes are
            (self._in("cpu") / "cpu.shares").write_text(str(_IDLE_SHARES))

    @property
    def enter(self) -> list[str]:
        """What a command is preceded by that is to run in it."""
        files = [str(self._in(hierarchy) / "cgroup.procs") for hierarchy in HIERARCHIES]
        return ["sh", "-ec", f'for file in {" ".join(files)}; do echo $$ >"$file"; done; exec "$@"', "sh"]

    def containers(self) -> dict[str, dict[str, list[int]]]:
        """The processes of each container by the machine's numbers, oldest first: by the Pod's uid, then its own id."""
        found: dict[str, dict[str, list[int]]] = {}
        for file in self._in("memory").glob("kubepods/**/pod*/*/cgroup.procs"):
            with contextlib.suppress(OSError):  # it has ended
                if processes := [int(line) for line in file.read_text().split()]:
                    uid = file.parent.parent.name.removeprefix("pod")
                    found.setdefault(uid, {})[file.parent.name] = sorted(processes)
        return found

    def remove(self) -> None:
        """Its processes have been killed, and end within moments. Raises OSError when they do not."""
        for hierarchy in HIERARCHIES:
            _remove(self._in(hierarchy))

    def _in(self, hierarchy: str) -> Path:
        return ROOT / hierarchy / self._name


def sweep() -> list[str]:
    """Remove what nodes have left whose owner has ended; returns what cannot be removed, since something runs in it."""
    left = []
    for group in ROOT.glob(f"*/{_PREFIX}*"):
        owner = group.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            try:
                _remove(group)
            except OSError:
                left.append(str(group))
    return left


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                break
            except OSError:  # a process in it has yet to end
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
