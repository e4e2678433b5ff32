"""etcd, API server, scheduler and controller manager, each a process that can be ended and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.cluster import binaries
from tests.cluster.certificates import Authority
from tests.fixtures.ports import free_port, free_ports

START_SECONDS: Final = 120
"""What each program may take until it serves, on a machine that has much else to do; 5 s on one that has not."""
_STOP_SECONDS: Final = 10
_FEWER_COLLECTIONS: Final = {"GOGC": "400"}
"""Go's memory is freed four times less often than by default: a sixth of the processor for 550 MB instead of 320."""


class Program:
    """One of Kubernetes' programs. It ends with this process, however that ends: start it in the main thread."""

    def __init__(self, command: Sequence[str], log: Path, healthy: str, authority: Path | None = None) -> None:
        self.name: Final = Path(command[0]).name
        self._command, self._log, self._healthy = command, log, healthy
        self._context = None if authority is None else ssl.create_default_context(cafile=str(authority))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs, and wait until it serves. Raises RuntimeError with its log's end if it does not."""
        self.launch()
        self._wait()

    async def up(self) -> None:
        """The same for a test whose loop has other things to do meanwhile."""
        self.launch()
        await asyncio.to_thread(self._wait)

    def launch(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                cwd=self._log.parent,
                env=os.environ | _FEWER_COLLECTIONS,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.name} does not serve (exit code {self._process.poll()}):\n{said}")
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; SIGKILL is a crash."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _serves(self) -> bool:
        # No proxy of the environment, and the certificate's own name.
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)]
        try:
            with urllib.request.build_opener(*handlers).open(self._healthy, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # HTTP's errors are such, too
            return False


class ControlPlane:
    """Started by `start` and ended by `stop`; everything is kept in `folder`. `server` is the API server's URL."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder: Final = folder
        self.port: Final = free_port()
        self.server: Final = f"https://{address}:{self.port}"
        self.authority: Final = Authority(folder / "pki")
        self.admin: Final = self.authority.kubeconfig(self.server, "admin", ["system:masters"])
        clients, peers, scheduler, controllers = free_ports(4)
        self._programs = binaries.folder()
        self.etcd: Final = self._program("etcd", self._etcd(clients, peers), f"http://127.0.0.1:{clients}/health")
        public, private = self.authority.service_accounts()
        flags = self._api_server(address, f"http://127.0.0.1:{clients}")
        flags |= {"service-account-key-file": public, "service-account-signing-key-file": private}
        self.api_server: Final = self._program("kube-apiserver", flags, f"{self.server}/readyz")
        self.scheduler: Final = self._client("kube-scheduler", scheduler)
        tokens = {
            "service-account-private-key-file": private,
            "root-ca-file": self.authority.folder / "ca.crt",
            "use-service-account-credentials": "true",
        }
        self.controllers: Final = self._client("kube-controller-manager", controllers, tokens)

    def start(self) -> None:
        """Raises RuntimeError when one of them does not serve."""
        self.etcd.start()
        self.api_server.start()
        self.controllers.launch()  # while the scheduler starts
        self.scheduler.start()
        self.controllers.start()

    def api_server_dies(self) -> None:
        """At once: asked to end it would take ten seconds."""
        self.api_server.stop(signal.SIGKILL)

    async def api_server_back(self) -> None:
        """Return once it serves, and all that work through it do: they would try again after up to half a minute."""
        await self.api_server.up()
        for program in (self.controllers, self.scheduler):
            program.stop(signal.SIGKILL)
        await asyncio.gather(self.controllers.up(), self.scheduler.up())

    def stop(self) -> None:
        for program in (self.scheduler, self.controllers, self.api_server, self.etcd):
            program.stop(signal.SIGKILL)

    def _etcd(self, clients: int, peers: int) -> dict[str, object]:
        serving, peering = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
        return {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": serving,
            "advertise-client-urls": serving,
            "listen-peer-urls": peering,
            "initial-advertise-peer-urls": peering,
            "initial-cluster": f"default={peering}",
            "unsafe-no-fsync": "true",  # the machine's power does not go
        }

    def _api_server(self, address: str, etcd: str) -> dict[str, object]:
        hosts = [address, "127.0.0.1", "10.96.0.1", "kubernetes", "kubernetes.default.svc"]
        certificate, key = self.authority.server("kube-apiserver", hosts)
        as_client = self.authority.client("kube-apiserver-kubelet-client", ["system:masters"])
        return {
            "etcd-servers": etcd,
            "bind-address": address,
            "advertise-address": address,
            "secure-port": self.port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.authority.folder / "ca.crt",
            # For what it passes on to kubelets: exec, port-forward, logs. Nodes' names are nobody's but its own.
            "kubelet-client-certificate": as_client[0],
            "kubelet-client-key": as_client[1],
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.96.0.0/24",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "cert-dir": self.folder / "kube-apiserver.certificates",
        }

    def _client(self, name: str, port: int, flags: dict[str, object] | None = None) -> Program:
        """A program that works through the API server; alone, so without electing a leader."""
        kubeconfig = self.authority.kubeconfig(self.server, f"system:{name}")
        common: dict[str, object] = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "leader-elect": "false",
            "port": 0,  # the old one without TLS, which is the same for all clusters and open to everybody
            "bind-address": "127.0.0.1",
            "secure-port": port,
        }
        certificate, key = self.authority.server(f"{name}-serving", ["127.0.0.1"])
        common |= {"tls-cert-file": certificate, "tls-private-key-file": key}
        return self._program(name, common | (flags or {}), f"https://127.0.0.1:{port}/healthz")

    def _program(self, name: str, flags: dict[str, object], healthy: str) -> Program:
        command = [str(self._programs / name), *(f"--{flag}={value}" for flag, value in flags.items())]
        authority = self.authority.folder / "ca.crt"
        return Program(command, self.folder / f"{name}.log", healthy, authority)
