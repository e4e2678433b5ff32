"""Nodes with a true kubelet, containerd and runc, in place of those that `kubelet.py` plays."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from tests.cluster import binaries
from tests.cluster.api import Json
from tests.cluster.engine import ClusterNode
from tests.cluster.kubelets import cgroups, images
from tests.cluster.kubelets.cgroups import Cgroup
from tests.cluster.kubelets.containerd import copy_root

_TRUE: Final = "kubelet"


class KubeletNode(ClusterNode):
    """One machine. Its disk keeps what an earlier life of it wrote; memory and processors are those of this machine."""

    PROGRAM = "tests.cluster.kubelets.machine"
    NAMESPACES = (*ClusterNode.NAMESPACES, "--cgroup")
    TAKES_CALLS = True
    _cgroup: Cgroup | None = None

    @staticmethod
    def missing() -> str | None:
        if shutil.which("iptables") is None:
            return "iptables not found, which kube-proxy works with (apt install iptables)"
        return cgroups.missing() or binaries.missing(binaries.NODE) or images.missing()

    def enter(self) -> list[str]:
        self._leave_cgroup()
        self._cgroup = Cgroup(self.name)
        return self._cgroup.enter

    def config(self) -> Json:
        plane, network = self._cluster.control_plane, self._cluster.network
        network.route_pods(self._number)
        root = self.folder / "containerd"
        if not root.exists():
            copy_root(images.root(), root, plane.authority.certificate)
        return {
            "name": self.name,
            "address": self.address,
            "gateway": network.gateway,
            "folder": str(self.folder),
            "authority": str(plane.authority.folder / "ca.crt"),
            "kubeconfig": str(self.kubeconfig),
            "proxy_kubeconfig": str(plane.authority.kubeconfig(plane.server, "system:kube-proxy")),
            "pods": network.pods(self._number),
            "all_pods": network.all_pods,
            "clock": self._clock,
        }

    def close(self) -> None:
        super().close()
        self._leave_cgroup()

    def signal(self, pod: str, number: int) -> None:
        namespace, _, name = pod.partition("/")
        for uid, containers in self._containers().items():
            if list(self._logs.glob(f"{namespace}_{name}_{uid}")):
                for processes in containers.values():
                    with contextlib.suppress(OSError):  # it has ended
                        if not _is_of_engine(processes[0]):
                            os.kill(processes[0], number)
                            return
        raise RuntimeError(f"{self.name}: no process of {pod}")

    def log(self, uid: str) -> str:
        # Each line of a log is TIME STREAM F TEXT.
        files = sorted(self._logs.glob(f"*_{uid}/*/*.log"))
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines(keepends=True)]
        return "".join(line.split(" ", 3)[3] for line in lines)

    def pods(self) -> list[list[int]]:
        shims = {}
        for process in self._cluster.network.processes(self._number):
            with contextlib.suppress(OSError):  # it has ended
                words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
                if words[0].endswith("containerd-shim-runc-v2") and "-id" in words:
                    shims[words[words.index("-id") + 1]] = process
        found = []
        for containers in self._containers().values():
            processes = [process for each in containers.values() for process in each]
            found.append(processes + [shims[one] for one in containers if one in shims])
        return found

    def _leave_cgroup(self) -> None:
        """That of an earlier life, all of whose processes have been killed."""
        if self._cgroup is not None:
            self._cgroup.remove()
            self._cgroup = None

    @property
    def _logs(self) -> Path:
        return self.folder / "log" / "pods"

    def _containers(self) -> dict[str, dict[str, list[int]]]:
        return {} if self._cgroup is None else self._cgroup.containers()


def _is_of_engine(process: int) -> bool:
    """Whether it holds a Pod's namespaces, or is to become a container's process."""
    return Path(f"/proc/{process}/comm").read_text().startswith(("pause", "runc"))


def kind_of_nodes() -> type[ClusterNode]:
    """The kind of nodes that RELAY_CLUSTER_NODES names: `kubelet` for true ones."""
    return KubeletNode if os.environ.get("RELAY_CLUSTER_NODES") == _TRUE else ClusterNode
