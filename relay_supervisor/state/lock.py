"""One supervisor per state directory, and per runtime directory: two would take each other's sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from relay_common.errors import ConfigError, RelayError

_KERNEL_LOCKS: Final = Path("/proc/locks")


class StateLock:
    """A lock on a directory, `paths.<key>`, held until `release` or until the process ends, however it does.

    With `temporary` its file is removed on release: nothing is to be left in a runtime directory.
    """

    def __init__(self, directory: Path, *, key: str = "state_dir", temporary: bool = False) -> None:
        self._path, self._key, self._temporary = directory / "lock", key, temporary
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; raises RelayError that names the holder when another supervisor has it.

        Raises ConfigError when there can be no lock file.
        """
        while True:
            fd = self._lock()
            # The previous holder may have removed the file between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == self._path.stat().st_ino:
                    break
            os.close(fd)
        self._fd = fd
        # Who holds it is for people to know: a full disk must not keep the relay from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())

    def _lock(self) -> int:
        try:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno != errno.EROFS:
                    raise
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)  # that of an earlier run
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be opened: {error.strerror}", hint=f"Set paths.{self._key} to another directory"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise self._taken(holder) from None
        return fd

    def require_free(self) -> None:
        """Raise the RelayError of `acquire` if a supervisor holds the lock now; touches neither lock nor file.

        Taking the lock to see would make a supervisor fail that starts meanwhile. Where the kernel does not list its
        locks (no /proc), it counts as free.
        """
        if holder := holder_of(self._path.parent):
            raise self._taken(str(holder))

    def _taken(self, holder: str) -> RelayError:
        return RelayError(
            f"another supervisor (pid {holder}) is using {self._path.parent}",
            hint=f"Stop it first, or set another paths.{self._key} for this one",
        )

    def release(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            if self._temporary:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def holder_of(directory: Path) -> int:
    """Process id of the supervisor that holds the lock on `directory`; 0 when none does, or when that is not known."""
    path = directory / "lock"
    try:
        found, written = path.stat(), int(path.read_text() or "0")
        locks = [line.split() for line in _KERNEL_LOCKS.read_text().splitlines()]
    except (OSError, ValueError):
        return 0
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for lock in locks:
        # "1: FLOCK  ADVISORY  WRITE 4711 fe:00:2146367 0 EOF", with "->" after the number for one that waits.
        # Either may differ: the device for an overlay's file, the process id for one in a container.
        ours = lock[4] == str(written) or lock[5].startswith(device)
        if lock[1] == "FLOCK" and ours and lock[5].endswith(f":{found.st_ino}"):
            return written
    return 0
