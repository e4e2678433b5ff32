"""A container without an image: a process that sees this machine's files, in namespaces of its own.

It is the first process of its PID namespace, as in a true container: a signal that it has no handler for does nothing,
and whatever it started ends with it. It writes to this machine's files as its user may: tests run what they trust.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CLONE_NEWPID: Final = 0x20000000

# Arguments: the folder for what is made, the working directory, the host's name, the number of mounts, each mount's
# source, place and "ro" or "rw", then the command. A place that does not exist is made in an overlay of the folder
# above it.
_ENTER: Final = """
set -e
pod_path=$PATH; PATH=/usr/sbin:/usr/bin:/sbin:/bin
made=$1; work=$2; echo "$3" >/proc/sys/kernel/hostname; mounts=$4; shift 4
mount -t proc proc /proc
if [ "$mounts" -gt 0 ]; then mkdir -p "$made"; mount -t tmpfs tmpfs "$made"; fi
while [ "$mounts" -gt 0 ]; do
    place=$(realpath -m "$2")
    if [ ! -e "$place" ]; then
        above=$place; while [ ! -d "$above" ]; do above=$(dirname "$above"); done
        [ "$above" != / ] || { echo "$place: nothing can be mounted right below /" >&2; exit 128; }
        mkdir -p "$made/$mounts/upper" "$made/$mounts/work"
        mount -t overlay overlay -o "lowerdir=$above,upperdir=$made/$mounts/upper,workdir=$made/$mounts/work" "$above"
        if [ -d "$1" ]; then mkdir -p "$place"; else mkdir -p "$(dirname "$place")"; : >"$place"; fi
    fi
    mount --bind "$1" "$place"
    [ "$3" = rw ] || mount -o remount,bind,ro "$place"
    mounts=$((mounts - 1)); shift 3
done
cd "$work"
PATH=$pod_path; exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    place: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """What a container is started with; `command` is not empty."""

    command: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str
    hostname: str
    mounts: Sequence[Mount]


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

    def start(self) -> asyncio.Future[None]:
        """Start the process; the future is done when it has ended. Its output goes to `log` in the folder."""
        # unshare(2) is for the children of one thread, which ends with the pool.
        with ThreadPoolExecutor(1) as pool:
            process = self._process = pool.submit(self._spawn).result()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pidfd = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            code = process.wait()
            self.ended, self.exit_code = time.time(), code if code >= 0 else 128 - code
            if not done.done():
                done.set_result(None)

        loop.add_reader(pidfd, ended)
        return done

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the container's first process, unless it has ended."""
        if self._process is not None and self.exit_code is None:
            self._process.send_signal(number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWPID)")
        launch = self.launch
        mounts = [
            part for mount in launch.mounts for part in (mount.source, mount.place, "ro" if mount.read_only else "rw")
        ]
        made = (self.folder / "made", launch.working_directory, launch.hostname, str(len(launch.mounts)))
        namespaces = ("/usr/bin/unshare", "--mount", "--uts", "--propagation", "private")
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*namespaces, "/bin/sh", "-c", _ENTER, "sh", *made, *mounts, *launch.command],
                env=dict(launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
