"""A cluster by hand, until interrupted: `python -m tests.cluster --nodes 3`, as root, after `make kubernetes`.

It prints the kubeconfig file to use. Lines on its standard input, such as `power_off node2`, are what may happen to a
node: power_off, power_on, partition, heal, kubelet_stop, kubelet_start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.cluster.engine import Cluster, running_cluster, unavailable
from tests.cluster.kubelets.node import kind_of_nodes

_ACTIONS: Final = ("power_off", "power_on", "partition", "heal", "kubelet_stop", "kubelet_start")


def _obey(cluster: Cluster, line: str) -> None:
    action, _, name = line.strip().partition(" ")
    node = next((node for node in cluster.nodes if node.name == name), None)
    if action not in _ACTIONS or node is None:
        print(f"not understood: {line.strip()} (one of {', '.join(_ACTIONS)}, then a node)", flush=True)
        return
    getattr(node, action)()
    print(f"done: {action} {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    arguments = parser.parse_args()
    if why := unavailable(kind_of_nodes()):
        sys.exit(why)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="relay-cluster-") as folder,
        running_cluster(Path(folder), arguments.nodes, kind_of_nodes()) as cluster,
        contextlib.suppress(KeyboardInterrupt),
    ):
        asyncio.run(cluster.ready())
        print(f"ready; its API: kubectl --kubeconfig {cluster.kubeconfig} get nodes", flush=True)
        for line in sys.stdin:
            _obey(cluster, line)


if __name__ == "__main__":
    main()
