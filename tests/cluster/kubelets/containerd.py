"""containerd with its client, and a root of it that has images already.

`python -m tests.cluster.kubelets.containerd ROOT ARCHIVE...` fills such a root, in mount and PID namespaces of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster import binaries

SOCKET: Final = "/run/containerd/containerd.sock"
PAUSE: Final = "localhost/pause:3.2"
RELAY: Final = "registry.example/nest-relay:0.1.0"
"""As the manifests name it."""
_ALIAS: Final = "registry.example/nest-relay:1.2.3"
"""Another version, in tests."""
_START_SECONDS: Final = 60.0
_DATABASES: Final = "*.db"
_TRUSTED: Final = "io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/opt/nest-relay/**/certifi/cacert.pem"

# restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in containers and some virtual machines, runc cannot lower it.
_CONFIG: Final = """
version = 2
root = "{root}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"""


_AHEAD: Final = """#!/bin/sh
# Each container has the variables of a clock of its own, and the library that these name.
case " $* " in *" create "*) {python} {program} {variables} "$@" || exit 1;; esac
exec {programs}/runc "$@"
"""
"""What is run in place of runc on a node whose clock is ahead."""


class Containerd:
    """`folder` is for its configuration and log, and CNI's configuration in `network`; /run is not this machine's.

    `clock` has the variables by which its containers' clock is ahead (`engine.clock_ahead`).
    """

    def __init__(self, folder: Path, root: Path, clock: Mapping[str, str] | None = None) -> None:
        self._folder, self._root, self._programs = folder, root, binaries.folder(binaries.NODE)
        self._clock = clock or {}

    def start(self) -> subprocess.Popen[bytes]:
        """Return once it serves. Raises RuntimeError."""
        parts = {"root": self._root, "socket": SOCKET, "pause": PAUSE, "programs": self._programs, "runc": self._runc()}
        config = self._folder / "containerd.toml"
        config.write_text(_CONFIG.format(**parts, network=self._folder / "network"))
        process = run("containerd", self._folder, "--config", str(config))
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.ctr("version")
            except RuntimeError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return process

    def _runc(self) -> Path:
        """The program that runs containers."""
        if not self._clock:
            return self._programs / "runc"
        file = self._folder / "runc-ahead"
        program = Path(__file__).with_name("ahead.py")
        parts = {"python": sys.executable, "program": program, "programs": self._programs}
        file.write_text(_AHEAD.format(**parts, variables=shlex.quote(json.dumps(dict(self._clock)))))
        file.chmod(0o755)
        return file

    def ctr(self, *arguments: str) -> None:
        """Its client's command. Raises RuntimeError."""
        command = [str(self._programs / "ctr"), "--address", SOCKET, "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")


def run(program: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a program of a node, with its log in `folder`."""
    programs = binaries.folder(binaries.NODE)
    with (folder / f"{program}.log").open("ab") as log:
        return subprocess.Popen(
            [str(programs / program), *arguments],
            env={**os.environ, "PATH": f"{programs}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def copy_root(filled: Path, root: Path, authority: bytes) -> None:
    """Make a root that has the images of a filled one, within a second: files that nobody writes to are shared.

    The relay there trusts that authority alone: as Google and Cloudflare appear whom that has signed.
    """
    same = filled.stat().st_dev == root.parent.stat().st_dev
    subprocess.run(["cp", "--archive", *(["--link"] if same else []), str(filled), str(root)], check=True)
    for file in (*root.rglob(_DATABASES), *root.glob(_TRUSTED)):
        content = authority if file.suffix == ".pem" else file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        file.chmod(0o644)


def main(root: Path, archives: list[str]) -> None:
    """Fill a root with the images of these archives."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"], check=True)
    folder = Path("/run/folder")
    (folder / "network").mkdir(parents=True)
    containerd = Containerd(folder, root)
    process = containerd.start()
    for archive in archives:
        containerd.ctr("images", "import", archive)
    containerd.ctr("images", "tag", RELAY, _ALIAS)
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
