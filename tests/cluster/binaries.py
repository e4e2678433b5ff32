"""Kubernetes' own programs for tests, built once and kept: `python -m tests.cluster.binaries`.

`make kubernetes` builds the control plane where it is missing (Debian 12, four minutes on two cores, 3 GB of disk
meanwhile) and keeps 180 MB. What a true node takes (`python -m tests.cluster.binaries node`) is another kit, which only
`make nodes` builds. `build.sh` is the recipe; its hash is part of the folder's name, so that a changed recipe
builds anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RECIPE: Final = Path(__file__).parent / "build.sh"
VERSION: Final = "1.20.2"


@dataclass(frozen=True, slots=True)
class Kit:
    """What is built together: programs of Kubernetes' own, and files of Debian's packages."""

    name: str
    command: str
    """What a user types to have it."""
    programs: tuple[str, ...]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    """By their paths in the packages."""
    made: tuple[str, ...] = ()
    """What the recipe makes besides."""

    @property
    def contents(self) -> tuple[str, ...]:
        """The names of all that is in its folder."""
        return (*self.programs, *(Path(file).name for file in self.files), *self.made)


CONTROL_PLANE: Final = Kit(
    "kubernetes",
    "make kubernetes",
    ("kube-apiserver", "kube-scheduler", "kube-controller-manager"),
    ("etcd-server",),
    ("usr/bin/etcd",),
)
NODE: Final = Kit(
    "kubernetes-node",
    "make nodes",
    ("kubelet", "kube-proxy"),
    ("containerd", "runc", "containernetworking-plugins"),
    (
        *(f"usr/bin/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        "usr/sbin/runc",
        *(f"usr/lib/cni/{name}" for name in ("bridge", "host-local", "loopback")),
    ),
    ("pause",),
)
BUILD_SECONDS: Final = 3600
"""How long a build may take, on a machine that has much else to do."""


def cache_folder() -> Path:
    """Where the product's tests keep what is expensive to make."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "nest-relay"


def folder(kit: Kit = CONTROL_PLANE) -> Path:
    """Where the programs are, or will be: named by version, machine, and the hash of recipe and kit."""
    parts = f"{kit.programs} {kit.packages} {kit.files} {kit.made}"
    recipe = hashlib.sha256(RECIPE.read_bytes() + parts.encode()).hexdigest()[:12]
    return cache_folder() / f"{kit.name}-{VERSION}-{platform.machine()}-{recipe}"


def missing(kit: Kit = CONTROL_PLANE) -> str | None:
    """Why a test cannot have the programs; None where it can."""
    if all((folder(kit) / name).exists() for name in kit.contents):
        return None
    return f"{kit.name} {VERSION} is not built ({kit.command}, on Debian 12)"


def build(kit: Kit = CONTROL_PLANE) -> Path:
    """Build what is missing, and return its folder. Of two builds at once, the second waits for the first.

    Raises CalledProcessError when the build fails, after the recipe has said why, and SystemExit where it cannot run.
    """
    place = folder(kit)
    place.parent.mkdir(parents=True, exist_ok=True)
    with alone(place.parent / "kubernetes.lock"):
        if missing(kit) is None:
            print(f"{kit.name} {VERSION} is in {place}")
            return place
        if wanting := [name for name in ("apt-get", "apt-cache", "dpkg-deb", "bash") if shutil.which(name) is None]:
            sys.exit(
                f"{', '.join(wanting)} not found: Kubernetes is built from Debian 12's source package, on Debian 12"
            )
        print(f"building {kit.name} {VERSION} into {place}", flush=True)
        # Beside its place, so that it gets there whole, by its name alone; what an earlier build left goes, too.
        for left in place.parent.glob("building-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix="building-", dir=place.parent) as scratch:
            made = Path(scratch) / "made"
            command = ("bash", str(RECIPE))
            parts = {"PROGRAMS": kit.programs, "PACKAGES": kit.packages, "FILES": kit.files}
            environment = {**os.environ, "OUT": str(made)} | {name: " ".join(part) for name, part in parts.items()}
            subprocess.run(command, cwd=scratch, env=environment, check=True, timeout=BUILD_SECONDS)
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
    size = sum(file.stat().st_size for file in place.iterdir())
    print(f"{kit.name} {VERSION} is in {place} ({size / 1e6:.0f} MB)")
    return place


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends; says so when another build has to end first."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another build holds {lock}: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        build(NODE if sys.argv[1:] == ["node"] else CONTROL_PLANE)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Kubernetes was not built: {RECIPE.name} ended with {error.returncode}")
