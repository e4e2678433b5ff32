"""The first process of a true node: containerd, kube-proxy and kubelet on a machine of their own.

`node.py` runs it in new network, PID, mount and cgroup namespaces: `python -m tests.cluster.kubelets.machine CONFIG`.
What they mount, start or write ends with it: /run, /var/lib and /var/log are the node's own, and the settings of the
kernel that a kubelet changes for the whole machine are files here, which have already what it wants. It obeys lines on
its standard input and answers each with one, at once: `start` and `stop` begin and kill the kubelet, while all else
lives on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.kubelets.cgroups import HIERARCHIES, ROOT
from tests.cluster.kubelets.containerd import SOCKET, Containerd, run

_WANTED: Final = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""What kubelet 1.20 sets them to."""


def network(pods: str) -> dict[str, Any]:
    """CNI's configuration: Pods have addresses of their own, which everybody reaches by way of the node."""
    addresses: dict[str, Any] = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": pods}]]}
    addresses["routes"] = [{"dst": "0.0.0.0/0"}]
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge | {"ipam": addresses}]}


def kubelet(config: dict[str, Any]) -> dict[str, Any]:
    """The kubelet's configuration: its defaults but for what this machine has otherwise."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": config["authority"]}},
        "authorization": {"mode": "Webhook"},
        "address": config["address"],
        "readOnlyPort": 0,
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "0%"},  # the machine's disk and memory are not this node's own
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [config["gateway"]],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
    }


def proxy(config: dict[str, Any]) -> dict[str, Any]:
    """kube-proxy's configuration: it has nothing to say about connections of the whole machine."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": config["proxy_kubeconfig"]},
        "hostnameOverride": config["name"],
        "mode": "iptables",
        "clusterCIDR": config["all_pods"],
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


class Machine:
    """It boots in a thread, since whoever waits for an answer has other things to do."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._folder = Path(config["folder"])
        self._lock = threading.Lock()
        self._wanted = self._booted = False
        self._kubelet: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Boot, start the kubelet if it is wanted by then, and be an init. When it cannot, the whole node ends."""
        try:
            self._boot()
            with self._lock:
                self._booted = True
                self._keep()
        except Exception:
            traceback.print_exc()
            os._exit(1)
        while True:
            # Whatever ends in this PID namespace and has nobody else that waits for it.
            try:
                os.wait()
            except ChildProcessError:
                time.sleep(0.1)

    def obey(self, line: str) -> str:
        """Do what a line says, and answer."""
        if line not in ("start", "stop"):
            return f"not understood: {line}"
        with self._lock:
            self._wanted = line == "start"
            self._keep()
        return "ok"

    def _boot(self) -> None:
        """Mount what is the node's own, and start all but the kubelet."""
        _mount_cgroups()
        for place in ("lib", "log"):
            own = self._folder / place
            own.mkdir(exist_ok=True)
            _mount("--bind", str(own), f"/var/{place}")
        _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
        settings = Path("/run/settings")
        settings.mkdir()
        for name, value in _WANTED.items():
            file = settings / name.replace("/", ".")
            file.write_text(f"{value}\n")
            _mount("--bind", str(file), f"/proc/sys/{name}")
        self._write("network/10-pods.conflist", network(self._config["pods"]))
        Containerd(self._folder, self._folder / "containerd", self._config["clock"]).start()
        run("kube-proxy", self._folder, "--config", self._write("kube-proxy.json", proxy(self._config)))

    def _keep(self) -> None:
        """Have the kubelet run, or not."""
        if self._booted and self._wanted and self._kubelet is None:
            self._kubelet = run(
                "kubelet",
                self._folder,
                f"--config={self._write('kubelet.json', kubelet(self._config))}",
                f"--kubeconfig={self._config['kubeconfig']}",
                f"--hostname-override={self._config['name']}",
                f"--node-ip={self._config['address']}",
                "--container-runtime=remote",
                f"--container-runtime-endpoint=unix://{SOCKET}",
            )
        elif not self._wanted and self._kubelet is not None:
            os.kill(self._kubelet.pid, signal.SIGKILL)
            while Path(f"/proc/{self._kubelet.pid}").exists():
                time.sleep(0.01)
            self._kubelet = None

    def _write(self, name: str, content: dict[str, Any]) -> str:
        file = self._folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        return str(file)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _mount_cgroups() -> None:
    """The hierarchies, as they look from the node's own cgroups."""
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(ROOT))
    for name in HIERARCHIES:
        place = ROOT / name
        place.mkdir()
        _mount("-t", "cgroup", "-o", "none,name=systemd" if name == "systemd" else name, "cgroup", str(place))


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the test
    machine = Machine(json.loads(Path(arguments[0]).read_text()))
    threading.Thread(target=machine.run, daemon=True).start()
    for line in sys.stdin:
        print(machine.obey(line.strip()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
