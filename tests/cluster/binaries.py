"""Kubernetes' own programs for tests, built once and kept: `python -m tests.cluster.binaries`.

`make kubernetes` builds them where they are missing (Debian 12, four minutes on two cores, 3 GB of disk meanwhile) and
keeps 180 MB. `build.sh` is the recipe; its hash is part of the folder's name, so that a changed recipe builds anew.
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
from pathlib import Path
from typing import Final

RECIPE: Final = Path(__file__).parent / "build.sh"
VERSION: Final = "1.20.2"
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")
BUILD_SECONDS: Final = 3600
"""How long a build may take, on a machine that has much else to do."""


def cache_folder() -> Path:
    """Where the product's tests keep what is expensive to make."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nest-relay"


def folder(cache: Path | None = None) -> Path:
    """Where the programs are, or will be: named by version, machine and recipe."""
    recipe = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:12]
    return (cache or cache_folder()) / f"kubernetes-{VERSION}-{platform.machine()}-{recipe}"


def missing() -> str | None:
    """Why a test cannot have the programs; None where it can."""
    if all((folder() / name).exists() for name in PROGRAMS):
        return None
    return f"Kubernetes {VERSION} is not built (make kubernetes, on Debian 12)"


def build() -> Path:
    """Build what is missing, and return its folder. Of two builds at once, the second waits for the first.

    Raises CalledProcessError when the build fails, after the recipe has said why, and SystemExit where it cannot run.
    """
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place.parent / "kubernetes.lock"):
        if missing() is None:
            print(f"Kubernetes {VERSION} is in {place}")
            return place
        if wanting := [name for name in ("apt-get", "apt-cache", "dpkg-deb", "bash") if shutil.which(name) is None]:
            sys.exit(
                f"{', '.join(wanting)} not found: Kubernetes is built from Debian 12's source package, on Debian 12"
            )
        print(f"building Kubernetes {VERSION} into {place}", flush=True)
        # Beside its place, so that it gets there whole, by its name alone; what an earlier build left goes, too.
        for left in place.parent.glob("building-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix="building-", dir=place.parent) as scratch:
            made = Path(scratch) / "made"
            command = ("bash", str(RECIPE))
            environment = {**os.environ, "OUT": str(made)}
            subprocess.run(command, cwd=scratch, env=environment, check=True, timeout=BUILD_SECONDS)
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
    size = sum(file.stat().st_size for file in place.iterdir())
    print(f"Kubernetes {VERSION} is in {place} ({size / 1e6:.0f} MB)")
    return place


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock, which ends with this process however it ends; says so when another one has to end first."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another build holds {lock}: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        build()
    except subprocess.CalledProcessError as error:
        sys.exit(f"Kubernetes was not built: {RECIPE.name} ended with {error.returncode}")
