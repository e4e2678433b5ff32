"""A container: a process in namespaces of its own, whose image is this machine as it is (`image.py`).

It is the first process of its PID namespace, as in a true container: a signal that it has no handler for does nothing,
and whatever it started ends with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CLONE_NEWPID: Final = 0x20000000

# `place SOURCE PLACE`: the source is held, since a later volume may hide its path; where it is to be mounted, and
# nothing is, a folder or file is made in an overlay of the folder above. All come before the first `volume PLACE
# ro|rw`, which takes the sources in the same order: an overlay hides what is mounted below it. `reveal FOLDER CLOSED`:
# a folder below one that only root may enter is there for everybody, and nothing else of that.
_SHELL: Final = """
set -e
pod_path=$PATH; PATH=/usr/sbin:/usr/bin:/sbin:/bin
n=0; held=0; taken=0
place() {
    held=$((held + 1))
    if [ -d "$1" ]; then mkdir "$made/held$held"; else : >"$made/held$held"; fi
    mount --bind "$1" "$made/held$held"
    place=$(realpath -m "$2")
    [ ! -e "$place" ] || return 0
    above=$place; while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    [ "$above" != / ] || { echo "$place: nothing can be mounted right below /" >&2; exit 128; }
    covered=
    for overlay in $overlays; do case "$above/" in "$overlay"/*) covered=yes;; esac; done
    if [ -z "$covered" ]; then
        n=$((n + 1)); mkdir -p "$made/$n/upper" "$made/$n/work"; chmod --reference="$above" "$made/$n/upper"
        mount -t overlay overlay -o "lowerdir=$above,upperdir=$made/$n/upper,workdir=$made/$n/work" "$above"
        overlays="$overlays $above"
    fi
    if [ -d "$1" ]; then mkdir -p "$place"; else mkdir -p "$(dirname "$place")"; : >"$place"; fi
}
volume() {
    taken=$((taken + 1))
    place=$(realpath -m "$1")
    mount --bind "$made/held$taken" "$place"
    [ "$2" = rw ] || mount -o remount,bind,ro "$place"
}
reveal() {
    n=$((n + 1)); mkdir "$made/$n"; mount --rbind "$1" "$made/$n"
    mount -t tmpfs -o mode=0755 tmpfs "$2"; mkdir -p "$1"; mount --rbind "$made/$n" "$1"
}
mount -t proc proc /proc
"""


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    place: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Security:
    """What of a Pod's and a container's security contexts is played; None: root's."""

    user: int | None = None
    group: int | None = None
    files_group: int | None = None
    no_new_privileges: bool = False
    no_capabilities: bool = False
    read_only_root: bool = False

    def command(self) -> list[str]:
        """What becomes that user, and then runs a command; empty where nothing changes."""
        options: list[str] = []
        if self.no_capabilities:
            options += ["--bounding-set=-all", "--inh-caps=-all"]
        if self.user is not None:
            groups = "--clear-groups" if self.files_group is None else f"--groups={self.files_group}"
            options += [f"--reuid={self.user}", f"--regid={self.group or 0}", groups]
        if self.no_new_privileges:
            options.append("--no-new-privs")
        return ["/usr/bin/setpriv", *options, "--"] if options else []


@dataclass(frozen=True, slots=True)
class Launch:
    """What a container is started with; `command` is not empty. `revealed` is made readable for everybody."""

    command: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str
    hostname: str
    mounts: Sequence[Mount] = ()
    security: Security = Security()
    revealed: Path | None = None

    def script(self) -> str:
        """What the shell does, in new namespaces, before it becomes the command."""
        lines = [_SHELL, f"made={self._out_of_the_way()}; overlays=", 'mount -t tmpfs tmpfs "$made"']
        lines.append(f"echo {shlex.quote(self.hostname)} >/proc/sys/kernel/hostname")
        if self.revealed is not None and (closed := _closed(self.revealed)) is not None:
            lines.append(shlex.join(["reveal", str(self.revealed), str(closed)]))
        lines += [shlex.join(["place", str(mount.source), mount.place]) for mount in self.mounts]
        for mount in self.mounts:
            lines.append(shlex.join(["volume", mount.place, "ro" if mount.read_only else "rw"]))
        if self.security.read_only_root:
            lines.append('mount -o remount,bind,ro /; for above in $overlays; do mount -o remount,ro "$above"; done')
        lines.append('umount --lazy "$made"')  # what was mounted from there stays
        lines.append(f"cd {shlex.quote(self.working_directory)}; PATH=$pod_path")
        lines.append(shlex.join(["exec", *self.security.command(), *self.command]))
        return "\n".join(lines)

    def _out_of_the_way(self) -> str:
        """A folder of every system that no volume comes from or goes to."""
        used = [path for mount in self.mounts for path in (str(mount.source), mount.place)]
        return next(path for path in ("/mnt", "/media", "/srv") if not any(one.startswith(path) for one in used))


@dataclass(slots=True)
class Container:
    """One that runs, or has ended: then `exit_code` is that of a shell, 128 and the number for a signal."""

    folder: Path
    launch: Launch
    restarts: int = 0
    started: float = field(default_factory=time.time)
    ended: float | None = None
    exit_code: int | None = None
    _process: subprocess.Popen[bytes] | None = None
    _told: list[Callable[[], None]] = field(default_factory=list)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the process has ended."""
        self._told.append(callback)

    def start(self) -> None:
        """Start the process. Its output goes to `log` in the folder."""
        # unshare(2) is for the children of one thread, which ends with the pool.
        with ThreadPoolExecutor(1) as pool:
            process = self._process = pool.submit(self._spawn).result()
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            code = process.wait()
            self.ended, self.exit_code = time.time(), code if code >= 0 else 128 - code
            for callback in self._told:
                callback()

        loop.add_reader(pidfd, ended)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the container's first process, unless it has ended."""
        if self._process is not None and self.exit_code is None:
            self._process.send_signal(number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWPID)")
        namespaces = ("/usr/bin/unshare", "--mount", "--uts", "--propagation", "private")
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*namespaces, "/bin/sh", "-c", self.launch.script()],
                env=dict(self.launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _closed(path: Path) -> Path | None:
    """The first folder on a path that only root may enter."""
    return next((above for above in reversed(path.parents) if not above.stat().st_mode & stat.S_IXOTH), None)
